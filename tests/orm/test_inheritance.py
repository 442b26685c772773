"""Hierarchies: one table, joined tables, a table a class."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.declarative import AbstractConcreteBase, ConcreteBase
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests.databases import chain_on, get_cached, save, traffic

pytestmark = pytest.mark.usefixtures("way")


class Base(DeclarativeBase):
    pass


class Vehicle(Base):
    __tablename__ = "vehicle"
    __stockpyle_keys__ = ["plate"]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    plate: Mapped[str] = mapped_column(unique=True)


class Car(Vehicle):
    __tablename__ = "car"
    __stockpyle_keys__ = ["plate", "chassis"]
    __mapper_args__ = {"polymorphic_identity": "car"}
    id: Mapped[int] = mapped_column("car_id", sa.ForeignKey("vehicle.id"), primary_key=True)
    doors: Mapped[int]
    chassis: Mapped[str] = mapped_column(unique=True)


class Cabrio(Car):
    __mapper_args__ = {"polymorphic_identity": "cabrio"}
    roof: Mapped[str | None]


class Truck(Vehicle):
    __tablename__ = "truck"
    __mapper_args__ = {"polymorphic_identity": "truck"}
    id: Mapped[int] = mapped_column(sa.ForeignKey("vehicle.id"), primary_key=True)
    load: Mapped[int]


class Pet(Base):
    __tablename__ = "pet"
    __stockpyle_keys__ = ["name"]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "pet"}
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str] = mapped_column(unique=True)


class Dog(Pet):
    __stockpyle_keys__ = ["name", "chip"]
    __mapper_args__ = {"polymorphic_identity": "dog"}
    chip: Mapped[int | None] = mapped_column(unique=True)


class Puppy(Dog):
    __mapper_args__ = {"polymorphic_identity": "puppy"}
    age: Mapped[int | None]


class Cat(Pet):
    __mapper_args__ = {"polymorphic_identity": "cat"}
    lives: Mapped[int | None]


CASES: list[tuple[type, type, type, type, dict[str, Any], dict[str, Any]]] = [
    (Vehicle, Car, Cabrio, Truck, {"plate": "P", "doors": 2, "chassis": "C", "roof": "soft"}, {"chassis": "C"}),
    (Pet, Dog, Puppy, Cat, {"name": "Rex", "chip": 7, "age": 1}, {"chip": 7}),
]
by_case = pytest.mark.parametrize(("top", "middle", "leaf", "other", "values", "key"), CASES, ids=["joined", "single"])


@by_case
def test_a_subclass_is_found_as_each_of_its_bases(
    engine: sa.Engine, top: Any, middle: Any, leaf: Any, other: Any, values: dict[str, Any], key: dict[str, Any]
) -> None:
    """get(Base, key) gives an object of the row's own class, all its columns loaded, by one SELECT."""
    Base.metadata.create_all(engine)
    save(engine, [leaf(id=1, **values)])
    for klass in (top, middle, leaf):
        chain = chain_on(engine)
        with traffic(engine) as seen:
            found = chain.get(klass, {"id": 1})
        assert len(seen.of("SELECT")) == 1
        assert type(found) is leaf
        assert sa.inspect(found).detached
        assert {name: getattr(found, name) for name in values} == values
        again = get_cached(chain, engine, klass, {"id": 1})
        assert type(again) is leaf
        assert {name: getattr(again, name) for name in values} == values
        with traffic(engine) as seen:
            assert [type(chain.get(each, {"id": 1})) for each in (top, middle, leaf)] == [leaf] * 3
            assert chain.get(other, {"id": 1}) is None
        assert seen.statements == []


@by_case
def test_an_object_of_another_subclass_is_not_found(
    engine: sa.Engine, top: Any, middle: Any, leaf: Any, other: Any, values: dict[str, Any], key: dict[str, Any]
) -> None:
    """get(Sub, key) is None for the key of another sub, and that misleads nobody else."""
    Base.metadata.create_all(engine)
    save(engine, [leaf(id=1, **values)])
    chain = chain_on(engine)
    for _ in range(2):
        assert chain.get(other, {"id": 1}) is None
        assert type(chain.get(middle, {"id": 1})) is leaf
        assert chain.get(other, {"id": 1}) is None


@by_case
def test_keys_of_a_subclass_and_of_its_base_lead_to_one_record(
    engine: sa.Engine, top: Any, middle: Any, leaf: Any, other: Any, values: dict[str, Any], key: dict[str, Any]
) -> None:
    """What one class's key has cached, the others' keys find; a move of the subclass's key is seen by all."""
    Base.metadata.create_all(engine)
    chain = chain_on(engine)
    chain.put(leaf(id=1, **values))
    assert get_cached(chain, engine, middle, key).id == 1
    assert get_cached(chain, engine, leaf, key).id == 1
    moved = chain.get(top, {"id": 1})
    (name,) = key
    setattr(moved, name, 99)
    chain.put(moved)
    assert chain.get(middle, key) is None
    assert str(getattr(chain.get(leaf, {name: 99}), name)) == "99"
    assert str(getattr(chain.get(top, {"id": 1}), name)) == "99"
    chain.delete(moved)
    for klass in (top, middle, leaf):
        assert chain.get(klass, {"id": 1}) is None


@by_case
def test_one_batch_of_a_base_is_one_select(
    engine: sa.Engine, top: Any, middle: Any, leaf: Any, other: Any, values: dict[str, Any], key: dict[str, Any]
) -> None:
    """Objects of several classes come from one statement."""
    Base.metadata.create_all(engine)
    base_key = "plate" if top is Vehicle else "name"
    extra = {"load": 3} if other is Truck else {"lives": 9}
    save(engine, [leaf(id=1, **values), top(id=2, **{base_key: "b"}), other(id=3, **{base_key: "c"}, **extra)])
    chain = chain_on(engine)
    with traffic(engine) as seen:
        found = chain.batch_get(top, [{"id": i} for i in (3, 2, 1, 4)])
    assert len(seen.of("SELECT")) == 1
    assert [type(each) for each in found] == [other, top, leaf, type(None)]


@by_case
def test_a_session_gets_the_rows_own_class(
    engine: sa.Engine, top: Any, middle: Any, leaf: Any, other: Any, values: dict[str, Any], key: dict[str, Any]
) -> None:
    """With session= the instance is the one that the session itself would have for the row."""
    Base.metadata.create_all(engine)
    save(engine, [leaf(id=1, **values)])
    chain = chain_on(engine)
    with Session(engine) as session:
        found = get_cached(chain, engine, top, {"id": 1}, session=session)
        assert session.get(leaf, 1) is found
        assert chain.get(other, {"id": 1}, session=session) is None
        found.chassis = found.chip = 98
        assert chain.get(middle, {next(iter(key)): 98}, session=session) is found


class Employee(Base):
    __tablename__ = "employee"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Manager(Employee):
    __tablename__ = "manager"
    __mapper_args__ = {"concrete": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    level: Mapped[int]


def test_concrete_classes_do_not_share_identities(engine: sa.Engine) -> None:
    """Each class reads its own table, and the same primary key is another object in each."""
    Base.metadata.create_all(engine)
    save(engine, [Employee(id=1, name="ann"), Manager(id=1, name="bob", level=2)])
    chain = chain_on(engine)
    for _ in range(2):
        assert chain.get(Employee, {"id": 1}).name == "ann"  # type: ignore[union-attr]
        assert chain.get(Manager, {"id": 1}).level == 2  # type: ignore[union-attr]
    chain.delete(chain.get(Manager, {"id": 1}))
    assert chain.get(Manager, {"id": 1}) is None
    assert get_cached(chain, engine, Employee, {"id": 1}).name == "ann"


class Shape(ConcreteBase, Base):
    __tablename__ = "shape"
    __mapper_args__ = {"polymorphic_identity": "shape", "concrete": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Circle(Shape):
    __tablename__ = "circle"
    __mapper_args__ = {"polymorphic_identity": "circle", "concrete": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    radius: Mapped[int]


class Thing(AbstractConcreteBase, Base):
    strict_attrs = True


class Stone(Thing):
    __tablename__ = "stone"
    __mapper_args__ = {"polymorphic_identity": "stone", "concrete": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    weight: Mapped[int]


class Leaf(Thing):
    __tablename__ = "leaf"
    __mapper_args__ = {"polymorphic_identity": "leaf", "concrete": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    color: Mapped[str]


@pytest.mark.parametrize(
    ("base", "sub", "values"), [(Shape, Circle, {"name": "c", "radius": 2}), (Thing, Stone, {"weight": 3})]
)
def test_a_concrete_base_with_a_union_finds_its_subclasses(
    engine: sa.Engine, base: Any, sub: Any, values: dict[str, Any]
) -> None:
    """get(Base, pk) reads the union of the tables and gives the subclass's object, which is cached as itself only."""
    Base.metadata.create_all(engine)
    save(engine, [sub(id=5, **values)])
    chain = chain_on(engine)
    for _ in range(2):
        found = chain.get(base, {"id": 5})
        assert type(found) is sub
        assert {name: getattr(found, name) for name in values} == values
    assert {name: getattr(get_cached(chain, engine, sub, {"id": 5}), name) for name in values} == values
    chain.delete(sub(id=5))
    assert chain.get(base, {"id": 5}) is None


class Plain(Base):
    __tablename__ = "plain"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Extended(Plain):
    __tablename__ = "extended"
    id: Mapped[int] = mapped_column(sa.ForeignKey("plain.id"), primary_key=True)
    more: Mapped[int]


def test_inheritance_without_a_discriminator(engine: sa.Engine) -> None:
    """A row is then an object of each class that is asked for it, and a write through one is seen through the other."""
    Base.metadata.create_all(engine)
    save(engine, [Extended(id=1, name="ann", more=2)])
    chain = chain_on(engine)
    for _ in range(2):
        assert type(chain.get(Plain, {"id": 1})) is Plain
        assert type(chain.get(Extended, {"id": 1})) is Extended
    chain.put(Extended(id=1, name="bob", more=3))
    assert chain.get(Plain, {"id": 1}).name == "bob"  # type: ignore[union-attr]
    chain.put(Plain(id=1, name="eve"))
    assert chain.get(Extended, {"id": 1}).name == "eve"  # type: ignore[union-attr]


def test_a_subclass_defined_after_the_first_get_is_known(engine: sa.Engine) -> None:
    """The classes of a hierarchy may grow while the process runs."""

    class Late(DeclarativeBase):
        pass

    class Animal(Late):
        __tablename__ = "animal"
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]

    Late.metadata.create_all(engine)
    chain = chain_on(engine)
    assert chain.get(Animal, {"id": 1}) is None

    class Bird(Animal):
        __mapper_args__ = {"polymorphic_identity": "bird"}

    save(engine, [Bird(id=2)])
    assert type(chain.get(Animal, {"id": 2})) is Bird
