"""Statements past the unit of work: rows are dropped where they can be named, else their class, at the commit."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker

from stockpyle.exceptions import ImproperlyConfigured, StockpyleWarning
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension
from tests.ext.models import Car, Employee, Org, Person, Tag, Ticket, Truck, User, Vehicle
from tests.ext.ways import ROWS, USERS, WAYS, Way, ways
from tests.ext.worlds import World

PAGE = Path(__file__).parents[2] / "docs" / "writes.md"
MakeWorld = Callable[..., World]


def count_from_three(world: World) -> None:
    """Let the next user whose id the database chooses have the id 3."""
    if world.engine.dialect.name == "postgresql":
        world.execute("alter sequence users_id_seq restart with 3")


def furnish(world: World) -> None:
    """Write two users and an organisation, and read them, and some that are not there, by their keys."""
    world.add(User(id=1, email="1@a.org", name="old"), User(id=2, email="2@a.org", name="old"), Org(id=1, name="a"))
    count_from_three(world)
    world.warm(User, *({"id": i} for i in (1, 2, 3, 4, 9)), *({"email": f"{i}@a.org"} for i in (1, 2, 3, 4)))
    world.warm(User, {"org_id": 1, "login": "x"})
    world.warm(Org, {"id": 1})


def check_dropped(world: World, way: Way) -> None:
    """Compare caches and database; what was not written is still held, unless all of the class had to go."""
    assert world.locks == []
    assert world.holds(User, {"id": 2}) == (way.dropped != "class")
    assert world.holds(Org, {"id": 1})
    if way.dropped == "nothing":
        assert world.holds(User, {"id": 1})
    assert (world.truth(User, {"id": 1}) is None) == way.deletes
    world.check()
    assert world.holds(User, {"id": 2})


@pytest.mark.parametrize("name", ways())
def test_a_committed_statement_drops_what_it_wrote(any_world: World, name: str) -> None:
    """Until the commit nothing is dropped; right after it the caches are right, and what was not written is held."""
    furnish(any_world)
    session = any_world.Session()
    WAYS[name].write(session)
    assert any_world.holds(User, {"id": 1})
    assert any_world.holds(User, {"id": 2})
    session.commit()
    session.close()
    check_dropped(any_world, WAYS[name])


@pytest.mark.parametrize("name", ways("sqlite"))
def test_a_committed_statement_of_sqlite(sqlite_world: World, name: str) -> None:
    """What only SQLite has is seen, too."""
    furnish(sqlite_world)
    with sqlite_world.Session.begin() as session:
        WAYS[name].write(session)
    check_dropped(sqlite_world, WAYS[name])


@pytest.mark.parametrize("name", ways("postgresql"))
def test_a_committed_statement_of_postgresql(postgres_world: World, name: str) -> None:
    """What only PostgreSQL has is seen, too."""
    furnish(postgres_world)
    with postgres_world.Session.begin() as session:
        WAYS[name].write(session)
    check_dropped(postgres_world, WAYS[name])


def test_a_statement_that_is_rolled_back_drops_nothing(world: World) -> None:
    """After a rollback, of the transaction or of a savepoint, the caches hold what they held, whatever the way."""
    furnish(world)
    for name in ways():
        with world.Session() as session:
            WAYS[name].write(session)
            session.rollback()
            session.get_one(Org, 1).name = name
            session.flush()
            savepoint = session.begin_nested()
            WAYS[name].write(session)
            savepoint.rollback()
            session.commit()
        assert all(world.holds(User, {"id": i}) for i in (1, 2)), name
        assert world.truth(User, {"id": 1})["name"] == "old", name  # type: ignore[index]
        world.check()


def test_a_statement_beside_a_unit_of_work(world: World) -> None:
    """A flush that writes the same table does not vouch for a statement in one of its hooks, whatever the way."""
    for name in (name for name in ways() if not name.startswith("flush")):
        world.execute("delete from users")
        world.chain.clear()
        world.asked.clear()
        world.add(User(id=1, email="1@a.org", name="old"), User(id=2, email="2@a.org", name="old"))
        count_from_three(world)
        world.warm(User, *({"id": i} for i in (1, 2, 3)), *({"email": f"{i}@a.org"} for i in (1, 3)))

        def hook(session: Session, *_: Any, way: Way = WAYS[name]) -> None:
            way.write(session)

        event.listen(world.Session, "before_flush", hook)
        with world.Session() as session:
            session.get_one(User, 2).name = "flushed"
            session.flush()
            event.remove(world.Session, "before_flush", hook)
            session.commit()
        world.check()


def _answer(session: Session, way: Way) -> list[Any]:
    """What the caller of a statement can see of its result."""
    answers: list[Any] = []

    def note(connection: Any, clause: Any, multi: Any, params: Any, options: Any, result: Any) -> None:
        # of rows that are not fetched yet, not every driver knows the number
        for field in () if result.returns_rows else ("rowcount", "inserted_primary_key"):
            try:
                answers.append(getattr(result, field))
            except (sa.exc.InvalidRequestError, AttributeError) as error:
                answers.append(str(error))
        answers.append(list(result.keys()) if result.returns_rows else None)

    event.listen(session.get_bind(), "after_execute", note)
    try:
        found = way.write(session)
    finally:
        event.remove(session.get_bind(), "after_execute", note)
    if isinstance(found, sa.Result):
        answers.append(found.all() if getattr(found, "returns_rows", False) else None)
    elif isinstance(found, list):
        answers.append([(each.id, each.name, each.email) if isinstance(each, User) else tuple(each) for each in found])
    else:
        answers.append(found)
    return answers


def test_the_caller_sees_what_it_would_see(world: World) -> None:
    """Rows, column names, row counts and generated keys are those of a session that nobody listens to."""
    furnish(world)
    for name in ways():
        with sessionmaker(world.outside)() as bare:
            expected = _answer(bare, WAYS[name])
            bare.rollback()
        count_from_three(world)
        with world.Session() as session:
            assert _answer(session, WAYS[name]) == expected, name
            session.rollback()
        count_from_three(world)


def _sent(world: World, make: Any, way: Way) -> list[str]:
    with make() as session, world.statements() as executed:
        way.write(session)
        session.rollback()
    count_from_three(world)
    return executed


def test_what_is_sent(world: World) -> None:
    """As many statements are sent as without stockpyle, and they differ only where RETURNING is needed."""
    furnish(world)
    for row, group in ROWS.items():
        for name, way in group.items():
            if way.only in (None, world.engine.dialect.name):
                bare, own = (_sent(world, make, way) for make in (sessionmaker(world.engine), world.Session))
                assert len(bare) == len(own), name
                if "RETURNING" not in (source := page()[row][0]) and source[:2] != "as":
                    assert bare == own, name


# the page of the documents


def page() -> dict[str, tuple[str, str]]:
    """Return the table of docs/writes.md: by the way to write, what it is known from, and what is dropped."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {row: (source, dropped) for row, source, dropped in cells}


def test_each_row_of_the_page_is_tested() -> None:
    """The page names the ways to write that the tests here know, and says of each what they find dropped."""
    assert list(page()) == list(ROWS)
    for row, group in ROWS.items():
        for name, way in group.items():
            said = {"rows": "rows", "the class": "class"}[page()[row][1]]
            assert way.dropped in (said, "nothing") or name.endswith("returning names"), name


# what is done with the rows


def test_few_rows_are_published(world: World) -> None:
    """The rows of a small statement are loaded once, and the next readers find them in the cache, by each key."""
    world.add(*(Ticket(id=i, number=i, text="old") for i in range(1, 6)))
    world.warm(Ticket, *({"id": i} for i in range(1, 6)), *({"number": i + 10} for i in range(1, 6)))
    with world.Session() as session, world.statements() as executed:
        session.execute(sa.update(Ticket).where(Ticket.id < 4).values(number=Ticket.number + 10, text="new"))
        executed.clear()
        session.commit()
    assert len([each for each in executed if each.startswith("SELECT")]) == 1
    with world.statements() as executed:
        assert [world.chain.get(Ticket, {"number": i}).text for i in (11, 12, 13)] == ["new"] * 3
        assert [world.chain.get(Ticket, {"id": i}).number for i in (1, 2, 3, 4)] == [11, 12, 13, 4]
    assert executed == []
    world.check()


def test_many_rows_are_only_removed(world: World) -> None:
    """The rows of a statement that writes more than a hundred are not loaded again; other rows are still held."""
    world.add(*(Ticket(id=i, number=i, text="old" if i < 400 else "kept") for i in range(1, 403)))
    world.warm(Ticket, *({"id": i} for i in range(1, 403)))
    with world.Session() as session, world.statements() as executed:
        session.execute(sa.update(Ticket).where(Ticket.text == "old").values(text="new"))
        executed.clear()
        session.commit()
    assert [each for each in executed if each.startswith("SELECT")] == []
    assert not world.holds(Ticket, {"id": 1})
    assert world.holds(Ticket, {"id": 401})
    world.check()


def test_more_rows_than_wanted_drop_the_class(database_url: str, make_world: MakeWorld) -> None:
    """A statement that writes more rows than rows_by_key drops the class; the caller's rowcount is right."""
    world = make_world(database_url)
    world.extension.rows_by_key = 3
    world.add(*(Ticket(id=i, number=i) for i in range(1, 10)))
    world.warm(Ticket, *({"id": i} for i in range(1, 10)))
    for most, held in ((4, True), (5, False)):
        with world.Session() as session:
            result = session.execute(sa.update(Ticket).where(Ticket.id < most).values(text=str(most)))
            assert result.rowcount == most - 1
            session.commit()
        assert world.holds(Ticket, {"id": 9}) == held
        world.check()


def test_without_returning(database_url: str, make_world: MakeWorld) -> None:
    """rows_by_key=0 leaves every statement as it is, and drops the class."""
    world = make_world(database_url)
    world.extension.rows_by_key = 0
    furnish(world)
    with world.Session() as session, world.statements() as executed:
        session.execute(sa.update(User).where(User.name == "old", User.id == 1).values(name="new"))
        assert "RETURNING" not in "".join(executed)
        session.commit()
    check_dropped(world, Way(lambda s: None, "class"))


@pytest.mark.parametrize("wrong", [-1, 1.5, True, None, "10"])
def test_a_wrong_number_of_rows(world: World, wrong: Any) -> None:
    """rows_by_key is a number; anything else is refused by name."""
    with pytest.raises(ImproperlyConfigured, match="rows_by_key"):
        StockpyleSessionExtension(world.chain, rows_by_key=wrong)


def test_an_update_that_finds_no_row_publishes_nothing(postgres_world: World) -> None:
    """A criterion on the primary key that matched no row has locked none: what another inserts is not overwritten."""
    world = postgres_world
    world.warm(Ticket, {"id": 1})
    with world.Session() as session:
        session.execute(sa.update(Ticket).where(Ticket.id == 1).values(text="new"))
        session.commit()
    assert [each for each in world.memory.published if each is not None] == []


def test_types_are_read_as_the_orm_reads_them(world: World) -> None:
    """Keys that RETURNING brings pass through the columns' types, so that a class with any types is dropped by row."""
    world.add(Tag(id=1, label="a", code=1, parts=["a"]), Tag(id=2, label="b", code=2, parts=["b"]))
    world.warm(Tag, {"id": 1}, {"id": 2}, {"label": "a"}, {"code": 1})
    with world.Session() as session:
        session.execute(sa.update(Tag).where(Tag.label == "a").values(label="c"))
        session.commit()
    assert world.holds(Tag, {"id": 2})
    world.check()


# inheritance


def test_single_table_inheritance(world: World) -> None:
    """An update of a subclass drops its rows, under the keys of all classes of the table."""
    world.add(Car(id=1, plate=1, doors=4), Truck(id=2, plate=2))
    world.warm(Vehicle, {"id": 1}, {"id": 2}, {"plate": 1}, {"plate": 3})
    world.warm(Car, {"id": 1}, {"doors": 4}, {"doors": 5})
    with world.Session() as session:
        session.execute(sa.update(Car).where(Car.plate == 1).values(doors=5))
        session.execute(sa.update(Vehicle).where(Vehicle.plate == 1).values(plate=3))
        session.commit()
    assert world.holds(Vehicle, {"id": 2})
    world.check()


def test_a_class_changed_by_a_statement(world: World) -> None:
    """A statement that makes a Car of a Truck drops the class: its keys as a Car are new."""
    world.add(Truck(id=2, plate=2))
    world.execute("update vehicles set doors = 7")
    world.warm(Vehicle, {"id": 2})
    world.warm(Car, {"id": 2}, {"doors": 7})
    with world.Session() as session:
        session.execute(sa.update(Vehicle).where(Vehicle.id == 2).values(kind="car"))
        session.commit()
    world.check()


def test_joined_inheritance(world: World) -> None:
    """A statement on one of the tables of a class drops the rows, and publishes none: others may change the rest."""
    world.add(Employee(id=1, ssn=1, desk=1), Employee(id=2, ssn=2, desk=2), Person(id=3, ssn=3))
    world.warm(Person, {"id": 1}, {"id": 2}, {"id": 3}, {"ssn": 1}, {"ssn": 9})
    world.warm(Employee, {"id": 1}, {"id": 2}, {"ssn": 9}, {"desk": 1}, {"desk": 9}, {"id": 3})
    with world.Session() as session:
        session.execute(sa.update(Employee.__table__).where(Employee.__table__.c.desk == 1).values(desk=9))
        session.execute(sa.update(Person).where(Person.ssn == 1).values(ssn=9))
        session.commit()
    assert world.holds(Person, {"id": 2})
    assert not world.holds(Person, {"id": 1})
    world.check()
    with world.Session() as session:
        session.execute(sa.insert(Employee.__table__).values(id=3, desk=3))
        session.execute(sa.update(Person).where(Person.id == 3).values(kind="employee"))
        session.commit()
    world.check()


def test_orm_statements_on_both_tables(world: World) -> None:
    """What an ORM statement on a joined class writes into its first table is seen like what it writes into the last."""
    world.add(Employee(id=1, ssn=1, desk=1))
    world.warm(Employee, {"id": 1}, {"ssn": 1}, {"ssn": 2}, {"ssn": 3}, {"desk": 2})
    world.warm(Person, {"id": 1}, {"id": 2}, {"ssn": 2}, {"ssn": 3})
    with world.Session() as session:
        session.execute(sa.insert(Employee), [{"id": 2, "ssn": 2, "desk": 2}])
        session.commit()
    world.check()
    with world.Session() as session:
        session.execute(sa.update(Employee), [{"id": 1, "ssn": 3, "desk": 3}])
        session.commit()
    world.check()


# what is no INSERT, UPDATE or DELETE


def test_statements_that_write_nothing_mapped(world: World) -> None:
    """Reads, locking reads, and writes to tables that no class maps warn of nothing and drop nothing."""
    furnish(world)
    world.execute("create table unmapped (id integer)")
    with warnings.catch_warnings(), world.Session() as session:
        warnings.simplefilter("error")
        session.execute(sa.text("insert into unmapped values (1)"))
        session.execute(sa.select(User).with_for_update()).all()
        session.execute(sa.text("/* said */ -- twice\n select name as updated from users"))
        session.execute(sa.text("create index unmapped_id on unmapped (id)"))
        session.commit()
    assert world.holds(User, {"id": 1})
    assert world.holds(Org, {"id": 1})


def test_a_statement_of_which_nobody_knows(postgres_world: World) -> None:
    """What neither names a table nor is known to write none drops every class, and a warning says so and what to do."""
    world = postgres_world
    furnish(world)
    with world.Session() as session:
        with pytest.warns(StockpyleWarning, match=r"execution_options\(stockpyle_invalidates=\[...\]\)"):
            session.execute(sa.text("do $$ begin execute 'upd' || 'ate users set name = ''x'''; end $$"))
        assert world.holds(Org, {"id": 1})
        session.commit()
    assert not world.holds(Org, {"id": 1})
    world.check()


def test_truncating_all_that_refers(postgres_world: World) -> None:
    """TRUNCATE with CASCADE empties tables that it does not name: every class is dropped, with a warning."""
    world = postgres_world
    furnish(world)
    with world.Session() as session:
        with pytest.warns(StockpyleWarning, match="all mapped classes"):
            session.execute(sa.text("truncate table badges, users cascade"))
        session.commit()
    world.check()


def test_a_statement_that_says_what_it_changes(postgres_world: World) -> None:
    """stockpyle_invalidates names the classes exactly: no warning, and nothing else is dropped."""
    world = postgres_world
    furnish(world)
    with warnings.catch_warnings(), world.Session() as session:
        warnings.simplefilter("error")
        text = sa.text("do $$ begin execute 'upd' || 'ate users set name = ''x'''; end $$")
        session.execute(text.execution_options(stockpyle_invalidates=[User]))
        session.commit()
    assert world.holds(Org, {"id": 1})
    world.check()


def test_a_statement_that_says_it_changes_nothing(world: World) -> None:
    """An empty list drops nothing, whatever the text looks like."""
    furnish(world)
    with world.Session() as session:
        session.execute(sa.text("update users set name = 'x' where 1 = 0").execution_options(stockpyle_invalidates=[]))
        session.commit()
    assert world.holds(User, {"id": 1})


@pytest.mark.parametrize("wrong", [User, "users", ["users"], [User(id=1)], 5])
def test_a_wrong_name_of_what_is_changed(world: World, wrong: Any) -> None:
    """stockpyle_invalidates takes mapped classes; before the statement runs, anything else is refused by name."""
    with world.Session() as session, pytest.raises(ImproperlyConfigured, match="stockpyle_invalidates"):
        session.execute(sa.text("update users set name = 'x'").execution_options(stockpyle_invalidates=wrong))


@pytest.mark.parametrize(
    "text",
    [
        "UPDATE ONLY public.users SET name = 'new'",
        "with a as (select 1) update \"users\" set name = 'new'",
        "insert into orgs (id, name) values (5, 'b'); update users set name = 'new'",
        "alter table users drop column login cascade",
        "merge into users using (select 1 as one) x on users.id = x.one when matched then update set name = 'new'",
        "/* c */ delete from /**/ users",
    ],
)
def test_tables_in_texts(postgres_world: World, text: str) -> None:
    """The tables that a text writes are found in its many forms."""
    world = postgres_world
    furnish(world)
    with world.Session() as session:
        session.execute(sa.text(text))
        session.commit()
    assert not world.holds(User, {"id": 1})
    if "drop column" not in text:
        world.check()


def test_statements_before_a_session_joins_the_connection(world: World) -> None:
    """What a connection has written before a session joins it is dropped when the connection commits."""
    world.add(User(id=1, name="old"))
    world.warm(User, {"id": 1})
    with world.engine.connect() as connection:
        connection.execute(sa.update(User.__table__).values(name="new"))
        with world.Session(bind=connection) as session:
            session.get(User, 1)
            session.commit()
        connection.commit()
    world.check()


def test_what_drops_a_class_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A statement that costs a class all its objects is in the log, with the names of both."""
    furnish(world)
    with caplog.at_level(logging.INFO, "stockpyle"), world.Session() as session:
        session.execute(sa.text("update users set name = 'x'"))
        session.commit()
    assert any("User" in each.message and "update users" in each.message for each in caplog.records)


# failures


def test_a_statement_of_many_rows_that_fails_half_way(sqlite_world: World) -> None:
    """SQLite keeps the rows that a failed executemany has written before; if they are committed, they are dropped."""
    world = sqlite_world
    furnish(world)
    with world.Session() as session:
        rows = [{"key": 1, "email": "3@a.org"}, {"key": 77, "email": None}, {"key": 2, "email": "3@a.org"}]
        with pytest.raises(sa.exc.IntegrityError):
            session.connection().execute(USERS.update().where(USERS.c.id == sa.bindparam("key")), rows)
        session.commit()
    assert world.truth(User, {"id": 1})["email"] == "3@a.org"  # type: ignore[index]
    world.check()


def test_a_text_that_somebody_else_has_changed(world: World) -> None:
    """Where another listener's addition swallows RETURNING, the class is dropped."""
    furnish(world)

    def comment(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> Any:
        return statement.replace("RETURNING", "-- RETURNING"), parameters

    event.listen(world.engine, "before_cursor_execute", comment, retval=True)
    with world.Session() as session:
        assert session.execute(sa.update(User).where(User.email == "1@a.org").values(name="x")).rowcount == 1
        session.commit()
    event.remove(world.engine, "before_cursor_execute", comment)
    check_dropped(world, Way(lambda s: None, "class"))
