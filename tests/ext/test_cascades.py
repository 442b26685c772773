"""ON DELETE and ON UPDATE: rows that the database itself changes, and that no session sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from tests.ext.worlds import World


class Base(DeclarativeBase):
    """What the classes here are declared on."""


likes = sa.Table(
    "likes",
    Base.metadata,
    sa.Column("author_id", sa.ForeignKey("authors.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("book_id", sa.ForeignKey("books.id", ondelete="CASCADE"), primary_key=True),
)


class Author(Base):
    """Has books, which go with it, and a prize that stays."""

    __tablename__ = "authors"
    __stockpyle_keys__: ClassVar = ["id", "name"]

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    books: Mapped[list[Book]] = relationship(back_populates="author", passive_deletes=True, cascade="all, delete")
    liked: Mapped[list[Book]] = relationship(secondary=likes, passive_deletes=True)


class Book(Base):
    """Goes with its author."""

    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("authors.id", ondelete="CASCADE", onupdate="CASCADE"))
    author: Mapped[Author] = relationship(back_populates="books")


class Page(Base):
    """Goes with its book, and so with the book's author."""

    __tablename__ = "pages"

    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int] = mapped_column(sa.ForeignKey("books.id", ondelete="CASCADE"))


class Prize(Base):
    """Outlives who has got it, and follows changes of the name."""

    __tablename__ = "prizes"
    __stockpyle_keys__: ClassVar = ["id", "author_name"]

    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int | None] = mapped_column(sa.ForeignKey("authors.id", ondelete="SET NULL", onupdate="SET NULL"))
    author_name: Mapped[str | None] = mapped_column(
        sa.ForeignKey("authors.name", ondelete="SET NULL", onupdate="CASCADE"), unique=True
    )


class Shop(Base):
    """Refers to nobody."""

    __tablename__ = "shops"

    id: Mapped[int] = mapped_column(primary_key=True)


class Place(Base):
    """The base of a joined inheritance."""

    __tablename__ = "venues"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "place"}


class Bar(Place):
    """Its second row goes with its first."""

    __tablename__ = "venue_bars"

    id: Mapped[int] = mapped_column(sa.ForeignKey("venues.id", ondelete="CASCADE"), primary_key=True)
    __mapper_args__: ClassVar = {"polymorphic_identity": "bar"}


@pytest.fixture
def library(world: World) -> World:
    """Two authors with all that refers to them, in the database and in the cache; SQLite minds foreign keys."""
    if world.engine.dialect.name == "sqlite":
        for engine in (world.engine, world.outside):
            event.listen(engine, "connect", lambda raw, _: raw.execute("pragma foreign_keys=on"))
        world.engine.dispose()
    Base.metadata.create_all(world.outside)
    for i in (1, 2):
        world.add(Author(id=i, name=f"a{i}"))
        world.add(Book(id=i, author_id=i), Prize(id=i, author_id=i, author_name=f"a{i}"), Shop(id=i))
        world.add(Page(id=i, book_id=i))
        for klass in (Author, Book, Page, Prize, Shop):
            world.warm(klass, {"id": i})
        world.warm(Prize, {"author_name": f"a{i}"}, {"author_name": f"b{i}"})
    return world


DELETES: dict[str, Callable[[Session], Any]] = {
    "unit of work": lambda s: s.delete(s.get_one(Author, 1)),
    "orm": lambda s: s.execute(sa.delete(Author).where(Author.id == 1)),
    "core": lambda s: s.execute(Author.__table__.delete().where(Author.__table__.c.name == "a1")),
    "returning": lambda s: s.scalars(sa.delete(Author).where(Author.name == "a1").returning(Author.id)).all(),
    "text": lambda s: s.execute(sa.text("delete from authors where id = 1")),
    "driver": lambda s: s.connection().exec_driver_sql("delete from authors where id = 1"),
}


@pytest.mark.parametrize("how", DELETES)
def test_on_delete(library: World, how: str) -> None:
    """What is deleted or set to NULL with an object, at whatever distance, is dropped; other classes are held."""
    with library.Session() as session:
        DELETES[how](session)
        session.commit()
    assert library.truth(Page, {"id": 1}) is None
    assert library.holds(Shop, {"id": 1})
    library.check()


def test_on_delete_rolled_back(library: World) -> None:
    """A delete that is rolled back drops nothing of what refers to the object."""
    with library.Session() as session:
        session.delete(session.get_one(Author, 1))
        session.flush()
        session.rollback()
    assert all(library.holds(klass, {"id": 1}) for klass in (Author, Book, Page, Prize))
    library.check()


UPDATES: dict[str, Callable[[Session], Any]] = {
    "unit of work": lambda s: setattr(s.get_one(Author, 1), "name", "b1"),
    "unit of work, by SQL": lambda s: setattr(s.get_one(Author, 1), "name", sa.func.lower("B1")),
    "orm": lambda s: s.execute(sa.update(Author).where(Author.id == 1).values(name="b1")),
    "by key": lambda s: s.execute(sa.update(Author), [{"id": 1, "name": "b1"}]),
    "text": lambda s: s.execute(sa.text("update authors set name = 'b1' where id = 1")),
}


@pytest.mark.parametrize("how", UPDATES)
def test_on_update(library: World, how: str) -> None:
    """What follows a changed column is dropped; what refers to other columns of the object is held."""
    with library.Session() as session:
        UPDATES[how](session)
        session.commit()
    assert library.truth(Prize, {"id": 1})["author_name"] == "b1"  # type: ignore[index]
    if how != "text":
        assert library.holds(Book, {"id": 1})
    library.check()


def test_on_update_of_a_primary_key(library: World) -> None:
    """Where a primary key changes, so do the rows that refer to it."""
    with library.Session() as session:
        session.execute(sa.update(Author).where(Author.id == 1).values(id=5))
        session.commit()
    assert library.truth(Book, {"id": 1})["author_id"] == 5  # type: ignore[index]
    library.check()


def test_an_association_table(library: World) -> None:
    """Rows of an association table are in no record: writing them drops nothing."""
    with library.Session() as session:
        author = session.get_one(Author, 1)
        author.liked.append(session.get_one(Book, 2))
        session.commit()
        author.liked.clear()
        session.commit()
        session.execute(sa.insert(likes), [{"author_id": 1, "book_id": 1}, {"author_id": 2, "book_id": 1}])
        session.execute(sa.delete(likes))
        session.commit()
    assert all(library.holds(klass, {"id": i}) for klass in (Author, Book) for i in (1, 2))
    library.check()


def test_a_session_reads_what_its_delete_has_taken_along(library: World) -> None:
    """Within the transaction, what went with a deleted object is asked of the database, not of a cache."""
    with library.Session() as session:
        session.execute(sa.delete(Author).where(Author.id == 1))
        assert library.chain.get(Book, {"id": 1}, session=session) is None
        assert library.chain.get(Prize, {"id": 1}, session=session).author_name is None
        session.rollback()
    library.check()


def test_the_rows_of_one_object_are_no_others(library: World) -> None:
    """An object in two tables is deleted: that one refers to the other, and goes with it, concerns no other object."""
    library.add(Bar(id=1), Bar(id=2))
    library.memory.keys.clear()
    with library.Session() as session, session.begin():
        session.delete(session.get_one(Place, 1))
    assert [key for batch in library.memory.keys for key in batch if key.is_epoch] == []
    assert library.chain.get(Bar, {"id": 1}) is None


def test_columns_that_have_other_keys(world: World) -> None:
    """A foreign key names its column by the key in the table's collection, an UPDATE by the name: both are one."""

    class Own(DeclarativeBase):
        """What the classes here are declared on."""

    class Town(Own):
        """Is called by its code."""

        __tablename__ = "cascade_towns"

        id: Mapped[int] = mapped_column(primary_key=True)
        code: Mapped[str] = mapped_column("Town Code", key="town_key", unique=True)

    class Street(Own):
        """Follows the code of its town."""

        __tablename__ = "cascade_streets"

        id: Mapped[int] = mapped_column(primary_key=True)
        town: Mapped[str] = mapped_column(sa.ForeignKey("cascade_towns.town_key", onupdate="CASCADE"))

    if world.engine.dialect.name == "sqlite":
        event.listen(world.engine, "connect", lambda raw, _: raw.execute("pragma foreign_keys=on"))
        world.engine.dispose()
    Own.metadata.create_all(world.outside)
    world.add(Town(id=1, code="a"))
    world.add(Street(id=1, town="a"))
    for code in ("b", "c"):
        world.warm(Street, {"id": 1})
        with world.Session() as session:
            if code == "b":
                session.execute(sa.update(Town).where(Town.id == 1).values(code=code))
            else:
                session.get_one(Town, 1).code = code
            session.commit()
        assert world.truth(Street, {"id": 1})["town"] == code  # type: ignore[index]
        world.check()
    Own.registry.dispose()


def test_set_null_of_some_columns(postgres_world: World) -> None:
    """PostgreSQL's SET NULL of some of the columns changes rows, too; a table's name may have a dot in it."""
    world = postgres_world

    class Own(DeclarativeBase):
        """What the classes here are declared on."""

    class Seat(Own):
        """Is taken by a guest."""

        __tablename__ = "cascade.seats"

        row: Mapped[int] = mapped_column(primary_key=True)
        place: Mapped[int] = mapped_column(primary_key=True)

    class Guest(Own):
        """Keeps the row when the seat is taken away."""

        __tablename__ = "cascade_guests"

        id: Mapped[int] = mapped_column(primary_key=True)
        row: Mapped[int | None]
        place: Mapped[int | None]
        __table_args__ = (
            sa.ForeignKeyConstraint(["row", "place"], [*Seat.__table__.primary_key], ondelete="SET NULL (place)"),
        )

    Own.metadata.create_all(world.outside)
    world.add(Seat(row=1, place=1))
    world.add(Guest(id=1, row=1, place=1))
    world.warm(Guest, {"id": 1})
    with world.Session() as session:
        session.execute(sa.delete(Seat).where(Seat.row == 1))
        session.commit()
    assert world.truth(Guest, {"id": 1}) == {"id": 1, "row": 1, "place": None}
    world.check()
    Own.registry.dispose()
