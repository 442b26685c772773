"""Commits that fail: for sure, and nothing is published and no lock left; or perhaps, and the locks run out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import Session

from stockpyle.ext.sqlalchemy import sessionmaker
from tests.ext.conftest import MakeWorld
from tests.ext.models import User
from tests.ext.proxies import CuttingProxy
from tests.ext.worlds import World
from tests.servers import Postgres


def furnish(world: World) -> None:
    """Write two users, and read them, and one that is not there, by their keys."""
    world.add(User(id=1, email="1@a.org", name="old"), User(id=2, email="2@a.org", name="old"))
    world.warm(User, *({"id": i} for i in (1, 2, 3)), *({"email": f"{i}@a.org"} for i in (1, 2, 3)))


def assert_nothing_happened(world: World) -> None:
    """Nothing was published, no lock is left, and the caches are right."""
    assert "publish" not in world.memory.calls
    assert world.locks == []
    assert (world.truth(User, {"id": 1}) or {})["name"] == "old"
    world.check()


def test_sqlite_is_busy_at_flush(tmp_path: Any, make_world: MakeWorld) -> None:
    """A database locked by another writer fails the flush, before anything is locked."""
    world = make_world(f"sqlite:///{tmp_path}/test.db", connect_args={"timeout": 0})
    furnish(world)
    with world.outside.connect() as other, world.Session() as session:
        other.execute(sa.text("begin immediate"))
        session.get_one(User, 1).name = "lost"
        with pytest.raises(OperationalError, match="locked"):
            session.commit()
        other.rollback()
        session.rollback()
        assert world.memory.calls == []
        assert_nothing_happened(world)
        session.get_one(User, 1).name = "new"
        session.commit()
    world.check()


@pytest.mark.parametrize("ending", ["rollback", "close"])
def test_sqlite_is_busy_at_commit(tmp_path: Any, make_world: MakeWorld, ending: str) -> None:
    """A reader that keeps SQLite from committing fails the commit for sure: the locks go."""
    world = make_world(f"sqlite:///{tmp_path}/test.db", connect_args={"timeout": 0})
    furnish(world)
    session = world.Session()
    with world.outside.connect() as other:
        other.execute(sa.text("begin"))
        other.execute(sa.text("select * from users")).fetchone()
        session.get_one(User, 1).name = "lost"
        with pytest.raises(OperationalError, match="locked"):
            session.commit()
        other.rollback()
    getattr(session, ending)()
    assert world.memory.calls == ["lock", "unlock"]
    session.close()
    with world.engine.connect() as next_one:
        # SQLAlchemy gives the connection back as it is if a session is only closed
        assert not next_one.connection.driver_connection.in_transaction  # type: ignore[union-attr]
    assert_nothing_happened(world)


@pytest.mark.parametrize("ending", ["rollback", "close"])
def test_a_deferred_constraint_fails_at_commit(postgres_world: World, ending: str) -> None:
    """A constraint that PostgreSQL checks at COMMIT only fails it for sure: the locks go."""
    world = postgres_world
    world.execute("alter table users drop constraint users_email_key")
    world.execute("alter table users add constraint later unique (email) deferrable initially deferred")
    furnish(world)
    session = world.Session()
    session.get_one(User, 1).email = "2@a.org"
    session.flush()
    with pytest.raises(IntegrityError):
        session.commit()
    assert world.is_locked(User, {"id": 1})
    getattr(session, ending)()
    assert world.memory.calls == ["lock", "unlock"]
    assert_nothing_happened(world)
    session.close()
    with world.Session() as again, again.begin():
        again.get_one(User, 1).name = "new"
    world.check()


def test_a_serialization_failure_at_commit(postgres_world: World) -> None:
    """A transaction that PostgreSQL finds not serialisable at COMMIT fails for sure: the locks go."""
    world = postgres_world
    furnish(world)
    serializable = world.engine.execution_options(isolation_level="SERIALIZABLE")
    ours = sessionmaker(serializable, extension=world.extension)()
    # the counterpart is no session of the extension's: it would not be locked, and the caches stale
    with Session(world.outside.execution_options(isolation_level="SERIALIZABLE")) as other:
        ours.scalars(sa.select(User)).all()
        other.scalars(sa.select(User)).all()
        ours.get_one(User, 1).name = "lost"
        ours.flush()
        other.add(User(id=4, email="4@a.org"))
        other.commit()
        with pytest.raises(OperationalError, match="could not serialize"):
            ours.commit()
    ours.rollback()
    ours.close()
    assert world.memory.calls == ["lock", "unlock"]
    assert_nothing_happened(world)


@pytest.fixture
def cutting(postgres_url: str, make_world: MakeWorld) -> Iterator[tuple[World, CuttingProxy]]:
    """A world that reaches its PostgreSQL through a proxy."""
    proxy = CuttingProxy(postgres_url)
    # the world's outside goes to the server itself
    world = make_world(proxy.url)
    world.outside.dispose()
    world.outside = sa.create_engine(postgres_url, poolclass=sa.NullPool)
    furnish(world)
    yield world, proxy
    world.engine.dispose()
    proxy.close()


@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize("ending", ["rollback", "close"])
def test_the_connection_is_lost_in_the_middle_of_a_commit(
    cutting: tuple[World, CuttingProxy], cut: str, ending: str
) -> None:
    """Nobody knows if it was committed: nothing is published; readers get the truth, past locks that run out."""
    world, proxy = cutting
    session = world.Session()
    session.get_one(User, 1).name = "new"
    session.flush()
    proxy.cut = cut
    with pytest.raises(OperationalError):
        session.commit()
    getattr(session, ending)()
    session.close()
    assert not world.holds(User, {"id": 1})
    assert [value for value in world.memory.published if value is not None] == []
    assert world.is_locked(User, {"id": 1})
    assert (world.truth(User, {"id": 1}) or {})["name"] == {"before": "old", "after": "new"}[cut]
    world.check()
    assert world.is_locked(User, {"id": 1})
    world.clock.now += world.chain.lock_seconds + 1
    world.check()
    assert world.holds(User, {"id": 1})


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_borrowed_connection_is_lost_in_the_middle_of_a_commit(cutting: tuple[World, CuttingProxy], cut: str) -> None:
    """It is the same where a session has only joined the transaction."""
    world, proxy = cutting
    connection = world.engine.connect()
    outer = connection.begin()
    with world.Session(bind=connection) as session:
        session.get_one(User, 1).name = "new"
        session.commit()
    proxy.cut = cut
    with pytest.raises(OperationalError):
        outer.commit()
    connection.close()
    assert world.is_locked(User, {"id": 1})
    world.check()
    world.clock.now += world.chain.lock_seconds + 1
    world.check()


def test_the_connection_is_lost_before_the_commit(postgres_world: World, postgres: Postgres) -> None:
    """A transaction whose connection went before its COMMIT leaves the caches right."""
    world = postgres_world
    furnish(world)
    with world.Session() as session:
        session.get_one(User, 1).name = "lost"
        session.flush()
        postgres.terminate_backends()
        with pytest.raises(DBAPIError):
            session.commit()
        session.rollback()
    assert [value for value in world.memory.published if value is not None] == []
    world.clock.now += world.chain.lock_seconds + 1
    assert_nothing_left(world)
    with world.Session() as session, session.begin():
        session.get_one(User, 1).name = "new"
    world.check()


def assert_nothing_left(world: World) -> None:
    """No lock is left, and the caches are right."""
    assert world.locks == []
    world.check()


def test_the_database_dies_right_after_the_commit(
    postgres_world: World, postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """A commit that is durable raises nothing, though what it wrote cannot be loaded again; its locks are gone."""
    world = postgres_world
    furnish(world)
    session = world.Session()
    session.get_one(User, 1).name = "new"
    session.flush()
    event.listen(session, "after_commit", lambda session: postgres.stop("immediate"))
    try:
        session.commit()
        assert "could not be loaded again" in caplog.text
        assert world.locks == []
        assert not world.holds(User, {"id": 1})
    finally:
        postgres.start()
    session.close()
    world.engine.dispose()
    world.check()


def test_keyboard_interrupt_in_a_commit(world: World) -> None:
    """An interrupt while the database commits leaves the outcome unknown: the locks run out, readers get the truth."""
    furnish(world)
    session = world.Session()
    session.get_one(User, 1).name = "new"
    session.flush()
    commit = world.engine.dialect.do_commit

    def interrupted(connection: Any) -> None:
        commit(connection)
        raise KeyboardInterrupt

    world.engine.dialect.do_commit = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        session.commit()
    world.engine.dialect.do_commit = commit  # type: ignore[method-assign]
    session.rollback()
    session.close()
    assert [value for value in world.memory.published if value is not None] == []
    assert world.is_locked(User, {"id": 1})
    world.check()
    world.clock.now += world.chain.lock_seconds + 1
    assert_nothing_left(world)
    assert world.holds(User, {"id": 1})
