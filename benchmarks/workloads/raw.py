"""Bytes in bulk: the framing of batches on memcached's socket beside pymemcache's, every write acknowledged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks import limits
from benchmarks.bench import Bench
from benchmarks.contestants import Contestant, Role, Timed
from benchmarks.measurements import Goal, Measurement
from stockpyle.stores import MemcacheStore, RedisStore

SIZE = 100
GOALS = [Goal(1 / 3, "pymemcache")]


def measurements(bench: Bench) -> Iterator[Measurement]:
    dice = bench.dice("raw")
    values = {f"raw-{number}": dice.randbytes(dice.randint(100, 300)) for number in range(1000)}
    picks = [dice.sample(list(values), SIZE) for _ in range(20)]
    sets = [{key: values[key] for key in pick} for pick in picks]
    yield from _memcached(bench, values, picks, sets)
    yield from _redis(bench, values, picks, sets)


def _memcached(
    bench: Bench, values: Mapping[str, bytes], picks: Sequence[list[str]], sets: Sequence[Mapping[str, bytes]]
) -> Iterator[Measurement]:
    from pymemcache.client.base import Client

    memcached = bench.memcached()
    client = Client(memcached.address, no_delay=True)
    raw = limits.RawSocket(memcached.host, memcached.port)
    server = MemcacheStore(servers=[memcached.address]).parts[0].server
    client.set_many(values, noreply=False)

    def bulk_get(keys: Sequence[str]) -> dict[bytes, tuple[int, bytes]]:
        found: dict[bytes, tuple[int, bytes]] = server.call(
            "get", lambda connection: connection.get([key.encode() for key in keys])
        )
        return found

    def bulk_set(items: Mapping[str, bytes]) -> list[Any]:
        commands = [b"ms %b %d T0\r\n%b\r\n" % (key.encode(), len(value), value) for key, value in items.items()]
        replies = server.call("set", lambda connection: connection.meta(commands))
        return [reply for reply in replies if not reply.done]

    names = {
        "client": client,
        "bulk_get": bulk_get,
        "bulk_set": bulk_set,
        "exchange": raw.exchange,
        "ask_get": limits.memcached_get,
        "ask_set": limits.memcached_set,
        "got": limits.MEMCACHED_GOT,
        "was_set": limits.MEMCACHED_SET,
    }
    gets: list[Contestant] = [
        Timed("stockpyle's framing", Role.OURS, "bulk_get(pick)", names, picks, right=_all),
        Timed("pymemcache", Role.PEER, "client.get_many(pick)", names, picks, right=_all),
        Timed("raw socket", Role.LIMIT, "exchange(ask_get(pick), got)", names, picks),
    ]
    puts: list[Contestant] = [
        Timed("stockpyle's framing", Role.OURS, "bulk_set(pick)", names, sets, right=_none_failed),
        Timed("pymemcache", Role.PEER, "client.set_many(pick, noreply=False)", names, sets, right=_none_failed),
        Timed("raw socket", Role.LIMIT, "exchange(ask_set(pick), was_set)", names, sets),
    ]
    if pylibmc := bench.peer("pylibmc"):
        names["other"] = pylibmc.Client(
            [f"{memcached.host}:{memcached.port}"], binary=True, behaviors={"tcp_nodelay": True}
        )
        gets.append(Timed("pylibmc", Role.PEER, "other.get_multi(pick)", names, picks, right=_all))
        puts.append(Timed("pylibmc", Role.PEER, "other.set_multi(pick)", names, sets, right=_none_failed))
    yield Measurement(f"memcached: raw get_many({SIZE})", gets, GOALS)
    yield Measurement(f"memcached: raw set_many({SIZE}), acknowledged", puts, GOALS)
    raw.close()


def _redis(
    bench: Bench, values: Mapping[str, bytes], picks: Sequence[list[str]], sets: Sequence[Mapping[str, bytes]]
) -> Iterator[Measurement]:
    import redis

    server = bench.redis()
    client = redis.Redis(host=server.host, port=server.port)
    raw = limits.RawSocket(server.host, server.port)
    own = RedisStore(server.url).parts[0].server
    client.mset(values)

    def bulk_get(keys: Sequence[str]) -> list[bytes]:
        found: list[bytes] = own.call("get", lambda: own.get([key.encode() for key in keys]))
        return found

    def bulk_set(items: Mapping[str, bytes]) -> list[Any]:
        answers = own.call("set", lambda: own.set([(key.encode(), value, b"0") for key, value in items.items()]))
        return [answer for answer in answers if isinstance(answer, Exception)]

    def piped(items: Mapping[str, bytes]) -> list[bytes]:
        pipeline = client.pipeline(transaction=False)
        for key, value in items.items():
            pipeline.set(key, value)
        return [answer for answer in pipeline.execute() if not answer]

    names = {
        "client": client,
        "bulk_get": bulk_get,
        "bulk_set": bulk_set,
        "piped": piped,
        "exchange": raw.exchange,
        "ask_get": limits.redis_get,
        "ask_set": limits.redis_set,
        "end": limits.REDIS_DONE,
    }
    gets: list[Contestant] = [
        Timed("stockpyle's framing", Role.OURS, "bulk_get(pick)", names, picks, right=_all),
        Timed("redis-py mget", Role.PEER, "client.mget(pick)", names, picks, right=_all),
        Timed("raw socket", Role.LIMIT, "exchange(ask_get(pick), end)", names, picks),
    ]
    puts: list[Contestant] = [
        Timed("stockpyle's framing", Role.OURS, "bulk_set(pick)", names, sets, right=_none_failed),
        Timed("redis-py pipeline", Role.PEER, "piped(pick)", names, sets, right=_none_failed),
        Timed("redis-py mset", Role.PEER, "client.mset(pick)", names, sets),
        Timed("raw socket", Role.LIMIT, "exchange(ask_set(pick), end)", names, sets),
    ]
    yield Measurement(f"Redis: raw get_many({SIZE})", gets)
    yield Measurement(f"Redis: raw set_many({SIZE})", puts)
    raw.close()


def _all(answer: Sequence[object], pick: Sequence[str]) -> bool:
    return len(answer) == len(pick) and None not in answer


def _none_failed(answer: Sequence[object], pick: object) -> bool:
    return len(answer) == 0
