"""Queries of a database, alone and below tiers: one statement, and the same answers as Python gives."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stockpyle.exceptions import InvalidQuery, UnsupportedOperation
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.stores import BaseDictionaryStore, ChainedStore, ProcessMemoryStore, SqlAlchemyStore, ThreadLocalStore
from tests.databases import chain_on, save, traffic
from tests.views.models import Base, Colour, Org, Person


@pytest.fixture
def people(engine: sa.Engine) -> sa.Engine:
    """An engine on a database with two orgs and four people."""
    Base.metadata.create_all(engine)
    orgs = [Org(id=1, name="Acme"), Org(id=2, name="Beta", parent_id=1)]
    born = [date(1990, 1, 1), None, date(2000, 12, 31), date(1990, 12, 31)]
    names = ["Ann", "bob", "Çem", None]
    save(engine, orgs)
    save(
        engine,
        [
            Person(id=i, name=names[i], age=None if i == 3 else 10 * i, born=born[i], org_id=[1, 2, None, 2][i])
            for i in range(4)
        ],
    )
    return engine


def ids(query: Any) -> list[Any]:
    """Return the ids of what a query finds, in its order."""
    return [obj.id for obj in query]


def test_a_query_is_one_statement(people: sa.Engine) -> None:
    """Objects, counts, values and existence take one SELECT each, which has the condition, the order and the slice."""
    store = SqlAlchemyStore(engine=people)
    query = store.query(Person).where(age__gte=10, org__name="Beta").order_by("-name")[:5]
    list(store.query(Person))
    for ask in (lambda: ids(query), query.count, query.exists, lambda: query.values("name"), query.first):
        with traffic(people) as seen:
            ask()
        (statement,) = seen.statements
        assert "LIMIT" in statement
        assert "EXISTS" in statement
        assert seen.commits == 0


def test_a_lazy_query_sends_nothing(people: sa.Engine) -> None:
    """Making queries of queries asks the database nothing."""
    store = SqlAlchemyStore(engine=people)
    with traffic(people) as seen:
        query = store.query(Person).where(age__gte=10)
        (~query | query.where_not(name="x")).order_by("name")[1:2]
    assert seen.statements == []


def test_objects_of_a_chain_come_from_its_tiers(people: sa.Engine) -> None:
    """The source is asked for identities only; the tiers have the objects, or load what they lack in one statement."""
    chain = chain_on(people)
    query = chain.query(Person).order_by("-id")
    list(query)
    with traffic(people) as seen:
        found = list(query)
    (statement,) = seen.statements
    assert "people.name" not in statement
    assert [each.id for each in found] == [3, 2, 1, 0]
    assert sa.inspect(found[0]).detached
    chain.invalidate(Person, {"id": 2})
    chain.invalidate(Person, {"id": 0})
    with traffic(people) as seen:
        assert ids(query) == [3, 2, 1, 0]
    assert len(seen.statements) == 2
    found[0].name = "changed by its owner only"
    assert query.first().name is None


def test_a_query_fills_tiers_only_as_gets_do(people: sa.Engine) -> None:
    """count(), values(), exists() and the identities leave nothing in a tier; objects are filled under their leases."""
    memory = ProcessMemoryStore()
    query = ChainedStore([memory, SqlAlchemyStore(engine=people)]).query(Person)
    query.count()
    query.values("name")
    assert len(memory) == 0
    assert len(list(query)) == len(memory) == 4


class Late(ProcessMemoryStore):
    """A tier that is read only after somebody has deleted a row."""

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__()
        self.other = SqlAlchemyStore(engine=engine)

    def read(self, keys: Any, *, lease: bool = True) -> Any:
        self.other.query(Person).where(id=1).delete()
        return super().read(keys, lease=lease)


def test_an_object_deleted_meanwhile_is_left_out(people: sa.Engine) -> None:
    """What is gone between the identities and the objects is left out, and no None takes its place."""
    query = ChainedStore([Late(people), SqlAlchemyStore(engine=people)]).query(Person)
    assert query.count() == 4
    assert ids(query) == [0, 2, 3]


def test_deleting_through_a_chain_keeps_its_caches_right(people: sa.Engine) -> None:
    """delete() goes through batch_delete: no tier hands out what it has deleted, and other objects stay."""
    chain = chain_on(people)
    list(chain.query(Person))
    assert chain.query(Person).where(org__name="Beta").delete() == 2
    assert chain.batch_get(Person, [{"id": i} for i in range(4)])[1::2] == [None, None]
    assert ids(chain.query(Person)) == [0, 2]
    assert SqlAlchemyStore(engine=people).query(Person).count() == 2


def test_deleting_many_is_done_in_batches(sqlite_engine: sa.Engine) -> None:
    """1,200 objects are deleted in three transactions."""
    Base.metadata.create_all(sqlite_engine)
    save(sqlite_engine, [Org(id=i, name=str(i)) for i in range(1200)])
    store = SqlAlchemyStore(engine=sqlite_engine)
    with traffic(sqlite_engine) as seen:
        assert store.query(Org).delete() == 1200
    assert seen.commits == 3
    assert store.query(Org).count() == 0


def test_a_thousand_objects(engine: sa.Engine) -> None:
    """A thousand objects come in order, from a chain in one identity query and one batch."""
    Base.metadata.create_all(engine)
    save(engine, [Org(id=i, name=f"{i % 7}") for i in range(1000)])
    expected = sorted(range(1000), key=lambda i: (str(i % 7), i))
    chain = chain_on(engine)
    query = chain.query(Org).order_by("name")
    with traffic(engine) as seen:
        assert ids(query) == expected
    assert len(seen.of("SELECT")) <= 4
    with traffic(engine) as seen:
        assert ids(query) == expected
    assert len(seen.statements) == 1
    assert ids(query[500:510]) == expected[500:510]


def test_sessions_that_write_are_seen(people: sa.Engine) -> None:
    """A query asks the source, so what another session has committed is found; its tiers are kept by the extension."""
    chain = chain_on(people)
    list(chain.query(Person))
    with sessionmaker(people, extension=StockpyleSessionExtension(store=chain))() as session:
        session.get_one(Person, 1).name = "Bea"
        session.commit()
    assert chain.query(Person).where(name="Bea").one().name == "Bea"


INJECTIONS = ["' OR 1=1 --", '" OR ""="', "%", "_", "a%", "\\", "'; DROP TABLE people; --", "%s", ":name", "?", "{0}"]


@pytest.mark.parametrize("lookup", ["equals", "startswith", "endswith", "contains", "gte", "matches"])
def test_values_are_never_sql(people: sa.Engine, lookup: str) -> None:
    """Quotes, wildcards and placeholders are text like any other, as a value and as a stored one."""
    query = SqlAlchemyStore(engine=people).query(Person)
    save(people, [Person(id=10 + i, name=text) for i, text in enumerate(INJECTIONS)])
    for i, text in enumerate(INJECTIONS):
        found = query.where(**{f"name__{lookup}": re.escape(text) if lookup == "matches" else text}).values("name")
        holds = {
            "equals": text.__eq__,
            "startswith": lambda name, text=text: name.startswith(text),
            "endswith": lambda name, text=text: name.endswith(text),
            "gte": lambda name, text=text: name >= text,
        }.get(lookup, lambda name, text=text: text in name)
        assert found == [name for name in ["Ann", "bob", "Çem", *INJECTIONS] if holds(name)]
        assert INJECTIONS[i] in found
    assert query.count() == 4 + len(INJECTIONS)


def test_names_are_never_sql(people: sa.Engine) -> None:
    """Only attributes that the class has can be named, whatever the spelling."""
    query = SqlAlchemyStore(engine=people).query(Person)
    for name in ("name; DROP TABLE people", "name'", "name--", "metadata", "__table__", "org__secret", "id__"):
        for ask in (lambda name=name: query.where(**{name: 1}), lambda name=name: query.order_by(name)):
            with pytest.raises(InvalidQuery, match="has no attribute"):
                ask()
        with pytest.raises(InvalidQuery, match="has no attribute"):
            query.values(name)


def test_unknown_names_list_the_known_ones(people: sa.Engine) -> None:
    """The error has the columns and relationships of the class that lacks the name; or all lookups."""
    query = SqlAlchemyStore(engine=people).query(Person)
    with pytest.raises(InvalidQuery, match=r"Person has no attribute 'nmae'; it has active, age, .*, name, nick, org"):
        query.where(nmae="x")
    with pytest.raises(InvalidQuery, match=r"Org has no attribute 'nmae'; it has id, name, parent, parent_id, people"):
        query.where(org__nmae__startswith="x")
    with pytest.raises(InvalidQuery, match=r"no lookup 'gtee': there are equals, in, gt, gte"):
        query.where(age__gtee=5)


WRONG: list[dict[str, Any]] = [
    {"age": "x"},
    {"age": 2.5},
    {"age__in": [1, "x"]},
    {"age__gt": math.inf},
    {"born": datetime(2000, 1, 1)},
    {"seen__gte": date(2000, 1, 1)},
    {"colour": "PINK"},
    {"org": 5},
]


def test_values_of_the_wrong_type(sqlite_engine: sa.Engine) -> None:
    """A value that the column cannot hold is refused by the store, before the database guesses what it means."""
    for bad in WRONG:
        with pytest.raises(InvalidQuery, match=r"Person\.(age|born|seen|colour|org)"):
            SqlAlchemyStore(engine=sqlite_engine).query(Person).where(**bad)


def test_values_are_turned_into_the_columns_type(people: sa.Engine) -> None:
    """As with keys: '10' is 10 in a column of integers, 'RED' the member, and a float a Decimal."""
    save(people, [Person(id=8, age=18, colour=Colour.RED, balance=Decimal("0.10"), uid=UUID(int=5))])
    query = SqlAlchemyStore(engine=people).query(Person)
    asked = {
        "age": "18",
        "colour": "RED",
        "balance": 0.1,
        "uid": str(UUID(int=5)),
        "age__gt": 17.5,
        "age__lte": Decimal(18),
    }
    assert ids(query.where(**asked)) == [8]


def test_relationships(people: sa.Engine) -> None:
    """Paths go through relationships to one and to many; exists asks if there is one."""
    query = SqlAlchemyStore(engine=people).query(Person)
    assert ids(query.where(org__exists=False)) == ids(query.where(org__name=None)) == [2]
    assert ids(query.where_not(org__exists=False)) == [0, 1, 3]
    assert ids(query.where(org__parent__name="Acme")) == [1, 3]
    assert ids(query.where(org__people__name="bob")) == [1, 3]
    assert ids(query.where_not(org__people__name="bob")) == [0, 2]
    assert ids(query.where(org__people__name=None)) == [1, 2, 3]
    assert ids(query.where_not(org__people__name=None)) == [0]
    assert ids(query.where(org__name__matches="^B", name__exists=True)) == [1]
    assert query.order_by("org__parent__name", "-id").values("id", "org__name") == [
        (3, "Beta"), (1, "Beta"), (2, None), (0, "Acme")
    ]  # fmt: skip
    with pytest.raises(InvalidQuery, match="leads to several"):
        query.order_by("org__people__name")
    with pytest.raises(InvalidQuery, match=r"Person\.org is a relationship"):
        query.order_by("org")
    with pytest.raises(UnsupportedOperation, match=r"matches of Person\.org\.people\.name"):
        list(query.where(org__people__name__matches="b"))


@pytest.mark.parametrize("make", [ProcessMemoryStore, ThreadLocalStore, BaseDictionaryStore])
def test_mapped_objects_in_other_stores(make: Any) -> None:
    """Rows in memory are queried as in a database; relationships only a SqlAlchemyStore can follow."""
    store = make()
    store.batch_put([Person(id=i, name=name, age=i) for i, name in enumerate(["b", None, "a"])])
    query = store.query(Person)
    assert ids(query.where(age__gte="1").order_by("name")) == [2, 1]
    assert query.order_by("-name").values("name") == ["b", "a", None]
    assert query.where(name="a").one().age == 2
    assert query.where(name__exists=True).delete() == 2
    assert ids(query) == [1]
    with pytest.raises(UnsupportedOperation, match="SqlAlchemyStore"):
        query.where(org__name="x")
    with pytest.raises(InvalidQuery, match="has no attribute 'nmae'"):
        query.where(nmae="x")


# what databases compare otherwise than Python


class Odd(DeclarativeBase):
    pass


class Thing(Odd):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str | None]
    padded: Mapped[str | None] = mapped_column(sa.CHAR(5))
    single: Mapped[float | None] = mapped_column(sa.REAL)
    double: Mapped[float | None]
    exact: Mapped[Decimal | None] = mapped_column(sa.Numeric(20, 4))
    at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    made: Mapped[datetime | None] = mapped_column(server_default=sa.func.current_timestamp())


@pytest.fixture
def things(engine: sa.Engine) -> Iterator[Any]:
    """A store of Things, and a memory store of those that were put."""
    Odd.metadata.create_all(engine)
    return SqlAlchemyStore(engine=engine)


def same_as_python(store: Any, **lookups: Any) -> list[int]:
    """Return whom a query finds, having seen that a scan of what the database has read finds the same."""
    memory = ProcessMemoryStore()
    memory.batch_put(store.query(Thing))
    found = ids(store.query(Thing).where(**lookups))
    assert found == ids(memory.query(Thing).where(**lookups))
    others = ids(store.query(Thing).where_not(**lookups))
    assert others == ids(memory.query(Thing).where_not(**lookups))
    assert sorted(found + others) == ids(store.query(Thing))
    return found


def test_padded_texts(things: Any) -> None:
    """A CHAR that PostgreSQL pads is compared as it is read."""
    things.batch_put([Thing(id=1, padded="ab"), Thing(id=2, padded="ab   ")])
    same_as_python(things, padded="ab")
    same_as_python(things, padded="ab   ")
    same_as_python(things, padded__endswith=" ")


def test_single_precision(things: Any) -> None:
    """A REAL is compared as what it is read as."""
    things.batch_put([Thing(id=1, single=0.1), Thing(id=2, single=0.5)])
    same_as_python(things, single=0.1)
    assert same_as_python(things, single=0.5) == [2]
    same_as_python(things, single__gt=0.1)


def test_decimals(things: Any) -> None:
    """Decimals that SQLite keeps as floats are compared as Decimals; no driver rounds what is asked for."""
    things.batch_put([Thing(id=1, exact=Decimal("0.1")), Thing(id=2, exact=Decimal("12345678901.1234"))])
    assert same_as_python(things, exact=Decimal("0.1000")) == [1]
    assert same_as_python(things, exact=Decimal("0.10004")) == []
    assert same_as_python(things, exact__gt=Decimal("12345678901.12339")) == [2]


def test_what_is_asked_is_never_cut(people: sa.Engine) -> None:
    """A text longer than its column is not cut to a match by the driver."""
    save(people, [Person(id=9, name="x" * 50)])
    query = SqlAlchemyStore(engine=people).query(Person)
    assert ids(query.where(name="x" * 51)) == ids(query.where(name__startswith="x" * 51)) == []


def test_empty_texts(people: sa.Engine) -> None:
    """No lookup is unknown of an empty text: either it holds, or it does not."""
    save(people, [Person(id=9, name="")])
    query = SqlAlchemyStore(engine=people).query(Person).where(id=9)
    held = {
        "name__startswith": ["a", ""],
        "name__endswith": ["a", "ab", ""],
        "name__contains": ["a", ""],
        "name__matches": ["a", "^$"],
        "name__in": [["a"], [""]],
        "name__between": [("a", "b"), ("", "b")],
    }
    for lookup, operands in held.items():
        for operand in operands:
            holds = operand in ("", "^$", [""], ("", "b"))
            assert query.where(**{lookup: operand}).count() == holds, (lookup, operand)
            assert query.where_not(**{lookup: operand}).count() == (not holds), (lookup, operand)


def test_nul_and_surrogates(things: Any) -> None:
    """Characters that a database cannot have are looked for in vain, and compared with all the same."""
    texts = ["a", "b", "a\0b"] if things.engine.dialect.name == "sqlite" else ["a", "b"]
    things.batch_put([Thing(id=i, text=text) for i, text in enumerate(texts)])
    for text in ("\0", "\0b", "a\0", "\ud800", "a\0b", "b", ""):
        for lookup in ("equals", "contains", "startswith", "endswith", "gt", "lte"):
            same_as_python(things, **{f"text__{lookup}": text})
        same_as_python(things, text__in=[text, None])


def test_numbers_out_of_range(people: sa.Engine) -> None:
    """A number larger than any of the column is greater than all, and equal to none."""
    query = SqlAlchemyStore(engine=people).query(Person)
    for large in (2**31, 2**63, 10**30):
        assert ids(query.where(age__lt=large)) == ids(query.where(age__gte=-large)) == [0, 1, 2]
        assert ids(query.where(age__gt=large)) == ids(query.where(age=large)) == ids(query.where(age__in=[large])) == []
        assert ids(query.where_not(age__gt=large)) == [0, 1, 2, 3]


def test_numbers_between_the_integers(people: sa.Engine) -> None:
    """Integers are compared with fractions, in a column that can hold none."""
    query = SqlAlchemyStore(engine=people).query(Person)
    asked = {
        "gt": (9.5, [1, 2]),
        "gte": (10.5, [2]),
        "lt": (10.5, [0, 1]),
        "lte": (9.5, [0]),
        "between": ((9.5, 10.5), [1]),
    }
    for lookup, (value, found) in asked.items():
        assert ids(query.where(**{f"age__{lookup}": value})) == found


def test_long_lists(people: sa.Engine) -> None:
    """More values than a statement can have parameters."""
    query = SqlAlchemyStore(engine=people).query(Person)
    assert ids(query.where(id__in=range(1, 100_000))) == [1, 2, 3]
    assert ids(query.where_not(id__in=[*range(1, 100_000)])) == [0]


def test_timestamps_that_the_database_makes(things: Any) -> None:
    """SQLite's own CURRENT_TIMESTAMP has no fraction, and compares all the same."""
    with Session(things.engine) as session:
        session.execute(sa.insert(Thing).values(id=1))
        session.commit()
    made = things.query(Thing).values("made")[0]
    assert same_as_python(things, made=made) == [1]
    assert same_as_python(things, made__lt=made + timedelta(microseconds=1), made__year=made.year) == [1]


def test_nan(postgres_engine: sa.Engine) -> None:
    """NaN equals nothing and is in no range, though PostgreSQL thinks so; it is sorted above all numbers."""
    Odd.metadata.create_all(postgres_engine)
    store = SqlAlchemyStore(engine=postgres_engine)
    numbers = [1.0, math.nan, None, math.inf]
    store.batch_put(
        [Thing(id=i, double=n, exact=None if n is None else Decimal(min(n, 9))) for i, n in enumerate(numbers)]
    )
    for name in ("double", "exact"):
        assert same_as_python(store, **{f"{name}__gt": 0}) == [0, 3]
        assert same_as_python(store, **{f"{name}__between": (0, 5)}) == [0]
        assert same_as_python(store, **{f"{name}__lte": 5}) == [0]
        memory = ProcessMemoryStore()
        memory.batch_put(store.query(Thing))
        for order in (name, f"-{name}"):
            assert ids(store.query(Thing).order_by(order)) == ids(memory.query(Thing).order_by(order))


def test_aware_datetimes(postgres_engine: sa.Engine) -> None:
    """They are compared as instants, their parts are those of UTC, whatever zone the server shows them in."""
    Odd.metadata.create_all(postgres_engine)
    east = timezone(timedelta(hours=5))
    for zone in ("UTC", "America/New_York", "Asia/Tokyo"):
        engine = sa.create_engine(postgres_engine.url, connect_args={"options": f"-c timezone={zone}"})
        store = SqlAlchemyStore(engine=engine)
        store.batch_put([Thing(id=1, at=datetime(2000, 1, 1, 2, tzinfo=east)), Thing(id=2)])
        assert same_as_python(store, at=datetime(1999, 12, 31, 21, tzinfo=timezone.utc)) == [1]
        assert same_as_python(store, at__year=1999) == same_as_python(store, at__month=12, at__day=31) == [1]
        assert same_as_python(store, at__year=2000) == []
        assert same_as_python(store, at__gt=datetime(2000, 1, 1, 1, 59, tzinfo=east)) == [1]
        assert same_as_python(store, at=datetime(2000, 1, 1, 2)) == []
        with pytest.raises(InvalidQuery, match="have no order"):
            list(store.query(Thing).where(at__gt=datetime(2000, 1, 1)))
        engine.dispose()


@pytest.mark.parametrize("collation", ["loose", "und-x-icu"])
def test_collations_of_the_database(postgres_engine: sa.Engine, collation: str) -> None:
    """Texts are compared by code points, also where the column's collation says otherwise."""
    with postgres_engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level1', deterministic = false)"
        )
        connection.exec_driver_sql(
            f'CREATE TABLE things (id int primary key, text text COLLATE "{collation}", padded text, single real, '
            "double double precision, exact numeric, at timestamptz, made timestamp)"
        )
    store = SqlAlchemyStore(engine=postgres_engine)
    texts = ["a", "A", "á", "b", "Z", "_", "ab", "AB"]
    store.batch_put([Thing(id=i, text=text) for i, text in enumerate(texts)])
    assert same_as_python(store, text="a") == [0]
    assert same_as_python(store, text__in=["a", "B"]) == [0]
    assert same_as_python(store, text__startswith="a") == [0, 6]
    assert same_as_python(store, text__endswith="B") == [7]
    assert same_as_python(store, text__contains="B") == [7]
    assert same_as_python(store, text__gt="Z") == [0, 2, 3, 5, 6]
    assert store.query(Thing).order_by("text").values("text") == sorted(texts)
