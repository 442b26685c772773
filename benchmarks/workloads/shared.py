"""Hits in a shared tier, of one entity and of a hundred: what memcached's and Redis's workloads have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from benchmarks import limits
from benchmarks.bench import Bench
from benchmarks.contestants import Role, Timed
from benchmarks.databases import engine_for
from benchmarks.measurements import Goal, Measurement
from benchmarks.peers.remote import in_server
from benchmarks.shapes import Shape, create, shape
from stockpyle.stores import ChainedStore, MemcacheStore, RedisStore, SqlAlchemyStore

CLIENTS = {
    "memcached": ("dogpile.cache", "pymemcache", "pylibmc", "aiocache", "aiomcache"),
    "redis": ("dogpile.cache", "redis", "cashews", "aiocache"),
}


class SharedTier:
    """A chain over memcached or Redis that holds all rows; and those who hold them in the same server."""

    def __init__(self, bench: Bench, kind: str, count: int) -> None:
        self._bench = bench
        self.kind = kind
        self.drawn: Shape = shape(bench.seed, f"shared {kind}")
        self.url = bench.sqlite()
        create(self.url, self.drawn, count)
        self.klass = self.drawn.mapped()
        self.keys = self.drawn.identity
        self.engine = engine_for(self.url)
        server: Any = bench.memcached() if kind == "memcached" else bench.redis()
        self.address: tuple[str, int] = (server.host, server.port)
        self.store: Any = MemcacheStore(servers=[self.address]) if kind == "memcached" else RedisStore(server.url)
        self.chain = ChainedStore([self.store, SqlAlchemyStore(engine=self.engine)])
        self.peers = [name for name in CLIENTS[kind] if bench.has(name)]
        numbers = list(range(1, count + 1))
        for start in range(0, count, 1000):
            self.chain.batch_get(self.klass, [{self.keys.names[0]: n} for n in numbers[start : start + 1000]])

    def contestants(self, stack: ExitStack, picks: Sequence[Any], *, into_session: bool) -> list[Any]:
        """Return who gets one entity a pick, or several of a pick that is a list."""
        keys, many = self.keys, isinstance(picks[0], list)
        session = stack.enter_context(Session(self.engine))
        names = {"chain": self.chain, keys.klass: self.klass, "session": session}
        option = ", session=session" if into_session else ""
        if many:
            asked = f'[{{"{keys.names[0]}": each}} for each in pick]'
            call, target = f"chain.batch_get({keys.klass}, {asked}{option})", "pick"
            right = self.drawn.are_rows(keys)
        else:
            call, target = f"chain.get({keys.klass}, {keys.mapping}{option})", keys.target
            right = self.drawn.is_row(keys)
        ours = Timed("stockpyle", Role.OURS, call, names, list(picks), target, right)
        numbers = sorted({each for pick in picks for each in (pick if many else [pick])})
        others = self._bench.elsewhere(
            stack,
            in_server,
            self.drawn,
            self.url,
            list(picks),
            self.kind,
            self.address,
            self.peers,
            into_session=into_session,
        )
        return [ours, self._raw(stack, picks, numbers), *others]

    def _raw(self, stack: ExitStack, picks: Sequence[Any], numbers: Sequence[int]) -> Timed:
        raw = limits.RawSocket(*self.address)
        stack.callback(raw.close)
        many = isinstance(picks[0], list)
        packed = {f"raw-{number}": msgspec.msgpack.encode(self.drawn.row(number)) for number in numbers}
        memcached = self.kind == "memcached"
        put = limits.memcached_set if memcached else limits.redis_set
        texts = list(packed)
        for start in range(0, len(texts), 100):
            some = {text: packed[text] for text in texts[start : start + 100]}
            raw.exchange(put(some), limits.MEMCACHED_SET if memcached else limits.REDIS_DONE)
        names = {
            "exchange": raw.exchange,
            "ask": limits.memcached_get if memcached else limits.redis_get,
            "end": limits.MEMCACHED_GOT if memcached else limits.REDIS_DONE,
        }
        texts_of = "[f'raw-{each}' for each in pick]" if many else "[f'raw-{pick}']"
        least = min(map(len, packed.values())) * (len(picks[0]) if many else 1)
        return Timed(
            "raw socket",
            Role.LIMIT,
            f"exchange(ask({texts_of}), end)",
            names,
            list(picks),
            "pick",
            lambda answer, _: len(answer) > least,
        )


def measurements_of(bench: Bench, kind: str, goals: dict[tuple[int, bool], list[Goal]]) -> Iterator[Measurement]:
    """Yield hits of one and of a hundred entities, into a Session and detached."""
    count = bench.sized(2000, 1000, 200)
    tier = SharedTier(bench, kind, count)
    dice = bench.dice(f"shared {kind}")
    for size in (1, 100):
        picks: list[Any] = dice.sample(range(1, count + 1), 100)
        if size > 1:
            picks = [dice.sample(range(1, count + 1), size) for _ in range(20)]
        for into_session in (True, False):
            with ExitStack() as stack:
                found = tier.contestants(stack, picks, into_session=into_session)
                where = "into a Session" if into_session else "detached"
                what = "one entity" if size == 1 else f"{size} entities"
                before = tier.store.stats.misses
                yield Measurement(f"{kind}: get of {what}, {where}", found, goals.get((size, into_session), []))
                assert tier.store.stats.misses == before, "a hit was none"
