"""Connections in AUTOCOMMIT: a statement is visible to everybody when it has run, and by then the caches are right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from stockpyle.ext.sqlalchemy import sessionmaker
from stockpyle.orm.connections import driver_commits
from stockpyle.records import Record
from tests.ext.models import Org, User
from tests.ext.test_statements import furnish
from tests.ext.ways import WAYS, ways
from tests.ext.worlds import World

MakeWorld = Callable[..., World]


@pytest.fixture
def automatic(database_url: str, make_world: MakeWorld) -> Iterator[World]:
    """A world whose sessions are on an AUTOCOMMIT engine, and that is furnished."""
    world = make_world(database_url)
    furnish(world)
    engine = sa.create_engine(database_url, isolation_level="AUTOCOMMIT")
    world.Session = sessionmaker(engine, extension=world.extension)
    yield world
    engine.dispose()


@pytest.mark.parametrize("name", ways())
def test_a_statement(automatic: World, name: str) -> None:
    """Right after the statement, with no commit, the caches are right, and other classes untouched."""
    with automatic.Session() as session:
        WAYS[name].write(session)
        assert automatic.locks == []
        assert automatic.holds(Org, {"id": 1})
        automatic.check()


def test_a_flush(automatic: World) -> None:
    """Right after a flush, with no commit, the caches are right."""
    with automatic.Session() as session:
        session.get_one(User, 1).name = "new"
        session.add(User(id=3, email="3@a.org"))
        session.flush()
        assert automatic.locks == []
        automatic.check()


def test_readers_meanwhile(automatic: World) -> None:
    """Who reads while a statement runs is bypassed: what he loads, old or new, is kept by nobody."""
    seen: list[Any] = []

    def read(*_: Any) -> None:
        seen.append(automatic.cached(User, {"id": 1})["name"])  # type: ignore[index]
        assert not isinstance(automatic.held(User, {"id": 1}), Record)

    with automatic.Session() as session:
        connection = session.connection()
        session.commit()
        event.listen(connection.engine, "before_cursor_execute", read)
        session.execute(sa.update(User).where(User.id == 1).values(name="new"))
        event.remove(connection.engine, "before_cursor_execute", read)
    assert "old" in seen
    automatic.check()


def test_a_statement_that_fails(automatic: World) -> None:
    """A statement that the database refuses leaves no lock, and what it may have done before is dropped."""
    with automatic.Session() as session:
        with pytest.raises(sa.exc.IntegrityError):
            session.execute(sa.update(User).values(email="same"))
        assert automatic.locks == []
        automatic.check()


@pytest.mark.parametrize("place", ["dbapi_connection", "driver_connection", "dialect"])
def test_how_a_driver_says_that_it_commits(place: str) -> None:
    """Autocommit is known where the driver's connection says it, SQLAlchemy's own around it, or only the dialect."""
    said = SimpleNamespace(autocommit=True)
    pooled = SimpleNamespace(dbapi_connection=object(), driver_connection=object())
    dialect = SimpleNamespace(name="other", detect_autocommit_setting=lambda raw: place == "dialect")
    connection: Any = SimpleNamespace(connection=pooled, dialect=dialect)
    assert driver_commits(connection) == (place == "dialect")
    setattr(pooled, place, said)
    assert driver_commits(connection)
