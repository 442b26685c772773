"""What the documentation of stockpyle 0.0.7 showed, call for call, and what users of 0.1 rely on.

The samples of MemcacheStore are in test_memcache_samples.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stockpyle.exceptions import ImproperlyConfigured, InvalidKey, NonUniqueKeyError, UndeclaredKeyError
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.stores import (
    BaseDictionaryStore,
    BaseStore,
    ChainedStore,
    NullStore,
    ProcessMemoryStore,
    ShoveStore,
    SqlAlchemyStore,
    ThreadLocalStore,
)
from stockpyle.stores.shove import import_shove


class Clock:
    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Foo:
    __stockpyle_keys__: ClassVar[list[Any]] = ["key"]

    def __init__(self, key: Any) -> None:
        self.key = key


class Bar:
    __stockpyle_keys__: ClassVar[list[Any]] = ["key"]

    def __init__(self, key: Any) -> None:
        self.key = key


class Composite:
    __stockpyle_keys__: ClassVar[list[Any]] = ["key", ("zap", "bar")]

    def __init__(self, key: Any, zap: Any, bar: Any) -> None:
        self.key = key
        self.zap = zap
        self.bar = bar


class Automobile:
    __stockpyle_keys__: ClassVar[list[Any]] = ["license_plate"]

    def __init__(self, license_plate: str) -> None:
        self.license_plate = license_plate


class Car(Automobile):
    pass


class Truck(Automobile):
    pass


class Base(DeclarativeBase):
    pass


class MyMappedObject(Base):
    __tablename__ = "my_mapped_objects"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]


class Twin(Base):
    __tablename__ = "twins"
    __stockpyle_keys__ = ("name",)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@contextmanager
def statements(engine: sa.Engine) -> Iterator[list[str]]:
    """Yield the list of SQL statements that run inside."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


# basics


def test_put_get_and_delete_an_object() -> None:
    """What is put is got by its class and key until it is deleted."""
    store = ProcessMemoryStore()
    f = Foo("my_unique_key_123")
    store.put(f)
    assert store.get(Foo, {"key": "my_unique_key_123"}) is f
    store.delete(f)
    assert store.get(Foo, {"key": "my_unique_key_123"}) is None


def test_batches_of_objects_by_keys_without_a_class() -> None:
    """Objects put as a batch come back in the order of their keys, which need no class, until they are deleted."""
    store = ProcessMemoryStore()
    f1, f2, f3 = Foo("my_key_1"), Foo("my_key_2"), Foo("my_key_3")
    store.batch_put([f1, f2, f3])
    o1, o2, o3 = store.batch_get([{"key": "my_key_1"}, {"key": "my_key_2"}, {"key": "my_key_3"}])
    assert (f1, f2, f3) == (o1, o2, o3)
    store.batch_delete([f1, f2, f3])
    assert store.batch_get([{"key": "my_key_1"}, {"key": "my_key_2"}, {"key": "my_key_3"}]) == [None, None, None]


def test_a_key_that_is_not_there_gives_none_in_its_place() -> None:
    """A batch has None for each key that nothing is found by, and the others around it."""
    store = ProcessMemoryStore()
    f1, f3 = Foo("my_key_1"), Foo("my_key_3")
    store.batch_put([f1, f3])
    o1, o2, o3 = store.batch_get([{"key": "my_key_1"}, {"key": "nonexistent_key"}, {"key": "my_key_3"}])
    assert o2 is None
    assert (o1, o3) == (f1, f3)


def test_a_chain_of_fast_and_persistent_storage() -> None:
    """A chain writes a mapped object to its database, and finds it in memory from then on."""
    fast_cache = ProcessMemoryStore()
    persistent_store = SqlAlchemyStore(uri="sqlite:///:memory:")
    chained_store = ChainedStore([fast_cache, persistent_store])
    obj = MyMappedObject(name="one")
    chained_store.put(obj)
    assert persistent_store.get(MyMappedObject, {"id": obj.id}).name == "one"
    with statements(persistent_store.engine) as seen:
        assert chained_store.get(MyMappedObject, {"id": obj.id}).name == "one"
    assert seen == []
    chained_store.delete(obj)
    assert chained_store.get(MyMappedObject, {"id": obj.id}) is None
    assert persistent_store.get(MyMappedObject, {"id": obj.id}) is None


# keys


def test_alternate_and_composite_keys() -> None:
    """An object is found by each of its keys, without its class and with the names in any order."""
    store = ProcessMemoryStore()
    f = Composite(key=1, zap=2, bar=3)
    store.put(f)
    o1 = store.get({"key": 1})
    o2 = store.get({"zap": 2, "bar": 3})
    assert f == o1 == o2
    assert store.get({"bar": 3, "zap": 2}) is f
    assert store.get(Composite, {"bar": 3, "zap": 2}) is f


def test_a_key_that_no_class_declares_is_an_error() -> None:
    """A key without a class whose names no class put so far declares is a LookupError, not a quiet None."""
    store = ProcessMemoryStore()
    store.put(Composite(key=1, zap=2, bar=3))
    with pytest.raises(UndeclaredKeyError, match="zip"):
        store.get({"zip": 2})


def test_a_class_without_a_key_is_an_error_that_says_what_is_missing() -> None:
    """Forgetting the key of get(klass, key), or giving None, is told as that, whatever was put before."""
    store: Any = ProcessMemoryStore()
    store.put(Composite(key=1, zap=2, bar=3))
    for forgotten in (lambda: store.get(Foo), lambda: store.get(Foo, None), lambda: store.batch_get(Foo)):
        with pytest.raises(InvalidKey, match=r"give the key.*Foo"):
            forgotten()


# lifetimes


def lifetime_of(obj: Any) -> int | None:
    """Return the lifetimes of the sample."""
    if isinstance(obj, Foo):
        return 20
    if isinstance(obj, Bar):
        return 5 * 60
    return None


@pytest.mark.parametrize("of", ["memory", "dictionary", "shove"])
def test_a_callback_gives_each_class_its_lifetime(of: str) -> None:
    """A Foo lives 20 seconds, a Bar five minutes, and what the callback gives no lifetime stays."""
    clock = Clock()
    store: Any = {
        "memory": lambda: ProcessMemoryStore(lifetime_cb=lifetime_of, clock=clock),
        "dictionary": lambda: BaseDictionaryStore({}, lifetime_cb=lifetime_of, clock=clock),
        "shove": lambda: ShoveStore(shoveuri="simple://", lifetime_cb=lifetime_of, clock=clock),
    }[of]()
    foo, bar, other = Foo(1), Bar(1), Composite(1, 2, 3)
    store.batch_put([foo, bar, other])

    def found() -> list[Any]:
        return [store.get(Foo, {"key": 1}), store.get(Bar, {"key": 1}), store.get(Composite, {"key": 1})]

    clock.now += 19
    assert found() == [foo, bar, other]
    clock.now += 2
    assert found() == [None, bar, other]
    clock.now += 5 * 60
    assert found() == [None, None, other]


@pytest.mark.parametrize("as_what", ["number", "timedelta", "datetime"])
def test_a_lifetime_in_each_of_its_three_forms(as_what: str) -> None:
    """A lifetime is a number of seconds, a timedelta, or the datetime at which it ends."""
    clock = Clock()
    lifetime: Any = {
        "number": 20,
        "timedelta": timedelta(seconds=20),
        "datetime": datetime.fromtimestamp(clock.now + 20),
    }[as_what]
    store = ProcessMemoryStore(lifetime_cb=lambda obj: lifetime, clock=clock)
    store.put(Foo(1))
    clock.now += 19
    assert store.get(Foo, {"key": 1}) is not None
    clock.now += 2
    assert store.get(Foo, {"key": 1}) is None


def test_each_store_of_a_chain_has_its_own_lifetimes() -> None:
    """Memory that expires sooner than the layer below is filled from that layer again."""
    clock = Clock()
    upper = ProcessMemoryStore(lifetime_cb=lambda obj: 20, clock=clock)
    lower = ProcessMemoryStore(lifetime_cb=lambda obj: 5 * 60, clock=clock)
    store = ChainedStore([upper, lower])
    foo = Foo(1)
    store.put(foo)
    clock.now += 21
    assert upper.get(Foo, {"key": 1}) is None
    assert store.get(Foo, {"key": 1}) is foo
    assert upper.get(Foo, {"key": 1}) is foo
    clock.now += 5 * 60
    assert store.get(Foo, {"key": 1}) is None


# polymorphic storage


@pytest.mark.parametrize("of", ["memory", "dictionary", "shove"])
def test_a_polymorphic_store_finds_a_car_as_an_automobile(of: str) -> None:
    """With polymorphic=True a Car is found as a Car and as an Automobile, and is no Truck.

    The document's sample calls store.put() without an argument, which was a slip: there is nothing to put.
    """
    store: Any = {
        "memory": lambda: ProcessMemoryStore(polymorphic=True),
        "dictionary": lambda: BaseDictionaryStore({}, polymorphic=True),
        "shove": lambda: ShoveStore(shoveuri="simple://", polymorphic=True),
    }[of]()
    put = Car(license_plate="1234 XYZ")
    store.put(put)
    car = store.get(Car, {"license_plate": "1234 XYZ"})
    automobile = store.get(Automobile, {"license_plate": "1234 XYZ"})
    assert car == automobile
    assert car is put
    assert store.get(Truck, {"license_plate": "1234 XYZ"}) is None
    store.delete(car)
    assert store.get(Automobile, {"license_plate": "1234 XYZ"}) is None


def test_objects_are_not_stored_polymorphically_by_default() -> None:
    """Without the flag a Car is found as a Car only."""
    store = ProcessMemoryStore()
    store.put(Car(license_plate="1234 XYZ"))
    assert store.get(Car, {"license_plate": "1234 XYZ"}) is not None
    assert store.get(Automobile, {"license_plate": "1234 XYZ"}) is None


def test_put_needs_an_object() -> None:
    """Calling put() with nothing, as one sample of the document does, is a TypeError as it always was."""
    store: Any = ProcessMemoryStore(polymorphic=True)
    with pytest.raises(TypeError, match="obj"):
        store.put()


# shove


def test_the_s3_store_of_the_document() -> None:
    """The sample's URI names a store that shove had in 2009: the error says which it has, and how to pass a mapping."""
    with pytest.raises(ImproperlyConfigured, match=r"no store for s3://, only for dbm, file, .*ShoveStore\(shove="):
        ShoveStore(shoveuri="s3://s3key:s3secret@whatever_bucket_name_you_want")


@pytest.mark.parametrize("scheme", ["file", "lite", "dbm"])
def test_a_shove_store_keeps_objects_as_tuples(scheme: str, tmp_path: Path) -> None:
    """Every object stands in the Shove under a readable key, as a tuple of itself and when it expires."""
    clock = Clock()
    store = ShoveStore(shoveuri=f"{scheme}://{tmp_path / 'shove'}", lifetime_cb=lifetime_of, clock=clock)
    store.batch_put([Foo("my_unique_key_123"), Composite(1, 2, 3)])
    f = store.get(Foo, {"key": "my_unique_key_123"})
    assert f is not None
    assert f.key == "my_unique_key_123"
    assert store.get({"bar": 3, "zap": 2}).key == 1
    store.close()
    shove = import_shove().Shove(f"{scheme}://{tmp_path / 'shove'}")
    obj, expiredate = shove["stockpyle:tests.test_samples.Foo:key='my_unique_key_123'"]
    assert (type(obj), expiredate) == (Foo, datetime.fromtimestamp(clock.now + 20))
    obj, expiredate = shove["stockpyle:tests.test_samples.Composite:key=1"]
    assert (obj.zap, expiredate) == (2, None)
    shove.close()


# SQLAlchemy


def test_a_session_of_sqlalchemy_itself() -> None:
    """The sample with a plain session works with add() for save().

    SQLAlchemy deprecated Session.save in 0.5 and removed it; Session.add is its successor.
    """
    store = SqlAlchemyStore("sqlite:///:memory:")
    store.get(MyMappedObject, {"id": 1})
    session = sessionmaker(store.engine)()
    assert not hasattr(session, "save")
    obj = MyMappedObject()
    session.add(obj)
    session.commit()
    obj_retrieved = session.query(MyMappedObject).first()
    assert obj_retrieved is obj
    session.close()


def test_a_sqlalchemy_store_does_the_same() -> None:
    """SqlAlchemyStore puts a mapped object, sets its generated key, and gets it by that without its class."""
    store = SqlAlchemyStore("sqlite:///:memory:")
    obj = MyMappedObject(name="one")
    store.put(obj)
    obj_retrieved = store.get({"id": obj.id})
    assert type(obj_retrieved) is MyMappedObject
    assert (obj_retrieved.id, obj_retrieved.name) == (obj.id, "one")


def test_the_second_retrieval_comes_from_memory() -> None:
    """What was put through a chain of memory and database is got without a single statement."""
    pm = ProcessMemoryStore()
    sa_store = SqlAlchemyStore("sqlite:///:memory:")
    store = ChainedStore([pm, sa_store])
    obj = MyMappedObject(name="one")
    store.put(obj)
    with statements(sa_store.engine) as seen:
        obj_retrieved = store.get({"id": obj.id})
    assert seen == []
    assert (obj_retrieved.id, obj_retrieved.name) == (obj.id, "one")


def test_an_object_put_in_one_store_can_be_put_in_another() -> None:
    """The very object that went to one database goes through a chain to another, as the samples do in a row."""
    obj = MyMappedObject(name="one")
    SqlAlchemyStore("sqlite:///:memory:").put(obj)
    store = ChainedStore([ProcessMemoryStore(), SqlAlchemyStore("sqlite:///:memory:")])
    store.put(obj)
    assert store.get({"id": obj.id}).name == "one"


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite:///{folder}/samples.db"])
def test_the_session_extension_keeps_a_store_right(url: str, tmp_path: Path) -> None:
    """A session made with extension=ext puts what it inserts and updates into the store, and deletes what it deletes.

    The sample's store is in process memory here, and its sessionmaker is that of stockpyle.ext.sqlalchemy: SQLAlchemy
    removed the argument `extension` in 1.4.
    """
    engine = sa.create_engine(url.format(folder=tmp_path))
    Base.metadata.create_all(engine)
    pm_store = ProcessMemoryStore()
    ext = StockpyleSessionExtension(store=pm_store)
    my_session = sessionmaker(extension=ext)
    my_session.configure(bind=engine)

    def name_in_store() -> str | None:
        found = pm_store.get(MyMappedObject, {"id": 5})
        return None if found is None else found.name

    with my_session() as session:
        obj = MyMappedObject(id=5, name="one")
        session.add(obj)
        session.flush()
        assert name_in_store() is None
        session.commit()
        assert name_in_store() == "one"
        obj.name = "two"
        session.commit()
        assert name_in_store() == "two"
        session.delete(obj)
        session.commit()
        assert name_in_store() is None
    engine.dispose()


# stores of one's own


class ListStore(BaseStore):
    def __init__(self) -> None:
        super().__init__()
        self.objs: list[Any] = []

    def put(self, obj: Any) -> None:
        self.delete(obj)
        self.objs.append(obj)

    def get(self, klass: Any, key: Mapping[str, Any]) -> Any:
        found = [o for o in self.objs if type(o) is klass and all(getattr(o, n) == v for n, v in key.items())]
        return found[0] if found else None

    def delete(self, obj: Any) -> None:
        self.objs = [each for each in self.objs if (type(each), each.key) != (type(obj), obj.key)]

    def batch_put(self, objs: Iterable[Any]) -> None:
        for obj in objs:
            self.put(obj)

    def batch_get(self, klass: Any, keys: Iterable[Mapping[str, Any]]) -> list[Any]:
        return [self.get(klass, key) for key in keys]

    def batch_delete(self, objs: Iterable[Any]) -> None:
        for obj in objs:
            self.delete(obj)


class LoudDict(dict[str, Any]):
    pass


class LoudStore(BaseDictionaryStore):
    def __init__(self, polymorphic: bool = False, lifetime_cb: Any = None) -> None:
        self.loud = LoudDict()
        super().__init__(dictionary=self.loud, polymorphic=polymorphic, lifetime_cb=lifetime_cb)


@pytest.mark.parametrize("make", [ListStore, LoudStore])
def test_a_store_of_ones_own_alone_and_in_a_chain(make: Any) -> None:
    """A subclass of BaseStore with the six verbs, or of BaseDictionaryStore over a mapping, is a store, and can be the
    last of a chain or stand above another.
    """
    own = make()
    foo, other = Composite(1, 2, 3), Composite(4, 5, 6)
    own.batch_put([foo, other])
    assert own.get(Composite, {"zap": 2, "bar": 3}) is foo
    assert own.batch_get(Composite, [{"key": 4}, {"key": 7}]) == [other, None]
    own.batch_delete([foo, other])
    assert own.get(Composite, {"key": 1}) is None
    for stores in ([ProcessMemoryStore(), own], [own, ProcessMemoryStore()]):
        chain = ChainedStore(stores)
        chain.put(foo)
        assert chain.get(Composite, {"key": 1}) is foo
        assert chain.get({"bar": 3, "zap": 2}) is foo
        chain.delete(foo)
        assert [store.get(Composite, {"key": 1}) for store in stores] == [None, None]


# what users of 0.1 rely on


def test_constructors_take_the_arguments_of_0_1_by_position() -> None:
    """The order of the constructors' arguments is that of 0.1."""
    assert ProcessMemoryStore(True, lifetime_of).polymorphic
    assert ThreadLocalStore(True, lifetime_of).polymorphic
    backing: dict[str, Any] = {}
    clock = Clock()
    over = BaseDictionaryStore(backing, True, lambda obj: 20)
    over.put(Car("1234 XYZ"))
    assert len(backing) == 2
    engine = sa.create_engine("sqlite://")
    assert SqlAlchemyStore(None, engine).engine is engine
    engine.dispose()
    assert ChainedStore([ProcessMemoryStore(False, None)]).get(Foo, {"key": clock.now}) is None


def test_a_chain_of_nothing_is_a_value_error() -> None:
    """A chain must have stores."""
    with pytest.raises(ValueError, match="at least one store"):
        ChainedStore([])
    with pytest.raises(ValueError, match="at least one store"):
        ChainedStore()


def test_a_class_in_place_of_a_store_is_an_error_that_names_it() -> None:
    """A chain is made of stores, not of their classes."""
    with pytest.raises(ValueError, match="ProcessMemoryStore is a class"):
        ChainedStore([ProcessMemoryStore, ProcessMemoryStore()])


def test_six_verbs_are_enough_to_be_in_a_chain() -> None:
    """A chain with a store that has the six verbs and nothing else can be used, released and closed."""

    class Verbs:
        def __init__(self) -> None:
            self.own = ListStore()

        def __getattr__(self, name: str) -> Any:
            if name not in ("put", "get", "delete", "batch_put", "batch_get", "batch_delete"):
                raise AttributeError(name)
            return getattr(self.own, name)

    chain = ChainedStore([ProcessMemoryStore(), Verbs()])
    foo = Foo(1)
    chain.put(foo)
    chain.release()
    assert chain.get(Foo, {"key": 1}) is foo
    chain.close()


def test_a_uri_and_an_engine_are_a_value_error() -> None:
    """A SqlAlchemyStore takes a URI or an engine, and not both."""
    engine = sa.create_engine("sqlite://")
    with pytest.raises(ValueError, match="either"):
        SqlAlchemyStore("sqlite://", engine)
    with pytest.raises(ValueError, match="either"):
        SqlAlchemyStore(uri="sqlite://", engine=engine)
    engine.dispose()


def test_a_dictionary_holds_objects_with_their_expiry_under_readable_keys() -> None:
    """Under a text with the class's and the key's name in it stands the tuple (obj, expiredate)."""
    clock = Clock()
    backing: dict[str, Any] = {}
    store = BaseDictionaryStore(dictionary=backing, lifetime_cb=lifetime_of, clock=clock)
    foo, other = Foo("abc"), Composite(1, 2, 3)
    store.put(foo)
    ((text, entry),) = backing.items()
    assert "Foo" in text
    assert "key" in text
    assert "abc" in text
    assert entry == (foo, datetime.fromtimestamp(clock.now + 20))
    store.put(other)
    assert (other, None) in backing.values()


def test_several_rows_for_one_key_are_an_error_that_names_class_and_key() -> None:
    """A declared key that several rows have raises NonUniqueKeyError(klass, key)."""
    store = SqlAlchemyStore("sqlite:///:memory:")
    store.batch_put([Twin(name="same"), Twin(name="same")])
    with pytest.raises(NonUniqueKeyError) as caught:
        store.get(Twin, {"name": "same"})
    assert caught.value.klass is Twin
    assert caught.value.key == {"name": "same"}
    assert NonUniqueKeyError(Twin, {"name": "same"}).args == (Twin, {"name": "same"})


def test_every_store_can_be_released_and_used_on() -> None:
    """release() is there on every store, and the store works after it."""
    for store in (
        ProcessMemoryStore(),
        ThreadLocalStore(),
        BaseDictionaryStore({}),
        ListStore(),
        ChainedStore([ProcessMemoryStore()]),
    ):
        store.release()
        foo = Foo(1)
        store.put(foo)
        assert store.get(Foo, {"key": 1}) is foo
        store.release()
    NullStore().release()
    sql = SqlAlchemyStore("sqlite:///:memory:")
    obj = MyMappedObject(name="one")
    sql.put(obj)
    sql.release()
    assert sql.get(MyMappedObject, {"id": obj.id}).name == "one"


def test_a_sqlalchemy_store_ignores_what_is_not_mapped() -> None:
    """Alone, a SqlAlchemyStore neither keeps objects that are not mapped nor minds them."""
    store = SqlAlchemyStore("sqlite:///:memory:")
    foo = Foo(1)
    obj = MyMappedObject(name="one")
    store.put(foo)
    store.batch_put([foo, obj])
    assert store.get(Foo, {"key": 1}) is None
    assert store.batch_get(Foo, [{"key": 1}, {"key": 2}]) == [None, None]
    assert store.get(MyMappedObject, {"id": obj.id}).name == "one"
    store.delete(foo)
    store.batch_delete([foo, obj])
    assert store.get(MyMappedObject, {"id": obj.id}) is None


def test_thread_local_objects_are_the_threads_own() -> None:
    """What one thread puts into a ThreadLocalStore another does not find."""
    from concurrent.futures import ThreadPoolExecutor

    store = ThreadLocalStore()
    foo = Foo(1)
    store.put(foo)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(store.get, Foo, {"key": 1}).result() is None
    assert store.get(Foo, {"key": 1}) is foo


def test_a_chain_gives_what_it_finds_below_to_the_stores_above() -> None:
    """A hit in a lower store is put into every store above it that missed."""
    stores = [ProcessMemoryStore(), ProcessMemoryStore(), ProcessMemoryStore()]
    foo = Foo(1)
    stores[-1].put(foo)
    assert ChainedStore(stores).get(Foo, {"key": 1}) is foo
    assert [store.get(Foo, {"key": 1}) for store in stores] == [foo, foo, foo]
    assert ChainedStore(stores).batch_get(Foo, [{"key": 1}, {"key": 2}]) == [foo, None]
