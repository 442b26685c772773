"""A cache that is down, hangs, answers garbage or closes in mid-reply, seen from a chain and its sessions."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from stockpyle.exceptions import StoreUnavailable
from stockpyle.records import LOCKED, MISS
from tests.ext.models import User
from tests.remote.caches import Cache
from tests.remote.parts import Meddler, meddler
from tests.remote.places import FAILURES, Place


@pytest.fixture
def between(cache: Cache) -> Iterator[Meddler]:
    """Somebody in front of the server."""
    with meddler(cache.address) as made:
        yield made


@pytest.mark.parametrize("failure", FAILURES)
def test_failing_cache_costs_no_answers(
    failure: str, tmp_path: Path, between: Meddler, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads and commits go on, right, over a cache that fails in any way; it is called, and logged, once.

    When it answers again, what it was not told of is gone from it, and it is used as before.
    """
    place = Place(tmp_path, cache, between)
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
    name = f"{place.tier.name} ({place.tier.parts[0].name})"
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
def test_commit_is_refused(failure: str, tmp_path: Path, between: Meddler, cache: Cache) -> None:
    """With unreachable="refuse" a commit that the cache cannot be told of fails, nothing is written, nothing owed."""
    place = Place(tmp_path, cache, between, unreachable="refuse")
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
def test_cache_that_fails_after_the_commit(
    failure: str, unreachable: str, tmp_path: Path, between: Meddler, cache: Cache
) -> None:
    """Nothing is raised out of a durable commit; the locks stay, and what was not published is owed, in both modes."""
    place = Place(tmp_path, cache, between, unreachable=unreachable)
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


def test_cache_that_is_down_and_comes_back(tmp_path: Path, own_cache: Cache) -> None:
    """A server that was stopped and started anew is used again, empty, without anybody's doing."""
    place = Place(tmp_path, own_cache)
    own_cache.server.stop("immediate")
    assert place.name == "old"
    place.rename("new")
    assert place.name == "new"
    own_cache.server.start()
    place.recover()
    assert place.name == "new"
    assert place.others_see == "new"


def test_cache_that_is_stopped_costs_one_timeout(tmp_path: Path, own_cache: Cache) -> None:
    """A server that hangs for good keeps one caller waiting, once for its timeout; all others go past it.

    When it goes on, and does what it was sent meanwhile, nothing older than the commits is in it.
    """
    place = Place(tmp_path, own_cache)
    waits: list[str] = []
    server = place.tier.parts[0].server
    way = "talk" if hasattr(server, "talk") else "call"
    call = getattr(server, way)
    setattr(server, way, lambda operation, work: (waits.append(operation), call(operation, work))[1])
    own_cache.server.pause()
    try:
        for name in ("first", "second"):
            place.rename(name)
            assert place.name == name
            assert place.chain.get(User, {"email": "ann@x"}).name == name
    finally:
        own_cache.server.resume()
    assert waits == ["lock"]
    place.recover()
    assert place.name == "second"
    # or the lock is still there that the server was sent while it hung: nobody can tell whose it is
    assert place.others_see in ("second", LOCKED)


def test_threads_pass_a_cache_that_is_stopped(tmp_path: Path, own_cache: Cache) -> None:
    """16 threads that read while the server hangs are all answered, and right."""
    place = Place(tmp_path, own_cache)
    own_cache.server.pause()
    try:
        with ThreadPoolExecutor(16) as pool:
            names = list(pool.map(lambda _: place.name, range(64)))
    finally:
        own_cache.server.resume()
    assert set(names) == {"old"}
    place.recover()
    assert place.name == "old"
