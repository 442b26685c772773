"""How commits end whose answer nobody has, or whose end nobody tells of."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from tests.ext.conftest import MakeWorld
from tests.ext.models import User
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


def test_what_a_failed_commit_leaves_open_in_the_pool_is_not_read(tmp_path: Any, make_world: MakeWorld) -> None:
    """SQLAlchemy gives back a connection whose COMMIT failed without rolling it back: no load sees what it has written.

    The locks are gone by then, for the failure was definite.
    """
    world = make_world(f"sqlite:///{tmp_path}/test.db", connect_args={"timeout": 0})
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
