"""Collections and counters on every store that keeps them: the contracts, and what several processes do."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from stockpyle.codecs import SignedCodec
from stockpyle.exceptions import DecodeError, UnsupportedOperation
from stockpyle.stores import (
    ChainedStore,
    MemcacheStore,
    NullStore,
    ProcessMemoryStore,
    RedisStore,
    SqlAlchemyStore,
)
from stockpyle.testing import CollectionContract, CounterContract
from tests.servers import Memcached, RedisCluster


class InMemory:
    """Stores in this process's memory."""

    def make_store(self, **options: Any) -> Any:
        return ProcessMemoryStore(**options)


class OnRedis:
    """Stores on one Redis."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: str) -> None:
        self.url = redis_server

    def make_store(self, **options: Any) -> Any:
        return RedisStore(self.url, prefix=secrets.token_hex(4), **options)

    def another(self, store: Any) -> Any:
        return RedisStore(self.url, prefix=store.prefix)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The URL of a cluster of three."""
    with RedisCluster() as made:
        yield made.url


class OnCluster(OnRedis):
    """Stores on a cluster."""

    @pytest.fixture(autouse=True)
    def _server(self, cluster: str) -> None:
        self.url = cluster


class OnMemcached:
    """Stores on three memcacheds."""

    @pytest.fixture(autouse=True, scope="class")
    def _servers(self) -> Iterator[None]:
        with Memcached() as one, Memcached() as two, Memcached() as three:
            type(self).servers = [f"{each.host}:{each.port}" for each in (one, two, three)]
            yield

    servers: list[str]

    def make_store(self, **options: Any) -> Any:
        return MemcacheStore(servers=self.servers, prefix=secrets.token_hex(4), **options)

    def another(self, store: Any) -> Any:
        return MemcacheStore(servers=self.servers, prefix=store.prefix)


class InChain(InMemory):
    """Chains that end in a store that keeps them."""

    def make_store(self, **options: Any) -> Any:
        return ChainedStore([NullStore(), ProcessMemoryStore(**options)])


class TestCollectionsInMemory(InMemory, CollectionContract): ...


class TestCollectionsOnRedis(OnRedis, CollectionContract): ...


class TestCollectionsOnCluster(OnCluster, CollectionContract): ...


class TestCollectionsInChain(InChain, CollectionContract): ...


class TestCountersInMemory(InMemory, CounterContract): ...


class TestCountersOnRedis(OnRedis, CounterContract): ...


class TestCountersOnCluster(OnCluster, CounterContract): ...


class TestCountersOnMemcached(OnMemcached, CounterContract): ...


class TestCountersInChain(InChain, CounterContract): ...


def test_a_chain_takes_the_most_durable(redis_server: str) -> None:
    """What a chain keeps is in the last of its stores that can keep it."""
    shared = RedisStore(redis_server, prefix=secrets.token_hex(4))
    source = SqlAlchemyStore(engine=sa.create_engine("sqlite://"))
    chain = ChainedStore([ProcessMemoryStore(), shared, source])
    chain.collection("settings")["a"] = 1
    chain.counter("visits").increment()
    assert (shared.collection("settings")["a"], shared.counter("visits").value) == (1, 1)
    chain.close()


@pytest.mark.parametrize("make", [NullStore, lambda: ChainedStore([NullStore(), NullStore()])])
def test_stores_that_keep_none(make: Any) -> None:
    """A store that keeps no collections, or no counters, says so."""
    with pytest.raises(UnsupportedOperation, match="collections"):
        make().collection("settings")
    with pytest.raises(UnsupportedOperation, match="counters"):
        make().counter("visits")


def test_a_signed_value_is_good_for_its_name_only(redis_server: str) -> None:
    """What a SignedCodec has signed is refused under another name, in another collection, and if it was changed."""
    store = RedisStore(redis_server, prefix=secrets.token_hex(4), codec=SignedCodec(b"k" * 32))
    settings = store.collection("settings")
    settings["a"] = ["value"]
    entries = store._collections()
    data = entries.read("settings", "a")
    assert data is not None
    entries.write("settings", {"b": data, "c": data[:-1] + b"\x00"}, ())
    entries.write("others", {"a": data}, ())
    assert settings["a"] == ["value"]
    for collection, name in (("settings", "b"), ("settings", "c"), ("others", "a")):
        with pytest.raises(DecodeError):
            store.collection(collection)[name]
    store.close()


COUNT = """
import sys
from stockpyle.stores import MemcacheStore, RedisStore
kind, address, prefix, number = sys.argv[1:]
store = RedisStore(address, prefix=prefix) if kind == "redis" else MemcacheStore(servers=[address], prefix=prefix)
counter = store.counter("visits")
settings = store.collection("settings") if kind == "redis" else {}
for i in range(300):
    counter.increment(-2 if i % 3 else 5)
    settings[f"{number}.{i}"] = i
"""


@pytest.mark.parametrize("kind", ["redis", "memcached"])
def test_processes(kind: str, redis_server: str, memcached: tuple[str, int]) -> None:
    """Four processes hammer one counter and one collection: the sum is exact, and nothing is lost."""
    prefix = secrets.token_hex(4)
    address = redis_server if kind == "redis" else f"{memcached[0]}:{memcached[1]}"
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, kind, address, prefix, str(i)]) for i in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    store: Any = (
        RedisStore(address, prefix=prefix) if kind == "redis" else MemcacheStore(servers=[address], prefix=prefix)
    )
    assert store.counter("visits").value == 4 * (100 * 5 - 200 * 2)
    if kind == "redis":
        assert len(store.collection("settings")) == 1200
    store.close()


def test_a_dead_connection_counts_nothing_twice(memcached: tuple[str, int]) -> None:
    """A connection that the server has closed meanwhile is found before a step is sent over it."""
    with Memcached() as server:
        store = MemcacheStore(servers=[f"{server.host}:{server.port}"])
        assert store.counter("visits").increment() == 1
        server.stop()
        server.start()
        assert [store.counter("visits").increment() for _ in range(2)] == [1, 2]
        store.close()
