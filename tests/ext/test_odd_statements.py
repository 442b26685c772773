"""Statements that are easily overlooked: each drops what it wrote, and its caller gets what he would have got."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.ext.declarative import AbstractConcreteBase
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column

from stockpyle.ext.sqlalchemy import sessionmaker
from stockpyle.orm import registries
from stockpyle.orm.statements import tables_written
from tests.ext.worlds import World

MakeWorld = Callable[..., World]


class Base(DeclarativeBase):
    """What the classes here are declared on."""


class Thing(Base):
    """Its columns are called otherwise than its attributes, in the database and in the table's collection."""

    __tablename__ = 'odd "Things"'
    __stockpyle_keys__: ClassVar = ["id", "code", ("size", "shape")]

    id: Mapped[int] = mapped_column("Select", primary_key=True)
    code: Mapped[str | None] = mapped_column("co%de", key="the code", unique=True)
    size: Mapped[int | None]
    shape: Mapped[int | None]
    note: Mapped[str | None]


class Guess(Base):
    """SQLAlchemy asks the database for its number before it inserts it."""

    __tablename__ = "odd_guesses"
    __table_args__: ClassVar = {"implicit_returning": False}

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=sa.text("(SELECT 40 + 2)"))
    note: Mapped[str | None]


class Sole(Base):
    """SQLite deletes who has the name, to make place for who gets it."""

    __tablename__ = "odd_soles"
    __stockpyle_keys__: ClassVar = ["id", "name"]
    __table_args__ = (sa.UniqueConstraint("name", sqlite_on_conflict="REPLACE"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


THINGS: Any = Thing.__table__
CODE = THINGS.c["the code"]
TABLE = '"odd ""Things"""'


class Touch(sa.Executable, sa.ClauseElement):
    """An application's own statement."""

    inherit_cache = False


@compiles(Touch)
def _touch(element: Touch, compiler: Any, **_: Any) -> str:
    return f"UPDATE {TABLE} SET note = 'new' WHERE size = 1"


@pytest.fixture
def odd(world: World) -> World:
    """Two things, and some that are not there, in the cache."""
    Base.metadata.create_all(world.outside)
    world.add(Thing(id=1, code="a", size=1, shape=1), Thing(id=2, code="b", size=2, shape=2))
    world.warm(Thing, *({"id": i} for i in range(1, 7)), *({"code": code} for code in ("a", "b", "c", "x", "xy")))
    world.warm(Thing, *({"size": i, "shape": i} for i in range(1, 6)))
    world.warm(Guess, {"id": 42})
    return world


def on_connection(statement: Any, *parameters: Any) -> Callable[[Session], Any]:
    """Execute a statement on the session's connection; return its rows and their names, or nothing."""

    def write(session: Session) -> Any:
        result = session.connection().execute(statement, *parameters)
        return ([tuple(row) for row in result], list(result.keys())) if result.returns_rows else None

    return write


alias = THINGS.alias("other")
entity = aliased(Thing)
by_code = THINGS.update().where(CODE == "a")
size, shape = THINGS.c.size, THINGS.c.shape

ODD: dict[str, Callable[[Session], Any]] = {
    "text with columns": on_connection(sa.text(f"UPDATE {TABLE} SET note = 'x' RETURNING size").columns(size)),
    "text as objects": lambda s: (
        s.scalars(sa.select(Thing).from_statement(sa.text(f"UPDATE {TABLE} SET note = 'x' WHERE size = 1 RETURNING *")))
        .all()[0]
        .note
    ),
    "several texts": lambda s: s.connection().execute(
        sa.text(f"/* one */ WITH one AS (SELECT 1) UPDATE {TABLE} SET note = 'x' -- all")
    ),
    "an own construct": on_connection(Touch()),
    "an alias": on_connection(sa.update(alias).where(alias.c.size == 1).values(note="x")),
    "an aliased class": lambda s: s.execute(
        sa.update(entity).where(entity.size == 1).values(note="x"), execution_options={"synchronize_session": False}
    ),
    "delete an alias": on_connection(sa.delete(alias).where(alias.c.size == 1)),
    "a primary key by SQL": on_connection(
        THINGS.insert().values({"Select": sa.bindparam("Select", type_=sa.Integer) + 1}), {"Select": 4}
    ),
    "primary keys by SQL": on_connection(
        THINGS.insert().values({"Select": sa.bindparam("Select", type_=sa.Integer) + 1}), [{"Select": 4}, {"Select": 5}]
    ),
    "an alternate key by SQL": on_connection(
        THINGS.update()
        .where(THINGS.c.Select == sa.bindparam("id"))
        .values({"the code": sa.bindparam("the code", type_=sa.String) + "y"}),
        [{"id": 1, "the code": "x"}],
    ),
    "from a select of parameters": on_connection(
        THINGS.insert().from_select(
            ["Select", "the code"], sa.select(sa.bindparam("Select", 4) + 1, sa.bindparam("the code", "x") + "y")
        )
    ),
    "all columns returned": on_connection(by_code.values(note="x").returning(sa.text("*"))),
    "a column returned twice": on_connection(by_code.values(note="x").returning(size, size, size.label("size"))),
    "two columns at once": on_connection(
        THINGS.update()
        .where(THINGS.c.Select == 1)
        .values({sa.tuple_(size, shape): sa.select(sa.literal(4), sa.literal(4)).scalar_subquery()})
    ),
    "a namesake's column": on_connection(
        THINGS.update().where(size == alias.c.size, alias.c.Select == 1).values(note="x")
    ),
    "many rows, one at a time": lambda s: (
        s.connection()
        .execute(
            THINGS.insert().returning(size),
            [{"Select": i, "size": i} for i in (3, 4, 5)],
            execution_options={"insertmanyvalues_page_size": 1},
        )
        .all()
    ),
    "a number asked for beforehand": on_connection(sa.insert(Guess.__table__).values(note="x")),
    "not by attribute": on_connection(THINGS.update().where(CODE == "a").values({CODE: "c"})),
    "insert, not by attribute": on_connection(THINGS.insert().values({"Select": 3, "the code": "c"})),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_statement(odd: World, name: str) -> None:
    """After the commit of the statement the caches say what the database says, and its result is as without them."""
    with Session(odd.outside) as bare:
        expected = ODD[name](bare)
        bare.flush()
        bare.rollback()
    with odd.Session() as session:
        found = ODD[name](session)
        session.commit()
    assert isinstance(found, sa.Result) or found == expected
    odd.check()


def test_update_or_replace(tmp_path: Path, make_world: MakeWorld) -> None:
    """SQLite's UPDATE OR REPLACE deletes other rows: the class is dropped."""
    world = make_world(f"sqlite:///{tmp_path}/test.db")
    Base.metadata.create_all(world.outside)
    world.add(Thing(id=1, code="a"), Thing(id=2, code="b"))
    world.warm(Thing, {"id": 1}, {"id": 2})
    with world.Session() as session:
        session.execute(sa.update(THINGS).prefix_with("OR REPLACE").where(CODE == "a").values({"the code": "b"}))
        session.commit()
    assert world.truth(Thing, {"id": 2}) is None
    world.check()


@pytest.mark.parametrize("flush", [True, False])
def test_a_table_that_replaces_rows(tmp_path: Path, make_world: MakeWorld, flush: bool) -> None:
    """A table may tell SQLite to delete another row to make place for a new one: the class is dropped."""
    world = make_world(f"sqlite:///{tmp_path}/test.db")
    Base.metadata.create_all(world.outside)
    world.add(Sole(id=1, name="a"))
    world.warm(Sole, {"id": 1}, {"id": 2}, {"name": "a"})
    with world.Session() as session:
        if flush:
            session.add(Sole(id=2, name="a"))
        else:
            session.execute(sa.insert(Sole).values(id=2, name="a"))
        session.commit()
    assert world.truth(Sole, {"id": 1}) is None
    world.check()


def test_what_sqlite_commits_at_once(tmp_path: Path, make_world: MakeWorld) -> None:
    """For a statement that begins with WITH, sqlite3 begins no transaction: a rollback does not undo it."""
    world = make_world(f"sqlite:///{tmp_path}/test.db")
    Base.metadata.create_all(world.outside)
    world.add(Thing(id=1, size=1))
    world.warm(Thing, {"id": 1})
    one = sa.select(alias.c.Select).where(alias.c.size == 1).cte("one")
    with world.Session() as session:
        session.execute(sa.update(THINGS).where(THINGS.c.Select.in_(sa.select(one.c.Select))).values(note="new"))
        session.rollback()
    assert world.truth(Thing, {"id": 1})["note"] == "new"  # type: ignore[index]
    world.check()


def test_a_listener_that_executes_something(odd: World) -> None:
    """A listener's own statement in the midst of another does not make that one forgotten, nor change its result."""

    def look(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.startswith("UPDATE"):
            connection.exec_driver_sql("SELECT 1")

    event.listen(odd.engine, "before_cursor_execute", look)
    with odd.Session() as session:
        result = session.execute(sa.update(THINGS).where(CODE == "a").values(note="new").returning(size))
        assert [tuple(row) for row in result] == [(1,)]
        session.commit()
    event.remove(odd.engine, "before_cursor_execute", look)
    odd.check()


def test_a_read_that_says_what_it_changes(odd: World) -> None:
    """stockpyle_invalidates is believed of a SELECT, too, whose functions may write."""
    said = sa.select(sa.func.abs(1)).execution_options(stockpyle_invalidates=[Thing])
    with odd.Session() as session:
        session.connection().connection.cursor().execute(f"UPDATE {TABLE} SET note = 'new'")
        session.execute(said)
        assert odd.chain.get(Thing, {"id": 1}, session=session).note == "new"
        session.commit()
    odd.check()


def test_a_connection_with_a_cache_of_its_own(odd: World) -> None:
    """A statement in a hook of a flush is told from the flush's own, on a connection without a statement cache, too."""
    Other = sessionmaker(odd.engine.execution_options(compiled_cache=None), extension=odd.extension)

    def also(mapper: Any, connection: sa.Connection, target: Any) -> None:
        connection.execute(THINGS.update().where(THINGS.c.Select == 2).values(note="new"))

    event.listen(Thing, "before_update", also)
    with Other() as session:
        session.get_one(Thing, 1).note = "new"
        session.commit()
    event.remove(Thing, "before_update", also)
    odd.check()


@pytest.fixture
def unmet(world: World) -> Iterator[tuple[World, Any]]:
    """A world and a class of which stockpyle has not yet heard, as it is in a process that has just begun."""

    class Fresh(DeclarativeBase):
        """What nobody has met."""

    class Stranger(Fresh):
        """Known to other processes."""

        __tablename__ = "odd_strangers"

        id: Mapped[int] = mapped_column(primary_key=True)
        note: Mapped[str | None]

    Fresh.metadata.create_all(world.outside)
    world.add(Stranger(id=1))
    yield world, Stranger
    Fresh.registry.dispose()


@pytest.mark.parametrize("how", ["orm", "text", "read"])
def test_a_class_first_met_in_a_statement(unmet: tuple[World, Any], how: str) -> None:
    """A process that has read no object of a class drops those that others have cached."""
    world, stranger = unmet
    statements = {
        "orm": sa.update(stranger).values(note="new"),
        "text": sa.text("UPDATE odd_strangers SET note = 'new'"),
        "read": sa.select(stranger),
    }
    assert stranger.registry not in registries.known_registries()
    with world.Session() as session:
        session.execute(statements[how])
        session.commit()
    locked = {key.spec.klass.__name__ for keys in world.memory.keys for key in keys}
    assert ("Stranger" in locked) == (how != "read")


LISTENED_TO: list[type] = []
"""Classes that SQLAlchemy 2.0 has only weak references to, and fails when they are gone."""


def test_a_class_that_is_not_mapped_yet(unmet: tuple[World, Any]) -> None:
    """Some classes are mapped only when all others are; until then their registry is asked for its other classes."""
    world, stranger = unmet

    class Later(AbstractConcreteBase, stranger.__bases__[0]):  # type: ignore[misc]
        """Is mapped with its subclasses."""

    with world.Session() as session:
        session.execute(sa.text("UPDATE odd_strangers SET note = 'new'"))
        session.commit()
    assert {key.spec.klass for keys in world.memory.keys for key in keys} == {stranger}
    # and until the process ends SQLAlchemy 2.0 calls it with every other class that is mapped
    Later.__declare_first__ = classmethod(lambda cls: None)
    LISTENED_TO.append(Later)


def test_a_namesake_in_another_schema(postgres_url: str, make_world: MakeWorld) -> None:
    """A statement on tables of one name in two schemas runs as it is; a key of the one is none of the other."""

    class Own(DeclarativeBase):
        """What the class here is declared on."""

    class Here(Own):
        """One of two tables of this name."""

        __tablename__ = "odd_namesakes"
        __table_args__: ClassVar = {"schema": "here"}

        id: Mapped[int] = mapped_column(primary_key=True)
        note: Mapped[int | None]

    there = sa.Table("odd_namesakes", Own.metadata, *(column._copy() for column in Here.__table__.c), schema="there")
    world = make_world(postgres_url)
    world.execute("create schema here")
    world.execute("create schema there")
    Own.metadata.create_all(world.outside)
    world.add(Here(id=1), Here(id=2))
    world.execute("insert into there.odd_namesakes values (2, 1)")
    world.warm(Here, {"id": 1}, {"id": 2})
    here: Any = Here.__table__
    with world.Session() as session:
        session.execute(here.update().where(here.c.id == there.c.note, there.c.id == 2).values(note=9))
        session.commit()
    assert world.truth(Here, {"id": 1})["note"] == 9  # type: ignore[index]
    world.check()
    with world.Session() as session:
        session.execute(there.update().where(there.c.id == 2).values(note=3))
        session.commit()
    assert [each for each in world.memory.published if each is not None] == []
    Own.registry.dispose()


def test_a_table_that_an_application_has_reflected(odd: World) -> None:
    """Its columns have no keys and defaults of the mapping's: many rows are found by all their keys nevertheless."""
    reflected = sa.Table(THINGS.name, sa.MetaData(), autoload_with=odd.outside)
    odd.warm(Thing, {"code": "n150"}, {"id": 150})
    rows = [{"Select": i, "co%de": f"n{i}"} for i in range(10, 200)]
    with odd.Session() as session:
        session.execute(sa.insert(reflected), rows)
        session.commit()
    odd.check()


def test_schemas_that_a_connection_is_told_of_later(postgres_url: str, make_world: MakeWorld) -> None:
    """What is written after a connection was given a schema_translate_map is dropped in that schema."""

    class Own(DeclarativeBase):
        """What the class here is declared on."""

    class Tenant(Own):
        """Lives in a schema of many names."""

        __tablename__ = "odd_tenants"
        __table_args__: ClassVar = {"schema": "tenant"}

        id: Mapped[int] = mapped_column(primary_key=True)
        note: Mapped[str | None]

    world = make_world(postgres_url)
    names = {"schema_translate_map": {"tenant": "acme"}}
    world.execute("create schema acme")
    world.outside = world.outside.execution_options(**names)
    Own.metadata.create_all(world.outside)
    world.add(Tenant(id=1), Tenant(id=2))
    world.chain.stores[-1].engine = world.engine.execution_options(**names)
    with world.Session() as session:
        session.execute(sa.text("SELECT 1"))
        session.connection().execution_options(**names)
        session.get_one(Tenant, 1).note = "new"
        session.flush()
        session.execute(sa.update(Tenant).where(Tenant.id == 2).values(note="new"))
        session.commit()
    idents = {key.ident for keys in world.memory.keys for key in keys}
    assert {("acme.odd_tenants", ("id",), (i,)) for i in (1, 2)} <= idents
    Own.registry.dispose()


# texts


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        ("UPDATE ONLY public.users SET x = 1", {"users"}),
        ('update "a""b" set x = 1', {'a"b'}),
        ('delete from "a.b"', {"a.b"}),
        ("select 1; call p()", {"*"}),
        ("update a set x = 1; call p()", {"a", "*"}),
        ("insert into a values ('; do it'); update b set x = 1", {"a", "b"}),
        ("set local x = 1; select ';do'", set()),
        ("refresh materialized view concurrently v", {"v"}),
        ("truncate a; select b cascade", {"*"}),
        ("select 1 /* update a */", {"a"}),
        ("", set()),
    ],
)
def test_tables_in_a_text(text: str, tables: set[str]) -> None:
    """The tables that a text writes are found, of several statements, too; "*" if one does not tell."""
    context: Any = SimpleNamespace(compiled=None, statement=text, dialect=SimpleNamespace(name="postgresql"))
    assert tables_written(context, text) == tables


@pytest.mark.parametrize(
    "text",
    ["update ignore users set a = 1", "update orgs o join users u set u.a = 1", "delete u from orgs o, users u"],
)
def test_tables_in_a_text_of_mysql(text: str) -> None:
    """Where the table may stand anywhere, each name in the text may be its."""
    context: Any = SimpleNamespace(compiled=None, statement=text, dialect=SimpleNamespace(name="mysql"))
    assert "users" in tables_written(context, text)


def test_several_tables_of_mysql() -> None:
    """An UPDATE of MySQL's sets columns of several tables: all are written."""
    users, orgs = (sa.table(name, sa.column("id"), sa.column("x")) for name in ("users", "orgs"))
    statement = sa.update(users).where(users.c.id == orgs.c.id).values({users.c.x: 1, orgs.c.x: 2})
    compiled = statement.compile(dialect=mysql.dialect())  # type: ignore[no-untyped-call]
    context: Any = SimpleNamespace(compiled=compiled, statement=str(compiled), dialect=compiled.dialect)
    assert tables_written(context, str(compiled)) == {"users", "orgs"}


@pytest.mark.parametrize(
    "text",
    [
        "insert into a values " + ",".join("(1, 'it''s -- no /* comment')" for _ in range(30_000)),
        "select '" + "/*" * 500_000,
        "truncate x " * 90_000,
        "copy a(" * 140_000,
        "update [" * 125_000,
        'update "' * 125_000,
        "insert into a" + " " * 1_000_000,
        "select ';" * 110_000,
    ],
    ids=lambda text: text[:20],
)
def test_a_text_of_a_megabyte(text: str) -> None:
    """A text is searched in time that grows with its length: with its square, this would take minutes."""
    context: Any = SimpleNamespace(compiled=None, statement=text, dialect=SimpleNamespace(name="postgresql"))
    assert "users" not in tables_written(context, text)
