"""Collections and counters on every store that keeps them: the contracts, and what several processes do."""

from __future__ import annotations

import dbm.dumb
import secrets
import shelve
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diskcache
import mongomock
import pymongo
import pytest
import sqlalchemy as sa

from stockpyle import create_store
from stockpyle.codecs import SignedCodec
from stockpyle.exceptions import DecodeError, UnsupportedOperation
from stockpyle.stores import (
    ChainedStore,
    MemcacheStore,
    MongoStore,
    NullStore,
    ProcessMemoryStore,
    RedisStore,
    ShoveStore,
    SqlAlchemyStore,
    SqlTableStore,
)
from stockpyle.testing import CollectionContract, CounterContract
from tests.servers import MariaDb, Memcached, Postgres, RedisCluster


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


class OnCluster(OnRedis):
    """Stores on a cluster."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_cluster: RedisCluster) -> None:
        self.url = redis_cluster.url


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


class OnSql:
    """Stores in one table of a database, which has another for the next test."""

    tables = 0

    @pytest.fixture(autouse=True)
    def _engine(self, database: str) -> Iterator[None]:
        self.engine = sa.create_engine(database)
        yield
        self.engine.dispose()

    def make_store(self, **options: Any) -> Any:
        OnSql.tables += 1
        store = SqlTableStore(self.engine, sa.MetaData(), f"views_{OnSql.tables}", **options)
        store.table.create()
        return store

    def another(self, store: Any) -> Any:
        return SqlTableStore(self.engine, sa.MetaData(), store.table.name)


class OnSqlite(OnSql):
    @pytest.fixture
    def database(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'kept.db'}?timeout=60"


class OnPostgres(OnSql):
    @pytest.fixture
    def database(self, postgres: Postgres) -> str:
        return postgres.url()


class OnPsycopg2(OnSql):
    @pytest.fixture
    def database(self, postgres: Postgres) -> str:
        return postgres.url("psycopg2")


class OnMariaDb(OnSql):
    @pytest.fixture
    def database(self, mariadb: MariaDb) -> str:
        return mariadb.url("test")


class InMongo:
    """Stores in one collection of what stands in for MongoDB, reached by pymongo."""

    @pytest.fixture(autouse=True)
    def _client(self, mongod: str) -> Iterator[None]:
        with pymongo.MongoClient(mongod) as self.client:
            yield

    client: pymongo.MongoClient[Any]

    def make_store(self, **options: Any) -> Any:
        return MongoStore(self.client["app"], "kept", prefix=secrets.token_hex(4), **options)

    def another(self, store: Any) -> Any:
        return MongoStore(self.client["app"], "kept", prefix=store.prefix)


class InShove:
    """Stores in what a shove keeps somewhere."""

    scheme: str

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_store(self, **options: Any) -> Any:
        return ShoveStore(shoveuri=f"{self.scheme}://{self.folder / 'kept'}", **options)


class InFiles(InShove):
    """Stores in a folder, or in a file of SQLite, which several can have open."""

    def another(self, store: Any) -> Any:
        return self.make_store()


class TestCollectionsInMemory(InMemory, CollectionContract): ...


class TestCollectionsOnRedis(OnRedis, CollectionContract): ...


class TestCollectionsOnCluster(OnCluster, CollectionContract): ...


class TestCollectionsOnSqlite(OnSqlite, CollectionContract): ...


class TestCollectionsOnPostgres(OnPostgres, CollectionContract): ...


class TestCollectionsOnPsycopg2(OnPsycopg2, CollectionContract): ...


class TestCollectionsOnMariaDb(OnMariaDb, CollectionContract): ...


class TestCollectionsInMongo(InMongo, CollectionContract): ...


class TestCollectionsInFiles(InFiles, CollectionContract):
    scheme = "file"


class TestCollectionsInLite(InFiles, CollectionContract):
    scheme = "lite"


class TestCollectionsInDbm(InShove, CollectionContract):
    scheme = "dbm"


class TestCollectionsInShelve(InShove, CollectionContract):
    def make_store(self, **options: Any) -> Any:
        # the shelve that Python 3.13 opens by itself is for the thread that has opened it
        return ShoveStore(shelve.Shelf(dbm.dumb.open(str(self.folder / "kept"), "c")), **options)


class TestCollectionsInDiskcache(InShove, CollectionContract):
    def make_store(self, **options: Any) -> Any:
        return ShoveStore(diskcache.Cache(str(self.folder / "kept")), **options)


class TestCollectionsInChain(InChain, CollectionContract): ...


class TestCountersInMemory(InMemory, CounterContract): ...


class TestCountersOnRedis(OnRedis, CounterContract): ...


class TestCountersOnCluster(OnCluster, CounterContract): ...


class TestCountersOnMemcached(OnMemcached, CounterContract): ...


class TestCountersOnSqlite(OnSqlite, CounterContract): ...


class TestCountersOnPostgres(OnPostgres, CounterContract): ...


class TestCountersOnPsycopg2(OnPsycopg2, CounterContract): ...


class TestCountersOnMariaDb(OnMariaDb, CounterContract): ...


class TestCountersInMongo(InMongo, CounterContract): ...


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


def test_a_chain_on_a_table_keeps_them_there(sqlite_engine: sa.Engine, redis_server: str) -> None:
    """A SqlTableStore is more durable than what stands above it, and is asked though a SqlAlchemyStore stands below."""
    table = SqlTableStore(sqlite_engine, sa.MetaData(), "kept")
    table.table.create()
    shared = RedisStore(redis_server, prefix=secrets.token_hex(4))
    chain = ChainedStore([ProcessMemoryStore(), shared, table, SqlAlchemyStore(engine=sqlite_engine)])
    chain.collection("settings")["a"] = 1
    chain.counter("visits").increment()
    assert (table.collection("settings")["a"], table.counter("visits").value) == (1, 1)
    assert shared.counter("visits").value == 0
    chain.close()


@pytest.mark.parametrize("make", [NullStore, lambda: ChainedStore([NullStore(), NullStore()])])
def test_stores_that_keep_none(make: Any) -> None:
    """A store that keeps no collections, or no counters, says so."""
    with pytest.raises(UnsupportedOperation, match="collections"):
        make().collection("settings")
    with pytest.raises(UnsupportedOperation, match="counters"):
        make().counter("visits")


def test_stores_over_mappings() -> None:
    """No mapping counts for several processes, and so none counts; one that cannot be listed keeps no collections."""

    class Unlisted:
        __getitem__ = __setitem__ = __delitem__ = get = lambda *_: None

    with pytest.raises(UnsupportedOperation, match=r"ShoveStore keeps no counters: .*RedisStore, SqlTableStore can"):
        ShoveStore({}).counter("visits")
    with pytest.raises(UnsupportedOperation, match="cannot be listed"):
        ShoveStore(Unlisted()).collection("settings")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["redis", "table", "mongo"])
def test_a_signed_value_is_good_for_its_name_only(kind: str, redis_server: str, sqlite_engine: sa.Engine) -> None:
    """What a SignedCodec has signed is refused under another name, in another collection, and if it was changed."""
    codec = SignedCodec(b"k" * 32)
    store: Any = RedisStore(redis_server, prefix=secrets.token_hex(4), codec=codec)
    if kind == "table":
        store = SqlTableStore(sqlite_engine, sa.MetaData(), "kept", codec=codec)
        store.table.create()
    elif kind == "mongo":
        store = MongoStore(mongomock.MongoClient()["app"], "kept", codec=codec)
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
from stockpyle import create_store
with create_store(sys.argv[1]) as store:
    counter = store.counter("visits") if "counter" in store.supports else None
    settings = store.collection("settings") if "collection" in store.supports else {}
    for i in range(int(sys.argv[3])):
        if counter:
            counter.increment(-2 if i % 3 else 5)
        settings[f"{sys.argv[2]}.{i}"] = i
"""


@pytest.fixture
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The connection string of a store that processes share, with nothing in it."""
    prefix = secrets.token_hex(4)
    if request.param == "redis":
        return f"{request.getfixturevalue('redis_server')}?prefix={prefix}"
    if request.param == "memcached":
        return "memcache://{}:{}?prefix={}".format(*request.getfixturevalue("memcached"), prefix)
    if request.param == "mongodb":
        return f"{request.getfixturevalue('mongod')}/app?prefix={prefix}"
    if request.param.startswith("shove"):
        return f"{request.param}://{tmp_path / 'kept'}"
    urls = {"postgresql": "postgres_url", "mariadb": "mariadb_url"}
    own = urls.get(request.param)
    url = f"sqlite:///{tmp_path / 'kept.db'}?timeout=60" if own is None else request.getfixturevalue(own)
    store = create_store(f"sqltable+{url}")
    store.table.create()
    store.close()
    return f"sqltable+{url}"


SHARED = ["redis", "memcached", "sqlite", "postgresql", "mariadb", "mongodb", "shove+file", "shove+lite"]


@pytest.mark.parametrize("shared", SHARED, indirect=True)
def test_processes(shared: str) -> None:
    """Four processes hammer one counter and one collection: the sum is exact, and nothing is lost.

    A store that has only one of the two is used for that.
    """
    times = 300 if shared.startswith(("redis", "memcache")) else 90
    command = [sys.executable, "-c", COUNT, shared]
    processes = [subprocess.Popen([*command, str(i), str(times)]) for i in range(4)]
    assert [process.wait(120) for process in processes] == [0] * 4
    with create_store(shared) as store:
        if "counter" in store.supports:
            assert store.counter("visits").value == 4 * times // 3 * (5 - 2 * 2)
        if "collection" in store.supports:
            assert len(store.collection("settings")) == 4 * times


def test_a_dead_connection_counts_nothing_twice(memcached: tuple[str, int]) -> None:
    """A connection that the server has closed meanwhile is found before a step is sent over it."""
    with Memcached() as server:
        store = MemcacheStore(servers=[f"{server.host}:{server.port}"])
        assert store.counter("visits").increment() == 1
        server.stop()
        server.start()
        assert [store.counter("visits").increment() for _ in range(2)] == [1, 2]
        store.close()
