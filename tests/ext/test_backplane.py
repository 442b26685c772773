"""What a session commits is told to the memory of other processes, however it comes to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from stockpyle.ext.sqlalchemy import sessionmaker
from stockpyle.orm.mapping import spec_of_mapped
from tests.chain.radio import Air, Radio
from tests.ext import models
from tests.ext.conftest import MakeWorld
from tests.ext.models import User
from tests.ext.proxies import CuttingProxy


class Pair:
    """A process that writes, and another that reads, each with memory of its own; `air` is between them."""

    def __init__(self, url: str, make_world: MakeWorld, **options: Any) -> None:
        self.air = Air()
        self.writer = make_world(url, chain={"backplane": Radio(self.air)}, **options)
        self.reader = make_world(url, chain={"backplane": Radio(self.air)})
        self.writer.add(User(id=1, email="1@a.org", name="old"), User(id=2, email="2@a.org", name="old"))
        for world in (self.reader, self.writer):
            world.warm(User, *({"id": i} for i in (1, 2, 3)), *({"email": f"{i}@a.org"} for i in (1, 2, 3)))
        self.air.sent.clear()

    def check(self) -> None:
        """Compare what the reader, and then the writer, says with the database."""
        self.reader.check()
        self.writer.check()


@pytest.fixture(params=["publish", "invalidate"])
def pair(request: pytest.FixtureRequest, database_url: str, make_world: MakeWorld) -> Pair:
    """Two processes, of which the first publishes what it commits, or only invalidates."""
    return Pair(database_url, make_world, on_write=request.param)


def test_commit_is_told(pair: Pair) -> None:
    """Updates, inserts and deletes are told in one message, by all their keys, and the reader is right."""
    with pair.writer.Session() as session, session.begin():
        session.get_one(User, 1).email = "new@a.org"
        session.delete(session.get_one(User, 2))
        session.add(User(id=3, email="3@a.org", name="new"))
    assert len(pair.air.sent) == 1
    assert not any(pair.reader.holds(User, {"id": i}) for i in (1, 2, 3))
    pair.check()


def test_what_nobody_can_name_is_told_as_a_class(pair: Pair) -> None:
    """A statement past the unit of work drops the class in the memory of others, too."""
    with pair.writer.Session() as session, session.begin():
        session.execute(sa.text("update users set name = 'new'"))
    pair.check()


def test_rollbacks_are_not_told(pair: Pair) -> None:
    """Nothing is told of what was rolled back, nor of a savepoint that was."""
    with pair.writer.Session() as session:
        session.get_one(User, 1).name = "never"
        session.flush()
        session.rollback()
    assert pair.air.sent == []
    with pair.writer.Session() as session, session.begin():
        savepoint = session.begin_nested()
        session.get_one(User, 1).name = "never"
        savepoint.rollback()
        session.get_one(User, 2).name = "new"
    assert pair.reader.holds(User, {"id": 1})
    assert not pair.reader.holds(User, {"id": 2})
    pair.check()


def test_borrowed_connection_is_told_when_it_is_given_back(pair: Pair) -> None:
    """What a session has written in somebody's transaction is told when the connection tells of its end."""
    with pair.writer.engine.connect() as connection, connection.begin():
        with pair.writer.Session(bind=connection) as session:
            session.get_one(User, 1).name = "new"
            session.commit()
        assert pair.air.sent == []
    assert len(pair.air.sent) == 1
    pair.check()


def test_autocommit_is_told(pair: Pair) -> None:
    """What was written in autocommit is told though nothing could be locked before it was visible."""
    with pair.writer.Session(bind=pair.writer.engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        session.get_one(User, 1).name = "new"
        session.commit()
    pair.check()


def test_what_was_written_at_the_last_moment_is_told(pair: Pair) -> None:
    """What an application's own listener writes while the database commits is told, too."""
    world = pair.writer

    @sa.event.listens_for(world.engine, "commit")
    def late(connection: sa.Connection) -> None:
        connection.exec_driver_sql("update users set name = 'late' where id = 2")

    with world.Session() as session, session.begin():
        session.get_one(User, 1).name = "new"
    sa.event.remove(world.engine, "commit", late)
    pair.check()


def test_what_a_savepoint_of_sqlite_has_committed_is_told(tmp_path: Path, make_world: MakeWorld) -> None:
    """sqlite3 commits a savepoint at its release: it is told though the rest is rolled back."""
    pair = Pair(f"sqlite:///{tmp_path}/test.db", make_world)
    with pair.writer.Session() as session:
        with session.begin_nested():
            session.get_one(User, 1).name = "new"
        session.rollback()
    pair.check()


def test_prepared_transaction_is_told_when_it_is_committed(postgres_url: str, make_world: MakeWorld) -> None:
    """A two-phase commit is told after its second phase, and not before."""
    pair = Pair(postgres_url, make_world)
    with sessionmaker(pair.writer.engine, extension=pair.writer.extension, twophase=True)() as session:
        session.get_one(User, 1).name = "new"
        session.prepare()
        assert pair.air.sent == []
        session.commit()
    assert len(pair.air.sent) == 1
    pair.check()


@pytest.mark.parametrize("cut", ["before", "after"])
def test_lost_answer_to_a_commit_is_told(postgres_url: str, make_world: MakeWorld, cut: str) -> None:
    """A commit of which nobody knows if it has happened is told: who forgets something is never wrong."""
    proxy = CuttingProxy(postgres_url)
    pair = Pair(proxy.url, make_world)
    with pytest.raises(sa.exc.DBAPIError), pair.writer.Session() as session:  # noqa: PT012
        session.get_one(User, 1).name = "new"
        proxy.cut = cut
        session.commit()
    assert len(pair.air.sent) == 1
    assert not pair.reader.holds(User, {"id": 1})
    pair.reader.check()
    proxy.close()


def test_a_backplane_that_fails_fails_no_commit(pair: Pair) -> None:
    """A commit whose message cannot be sent has happened, and commit() returns."""
    radio = pair.air.radios[0]

    def fail(*args: Any) -> Any:
        raise OSError("no route")

    radio.publish = fail  # type: ignore[method-assign]
    with pair.writer.Session() as session, session.begin():
        session.get_one(User, 1).name = "new"
    assert (pair.writer.truth(User, {"id": 1}) or {})["name"] == "new"
    backplane: Any = pair.writer.chain.backplane
    # in the background it is tried again
    assert backplane.stats.failures >= 1
    del radio.publish
    assert backplane._outbox.settle()
    pair.check()


def test_keys_of_a_hierarchy_are_found_by_its_space() -> None:
    """Every key of a mapped hierarchy names its table first, by which messages find what is to be dropped."""
    for mapper in models.Base.registry.mappers:
        spec = spec_of_mapped(mapper.class_)
        assert {definition.space for definition in spec.definitions} == {spec.space}
