"""Mapped instances, pickled, in memcached and Redis; to be run where stockpyle is not.

- dogpile.cache is configured as the examples of its documentation are: pylibmc with the binary protocol and
  tcp_nodelay, pymemcache as it is, Redis over redis-py, which uses hiredis where that is installed.
- pymemcache, pylibmc and redis-py bare, with pickle.
- cashews without signatures; aiocache with its pickle serializer, and without a timeout for each call, as its
  documentation offers. Both are asked inside a running loop.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from benchmarks.contestants import Contestant, Role, Timed
from benchmarks.databases import engine_for
from benchmarks.peers.instances import LIFETIME, detached, merged, named
from benchmarks.shapes import Shape

Address = tuple[str, int]


@dataclass
class Client:
    """A cache, and how it is asked; {} is the key, or the list of keys."""

    name: str
    cache: Any
    fill: Callable[[Mapping[str, Any]], Any]
    one: str = "cache.get({})"
    many: str = "cache.get_multi({})"
    loop: asyncio.AbstractEventLoop | None = None


def in_server(
    shape: Shape,
    url: str,
    picks: Sequence[Any],
    kind: str,
    address: Address,
    peers: Sequence[str],
    *,
    into_session: bool,
) -> list[Contestant]:
    """Return caches in memcached or Redis, asked for one entity, or for the several of a pick that is a list."""
    keys, is_list = shape.identity, isinstance(picks[0], list)
    names = {keys.klass: shape.mapped(), "session": Session(engine_for(url)), "loads": pickle.loads}
    held = {f"{keys.klass}:{shape.key_of(obj, keys)}": obj for obj in detached(shape, url)}
    texts = f"[f'{keys.klass}:{{each}}' for each in pick]"
    right = shape.are_rows(keys) if is_list else shape.is_row(keys)
    target = "pick" if is_list else keys.target
    found: list[Contestant] = []
    for client in memcached_clients(address, peers) if kind == "memcached" else redis_clients(address, peers):
        client.fill(held)
        call = client.many.format(texts) if is_list else client.one.format(keys.text)
        if into_session:
            call = f"[{merged('each', True)} for each in {call}]" if is_list else merged(call, True)
        name, own = named(client.name, into_session), {**names, "cache": client.cache}
        found.append(Timed(name, Role.PEER, call, own, list(picks), target, right, client.loop))
    return found


def memcached_clients(address: Address, peers: Sequence[str]) -> Iterator[Client]:
    """Yield those of the peers that speak to memcached."""
    where = f"{address[0]}:{address[1]}"
    fast: dict[str, Any] = {"binary": True, "behaviors": {"tcp_nodelay": True}}
    if "dogpile.cache" in peers:
        from dogpile.cache import make_region

        for backend, arguments in {"pymemcache": {}, "pylibmc": fast}.items():
            if backend in peers:
                region = make_region(key_mangler=_prefixed(f"dogpile-{backend}-")).configure(
                    f"dogpile.cache.{backend}", expiration_time=LIFETIME, arguments={"url": [where], **arguments}
                )
                yield Client(f"dogpile.cache {backend}", region, region.set_multi)
    if "pymemcache" in peers:
        from pymemcache.client.base import Client as PyMemcache
        from pymemcache.serde import pickle_serde

        client = PyMemcache(address, serde=pickle_serde, no_delay=True, key_prefix=b"bare-")
        fill = lambda held: client.set_many(held, noreply=False)  # noqa: E731
        yield Client("pymemcache", client, fill, many="cache.get_many({}).values()")
    if "pylibmc" in peers:
        import pylibmc

        other = pylibmc.Client([where], **fast)
        yield Client("pylibmc", other, other.set_multi, many="cache.get_multi({}).values()")
    if "aiocache" in peers and "aiomcache" in peers:
        from aiocache import MemcachedCache
        from aiocache.serializers import PickleSerializer

        loop = asyncio.new_event_loop()

        async def connected() -> Any:
            pickled = PickleSerializer()
            return MemcachedCache(pickled, endpoint=address[0], port=address[1], timeout=0, namespace="aio-")

        yield _aiocache("aiocache memcached", loop.run_until_complete(connected()), loop)


def redis_clients(address: Address, peers: Sequence[str]) -> Iterator[Client]:
    """Yield those of the peers that speak to Redis."""
    host, port = address
    if "dogpile.cache" in peers:
        from dogpile.cache import make_region

        region = make_region(key_mangler=_prefixed("dogpile-")).configure(
            "dogpile.cache.redis", expiration_time=LIFETIME, arguments={"host": host, "port": port, "db": 0}
        )
        yield Client("dogpile.cache redis", region, region.set_multi)
    if "redis" in peers:
        import redis

        client = redis.Redis(host=host, port=port)
        yield Client(
            "redis-py",
            client,
            lambda held: client.mset({key: pickle.dumps(obj, pickle.HIGHEST_PROTOCOL) for key, obj in held.items()}),
            "loads(cache.get({}))",
            "[loads(each) for each in cache.mget({})]",
        )
    if "cashews" in peers:
        from cashews import Cache

        cache, loop = Cache(), asyncio.new_event_loop()

        async def connect() -> None:
            cache.setup(f"redis://{host}:{port}/1")
            await cache.init()

        loop.run_until_complete(connect())
        fill = lambda held: loop.run_until_complete(cache.set_many(held, expire=LIFETIME))  # noqa: E731
        yield Client("cashews redis", cache, fill, "await cache.get({})", "await cache.get_many(*{})", loop)
    if "aiocache" in peers:
        from aiocache import RedisCache
        from aiocache.serializers import PickleSerializer

        pickled = PickleSerializer()
        other = RedisCache(serializer=pickled, endpoint=host, port=port, db=2, timeout=0)
        yield _aiocache("aiocache redis", other, asyncio.new_event_loop())


def _aiocache(name: str, cache: Any, loop: asyncio.AbstractEventLoop) -> Client:
    def fill(held: Mapping[str, Any]) -> None:
        loop.run_until_complete(cache.multi_set(list(held.items())))

    return Client(name, cache, fill, "await cache.get({})", "await cache.multi_get({})", loop)


def _prefixed(prefix: str) -> Callable[[str], str]:
    return lambda key: prefix + key
