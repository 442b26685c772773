"""Mapped classes in memcached, as other processes find them: hierarchies, known absences, rows that are too large."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.stores import ChainedStore, SqlAlchemyStore
from tests.memcached.parts import new_prefix, store_on


class Base(DeclarativeBase):
    pass


class Vehicle(Base):
    __tablename__ = "fleet_vehicle"
    __stockpyle_keys__ = ["plate"]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    plate: Mapped[str] = mapped_column(unique=True)


class Car(Vehicle):
    __tablename__ = "fleet_car"
    __mapper_args__ = {"polymorphic_identity": "car"}
    id: Mapped[int] = mapped_column(sa.ForeignKey("fleet_vehicle.id"), primary_key=True)
    doors: Mapped[int]


class Bike(Vehicle):
    __mapper_args__ = {"polymorphic_identity": "bike"}
    gears: Mapped[int | None]


class Picture(Base):
    __tablename__ = "picture"
    id: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[bytes]


class World:
    """A database, and two processes: one writes and reads, the other only reads."""

    def __init__(self, engine: sa.Engine, address: tuple[str, int]) -> None:
        Base.metadata.create_all(engine)
        prefix = new_prefix()
        self.store, self.others = store_on(address, prefix=prefix), store_on(address, prefix=prefix)
        self.chain, self.other = (
            ChainedStore([store, SqlAlchemyStore(engine=engine)]) for store in (self.store, self.others)
        )
        self.Session = sessionmaker(engine, extension=StockpyleSessionExtension(store=self.chain))
        self.selects = 0
        sa.event.listen(engine, "before_cursor_execute", self._count)

    def _count(self, *_: object) -> None:
        self.selects += 1


@pytest.fixture
def world(sqlite_engine: sa.Engine, memcached: tuple[str, int]) -> Iterator[World]:
    """A car, a bike and a picture."""
    made = World(sqlite_engine, memcached)
    with made.Session() as session:
        session.add_all([Car(id=1, plate="C", doors=2), Bike(id=2, plate="B", gears=8), Picture(id=1, data=b"small")])
        session.commit()
    yield made
    made.chain.close()
    made.other.close()


def test_object_of_a_hierarchy_is_what_it_is_in_every_process(world: World) -> None:
    """Asked for as what it is or as its base, by each key, it comes out of memcached as what it is."""
    assert world.chain.get(Vehicle, {"plate": "C"}) is not None
    before = world.selects
    for klass, key in ((Car, {"id": 1}), (Vehicle, {"id": 1}), (Vehicle, {"plate": "C"}), (Car, {"plate": "C"})):
        car = world.other.get(klass, key)
        assert isinstance(car, Car)
        assert car.doors == 2
    for key in ({"id": 2}, {"plate": "B"}):
        bike = world.other.get(Vehicle, key)
        assert isinstance(bike, Bike)
        assert bike.gears == 8
    assert world.selects == before
    assert world.other.get(Car, {"id": 2}) is None


def test_change_of_either_table_reaches_every_process(world: World) -> None:
    """A commit that writes one of two tables of an object leaves no mixture and nothing older in memcached."""
    world.chain.get(Vehicle, {"id": 1})
    for attribute, value in (("doors", 4), ("plate", "D")):
        with world.Session() as session:
            setattr(session.get_one(Car, 1), attribute, value)
            session.commit()
        assert getattr(world.other.get(Car, {"id": 1}), attribute) == value
    assert world.other.get(Vehicle, {"plate": "C"}) is None
    assert world.other.get(Vehicle, {"plate": "D"}).doors == 4


def test_known_absence_ends_with_the_insert(world: World) -> None:
    """That there is no such object is known in every process, until it is inserted."""
    assert world.chain.get(Picture, {"id": 2}) is None
    before = world.selects
    assert world.other.get(Picture, {"id": 2}) is None
    assert world.selects == before
    with world.Session() as session:
        session.add(Picture(id=2, data=b"new"))
        session.commit()
    assert world.other.get(Picture, {"id": 2}).data == b"new"


def test_commit_of_a_row_that_is_too_large_leaves_nothing_older(world: World) -> None:
    """It is counted, every process reads it from the database, and it is cached again when it is small enough."""
    large = bytes(2**21)
    for data, oversize in ((large, 1), (b"small again", 1)):
        with world.Session() as session:
            session.get_one(Picture, 1).data = data
            session.commit()
        assert world.store.stats.oversize == oversize
        assert world.other.get(Picture, {"id": 1}).data == data
    before = world.selects
    assert world.other.get(Picture, {"id": 1}).data == b"small again"
    assert world.selects == before
