"""Queries of classes whose rows are in several tables, or in one with others."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.declarative import ConcreteBase
from sqlalchemy.orm import DeclarativeBase, Mapped, configure_mappers, mapped_column, relationship

from stockpyle.exceptions import InvalidQuery, UnsupportedOperation
from stockpyle.stores import BaseDictionaryStore, ProcessMemoryStore, SqlAlchemyStore
from tests.databases import chain_on, save


class Base(DeclarativeBase):
    pass


class Work(Base):
    __tablename__ = "works"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "work"}
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    title: Mapped[str | None]
    author_id: Mapped[int | None] = mapped_column(sa.ForeignKey("authors.id"))
    author: Mapped[Author | None] = relationship()


class Book(Work):
    __tablename__ = "books"
    __mapper_args__ = {"polymorphic_identity": "book"}
    id: Mapped[int] = mapped_column("book_id", sa.ForeignKey("works.id"), primary_key=True)
    pages: Mapped[int | None]


class Song(Work):
    __mapper_args__ = {"polymorphic_identity": "song"}
    seconds: Mapped[int | None]


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    works: Mapped[list[Work]] = relationship(viewonly=True)
    books: Mapped[list[Book]] = relationship(viewonly=True)


class Shape(ConcreteBase, Base):
    __tablename__ = "shapes"
    __mapper_args__ = {"polymorphic_identity": "shape", "concrete": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]


class Round(Shape):
    __tablename__ = "rounds"
    __mapper_args__ = {"polymorphic_identity": "round", "concrete": True}
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    radius: Mapped[int | None]


class Part(Base):
    __tablename__ = "parts"
    __stockpyle_keys__ = [("b", "a")]
    b: Mapped[str] = mapped_column(primary_key=True)
    a: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def filled(engine: sa.Engine) -> sa.Engine:
    """An engine on a database with an author of a book and a song, and other works."""
    configure_mappers()
    Base.metadata.create_all(engine)
    save(engine, [Author(id=1, name="Ann"), Author(id=2)])
    save(
        engine, [Work(id=1, title="a"), Book(id=2, title="b", pages=3, author_id=1), Song(id=3, title="c", author_id=1)]
    )
    save(engine, [Shape(id=1, name="x"), Round(id=2, name="y", radius=5)])
    save(engine, [Part(b=b, a=a) for b, a in (("x", 2), ("x", 1), ("a", 9))])
    return engine


def found(query: Any) -> list[Any]:
    """Return the types and ids of what a query finds."""
    return [(type(obj), obj.id) for obj in query]


def test_a_query_finds_subclasses(filled: sa.Engine) -> None:
    """A query of a class finds the objects of its subclasses, as themselves; in memory, too."""
    database, chain = SqlAlchemyStore(engine=filled), chain_on(filled)
    stores: list[Any] = [ProcessMemoryStore(), BaseDictionaryStore(), database, chain]
    for store in stores[:2]:
        store.batch_put(database.query(Work))
    for store in stores:
        assert found(store.query(Work)) == [(Work, 1), (Book, 2), (Song, 3)]
        assert found(store.query(Work).where_not(title="b")) == [(Work, 1), (Song, 3)]
        assert found(store.query(Book)) == found(store.query(Book).where(pages__gt=2, title="b")) == [(Book, 2)]
        assert found(store.query(Song).order_by("-title")) == [(Song, 3)]
        assert store.query(Song).count() == 1
        assert store.query(Book).values("id", "pages") == [(2, 3)]
        with pytest.raises(InvalidQuery, match="Work has no attribute 'pages'"):
            store.query(Work).where(pages=3)


def test_relationships_of_hierarchies(filled: sa.Engine) -> None:
    """Paths begin at a subclass, and lead to subclasses only where the relationship does."""
    store = SqlAlchemyStore(engine=filled)
    assert found(store.query(Book).where(author__name="Ann").order_by("author__name")) == [(Book, 2)]
    assert found(store.query(Author).where(works__title="c")) == [(Author, 1)]
    assert found(store.query(Author).where(books__title="c")) == []
    assert found(store.query(Author).where(books__pages=3, works__author__name="Ann")) == [(Author, 1)]
    assert found(store.query(Author).where_not(books__title="b")) == [(Author, 2)]


def test_a_table_for_each_class(filled: sa.Engine) -> None:
    """The classes of a concrete base are queried in the UNION of their tables."""
    store = SqlAlchemyStore(engine=filled)
    assert found(store.query(Shape)) == [(Shape, 1), (Round, 2)]
    assert found(store.query(Shape).where(name__gte="y")) == found(store.query(Round)) == [(Round, 2)]
    assert store.query(Shape).order_by("-name").values("name") == ["y", "x"]
    assert store.query(Shape)[1:].count() == 1


def test_composite_identities(filled: sa.Engine) -> None:
    """What is not sorted is sorted by the attributes of its identity, in the order of their names."""
    database = SqlAlchemyStore(engine=filled)
    memory = ProcessMemoryStore()
    memory.batch_put(database.query(Part))
    for store in (database, memory, chain_on(filled)):
        assert store.query(Part).values("a", "b") == [(1, "x"), (2, "x"), (9, "a")]
        assert store.query(Part).order_by("b").values("a") == [9, 1, 2]
    assert chain_on(filled).query(Part).where(b="x").delete() == 2
    assert database.query(Part).count() == 1


def test_the_database_in_memory() -> None:
    """An SQLite database in memory gets its tables, and is queried on its only connection."""
    store = SqlAlchemyStore("sqlite:///:memory:")
    assert store.query(Author).first() is None
    store.put(Author(id=5, name="Eve"))
    assert store.query(Author).where(name__matches="^E").one().id == 5
    for author in store.query(Author):
        store.put(Author(id=author.id + 1, name="Fay"))
    assert store.query(Author).delete() == 2


def test_a_class_that_is_not_mapped() -> None:
    """A SqlAlchemyStore says that it has no objects of it."""

    class Plain:
        __stockpyle_keys__ = ["id"]

    with pytest.raises(UnsupportedOperation, match="not mapped"):
        SqlAlchemyStore("sqlite:///:memory:").query(Plain)
