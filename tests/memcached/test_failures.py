"""A memcached that is down, hangs, answers garbage or closes in mid-reply, seen from a chain and its sessions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from stockpyle.coherence.courier import Courier
from stockpyle.coherence.guards import Guards
from stockpyle.exceptions import StoreUnavailable
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.orm.mapping import spec_of_mapped
from stockpyle.records import MISS, Record
from stockpyle.stores import ChainedStore, MemcacheStore, SqlAlchemyStore
from stockpyle.testing import Clock
from tests.ext.models import Base, User
from tests.memcached.parts import Meddler, meddler, new_prefix
from tests.servers import Memcached


def garbage(answer: bytes) -> Iterable[bytes]:
    """Say what memcached never would."""
    yield b"HTTP/1.1 400 Bad Request\r\n\r\n"


def half(answer: bytes) -> Iterable[bytes]:
    """Say half of it, and go."""
    yield answer[: len(answer) // 2]


def nothing(answer: bytes) -> Iterable[bytes]:
    """Go without a word."""
    yield b""


class NoCourier(Courier):
    """A courier who comes by when a test says so."""

    def call(self, debtor: Any) -> None:
        self.debtors.add(debtor)


class Directly:
    """Nobody in front of a server."""

    def __init__(self, server: Memcached) -> None:
        self.address = server.host, server.port
        self.meddle: Any = None


class Place:
    """One process's chain, through a meddler, over a database with one user; and another that reaches memcached."""

    def __init__(self, folder: Path, between: Meddler | Directly, server: Memcached, **options: Any) -> None:
        self.between = between
        self.engine = sa.create_engine(f"sqlite:///{folder}/test.db")
        Base.metadata.create_all(self.engine)
        with Session(self.engine) as session, session.begin():
            session.add(User(id=1, email="ann@x", name="old"))
        self.clock = Clock()
        prefix = new_prefix()
        self.tier = MemcacheStore(servers=[between.address], prefix=prefix, timeout=0.2)
        self.tier.guards = Guards(self.tier, clock=self.clock, courier=NoCourier())
        self.chain = ChainedStore([self.tier, SqlAlchemyStore(engine=self.engine)], **options)
        self.Session = sessionmaker(self.engine, extension=StockpyleSessionExtension(store=self.chain))
        self.others = MemcacheStore(servers=[(server.host, server.port)], prefix=prefix)
        assert self.name == "old"
        assert self.others_see == "old"

    @property
    def name(self) -> str:
        """What the chain says that the user is called."""
        user = self.chain.get(User, {"id": 1})
        assert user is not None
        return user.name

    @property
    def others_see(self) -> Any:
        """What other processes find in memcached."""
        key = spec_of_mapped(User).key({"id": 1})
        assert key is not None
        (found,) = self.others.read([key], lease=False)
        return found.value[list(key.spec.attributes).index("name")] if isinstance(found, Record) else found

    def rename(self, name: str) -> None:
        """Write through a session."""
        with self.Session() as session:
            session.get_one(User, 1).name = name
            session.commit()

    def recover(self) -> None:
        """Memcached answers again, and the courier finds that out."""
        self.between.meddle = None
        self.clock.advance(1)
        assert self.tier.guards.parts[0].settle()


@pytest.fixture
def between(memcached: tuple[str, int]) -> Iterator[Meddler]:
    """Somebody in front of the server."""
    with meddler(memcached) as made:
        yield made


@pytest.fixture
def server(memcached: tuple[str, int]) -> Any:
    """The server, as it is reached without anybody in between."""

    class Address:
        host, port = memcached

    return Address


FAILURES: dict[str, Callable[[Meddler], Callable[[bytes], Iterable[bytes]]]] = {
    "hangs": lambda between: between.silent,
    "answers garbage": lambda between: garbage,
    "closes in mid-reply": lambda between: half,
    "closes without a word": lambda between: nothing,
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failing_memcached_costs_no_answers(
    failure: str, tmp_path: Path, between: Meddler, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads and commits go on, right, over a memcached that fails in any way; it is called, and logged, once.

    When it answers again, what it was not told of is gone from it, and it is used as before.
    """
    place = Place(tmp_path, between, server)
    between.meddle = FAILURES[failure](between)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "stockpyle"):
        assert place.name == "old"
        connections = between.connections
        for name in ("first", "second"):
            place.rename(name)
            assert place.name == name
            assert place.chain.get(User, {"email": "ann@x"}).name == name
    assert between.connections == connections
    name = f"memcache ({place.tier.parts[0].name})"
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        f"{name} could not be read",
        f"{name} could not be told what has changed",
    ]
    place.recover()
    assert place.others_see is MISS
    assert place.name == "second"
    assert place.others_see == "second"
    assert place.tier.guards.parts[0].trusted


@pytest.mark.parametrize("failure", FAILURES)
def test_commit_is_refused(failure: str, tmp_path: Path, between: Meddler, server: Any) -> None:
    """With unreachable="refuse" a commit that memcached cannot be told of fails, nothing is written, nothing owed."""
    place = Place(tmp_path, between, server, unreachable="refuse")
    between.meddle = FAILURES[failure](between)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="unreachable"):
            place.rename("new")
    assert place.name == "old"
    assert not place.tier.guards.parts[0].owes
    place.recover()
    place.rename("new")
    assert (place.name, place.others_see) == ("new", "new")


@pytest.mark.parametrize("unreachable", ["proceed", "refuse"])
@pytest.mark.parametrize("failure", FAILURES)
def test_memcached_that_fails_after_the_commit(
    failure: str, unreachable: str, tmp_path: Path, between: Meddler, server: Any
) -> None:
    """Nothing is raised out of a durable commit; the locks stay, and what was not published is owed, in both modes."""
    place = Place(tmp_path, between, server, unreachable=unreachable)
    meddle = FAILURES[failure](between)

    def committed(session: Session) -> None:
        between.meddle = meddle

    sa.event.listen(place.Session, "after_commit", committed)
    place.rename("new")
    assert place.name == "new"
    assert place.others_see != "old"
    assert place.tier.guards.parts[0].owes
    sa.event.remove(place.Session, "after_commit", committed)
    place.recover()
    assert place.name == "new"
    assert place.others_see != "old"


def test_memcached_that_is_down_and_comes_back(tmp_path: Path) -> None:
    """A memcached that was stopped and started anew is used again, empty, without anybody's doing."""
    with Memcached() as server:
        place = Place(tmp_path, Directly(server), server)
        server.stop("immediate")
        assert place.name == "old"
        place.rename("new")
        assert place.name == "new"
        server.start()
        place.recover()
        assert place.name == "new"
        assert place.others_see == "new"
