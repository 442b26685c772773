"""How commits end whose answer nobody has, or whose end nobody tells of."""

from __future__ import annotations

import gc
import sqlite3
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from stockpyle.coherence.breaker import PROBE_SECONDS
from stockpyle.exceptions import StoreUnavailable
from stockpyle.ext.sqlalchemy import sessionmaker
from tests.ext.conftest import MakeWorld
from tests.ext.models import Org, User
from tests.ext.worlds import World


def furnish(world: World) -> None:
    """Write a user, and read it."""
    world.add(User(id=1, email="1@a.org", name="old"))
    world.warm(User, {"id": 1})


@pytest.mark.parametrize("ending", ["close", "rollback", "begin"])
def test_borrowed_connection_whose_commit_was_interrupted_by_an_error(world: World, ending: str) -> None:
    """An error that is not the database's own leaves the outcome unknown, and with it the locks, whoever ends it."""
    furnish(world)
    connection = world.engine.connect()
    outer = connection.begin()
    with world.Session(bind=connection) as session:
        session.get_one(User, 1).name = "new"
        session.commit()
    commit = world.engine.dialect.do_commit

    def timed_out(raw: Any) -> None:
        raise RuntimeError("a signal handler's")

    world.engine.dialect.do_commit = timed_out  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        outer.commit()
    world.engine.dialect.do_commit = commit  # type: ignore[method-assign]
    if ending != "close":
        outer.rollback()
    if ending == "begin":
        connection.begin()
    connection.close()
    assert world.is_locked(User, {"id": 1})
    world.check()
    world.clock.now += world.chain.lock_seconds + 1
    world.check()


def test_what_a_failed_commit_leaves_open_is_not_committed_by_the_next_transaction(world: World) -> None:
    """A Connection whose COMMIT was not sent, or failed, keeps its writes: they go before it is used again."""
    furnish(world)

    def refuse(connection: sa.Connection) -> None:
        raise RuntimeError("not today")

    with world.engine.connect() as connection:
        connection.begin()
        with world.Session(bind=connection) as session:
            session.get_one(User, 1).name = "lost"
            session.commit()
        event.listen(world.engine, "commit", refuse)
        with pytest.raises(RuntimeError, match="not today"):
            connection.commit()
        event.remove(world.engine, "commit", refuse)
        connection.rollback()
        with connection.begin():
            world.check()
    world.check()
    assert (world.truth(User, {"id": 1}) or {})["name"] == "old"


def test_a_session_that_goes_on_does_not_settle_a_commit_that_was_lost(world: World) -> None:
    """What a session has joined is not committed because the session says so afterwards."""
    furnish(world)
    commit = world.engine.dialect.do_commit

    def timed_out(raw: Any) -> None:
        raise RuntimeError("a signal handler's")

    with world.engine.connect() as connection, world.Session(bind=connection) as session:
        outer = connection.begin()
        session.get_one(User, 1).name = "new"
        session.flush()
        world.engine.dialect.do_commit = timed_out  # type: ignore[method-assign]
        with pytest.raises(RuntimeError):
            outer.commit()
        world.engine.dialect.do_commit = commit  # type: ignore[method-assign]
        session.commit()
        assert world.is_locked(User, {"id": 1})
    assert world.is_locked(User, {"id": 1})
    world.check()


class Secretive(sqlite3.Connection):
    """Does not tell if a transaction is open, as the connections of many drivers do not."""

    in_transaction = None  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [sqlite3.Connection, Secretive])
def test_what_a_failed_commit_leaves_open_in_the_pool_is_not_read(
    tmp_path: Any, make_world: MakeWorld, kind: type[sqlite3.Connection]
) -> None:
    """SQLAlchemy gives back a connection whose COMMIT failed without rolling it back: no load sees what it has written.

    The locks are gone by then, for the failure was definite.
    """
    world = make_world(f"sqlite:///{tmp_path}/test.db", connect_args={"timeout": 0, "factory": kind})
    furnish(world)
    with world.outside.connect() as other:
        other.execute(sa.text("begin"))
        other.execute(sa.text("select * from users")).fetchone()
        with world.Session() as session:
            session.get_one(User, 1).name = "lost"
            with pytest.raises(OperationalError, match="locked"):
                session.commit()
        other.rollback()
    world.check()
    assert world.holds(User, {"id": 1})


def test_what_a_listener_keeps_from_being_committed_is_not_read(world: World) -> None:
    """Nor is what is left open by a listener of the application's that raises."""
    furnish(world)

    def refuse(connection: sa.Connection) -> None:
        raise RuntimeError("not today")

    event.listen(world.engine, "commit", refuse)
    with world.Session() as session:
        session.get_one(User, 1).name = "lost"
        with pytest.raises(RuntimeError, match="not today"):
            session.commit()
    event.remove(world.engine, "commit", refuse)
    world.check()
    world.clock.now += world.chain.lock_seconds + 1
    world.check()


@pytest.mark.parametrize("interrupted", ["in the commit", "right after it"])
def test_a_session_that_is_abandoned_after_an_interrupted_commit(world: World, interrupted: str) -> None:
    """A tier that could not be locked is told of the commit though nobody has ended its session."""
    furnish(world)
    world.extension.unreachable = "proceed"
    commit = world.engine.dialect.do_commit

    def interrupt(raw: Any) -> None:
        commit(raw)
        world.memory.failing = None
        if interrupted == "in the commit":
            raise KeyboardInterrupt

    def interrupt_later(session: Session) -> None:
        raise KeyboardInterrupt

    def write() -> None:
        session = world.Session()
        if interrupted == "right after it":
            event.listen(session, "after_commit", interrupt_later, insert=True)
        session.get_one(User, 1).name = "new"
        session.flush()
        world.memory.failing = StoreUnavailable("it is down", "memory", "lock")
        session.commit()

    world.engine.dialect.do_commit = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        write()
    world.engine.dialect.do_commit = commit  # type: ignore[method-assign]
    gc.collect()
    world.clock.now += PROBE_SECONDS + 1
    world.check()


def test_an_interrupt_while_one_database_is_settled_leaves_no_lock_of_the_other(
    database_url: str, tmp_path: Any, make_world: MakeWorld
) -> None:
    """A session on two databases ends both commits, whatever happens while it ends the first."""
    one, two = make_world(database_url, bare=True), make_world(f"sqlite:///{tmp_path}/other.db")
    Both = sessionmaker(binds={User: one.engine, Org: two.engine}, extension=one.extension)
    one.add(User(id=1, email="1@a.org", name="old"))
    two.add(Org(id=1, name="old"))
    publish = one.memory.publish
    ended: list[str] = []

    def interrupted(locked: Any) -> None:
        ended.append(locked[0][0].key.spec.klass.__name__)
        if len(ended) == 1:
            raise KeyboardInterrupt
        publish(locked)

    with Both() as session:
        session.get_one(User, 1).name = "new"
        session.get_one(Org, 1).name = "new"
        one.memory.publish = interrupted  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            session.commit()
    assert set(ended) == {"Org", "User"}


@pytest.mark.parametrize("joined", [False, True])
def test_a_connection_that_is_detached_from_its_pool(
    world: World, caplog: pytest.LogCaptureFixture, joined: bool
) -> None:
    """It is closed as ever, and what a session has written on it is published."""
    furnish(world)
    connection = world.engine.connect()
    if joined:
        connection.detach()
        connection.begin()
    with world.Session(bind=connection if joined else world.engine) as session:
        session.get_one(User, 1).name = "new"
        mine = session.connection()
        if not joined:
            mine.detach()
        raw: Any = mine.connection.dbapi_connection
        session.commit()
    if joined:
        connection.commit()
    connection.close()
    with pytest.raises((sqlite3.ProgrammingError, psycopg.OperationalError), match="closed"):
        raw.execute("select 1")
    assert "reset" not in caplog.text
    world.check()
    assert joined or world.holds(User, {"id": 1})
