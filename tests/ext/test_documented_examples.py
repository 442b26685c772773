"""The writes that SQLAlchemy's own documents show: their results are as without stockpyle, and the caches are right."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, sessionmaker, with_loader_criteria

from tests.ext.worlds import World


class Base(DeclarativeBase):
    """What the classes here are declared on."""


class Member(Base):
    """Has a name, by which it is found, too."""

    __tablename__ = "doc_members"
    __stockpyle_keys__: ClassVar = ["id", "name"]

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    full: Mapped[str | None]
    species: Mapped[str | None]


class Mail(Base):
    """Belongs to a member."""

    __tablename__ = "doc_mails"
    __stockpyle_keys__: ClassVar = ["id", "address"]

    id: Mapped[int] = mapped_column(primary_key=True)
    member_id: Mapped[int] = mapped_column(sa.ForeignKey("doc_members.id"))
    address: Mapped[str] = mapped_column(unique=True)


class Worker(Base):
    """Joined inheritance."""

    __tablename__ = "doc_workers"
    __stockpyle_keys__: ClassVar = ["id", "name"]
    __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "worker"}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]


class Boss(Worker):
    """Its row is spread over two tables."""

    __tablename__ = "doc_bosses"
    __stockpyle_keys__: ClassVar = ["id", "name", "title"]
    __mapper_args__: ClassVar = {"polymorphic_identity": "boss"}

    id: Mapped[int] = mapped_column(sa.ForeignKey("doc_workers.id"), primary_key=True)
    title: Mapped[str] = mapped_column(unique=True)


class Entry(Base):
    """Its code is the same for all rows of a statement, its time the database's own."""

    __tablename__ = "doc_entries"
    __stockpyle_keys__: ClassVar = ["id", "message"]

    id: Mapped[int] = mapped_column(primary_key=True)
    message: Mapped[str] = mapped_column(unique=True)
    code: Mapped[str]
    at: Mapped[datetime]


MEMBERS: Any = Member.__table__
MAILS: Any = Mail.__table__
NEW: list[dict[str, Any]] = [{"name": "cleo", "full": "Cleo C."}, {"name": "dora", "species": "cat"}]


def id_of(name: str) -> Any:
    """The id of the member of this name, as SQL."""
    return sa.select(Member.id).where(Member.name == name).scalar_subquery()


def upsert(session: Session) -> Any:
    """Insert a member who is there and one who is new, and update the one who is there."""
    insert: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[session.get_bind().dialect.name]
    statement = insert(Member).values([{"name": "ann", "full": "new"}, {"name": "cleo", "full": "Cleo C."}])
    return statement.on_conflict_do_update(index_elements=[Member.name], set_={"full": statement.excluded.full})


def numbers(session: Session, statement: Any, *parameters: Any) -> int:
    """Execute a statement on the session's connection, and return the number of rows it matched."""
    return session.connection().execute(statement, *parameters).rowcount


renamed = sa.update(Member).where(Member.name == "ann")
not_synchronised: Any = {"synchronize_session": False}
first_mail = sa.select(MAILS.c.address).where(MAILS.c.member_id == MEMBERS.c.id).order_by(MAILS.c.id).limit(1)
other = aliased(Member)

EXAMPLES: dict[str, Callable[[Session], Any]] = {
    # the ORM's INSERT, UPDATE and DELETE
    "bulk insert": lambda s: s.execute(sa.insert(Member), NEW),
    "bulk insert, returning objects": lambda s: s.scalars(sa.insert(Member).returning(Member), NEW).all(),
    "bulk insert, returning in order": lambda s: s.scalars(
        sa.insert(Member).returning(Member.id, sort_by_parameter_order=True), NEW
    ).all(),
    "bulk insert, NULLs": lambda s: s.execute(
        sa.insert(Member).execution_options(render_nulls=True), [{**row, "species": None} for row in NEW]
    ),
    "bulk insert, joined inheritance": lambda s: s.scalars(
        sa.insert(Boss).returning(Boss), [{"name": "cleo", "title": "c"}, {"name": "dora", "title": "d"}]
    ).all(),
    "bulk insert of one, joined inheritance": lambda s: s.scalars(
        sa.insert(Boss).returning(Boss), [{"id": 3, "name": "cleo", "title": "c"}]
    ).all(),
    "bulk insert, SQL expressions": lambda s: s.scalars(
        sa.insert(Entry).values(code="x", at=sa.func.current_timestamp()).returning(Entry.message),
        [{"message": "new 1"}, {"message": "new 2"}],
    ).all(),
    "insert, an SQL expression for each row": lambda s: s.scalars(
        sa.insert(Mail)
        .values([{"member_id": id_of("ann"), "address": "ann@new"}, {"member_id": id_of("bob"), "address": "bob@new"}])
        .returning(Mail.address)
    ).all(),
    "upsert": lambda s: s.execute(upsert(s)),
    "upsert, returning objects": lambda s: s.scalars(
        upsert(s).returning(Member), execution_options={"populate_existing": True}
    ).all(),
    "upsert, from a statement": lambda s: s.scalars(
        sa.select(Member).from_statement(upsert(s).returning(Member)), execution_options={"populate_existing": True}
    ).all(),
    "update by primary key": lambda s: s.execute(sa.update(Member), [{"id": 1, "full": "a"}, {"id": 2, "name": "ben"}]),
    "update by primary key, joined inheritance": lambda s: s.execute(
        sa.update(Boss), [{"id": 2, "name": "ben", "title": "new"}]
    ),
    "update, synchronised by fetching": lambda s: s.execute(
        renamed.values(full="new"), execution_options={"synchronize_session": "fetch"}
    ),
    "update, synchronised by evaluating": lambda s: s.execute(
        renamed.values(full="new"), execution_options={"synchronize_session": "evaluate"}
    ),
    "update, returning objects": lambda s: s.scalars(renamed.values(full="new").returning(Member)).all(),
    "update, joined inheritance": lambda s: s.execute(
        sa.update(Boss).where(Boss.id == Worker.__table__.c.id, Worker.__table__.c.name == "bob").values(title="new"),
        execution_options=not_synchronised,
    ),
    "update, loader criteria": lambda s: s.execute(
        sa.update(Member).values(full="new").options(with_loader_criteria(Member, Member.name == "ann")),
        execution_options=not_synchronised,
    ),
    "delete": lambda s: s.execute(sa.delete(Member).where(Member.name.in_(["ann", "nobody"]))),
    "delete, returning": lambda s: s.scalars(sa.delete(Member).where(Member.name == "ann").returning(Member.id)).all(),
    # the tutorial's Core statements
    "Core insert": lambda s: s.connection().execute(MEMBERS.insert().values(name="cleo")).inserted_primary_key,
    "Core insert, several": lambda s: s.connection().execute(MEMBERS.insert(), [{"name": n} for n in ("cleo", "dora")]),
    "Core insert, a subquery of each row's": lambda s: s.connection().execute(
        MAILS.insert().values(
            member_id=sa.select(MEMBERS.c.id).where(MEMBERS.c.name == sa.bindparam("who")).scalar_subquery()
        ),
        [{"who": "ann", "address": "ann@new"}, {"who": "bob", "address": "bob@new"}],
    ),
    "Core insert, from a select": lambda s: (
        s.connection()
        .execute(
            MAILS.insert()
            .from_select(["member_id", "address"], sa.select(MEMBERS.c.id, MEMBERS.c.name + "@new"))
            .returning(MAILS.c.address)
        )
        .all()
    ),
    "Core update": lambda s: numbers(s, MEMBERS.update().where(MEMBERS.c.name == "ann").values(full="new")),
    "Core update, from itself": lambda s: numbers(s, MEMBERS.update().values(full="Name: " + MEMBERS.c.name)),
    "Core update, several": lambda s: numbers(
        s,
        MEMBERS.update().where(MEMBERS.c.name == sa.bindparam("old")).values(name=sa.bindparam("new")),
        [{"old": "ann", "new": "anna"}, {"old": "nobody", "new": "x"}],
    ),
    "Core update, correlated": lambda s: numbers(s, MEMBERS.update().values(full=first_mail.scalar_subquery())),
    "Core update, from another table": lambda s: numbers(
        s,
        MEMBERS.update()
        .where(MEMBERS.c.id == MAILS.c.member_id, MAILS.c.address == "ann@old")
        .values(full=MAILS.c.address),
    ),
    "Core update, in order": lambda s: numbers(
        s,
        MEMBERS.update()
        .where(MEMBERS.c.id == 1)
        .ordered_values((MEMBERS.c.full, MEMBERS.c.name), (MEMBERS.c.name, "anna")),
    ),
    "Core delete, returning": lambda s: (
        s.connection()
        .execute(MEMBERS.delete().where(MEMBERS.c.name == "bob").returning(MEMBERS.c.id, MEMBERS.c.name))
        .all()
    ),
    "Core update of an alias": lambda s: (
        s.execute(
            sa.update(other).where(other.name == "ann").values(full="new"), execution_options=not_synchronised
        ).rowcount
    ),
    # text
    "text with columns": lambda s: s.execute(
        sa.text("UPDATE doc_members SET species = 'new' WHERE id = 1 RETURNING id").columns(Member.id)
    ).all(),
    "text as objects": lambda s: s.scalars(
        sa.select(Member).from_statement(sa.text("INSERT INTO doc_members (id, name) VALUES (3, 'cleo') RETURNING *"))
    ).all(),
}


def update_from_values(session: Session) -> Any:
    """Update rows from a list of values."""
    columns = sa.values(sa.column("id", sa.Integer), sa.column("full", sa.String), name="given")
    given = columns.data([(1, "one"), (2, "two")])
    return numbers(session, MEMBERS.update().where(MEMBERS.c.id == given.c.id).values(full=given.c.full))


def delete_using(session: Session) -> Any:
    """Delete the mails of one member."""
    return numbers(session, MAILS.delete().where(MAILS.c.member_id == MEMBERS.c.id, MEMBERS.c.name == "bob"))


def move_by_cte(session: Session) -> Any:
    """Delete rows in a CTE, and insert them anew."""
    gone = MAILS.delete().where(MAILS.c.id == 2).returning(MAILS.c.member_id).cte("gone")
    columns = sa.select(gone.c.member_id, sa.literal("bob@new"))
    return numbers(session, MAILS.insert().from_select(["member_id", "address"], columns))


@pytest.fixture
def documented(world: World) -> World:
    """Two members with mails, two workers and an entry, in the database and in the cache, and some that are not."""
    Base.metadata.create_all(world.outside)
    world.add(Member(id=1, name="ann"), Member(id=2, name="bob"), Worker(id=1, name="ann"))
    world.add(Mail(id=1, member_id=1, address="ann@old"), Mail(id=2, member_id=2, address="bob@old"))
    world.add(Boss(id=2, name="bob", title="b"), Entry(id=1, message="old", code="x", at=datetime(2020, 1, 1)))
    if world.engine.dialect.name == "sqlite":
        world.execute("pragma foreign_keys = off")
    else:
        world.execute("alter table doc_mails drop constraint doc_mails_member_id_fkey")
    start_ids(world)
    for klass in (Member, Mail, Worker, Boss, Entry):
        world.warm(klass, *({"id": i} for i in range(1, 6)))
    for klass in (Member, Worker, Boss):
        world.warm(klass, *({"name": name} for name in ("ann", "anna", "bob", "ben", "cleo", "dora")))
    world.warm(Boss, *({"title": title} for title in ("b", "c", "d", "new")))
    world.warm(Mail, *({"address": f"{name}@{age}"} for name in ("ann", "bob") for age in ("old", "new")))
    world.warm(Entry, *({"message": message} for message in ("old", "new 1", "new 2")))
    return world


def start_ids(world: World) -> None:
    """Let the ids that the database chooses begin at 3."""
    if world.engine.dialect.name == "postgresql":
        for table in ("doc_members", "doc_mails", "doc_workers", "doc_entries"):
            world.execute(f"alter sequence {table}_id_seq restart with 3")


def seen(found: Any) -> Any:
    """What a caller sees of a result."""
    if isinstance(found, sa.Result):
        return getattr(found, "rowcount", None)
    if isinstance(found, list):
        return [{**vars(each), "_sa_instance_state": None} if isinstance(each, Base) else each for each in found]
    return found


def check(world: World, example: Callable[[Session], Any]) -> None:
    """Run an example without stockpyle, roll it back, run it with, and compare."""
    with sessionmaker(world.outside)() as bare:
        expected = seen(example(bare))
        bare.rollback()
    start_ids(world)
    with world.Session() as session:
        assert seen(example(session)) == expected
        assert all(world.holds(klass, {"id": 1}) for klass in (Member, Mail, Worker, Entry))
        session.commit()
    assert world.locks == []
    world.check()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example(documented: World, name: str) -> None:
    """An example gives what it gives without stockpyle, and after the commit the caches say what the database says."""
    check(documented, EXAMPLES[name])


@pytest.mark.parametrize("example", [update_from_values, delete_using, move_by_cte])
def test_an_example_of_postgresql(
    postgres_url: str, make_world: Callable[..., World], example: Callable[[Session], Any]
) -> None:
    """The same for statements that SQLite does not have."""
    world = make_world(postgres_url)
    Base.metadata.create_all(world.outside)
    world.add(Member(id=1, name="ann"), Member(id=2, name="bob"), Worker(id=1, name="ann"))
    world.add(Mail(id=1, member_id=1, address="ann@old"), Mail(id=2, member_id=2, address="bob@old"))
    world.add(Entry(id=1, message="old", code="x", at=datetime(2020, 1, 1)))
    start_ids(world)
    world.warm(Mail, *({"id": i} for i in range(1, 6)), {"address": "bob@new"}, {"address": "bob@old"})
    for klass in (Member, Worker, Entry):
        world.warm(klass, {"id": 1})
    check(world, example)
