"""memcached and Redis, so that one test can be about both."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import redis
from pymemcache.client.base import Client

from stockpyle.stores import MemcacheStore, RedisStore
from tests.remote.parts import CountingSockets, new_prefix
from tests.servers import Memcached, Redis

Address = tuple[str, int]
KINDS = ("memcached", "redis")


class Cache:
    """A server of one kind, and the stores on it. `server` is None for one that all tests share."""

    kind: str
    name: str
    """The class of its stores."""

    def __init__(self, address: Address, server: Any = None) -> None:
        self.address = address
        self.server = server
        self.asking: Any = None
        """A client of the test's own, if it has asked the server something."""

    def close(self) -> None:
        """Close what the test has asked by."""
        if self.asking is not None:
            self.asking.close()

    pooled: int
    """How many idle connections a store with `small_pool` keeps at most."""
    small_pool: Mapping[str, Any] = MappingProxyType({})

    def connections(self) -> int:
        """Return how many connections there are to the server, but for the one that asks."""
        raise NotImplementedError

    def store(self, prefix: str | None = None, *, at: Address | None = None, **options: Any) -> Any:
        """Return a store, on this server or on what stands before it, under a prefix of its own unless one is given."""
        raise NotImplementedError

    def counted(self, sockets: CountingSockets, prefix: str | None = None) -> Any:
        """Return a store whose connections are made of these sockets."""
        raise NotImplementedError


class OnMemcached(Cache):
    """Stores on memcached."""

    kind = "memcached"
    name = "MemcacheStore"
    pooled = 2
    small_pool = MappingProxyType({"pool_size": 2})

    def connections(self) -> int:
        """See Cache.connections."""
        self.asking = self.asking or Client(self.address)
        return int(self.asking.stats()[b"curr_connections"]) - 1

    def store(self, prefix: str | None = None, *, at: Address | None = None, **options: Any) -> Any:
        """See Cache.store."""
        return MemcacheStore(servers=[at or self.address], prefix=prefix or new_prefix(), **options)

    def counted(self, sockets: CountingSockets, prefix: str | None = None) -> Any:
        """See Cache.counted."""
        client = Client(self.address, timeout=10, socket_module=sockets)
        return MemcacheStore(client=client, prefix=prefix or new_prefix())


class OnRedis(Cache):
    """Stores on Redis."""

    kind = "redis"
    name = "RedisStore"
    pooled = 16
    """As many as there were threads at once: redis-py keeps them."""

    def connections(self) -> int:
        """See Cache.connections."""
        self.asking = self.asking or redis.Redis(*self.address)
        return len(self.asking.client_list()) - 1

    def store(self, prefix: str | None = None, *, at: Address | None = None, **options: Any) -> Any:
        """See Cache.store."""
        host, port = at or self.address
        return RedisStore(f"redis://{host}:{port}/0", prefix=prefix or new_prefix(), **options)

    def counted(self, sockets: CountingSockets, prefix: str | None = None) -> Any:
        """See Cache.counted."""

        class Counted(redis.Connection):
            def _connect(self) -> Any:
                plain = super()._connect()
                timeout = plain.gettimeout()
                made = sockets.socket(plain.family, plain.type, plain.proto, fileno=plain.detach())
                made.settimeout(timeout)
                return made

        host, port = self.address
        pool = redis.ConnectionPool(connection_class=Counted, host=host, port=port, socket_timeout=10)
        return RedisStore(client=redis.Redis(connection_pool=pool), prefix=prefix or new_prefix())


def own(kind: str) -> Any:
    """Return a server of this kind that a test may stop and start."""
    return {"memcached": Memcached, "redis": Redis}[kind]()


def on(kind: str, address: Address, server: Any = None) -> Cache:
    """Return a server of this kind at an address."""
    return {"memcached": OnMemcached, "redis": OnRedis}[kind](address, server)
