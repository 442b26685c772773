"""Everything that asks a server, besides ping and execute: what it does while the server is no use, and afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stockpyle.exceptions import StoreError, StoreTimeout, StoreUnavailable
from stockpyle.stores import SqlTableStore
from stockpyle.testing import Person
from tests.connections.places import Place, garbage, half, nothing


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "bad_server_notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


Calls = dict[str, Callable[[], Any]]


def objects(store: Any, make: Callable[[int], Any]) -> Calls:
    """What the six verbs do; put comes first."""
    klass = type(make(1))
    return {
        "put": lambda: store.put(make(1)),
        "get": lambda: store.get(klass, {"id": 1}).id,
        "batch_get": lambda: [obj.id for obj in store.batch_get(klass, [{"id": 1}] * 3)],
        "batch_put": lambda: store.batch_put([make(1), make(2)]),
        "delete": lambda: store.delete(make(2)),
    }


def views(store: Any) -> Calls:
    """What the store has besides objects."""
    calls: Calls = {}
    if "collection" in store.supports:
        kept = store.collection("kept")
        calls |= {
            "collection[]=": lambda: kept.update(a=1),
            "collection[]": lambda: kept["a"],
            "collection.keys": lambda: list(kept.keys("a")),
            "collection.items": lambda: list(kept.items()),
            "collection.drop": lambda: store.collection("dropped").drop(),
        }
    if "counter" in store.supports:
        counter = store.counter("visits")
        calls |= {"value": lambda: counter.value, "reset": lambda: counter.reset(5), "increment": counter.increment}
    return calls


def queries(store: Any, klass: type) -> Calls:
    """What queries ask."""
    query = store.query(klass).where(id=1)
    return {"query": lambda: [obj.id for obj in query], "count": query.count, "values": lambda: query.values("id")}


@pytest.fixture
def calls(place: Place) -> Iterator[Calls]:
    """All that can be asked of the stores on a server, by name."""
    with asked_of(place) as made:
        yield made


@contextmanager
def asked_of(place: Place) -> Iterator[Calls]:
    """Yield all that can be asked of the stores on a server, by name."""
    store = place.store
    if not place.kind.startswith("postgresql"):
        yield {**objects(store, lambda id: Person(id, name="Ann")), **views(store)}
        return
    table = SqlTableStore(store.engine, sa.MetaData(), "bad_server_table")
    table.table.create(store.engine, checkfirst=True)
    Base.metadata.create_all(store.engine)
    made = {**objects(store, lambda id: Note(id=id, text="x")), **queries(store, Note)}
    of_table = {**objects(table, lambda id: Person(id, name="Ann")), **views(table), **queries(table, Person)}
    yield {**made, **{f"table.{name}": call for name, call in of_table.items()}}
    table.close()


def fail(calls: Calls, kind: type[StoreError] = StoreUnavailable) -> None:
    """Assert that each call fails, in time, as a server does that is no use."""
    for name, call in calls.items():
        began = time.monotonic()
        with pytest.raises(kind) as told:
            call()
        assert told.value.store, name
        assert told.value.__cause__ is not None, name
        # connecting and asking may take the timeout each; the rest is for a busy machine
        assert time.monotonic() - began < 20, name


def go_on(calls: Calls) -> None:
    """Assert that each call is answered."""
    answers = {name.removeprefix("table."): call() for name, call in calls.items()}
    assert answers["get"] == 1
    assert answers["batch_get"] == [1, 1, 1]


@pytest.mark.parametrize("answer", [garbage, half, nothing])
@pytest.mark.parametrize("connected", [True, False])
def test_nonsense_from_the_server(place: Place, calls: Calls, answer: Any, connected: bool) -> None:
    """Garbage, half an answer or none is StoreUnavailable, on a new connection and on one that was in use."""
    if connected:
        go_on(calls)
    place.between.meddle = answer
    fail(calls)
    place.between.meddle = None
    go_on(calls)


def test_a_server_that_is_down(place: Place) -> None:
    """Every call is StoreUnavailable as long as it is down, with connections left from before, too."""
    direct = Place(place.kind, place.server, place.server)
    with asked_of(direct) as calls:
        go_on(calls)
        place.server.stop("immediate")
        fail(calls)
        place.server.start()
        go_on(calls)
    direct.store.close()


@pytest.mark.parametrize("place", ["redis", "memcache"], indirect=True)
def test_a_server_that_hangs(place: Place, calls: Calls) -> None:
    """Every call takes its timeout, and is StoreTimeout; how long a database may take is its driver's business."""
    with place.server.hung():
        fail(calls, StoreTimeout)
    go_on(calls)
