"""Everything that asks a server, besides ping and execute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stockpyle.stores import SqlTableStore
from stockpyle.testing import Person
from tests.connections.places import Place


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


def go_on(calls: Calls) -> None:
    """Assert that each call is answered."""
    answers = {name.removeprefix("table."): call() for name, call in calls.items()}
    assert answers["get"] == 1
    assert answers["batch_get"] == [1, 1, 1]
