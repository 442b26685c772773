"""Every store gives the same answers: one generator of objects and queries, all stores."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import mongomock
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from stockpyle.stores import (
    BaseDictionaryStore,
    ChainedStore,
    MongoStore,
    ProcessMemoryStore,
    ShoveStore,
    SqlAlchemyStore,
    SqlTableStore,
)
from stockpyle.views.query import Query
from tests.views.models import COLUMNS, Base, Colour, Org, Person, PlainOrg, PlainPerson

TEXT = st.one_of(
    st.sampled_from(
        ["", "a", "A", "ab", "Ab", "a_", "a%", "a\\", "ä", "Z", "z", "é", "e\u0301", "😀", "\uffee", "'", "a b"]
    ),
    st.text(alphabet="aAbB%_\\zé😀\uffee 'ß-", max_size=4),
)
WHOLE = st.one_of(st.integers(-3, 3), st.sampled_from([-(2**31), 2**31 - 1]))
FLOAT = st.sampled_from([-1.5, -0.0, 0.0, 0.1, 0.5, 1.0, 3.0, 1e300, float("inf"), float("-inf")])
MONEY = st.sampled_from([Decimal(text) for text in ("-1.50", "0.00", "0.10", "0.25", "1.00", "99999.99")])
DATE = st.sampled_from([date(1, 1, 1), date(1969, 12, 31), date(1970, 1, 1), date(2000, 2, 29), date(9999, 12, 31)])
TIME = st.sampled_from(
    [datetime(1969, 12, 31, 23, 59, 59, 999999), datetime(2000, 2, 29), datetime(2000, 2, 29, 0, 0, 0, 1),
     datetime(2000, 12, 31, 23, 59, 59), datetime(9999, 12, 31, 23, 59, 59, 999999)]
)  # fmt: skip
BYTES = st.sampled_from([b"", b"\x00", b"a", b"a\x00", b"\xff"])
UUIDS = st.sampled_from([UUID(int=0), UUID(int=1), UUID(int=2**127), UUID(int=2**128 - 1)])
TAGS = st.one_of(st.lists(st.sampled_from(["a", "b", "ab"]), max_size=2), st.none())

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": TEXT,
    "nick": TEXT,
    "age": WHOLE,
    "height": FLOAT,
    "balance": MONEY,
    "active": st.booleans(),
    "born": DATE,
    "seen": TIME,
    "token": BYTES,
    "uid": UUIDS,
    "colour": st.sampled_from(Colour),
    "tags": TAGS,
}
PATHS = {"org__name": TEXT, "org__parent__name": TEXT}
THROUGH_MANY = {"org__people__name": TEXT, "org__people__age": WHOLE}


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Orgs and people, as dicts."""
    orgs = [
        {"id": i, "name": draw(st.none() | TEXT), "parent": draw(st.sampled_from([None, *range(i)]))}
        for i in range(draw(st.integers(0, 3)))
    ]
    people = [
        {
            "id": i,
            "org": draw(st.sampled_from([None, *range(len(orgs))])),
            **{name: draw(st.none() | values) for name, values in VALUES.items()},
        }
        for i in draw(st.permutations(range(draw(st.integers(0, 6)))))
    ]
    return orgs, people


def ordered(name: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Lookups of what has an order."""
    others = st.sampled_from([-2.5, 0.5, 2**40, -(2**70), Decimal("0.5")]) if name.endswith("age") else st.nothing()
    asked = values | others
    return st.one_of(
        *[
            asked.map(lambda value, suffix=suffix: {f"{name}__{suffix}": value})
            for suffix in ("gt", "gte", "lt", "lte")
        ],
        st.tuples(asked, asked).map(lambda pair: {f"{name}__between": pair}),
    )


def lookups(name: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A lookup of one attribute."""
    found = [
        (values | st.none()).map(lambda value: {name: value}),
        st.lists(values | st.none(), max_size=3).map(lambda chosen: {f"{name}__in": chosen}),
        st.booleans().map(lambda there: {f"{name}__exists": there}),
    ]
    if name != "tags":
        found.append(ordered(name, values))
    if values is TEXT:
        for suffix in ("contains", "startswith", "endswith"):
            found.append(TEXT.map(lambda value, suffix=suffix: {f"{name}__{suffix}": value}))
        found.append(st.lists(TEXT, max_size=2).map(lambda chosen: {f"{name}__contains_any": chosen}))
        if name not in THROUGH_MANY:
            patterns = st.sampled_from(["^a", "(?i)ab", "[%_]", r"\w$", "^.{2}$", r"a|\\", re.compile("B", re.I)])
            found.append(patterns.map(lambda pattern: {f"{name}__matches": pattern}))
    if name == "tags":
        found.append(st.sampled_from(["a", "b", "c"]).map(lambda value: {"tags__contains": value}))
    if values in (DATE, TIME):
        for suffix, parts in (
            ("year", [0, 1, 1969, 2000, 9999, 10**6]),
            ("month", [1, 2, 12, 13]),
            ("day", [1, 29, 31]),
        ):
            found.append(st.sampled_from(parts).map(lambda part, suffix=suffix: {f"{name}__{suffix}": part}))
    return st.one_of(found)


LEAVES = st.one_of([lookups(name, values) for name, values in (VALUES | PATHS | THROUGH_MANY).items()])
Build = Callable[[Query[Any]], Query[Any]]


@st.composite
def conditions(draw: st.DrawFn, depth: int = 3) -> Build:
    """What makes a query of a query of everything."""
    kind = draw(st.sampled_from(["where", "where", "where_not", "and", "or", "not"])) if depth else "where"
    if kind in ("where", "where_not"):
        asked: dict[str, Any] = {}
        for leaf in draw(st.lists(LEAVES, min_size=1, max_size=2)):
            asked |= leaf
        return lambda query: getattr(query, kind)(**asked)
    one: Build = draw(conditions(depth - 1))
    if kind == "not":
        return lambda query: ~one(query)
    other: Build = draw(conditions(depth - 1))
    return (lambda query: one(query) & other(query)) if kind == "and" else (lambda query: one(query) | other(query))


@st.composite
def queries(draw: st.DrawFn) -> Build:
    """A condition, an order, and slices of it."""
    condition: Build = draw(conditions())
    names = [name for name in [*COLUMNS, "id", *PATHS] if name != "tags"]
    orders = draw(st.lists(st.tuples(st.sampled_from(["", "-"]), st.sampled_from(names)).map("".join), max_size=2))
    bounds = st.none() | st.integers(0, 6)
    slices = draw(st.lists(st.tuples(bounds, bounds).map(lambda pair: slice(*pair)), max_size=2))

    def build(query: Query[Any]) -> Query[Any]:
        query = condition(query).order_by(*orders)
        for part in slices:
            query = query[part]
        return query

    return build


class World:
    """The stores, emptied and filled for each example."""

    def __init__(self, engines: dict[str, sa.Engine]) -> None:
        self.engines = engines
        for engine in engines.values():
            Base.metadata.create_all(engine)
        self.table = SqlTableStore(engines["sqlite"], sa.MetaData(), "kept")
        self.table.table.create()

    def fill(self, orgs: list[dict[str, Any]], people: list[dict[str, Any]]) -> dict[str, Query[Any]]:
        """Return a query of all people in each store."""
        self._fill_plain(orgs, people)
        memory, mapping, shove = ProcessMemoryStore(), BaseDictionaryStore({}), ShoveStore({})
        mongo = MongoStore(mongomock.MongoClient()["app"], "kept")
        self.table.clear()
        found: dict[str, Query[Any]] = {}
        for store in (memory, mapping, shove, mongo, self.table):
            store.batch_put(self.people)
            found[type(store).__name__] = store.query(PlainPerson)
        found["chain on a table"] = ChainedStore([ProcessMemoryStore(), self.table]).query(PlainPerson)
        found["chain of plain"] = ChainedStore([ProcessMemoryStore(), mapping]).query(PlainPerson)
        for name, engine in self.engines.items():
            with Session(engine) as session:
                for table in reversed(Base.metadata.sorted_tables):
                    session.execute(table.delete())
                rows = [{"id": o["id"], "name": o["name"], "parent_id": o["parent"]} for o in orgs]
                if rows:
                    session.execute(Org.__table__.insert(), rows)
                rows = [{**{k: v for k, v in p.items() if k != "org"}, "org_id": p["org"]} for p in people]
                if rows:
                    session.execute(Person.__table__.insert(), rows)
                session.commit()
            store = SqlAlchemyStore(engine=engine)
            found[name] = store.query(Person)
            found[f"chain on {name}"] = ChainedStore([ProcessMemoryStore(), store]).query(Person)
        return found

    def _fill_plain(self, orgs: list[dict[str, Any]], people: list[dict[str, Any]]) -> None:
        made: list[PlainOrg] = []
        for org in orgs:
            made.append(PlainOrg(org["id"], org["name"], None if org["parent"] is None else made[org["parent"]]))
        self.people = []
        for values in people:
            own = dict(values)
            org = own.pop("org")
            person = PlainPerson(org=None if org is None else made[org], **own)
            if person.org is not None:
                person.org.people.append(person)
            self.people.append(person)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, postgres: Any) -> Iterator[World]:
    """Both databases, with empty tables."""
    url = postgres.create_database()
    path: Path = tmp_path_factory.mktemp("queries") / "test.db"
    engines = {"sqlite": sa.create_engine(f"sqlite:///{path}"), "postgresql": sa.create_engine(url)}
    yield World(engines)
    for engine in engines.values():
        engine.dispose()
    postgres.drop_database(url)


@settings(max_examples=120, suppress_health_check=list(HealthCheck))
@given(people=worlds(), build=queries())
def test_all_stores_give_the_same_answers(world: World, people: Any, build: Build) -> None:
    """Objects, their order, slices, counts and values are those of a scan, in every store and chain."""
    stores = world.fill(*people)
    expected = build(stores.pop("ProcessMemoryStore"))
    ids = [person.id for person in expected]
    assert expected.count() == len(ids)
    for name, everything in stores.items():
        query = build(everything)
        assert [person.id for person in query] == ids, f"{name}: {query!r}"
        assert query.count() == len(ids), f"{name}: {query!r}"
        assert query.exists() is bool(ids), f"{name}: {query!r}"
        assert query.values("id", "name", "org__parent__name") == expected.values("id", "name", "org__parent__name")
