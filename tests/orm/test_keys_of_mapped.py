"""Which keys a mapped class has."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry, synonym

from stockpyle.exceptions import InvalidKeysDeclaration, UndeclaredKeyError
from stockpyle.orm.mapping import spec_of_mapped
from stockpyle.stores.sqlalchemy import SqlAlchemyStore
from tests.databases import chain_on


class Base(DeclarativeBase):
    pass


def _names_of(klass: type) -> list[tuple[str, ...]]:
    return [definition.attributes for definition in spec_of_mapped(klass).definitions]


class Found(Base):
    __tablename__ = "found"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    org: Mapped[int]
    login: Mapped[str]
    a: Mapped[int]
    b: Mapped[int]
    only_some: Mapped[str]
    folded: Mapped[str]
    plain: Mapped[str] = mapped_column(index=True)
    renamed: Mapped[str] = mapped_column("column_name", unique=True)
    __table_args__ = (
        sa.UniqueConstraint("org", "login"),
        sa.Index("ab", "b", "a", unique=True),
        sa.Index("some", "only_some", unique=True, sqlite_where=sa.text("a > 1"), postgresql_where=sa.text("a > 1")),
        sa.Index("lower_folded", sa.func.lower(sa.column("folded")), unique=True),
    )


def test_without_a_declaration_the_primary_key_and_the_unique_constraints_are_the_keys() -> None:
    """Unique columns, constraints and whole indexes are keys; partial and functional indexes are not."""
    first, *others = _names_of(Found)
    assert first == ("id",)
    assert sorted(others) == [("a", "b"), ("email",), ("login", "org"), ("renamed",)]


class CompositeKey(Base):
    __tablename__ = "composite_key"
    y: Mapped[int] = mapped_column(primary_key=True)
    x: Mapped[int] = mapped_column(primary_key=True)


def test_a_composite_primary_key_is_one_key() -> None:
    """Its attributes may be given in any order."""
    assert _names_of(CompositeKey) == [("x", "y")]
    spec = spec_of_mapped(CompositeKey)
    assert spec.key({"x": 1, "y": 2}) == spec.key({"y": 2, "x": 1})


class Declared(Base):
    __tablename__ = "declared"
    __stockpyle_keys__ = ["email", ("org", "nick")]
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    org: Mapped[int]
    login: Mapped[str] = mapped_column(unique=True)
    nick = synonym("login")


def test_a_declaration_replaces_the_unique_constraints_but_never_the_primary_key() -> None:
    """The primary key comes first even if it is not declared."""
    assert _names_of(Declared) == [("id",), ("email",), ("login", "org")]


def test_a_synonym_in_a_declaration_or_a_key_stands_for_its_column() -> None:
    """Both spellings give the same key."""
    spec = spec_of_mapped(Declared)
    assert spec.key({"org": 1, "nick": "ann"}) == spec.key({"org": 1, "login": "ann"})


def test_an_undeclared_key_names_the_declared_ones() -> None:
    """A unique column that the declaration leaves out is no key."""
    with pytest.raises(UndeclaredKeyError, match=r"Declared declares no key \{login\}; .*\{id\}, \{email\}"):
        spec_of_mapped(Declared).key({"login": "ann"})


def test_a_key_that_spells_one_column_twice_is_refused() -> None:
    """A synonym and its column together are not a key, whatever they say."""
    with pytest.raises(UndeclaredKeyError, match="nick"):
        spec_of_mapped(Declared).key({"org": 1, "nick": "ann", "login": "bob"})


@pytest.mark.parametrize("name", ["emial", "expression", "related", "method"])
def test_a_declaration_that_names_no_column_says_which_there_are(name: str) -> None:
    """A typo, an SQL expression, a relationship and a method are refused by name."""

    class Local(DeclarativeBase):
        pass

    class Other(Local):
        __tablename__ = "other"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Wrong(Local):
        __tablename__ = "wrong"
        __stockpyle_keys__ = [name]
        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str] = mapped_column()
        other_id: Mapped[int] = mapped_column(sa.ForeignKey("other.id"))
        related = sa.orm.relationship(Other)
        expression = sa.orm.column_property(email.column + "x")

        def method(self) -> None:
            pass

    with pytest.raises(InvalidKeysDeclaration, match=f"Wrong names '{name}'.*id, email, other_id"):
        spec_of_mapped(Wrong)


class Parent(Base):
    __tablename__ = "parent"
    __stockpyle_keys__ = ["code"]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "parent"}
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    code: Mapped[str] = mapped_column(unique=True)


class Child(Parent):
    __tablename__ = "child"
    __stockpyle_keys__ = ["code", "extra"]
    __mapper_args__ = {"polymorphic_identity": "child"}
    id: Mapped[int] = mapped_column(sa.ForeignKey("parent.id"), primary_key=True)
    extra: Mapped[str] = mapped_column(unique=True)


def test_a_subclass_shares_the_keys_of_its_base() -> None:
    """The primary key and an inherited alternate key are the same key under both classes."""
    parent, child = spec_of_mapped(Parent), spec_of_mapped(Child)
    assert _names_of(Child) == [("id",), ("code",), ("extra",)]
    assert parent.key({"id": 1}) == child.key({"id": 1})
    assert parent.key({"code": "x"}) == child.key({"code": "x"})


def test_mapped_classes_do_not_depend_on_their_module() -> None:
    """Keys name the table, so that a class may move."""
    key = spec_of_mapped(Found).key({"id": 5})
    assert key is not None
    assert key.text() == "stockpyle:found:id=5"


def test_a_none_in_a_key_identifies_nothing() -> None:
    """Neither an alternate key nor a composite one with a None in it is a key."""
    assert spec_of_mapped(Declared).key({"email": None}) is None
    assert spec_of_mapped(CompositeKey).key({"x": 1, "y": None}) is None


def test_a_class_may_be_mapped_after_its_first_use(sqlite_engine: sa.Engine) -> None:
    """From then on the database is its source, and what is put is written there."""

    class Late:
        __stockpyle_keys__ = ["id"]

        def __init__(self, id: int) -> None:
            self.id = id

    chain = chain_on(sqlite_engine)
    assert chain.get(Late, {"id": 5}) is None
    table = sa.Table("late", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    table.create(sqlite_engine)
    registry().map_imperatively(Late, table)
    chain.put(Late(5))
    with sqlite_engine.connect() as connection:
        assert connection.scalars(sa.select(table.c.id)).all() == [5]
    assert SqlAlchemyStore(engine=sqlite_engine).get(Late, {"id": 5}) is not None
