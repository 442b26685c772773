"""Commits of a session while a tier cannot be reached: they happen and are told of later, or are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from stockpyle.exceptions import ImproperlyConfigured, InvalidKey, StoreUnavailable
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.orm.mapping import spec_of_mapped
from stockpyle.records import LOCKED
from stockpyle.stores import ChainedStore, ProcessMemoryStore, SqlAlchemyStore
from stockpyle.testing import Clock
from tests.chain.cutoff import CutOff
from tests.ext.models import Base, User


class Place:
    """A database with two users, a chain with a tier that can be cut off, and sessions that an extension follows."""

    def __init__(self, url: str, tier: CutOff, *, bare: bool = False, **options: Any) -> None:
        self.tier = tier
        self.clock = tier.clock
        self.engine = sa.create_engine(url)
        Base.metadata.create_all(self.engine)
        with Session(self.engine) as session, session.begin():
            session.add_all([User(id=1, email="ann@x", name="old"), User(id=2, email="bob@x", name="old")])
        self.chain = ChainedStore([tier, SqlAlchemyStore(engine=self.engine)])
        self.extension = StockpyleSessionExtension(tier if bare else self.chain, **options)
        self.Session = sessionmaker(self.engine, extension=self.extension)
        assert (self.name, self.name_of(2)) == ("old", "old")

    def name_of(self, i: int) -> str:
        """What the chain says that a user is called."""
        user = self.chain.get(User, {"id": i})
        assert user is not None
        return user.name

    @property
    def name(self) -> str:
        """What the chain says that the first user is called."""
        return self.name_of(1)

    def rename(self, name: str) -> None:
        """Write through a session."""
        with self.Session() as session:
            session.get_one(User, 1).name = name
            session.commit()

    def others_see(self) -> Any:
        """What other processes find in the tier under the user's identity."""
        key = spec_of_mapped(User).key({"id": 1})
        assert key is not None
        return self.tier.holds(key)


@pytest.fixture(params=[False, True], ids=["chain", "bare"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A place whose extension has the chain, or only its tier."""
    made = Place(f"sqlite:///{tmp_path}/test.db", CutOff(Clock()), bare=request.param)
    yield made
    made.engine.dispose()


def refusing(place: Place, **options: Any) -> Any:
    """Sessions of that place whose extension refuses."""
    store = place.extension.store
    return sessionmaker(place.engine, extension=StockpyleSessionExtension(store, unreachable="refuse", **options))


def test_commit_goes_on_and_is_told_later(place: Place) -> None:
    """By default a session commits without the tier; the chain says what is committed, and the tier is told later."""
    with place.tier.off():
        place.rename("new")
        assert place.tier.guards.parts[0].owes
    assert place.others_see() is not None
    assert place.name == "new"
    place.clock.advance(1)
    assert place.name == "new"
    assert place.tier.stats.delivered == place.tier.stats.owed == 2


def test_tier_that_fails_after_the_commit(place: Place) -> None:
    """A tier that fails when it is told of the commit does not fail commit(), and is told later."""
    with place.tier.off("publish"):
        place.rename("new")
    assert place.tier.stats.owed == 2
    place.clock.advance(1)
    assert place.name == "new"
    assert place.tier.stats.delivered == 2


def test_refused_commit_changes_nothing(place: Place) -> None:
    """An extension that refuses raises StoreUnavailable out of commit(), and the database has not changed."""
    session = refusing(place)()
    session.get_one(User, 1).name = "lost"
    with place.tier.off(), pytest.raises(StoreUnavailable) as caught:
        session.commit()
    assert caught.value.__cause__ is place.tier.error
    session.close()
    with Session(place.engine) as plain:
        assert plain.get_one(User, 1).name == "old"
    assert place.tier.stats.owed == 0


def test_refusing_extension_raises_nothing_after_the_commit(place: Place) -> None:
    """What fails after the commit is owed, whatever the extension says."""
    session = refusing(place)()
    session.get_one(User, 1).name = "new"
    with place.tier.off("publish"):
        session.commit()
    session.close()
    assert place.tier.stats.owed == 2
    place.clock.advance(1)
    assert place.name == "new"


def test_rollback_owes_nothing(place: Place) -> None:
    """A session that is rolled back owes nothing, whatever the tier does."""
    with place.tier.off(), place.Session() as session:
        session.get_one(User, 1).name = "lost"
        session.flush()
        session.rollback()
    assert place.tier.stats.owed == 0


@pytest.mark.parametrize("mode", ["proceed", "refuse"])
def test_written_after_the_tiers_were_locked_is_owed(place: Place, mode: str) -> None:
    """What a listener writes after the locks is durable when the tier is told: nothing is raised, all is owed."""
    make = refusing(place) if mode == "refuse" else place.Session

    def write(connection: sa.Connection) -> None:
        connection.execute(sa.update(User).where(User.id == 2).values(name="late"))
        place.tier.cut = {"lock", "publish"}

    session = make()
    session.get_one(User, 1).name = "new"
    event.listen(place.engine, "commit", write)
    session.commit()
    event.remove(place.engine, "commit", write)
    session.close()
    assert place.tier.stats.owed > 0
    assert (place.name, place.name_of(2)) == ("new", "late")
    place.tier.cut = set()
    place.clock.advance(1)
    assert (place.name, place.name_of(2)) == ("new", "late")
    assert place.tier.guards.parts[0].trusted


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InvalidKey("no such key")])
def test_an_interrupt_at_the_last_moment_of_a_commit_loses_nothing(place: Place, error: BaseException) -> None:
    """What could only be locked after the commit is owed if even that fails, however it fails."""

    def write(connection: sa.Connection) -> None:
        connection.execute(sa.update(User).where(User.id == 2).values(name="late"))
        place.tier.error = error
        place.tier.cut = {"lock"}

    with place.Session() as session:
        session.get_one(User, 1).name = "new"
        event.listen(place.engine, "commit", write)
        with suppress(KeyboardInterrupt):
            session.commit()
        event.remove(place.engine, "commit", write)
        place.tier.cut = set()
        place.clock.advance(1)
        assert (place.name, place.name_of(2)) == ("new", "late")


def test_refusal_in_autocommit(place: Place) -> None:
    """Where every statement is durable at once, it is the statement that is refused, before it runs."""
    engine = place.engine.execution_options(isolation_level="AUTOCOMMIT")
    with refusing(place)(bind=engine) as session:
        session.get_one(User, 1).name = "lost"
        with place.tier.off(), pytest.raises(StoreUnavailable):
            session.commit()
    assert place.name == "old"
    place.clock.advance(1)
    assert place.name == "old"


def test_unreachable_in_autocommit(place: Place) -> None:
    """What a statement that is durable at once has changed is owed to a tier that could not be told."""
    engine = place.engine.execution_options(isolation_level="AUTOCOMMIT")
    with place.Session(bind=engine) as session, place.tier.off():
        session.execute(sa.update(User).where(User.id == 1).values(name="new"))
        assert place.tier.stats.owed > 0
    place.clock.advance(1)
    assert place.name == "new"


def test_what_a_savepoint_has_committed_is_owed_though_the_rest_is_refused(place: Place) -> None:
    """By default sqlite3 commits an outermost savepoint with its release, whatever becomes of what follows."""
    with refusing(place)() as session:
        with session.begin_nested():
            session.add(User(id=3, email="eve@x", name="eve"))
            session.flush()
            session.get_one(User, 1).name = "new"
        session.get_one(User, 2).name = "lost"
        with place.tier.off(), pytest.raises(StoreUnavailable):
            session.commit()
    assert (place.name, place.name_of(2)) == ("new", "old")
    place.clock.advance(1)
    assert (place.name, place.name_of(2)) == ("new", "old")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kept", [False, True])
def test_a_connection_that_is_kept_after_its_commit_owes_at_once(place: Place, late: bool, kept: bool) -> None:
    """Nobody tells of its end before the connection's next transaction: the tier is not believed until it is told.

    kept: so is the session that has joined it. late: it is told before the database has committed, and what others then
    fill would be what was replaced.
    """

    def deliver(connection: sa.Connection) -> None:
        place.tier.cut = set()
        place.clock.advance(1)
        assert (place.name_of(1), place.name_of(2)) == ("old", "old")

    with place.engine.connect() as connection, connection.begin() as outer:
        session = place.Session(bind=connection)
        session.get_one(User, 1).name = "new"
        session.flush()
        if not kept:
            session.commit()
        if late:
            event.listen(place.engine, "commit", deliver)
        with place.tier.off():
            outer.commit()
        if late:
            event.remove(place.engine, "commit", deliver)
        place.clock.advance(1)
        assert (place.name, place.others_see()) == ("new", LOCKED)
        session.close()
        connection.close()
    assert place.name == "new"


def test_extension_takes_its_stores_word(tmp_path: Path) -> None:
    """An extension that says nothing does as its chain says, or its bare tier."""
    tier = CutOff(Clock())
    source = SqlAlchemyStore(engine=sa.create_engine(f"sqlite:///{tmp_path}/x.db"))
    assert StockpyleSessionExtension(ChainedStore([tier, source], unreachable="refuse")).unreachable == "refuse"
    assert StockpyleSessionExtension(ChainedStore([tier, source])).unreachable is None
    tier.unreachable = "refuse"
    assert StockpyleSessionExtension(tier).unreachable == "refuse"
    assert StockpyleSessionExtension(tier, unreachable="proceed").unreachable == "proceed"
    source.engine.dispose()


def test_unreachable_is_checked() -> None:
    """Anything else is an error when the extension is made."""
    with pytest.raises(ImproperlyConfigured, match="refuse"):
        StockpyleSessionExtension(ProcessMemoryStore(), unreachable="maybe")
