"""What the documentation of stockpyle 0.0.7 showed of MemcacheStore, call for call, on a real memcached.

What memcached keeps are bytes: so what is got is equal to what was put, but not the very same object. Where a sample
compares two objects of a class without an `__eq__`, their attributes are compared here.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pymemcache.client.base import Client

from stockpyle.classes import spec_of
from stockpyle.exceptions import ImproperlyConfigured
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.stores import ChainedStore, MemcachedStore, MemcacheStore, ProcessMemoryStore, SqlAlchemyStore
from tests.memcached.parts import foreign
from tests.servers import Memcached
from tests.test_samples import (
    Automobile,
    Bar,
    Base,
    Car,
    Clock,
    Composite,
    Foo,
    MyMappedObject,
    Truck,
    lifetime_of,
    statements,
)


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    """A memcached of these tests' own, since the samples give no prefix."""
    with Memcached() as server:
        yield server.address
        server.stop("immediate")


@pytest.fixture
def servers(address: tuple[str, int]) -> list[str]:
    """What stands for ["localhost:11711"] in the samples: nothing is stored there yet."""
    found = [f"localhost:{address[1]}"]
    MemcacheStore(servers=found).clear()
    return found


def same(*objs: Any) -> bool:
    """True if these objects are of one class and have the same attributes."""
    return all(type(obj) is type(objs[0]) and vars(obj) == vars(objs[0]) for obj in objs)


# basics


def test_put_get_and_delete_an_object(servers: list[str]) -> None:
    """What one store puts is got by another until it is deleted, as in two processes."""
    store, other = MemcacheStore(servers=servers), MemcacheStore(servers=servers)
    f = Foo("my_unique_key_123")
    store.put(f)
    assert same(other.get(Foo, {"key": "my_unique_key_123"}), f)
    store.delete(f)
    assert other.get(Foo, {"key": "my_unique_key_123"}) is None


def test_batches_of_objects(servers: list[str]) -> None:
    """Objects put as a batch come back in the order of their keys, with None for what is not there, until deleted."""
    store = MemcacheStore(servers=servers)
    f1, f2, f3 = Foo("my_key_1"), Foo("my_key_2"), Foo("my_key_3")
    store.batch_put([f1, f2, f3])
    o1, o2, o3 = store.batch_get([{"key": "my_key_1"}, {"key": "my_key_2"}, {"key": "my_key_3"}])
    assert (f1.key, f2.key, f3.key) == (o1.key, o2.key, o3.key)
    o1, o2, o3 = store.batch_get([{"key": "my_key_1"}, {"key": "nonexistent_key"}, {"key": "my_key_3"}])
    assert o2 is None
    assert same(o1, f1)
    assert same(o3, f3)
    store.batch_delete([f1, f2, f3])
    assert store.batch_get(Foo, [{"key": "my_key_1"}, {"key": "my_key_2"}, {"key": "my_key_3"}]) == [None, None, None]


def test_alternate_and_composite_keys(servers: list[str]) -> None:
    """An object is found by each of its keys, without its class and with the names in any order."""
    store = MemcacheStore(servers=servers)
    f = Composite(key=1, zap=2, bar=3)
    store.put(f)
    o1 = store.get({"key": 1})
    o2 = store.get({"zap": 2, "bar": 3})
    assert same(f, o1, o2, store.get(Composite, {"bar": 3, "zap": 2}))


def test_the_store_has_the_documents_other_name(servers: list[str]) -> None:
    """The document calls the store MemcachedStore in two lists: that is the same class."""
    assert MemcachedStore is MemcacheStore
    assert MemcachedStore(servers=servers).get(Foo, {"key": 1}) is None


def test_a_client_in_place_of_servers(servers: list[str], address: tuple[str, int]) -> None:
    """MemcacheStore(client=...) uses the server that the client is for, which is pymemcache's now."""
    MemcacheStore(client=Client(address)).put(Foo(1))
    assert MemcacheStore(servers=servers).get(Foo, {"key": 1}).key == 1
    assert MemcacheStore(Client(servers[0])).get(Foo, {"key": 1}).key == 1
    with pytest.raises(ImproperlyConfigured, match="either"):
        MemcacheStore(client=Client(address), servers=servers)


# the chain


def test_a_chain_of_three_layers(servers: list[str]) -> None:
    """A chain writes to its database and keeps both caches populated: whoever has the second finds it without SQL."""
    fast_cache = ProcessMemoryStore()
    dist_cache = MemcacheStore(servers=servers)
    persistent_store = SqlAlchemyStore(uri="sqlite:///:memory:")
    chained_store = ChainedStore([fast_cache, dist_cache, persistent_store])
    obj = MyMappedObject(name="one")
    chained_store.put(obj)
    key = {"id": obj.id}
    assert persistent_store.get(MyMappedObject, key).name == "one"
    elsewhere = ChainedStore([ProcessMemoryStore(), MemcacheStore(servers=servers), persistent_store])
    with statements(persistent_store.engine) as seen:
        assert [store.get(MyMappedObject, key).name for store in (chained_store, fast_cache, dist_cache)] == ["one"] * 3
        assert elsewhere.get(MyMappedObject, key).name == "one"
    assert seen == []
    obj.name = "two"
    chained_store.put(obj)
    caches = (chained_store, fast_cache, dist_cache)
    with statements(persistent_store.engine) as seen:
        assert [store.get(MyMappedObject, key).name for store in caches] == ["two"] * 3
    assert seen == []
    chained_store.delete(obj)
    assert [store.get(MyMappedObject, key) for store in (*caches, persistent_store)] == [None] * 4


def test_a_miss_in_both_caches_fills_both(servers: list[str]) -> None:
    """What only the database has is kept by both caches once it was read."""
    fast_cache = ProcessMemoryStore()
    dist_cache = MemcacheStore(servers=servers)
    persistent_store = SqlAlchemyStore(uri="sqlite:///:memory:")
    obj = MyMappedObject(name="one")
    persistent_store.put(obj)
    key = {"id": obj.id}
    assert [store.get(MyMappedObject, key) for store in (fast_cache, dist_cache)] == [None, None]
    assert ChainedStore([fast_cache, dist_cache, persistent_store]).get(MyMappedObject, key).name == "one"
    assert [store.get(MyMappedObject, key).name for store in (fast_cache, dist_cache)] == ["one", "one"]


# lifetimes


def test_a_callback_gives_each_class_its_lifetime(servers: list[str]) -> None:
    """A Foo lives 20 seconds, a Bar five minutes, and what the callback gives no lifetime stays."""
    clock = Clock()
    store = MemcacheStore(servers=servers, lifetime_cb=lifetime_of, clock=clock)
    foo, bar, other = Foo(1), Bar(1), Composite(1, 2, 3)
    store.batch_put([foo, bar, other])

    def found() -> list[bool]:
        return [store.get(klass, {"key": 1}) is not None for klass in (Foo, Bar, Composite)]

    clock.now += 19
    assert found() == [True, True, True]
    clock.now += 2
    assert found() == [False, True, True]
    clock.now += 5 * 60
    assert found() == [False, False, True]


@pytest.mark.parametrize("as_what", ["number", "timedelta", "datetime"])
def test_a_lifetime_in_each_of_its_three_forms(servers: list[str], as_what: str) -> None:
    """A lifetime is a number of seconds, a timedelta, or the datetime at which it ends."""
    clock = Clock()
    lifetime: Any = {
        "number": 20,
        "timedelta": timedelta(seconds=20),
        "datetime": datetime.fromtimestamp(clock.now + 20),
    }[as_what]
    store = MemcacheStore(servers=servers, lifetime_cb=lambda obj: lifetime, clock=clock)
    store.put(Foo(1))
    clock.now += 19
    assert store.get(Foo, {"key": 1}) is not None
    clock.now += 2
    assert store.get(Foo, {"key": 1}) is None


def test_memcached_itself_expires_objects(servers: list[str], address: tuple[str, int]) -> None:
    """memcached is told of the lifetime, and frees the room at most two seconds later."""
    store = MemcacheStore(servers=servers, lifetime_cb=lifetime_of)
    store.batch_put([Foo(1), Bar(1), Composite(1, 2, 3)])
    with foreign(address) as other:

        def left(klass: type) -> int:
            key = spec_of(klass).key({"key": 1})
            assert key is not None
            return other.seconds_left(key.text("stockpyle"))

        assert 0 < left(Foo) <= 22
        assert 22 < left(Bar) <= 302
        assert left(Composite) == -1


# polymorphic storage


def test_a_polymorphic_store_finds_a_car_as_an_automobile(servers: list[str]) -> None:
    """With polymorphic=True a Car is found as a Car and as an Automobile, and is no Truck."""
    store = MemcacheStore(servers=servers, polymorphic=True)
    store.put(Car(license_plate="1234 XYZ"))
    car = store.get(Car, {"license_plate": "1234 XYZ"})
    automobile = store.get(Automobile, {"license_plate": "1234 XYZ"})
    assert type(car) is Car
    assert same(car, automobile)
    assert store.get(Truck, {"license_plate": "1234 XYZ"}) is None
    store.delete(car)
    assert store.get(Automobile, {"license_plate": "1234 XYZ"}) is None


def test_objects_are_not_stored_polymorphically_by_default(servers: list[str]) -> None:
    """Without the flag a Car is found as a Car only."""
    store = MemcacheStore(servers=servers)
    store.put(Car(license_plate="1234 XYZ"))
    assert store.get(Car, {"license_plate": "1234 XYZ"}) is not None
    assert store.get(Automobile, {"license_plate": "1234 XYZ"}) is None


# SQLAlchemy


def test_the_session_extension_keeps_a_memcache_store_right(servers: list[str], tmp_path: Path) -> None:
    """A session made with extension=ext puts what it inserts and updates into the store, and deletes what it deletes.

    The sample's sessionmaker is that of stockpyle.ext.sqlalchemy: SQLAlchemy removed the argument `extension` in 1.4.
    """
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'samples.db'}")
    Base.metadata.create_all(engine)
    mc_store = MemcacheStore(servers=servers)
    ext = StockpyleSessionExtension(store=mc_store)
    my_session = sessionmaker(extension=ext)
    my_session.configure(bind=engine)
    elsewhere = MemcacheStore(servers=servers)

    def names() -> list[str | None]:
        found = [store.get(MyMappedObject, {"id": 5}) for store in (mc_store, elsewhere)]
        return [None if each is None else each.name for each in found]

    with my_session() as session:
        obj = MyMappedObject(id=5, name="one")
        session.add(obj)
        session.flush()
        assert names() == [None, None]
        session.commit()
        assert names() == ["one", "one"]
        obj.name = "two"
        session.flush()
        assert names() == ["one", "one"]
        session.rollback()
        assert names() == ["one", "one"]
        obj.name = "three"
        session.commit()
        assert names() == ["three", "three"]
        session.delete(obj)
        session.commit()
        assert names() == [None, None]
    engine.dispose()
