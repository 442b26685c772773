"""The short way to what process memory holds: it answers as the long one does, or leaves it to that."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stockpyle.classes import spec_of
from stockpyle.coherence.debts import Debt
from stockpyle.coherence.writer import LOCK_SECONDS
from stockpyle.exceptions import InvalidKey, InvalidKeyType, UndeclaredKeyError
from stockpyle.records import Found
from stockpyle.stores import ChainedStore, ProcessMemoryStore, SqlAlchemyStore
from stockpyle.testing import Clock


class Car:
    """A plain object with three keys."""

    __stockpyle_keys__: ClassVar = ["id", "plate", ("town", "number")]

    def __init__(self, ident: Any, plate: str = "a", town: str = "x", number: int = 1) -> None:
        self.id, self.plate, self.town, self.number = ident, plate, town, number


class Truck(Car):
    """A Car, too."""


KEYS: list[dict[str, Any]] = [{"id": 1}, {"plate": "a"}, {"town": "x", "number": 1}, {"number": 1, "town": "x"}]


class Counting(ProcessMemoryStore):
    """Counts how often the long way is taken. It has a `_fetch` of its own, and no `read`."""

    fetched = 0

    def _fetch(self, klass: type, keys: Any) -> list[Any]:
        self.fetched += len(keys)
        return super()._fetch(klass, keys)


@pytest.fixture
def clock() -> Clock:
    """The store's."""
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Counting:
    """A store with a car that has been asked for by each spelling of its keys."""
    store = Counting(clock=clock, lifetime=10)
    car = Car(1)
    store.put(car)
    assert all(store.get(Car, key) is car for key in KEYS)
    assert store.fetched == len(KEYS)
    return store


@pytest.mark.parametrize("key", KEYS)
def test_the_second_hit_is_short(store: Counting, key: dict[str, Any]) -> None:
    """What has once been found by a spelling of a key is found by it without the long way, and counted."""
    before, hits = store.fetched, store.stats.hits
    assert store.get(Car, key).id == 1  # type: ignore[union-attr]
    assert store.batch_get(Car, [key, key])[1].id == 1  # type: ignore[union-attr]
    assert (store.fetched, store.stats.hits) == (before, hits + 3)


def test_a_batch_goes_the_long_way_for_the_rest(store: Counting) -> None:
    """Of a batch only what is not found goes the long way, and all come in the order they were asked for."""
    store.put(Car(2, "b", "x", 2))
    before = store.fetched
    assert [car and car.id for car in store.batch_get(Car, [{"plate": "c"}, {"id": 1}, {"id": 2}])] == [None, 1, 2]
    assert store.fetched == before + 1


@pytest.mark.parametrize("value", [1.0, True, Decimal(1)])
def test_equal_values_are_the_same_key(store: Counting, value: Any) -> None:
    """Key values that Python calls equal lead to the same object."""
    assert store.get(Car, {"id": value}) is store.get(Car, {"id": 1})


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ({"id": [1]}, InvalidKeyType),
        ({"id": float("nan")}, InvalidKeyType),
        ({"name": 1}, UndeclaredKeyError),
        (["id"], InvalidKey),
        ("id", InvalidKey),
        (5, InvalidKey),
    ],
)
def test_bad_keys_are_told(store: Counting, key: Any, error: type[Exception]) -> None:
    """What is no key raises the same error as ever."""
    with pytest.raises(error):
        store.get(Car, key)


def delete(store: Counting) -> None:
    """Delete it."""
    store.delete(Car(1))


def expire(store: Counting) -> None:
    """Let its lifetime end."""
    clock: Any = store.clock
    clock.advance(10)


def drop(store: Counting) -> None:
    """Drop its class."""
    store.invalidate(Car)


def lock(store: Counting) -> None:
    """Lock it as a writer does before a commit."""
    key = spec_of(Car).key({"id": 1})
    assert key is not None
    store.lock([key], LOCK_SECONDS)


def fork(store: Counting) -> None:
    """Be a child process in which a thread of the parent has held the mutex."""
    store._table._mutex = Held()  # type: ignore[assignment]
    store._table.after_fork()


class Held:
    """A mutex of another thread's."""

    def acquire(self, *, blocking: bool) -> bool:
        """Fail."""
        return False


@pytest.mark.parametrize("gone", [delete, expire, drop, lock, fork])
@pytest.mark.parametrize("key", KEYS)
def test_what_is_gone_is_not_found(store: Counting, gone: Callable[[Counting], None], key: dict[str, Any]) -> None:
    """An object that is deleted, expired, dropped with its class or locked is not handed out."""
    gone(store)
    assert store.get(Car, key) is None


def test_what_is_evicted_is_not_found() -> None:
    """An entry that has made room for another is gone for the short way, too; and its hits keep one from eviction."""
    store = Counting(maxsize=2)
    cars = [Car(i, str(i), "x", i) for i in range(3)]
    store.batch_put(cars[:2])
    for _ in range(2):
        assert store.get(Car, {"id": 0}) is cars[0]
    store.put(cars[2])
    assert [store.get(Car, {"id": i}) for i in range(3)] == [cars[0], None, cars[2]]


def test_an_object_that_was_changed_in_place_is_not_taken_for_another(store: Counting) -> None:
    """An object is handed out under a key only as long as it has the key's values itself."""
    car = store.get(Car, {"id": 1})
    assert car is not None
    car.plate = "b"
    assert store.get(Car, {"plate": "a"}) is None
    assert store.get(Car, {"id": 1}) is car
    del car.id
    assert store.get(Car, {"id": 1}) is None


def test_a_subclass_is_found_as_its_base() -> None:
    """In a polymorphic store a Truck is found as a Car, and a Car not as a Truck, also the second time."""
    store = Counting(polymorphic=True)
    truck = Truck(1)
    store.put(truck)
    for _ in range(2):
        assert store.get(Car, {"id": 1}) is truck
        assert store.get(Truck, {"id": 1}) is truck
    store.put(Car(1))
    for _ in range(2):
        assert type(store.get(Car, {"id": 1})) is Car
        assert store.get(Truck, {"id": 1}) is truck


def test_a_batch_get_of_ones_own_is_asked() -> None:
    """A subclass with a batch_get() of its own, and no get(), is asked every time; so is a subclass of it."""

    class Own(ProcessMemoryStore):
        batches = 0

        def batch_get(self, *args: Any) -> Any:
            self.batches += 1
            return super().batch_get(*args)

    class OfThat(Own):
        pass

    for store in (Own(), OfThat()):
        store.put(Car(1))
        for _ in range(3):
            assert store.get(Car, {"id": 1}) is not None
        assert store.get({"id": 1}) is not None
        assert store.batches == 4


def test_a_read_of_ones_own_is_asked() -> None:
    """A subclass with a read() of its own is asked every time."""

    class Own(ProcessMemoryStore):
        reads = 0

        def read(self, keys: Any, *, lease: bool = True) -> list[Found]:
            self.reads += 1
            return super().read(keys, lease=lease)

    store = Own()
    store.put(Car(1))
    for _ in range(3):
        store.get(Car, {"id": 1})
    assert store.reads == 3


class Folded(str):
    """A str that equals others by an equality of its own."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.lower() == other.lower()

    def __hash__(self) -> int:
        return hash(self.lower())


class Base(DeclarativeBase):
    """Of the classes that are mapped."""


class Named(Base):
    """Has keys of text: its identity, another, and one of two."""

    __tablename__ = "named"
    __stockpyle_keys__: ClassVar = ["id", "nick", ("flag", "nick")]

    id: Mapped[str] = mapped_column(primary_key=True)
    nick: Mapped[str] = mapped_column(unique=True)
    flag: Mapped[bool]


class Flagged(Base):
    """Its identity is true or false."""

    __tablename__ = "flagged"

    id: Mapped[bool] = mapped_column(primary_key=True)


class Pair(Base):
    """Its identity is of two."""

    __tablename__ = "pair"

    flag: Mapped[bool] = mapped_column(primary_key=True)
    nick: Mapped[str] = mapped_column(primary_key=True)


class Numbered(Base):
    """Its identity is a number."""

    __tablename__ = "numbered"

    id: Mapped[int] = mapped_column(primary_key=True)


class Plain:
    """Is not mapped."""

    __stockpyle_keys__: ClassVar = ["id", ("id", "flag"), ("flag", "id", "town")]

    def __init__(self, ident: Any) -> None:
        self.id, self.flag, self.town = ident, True, "ann"


NUMBERS = [1, True, 1.0, Decimal(1), Fraction(1), 1 + 0j, "1", b"1", "x", None]
TEXTS = ["ann", Folded("ann"), Folded("ANN"), "ANN", b"ann", 1, None]
THREE = {"id": "ann", "flag": True, "town": "ann"}
ASKED: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    *[(Named, {"id": "ann"}, {"id": text}) for text in TEXTS],
    *[(Named, {"nick": "ann"}, {"nick": text}) for text in TEXTS],
    *[(Named, {"flag": True, "nick": "ann"}, {"flag": True, "nick": text}) for text in TEXTS],
    *[(Named, {"flag": True, "nick": "ann"}, {"flag": number, "nick": "ann"}) for number in NUMBERS],
    *[(Flagged, {"id": True}, {"id": number}) for number in NUMBERS],
    *[(Pair, {"flag": True, "nick": "ann"}, {"flag": number, "nick": "ann"}) for number in NUMBERS],
    *[(Pair, {"flag": True, "nick": "ann"}, {"flag": True, "nick": text}) for text in TEXTS],
    *[(Numbered, {"id": 1}, {"id": number}) for number in NUMBERS],
    *[(Plain, {"id": "ann"}, {"id": text}) for text in TEXTS],
    *[(Plain, {"id": "ann", "flag": True}, {"id": text, "flag": True}) for text in TEXTS],
    *[(Plain, {**THREE, "id": "ann"}, {**THREE, "id": text}) for text in TEXTS],
    *[(Plain, {**THREE, "town": "ann"}, {**THREE, "town": text}) for text in TEXTS],
]


def chain_with_rows() -> ChainedStore:
    """Return a memory before a database with an object of each class."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    chain = ChainedStore([ProcessMemoryStore(), SqlAlchemyStore(engine=engine)])
    chain.batch_put([Named(id="ann", nick="ann", flag=True), Flagged(id=True), Pair(flag=True, nick="ann")])
    chain.put(Numbered(id=1))
    return chain


def plain_memory() -> ProcessMemoryStore:
    """Return a memory with an object that is not mapped."""
    memory = ProcessMemoryStore()
    memory.put(Plain("ann"))
    return memory


def told(look: Callable[[], Any]) -> Any:
    """Return whether an object is found, or the kind of error."""
    try:
        return look() is not None
    except InvalidKey as error:
        return type(error)


@pytest.mark.parametrize(("klass", "known", "asked"), ASKED)
def test_a_value_is_as_good_when_warm_as_when_cold(klass: Any, known: dict[str, Any], asked: dict[str, Any]) -> None:
    """What a value of another type finds, or which error it is, does not depend on what has been found before."""
    make = plain_memory if klass is Plain else chain_with_rows
    cold = told(lambda: make().get(klass, asked))
    store = make()
    for _ in range(2):
        assert store.get(klass, known) is not None
    assert told(lambda: store.get(klass, asked)) == cold
    assert told(lambda: store.batch_get(klass, [asked])[0]) == cold


def test_a_store_that_owes_is_not_believed() -> None:
    """A chain does not look into a memory that could not be told of a change."""
    memory = ProcessMemoryStore()
    below = ProcessMemoryStore()
    chain = ChainedStore([memory, below])
    chain.put(Car(1))
    for _ in range(2):
        assert chain.get(Car, {"id": 1}) is not None
    below.delete(Car(1))
    assert chain.get(Car, {"id": 1}) is not None
    key = spec_of(Car).key({"id": 1})
    memory.guards.parts[0].owe([Debt(key, left=False, seconds=LOCK_SECONDS)])
    assert chain.get(Car, {"id": 1}) is None


def test_chain_counts_hits_twice() -> None:
    """A hit counts for the chain and for the store that has it."""
    memory = ProcessMemoryStore()
    chain = ChainedStore([memory, ProcessMemoryStore()])
    chain.put(Car(1))
    for _ in range(3):
        chain.get(Car, {"id": 1})
    # what the first of them has found came from below
    assert (chain.stats.hits, memory.stats.hits) == (3, 2)
