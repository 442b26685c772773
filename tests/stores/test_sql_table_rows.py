"""What a SqlTableStore does in its table, on each database."""

from __future__ import annotations

import logging
import multiprocessing
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import StaticPool

from stockpyle.codecs import SignedCodec
from stockpyle.exceptions import (
    EncodeError,
    ImproperlyConfigured,
    InvalidKeysDeclaration,
    StoreError,
    StoreUnavailable,
    UnsupportedOperation,
)
from stockpyle.stores import ChainedStore, ProcessMemoryStore, SqlAlchemyStore, SqlTableStore
from stockpyle.stores import sql_table as module
from stockpyle.testing import Automobile, Car, Clock, Person, Pet, Truck
from tests.chain.parts import Tier, key
from tests.databases import traffic
from tests.forks import child_says
from tests.remote.parts import meddler
from tests.servers import HOST, MariaDb, Postgres

DATABASES = ["sqlite", "postgresql", "mariadb"]


class Base(DeclarativeBase):
    pass


class Reader(Base):
    __tablename__ = "readers_in_a_table"
    __stockpyle_keys__ = ("id", "email")

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    name: Mapped[str | None]


class Employee(Base):
    __tablename__ = "employees_in_a_table"
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_on": "kind", "polymorphic_identity": "employee"}

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]


class Manager(Employee):
    __mapper_args__: ClassVar[dict[str, Any]] = {"polymorphic_identity": "manager"}

    staff: Mapped[int | None]


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: an SQLite file, PostgreSQL, MariaDB."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'kept.db'}"
    return str(request.getfixturevalue("postgres_url" if request.param == "postgresql" else "mariadb_url"))


@pytest.fixture
def db(url: str) -> Iterator[sa.Engine]:
    """An engine on such a database."""
    made = sa.create_engine(url)
    yield made
    made.dispose()


@pytest.fixture
def lite() -> Iterator[sa.Engine]:
    """An engine on an SQLite in memory, for what is the same everywhere."""
    made = sa.create_engine("sqlite://", poolclass=StaticPool)
    yield made
    made.dispose()


def store_in(engine: sa.Engine, tablename: str = "kept", **options: Any) -> SqlTableStore:
    """Return a store with a table that is there."""
    store = SqlTableStore(engine, sa.MetaData(), tablename, **options)
    store.table.create(checkfirst=True)
    return store


def rows(store: SqlTableStore, engine: sa.Engine) -> dict[str, str]:
    """Return the owner of each key in the table, both without what all keys begin with."""
    row = store.table.c
    with engine.connect() as connection:
        found = connection.execute(sa.select(row.key, row.owner)).all()
    return {_short(each): _short(owner) for each, owner in found}


def _short(text: str) -> str:
    return text.rpartition(".")[2]


# the table


def test_the_samples_of_simplekv(capsys: Any) -> None:
    """A store is made of an engine, a MetaData and a name; its table makes itself, once; then it is used normally."""
    engine = sa.create_engine("sqlite:///:memory:")
    metadata = sa.MetaData()
    store = SqlTableStore(engine, metadata, "kvstore")
    assert store.table is metadata.tables["kvstore"]
    store.table.create()
    with pytest.raises(sa.exc.OperationalError, match="already exists"):
        store.table.create()
    metadata.create_all(engine)
    store.put(Pet(1, "some value"))
    assert store.get(Pet, {"id": 1}).tag == "some value"  # type: ignore[union-attr]
    store.table.drop()
    assert not sa.inspect(engine).has_table("kvstore")
    engine.dispose()


def test_the_verbs_of_a_sql_backend(db: sa.Engine) -> None:
    """The store answers a ping, runs statements, alone and as one transaction, and names its database."""
    store = store_in(db)
    assert store.ping()
    assert store.database == db.url.database
    store.put(Person(1))
    assert [row.times for row in store.execute("SELECT count(*) AS times FROM kept")] == [1]
    store.execute_transaction(["DELETE FROM kept", "DELETE FROM kept"])
    assert store.get(Person, {"id": 1}) is None
    assert {"plain", "mapped", "shared", "expiry", "polymorphic", "query", "execute"} <= store.supports


def test_two_stores_share_a_table(db: sa.Engine) -> None:
    """Stores on one MetaData, or on two, use one table, and each sees only what is under its prefix."""
    one = store_in(db)
    same = SqlTableStore(db, one.table.metadata, "kept")
    other = store_in(db, prefix="Stockpyle")
    assert same.table is one.table
    one.put(Person(1, "a@x", name="one"))
    other.put(Person(1, "a@x", name="other"))
    assert [store.get(Person, {"email": "a@x"}).name for store in (one, same, other)] == ["one", "one", "other"]  # type: ignore[union-attr]
    one.clear()
    assert one.get(Person, {"id": 1}) is None
    assert other.get(Person, {"id": 1}).name == "other"  # type: ignore[union-attr]


def test_a_table_that_is_not_there_is_named_and_may_come_later(db: sa.Engine) -> None:
    """Before the table is made every verb says how to make it."""
    store = SqlTableStore(db, sa.MetaData(), "kept")
    for use in (
        lambda: store.put(Pet(1)),
        lambda: store.get(Pet, {"id": 1}),
        lambda: store.delete(Pet(1)),
        store.sweep,
    ):
        with pytest.raises(ImproperlyConfigured, match=r"no table 'kept' in .*make it with store\.table\.create\(\)"):
            use()
    store.table.create()
    store.put(Pet(1, "rex"))
    assert store.get(Pet, {"tag": "rex"}) is not None


def test_a_foreign_table_is_refused_by_its_columns(db: sa.Engine) -> None:
    """A table of that name with other columns is written to by nobody, and the error names them."""
    with db.begin() as connection:
        connection.execute(sa.text("CREATE TABLE kept (owner CHAR(9), kind CHAR(9), colour CHAR(9), size INT)"))
    store = SqlTableStore(db, sa.MetaData(), "kept")
    with pytest.raises(
        ImproperlyConfigured, match="'kept' in the database lacks key, value, expires and has also colour, size"
    ):
        store.put(Pet(1))
    metadata = sa.MetaData()
    metadata.reflect(db)
    with pytest.raises(
        ImproperlyConfigured, match="'kept' on this MetaData lacks key, value, expires and has also colour"
    ):
        SqlTableStore(db, metadata, "kept")


def test_a_reflected_table_is_used(db: sa.Engine) -> None:
    """A table that was made before, and is on the MetaData already, is the store's."""
    store_in(db).put(Person(1, "ann@x"))
    metadata = sa.MetaData()
    metadata.reflect(db)
    store = SqlTableStore(db, metadata, "kept")
    assert store.get(Person, {"email": "ann@x"}) is not None
    store.put(Person(1, "new@x"))
    assert store.get(Person, {"email": "ann@x"}) is None


def test_keys_that_the_database_takes_for_the_same_are_refused(mariadb_url: str) -> None:
    """A table whose keys have a collation without case would mix up objects: its column and collation are named."""
    engine = sa.create_engine(mariadb_url)
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "CREATE TABLE kept (`key` VARCHAR(250) PRIMARY KEY, owner VARCHAR(250), kind VARCHAR(250),"
                " value LONGBLOB, expires DOUBLE)"
            )
        )
    with pytest.raises(ImproperlyConfigured, match=r"kept\.key has the collation utf8mb4_general_ci"):
        SqlTableStore(engine, sa.MetaData(), "kept").put(Pet(1))
    engine.dispose()


@pytest.mark.parametrize("url", ["postgresql", "mariadb"], indirect=True)
def test_a_table_in_a_schema(db: sa.Engine) -> None:
    """The table is in the schema of its MetaData, or in the one that the engine translates that to."""
    with db.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA elsewhere"))
    try:
        store = SqlTableStore(db, sa.MetaData(schema="elsewhere"), "kept")
        store.table.create()
        store.put(Person(1, "ann@x"))
        assert not sa.inspect(db).has_table("kept")
        translated = db.execution_options(schema_translate_map={"tenant": "elsewhere"})
        other = SqlTableStore(translated, sa.MetaData(schema="tenant"), "kept")
        assert other.get(Person, {"email": "ann@x"}) is not None
    finally:
        with db.begin() as connection:
            connection.execute(sa.text("DROP TABLE IF EXISTS elsewhere.kept"))
            connection.execute(sa.text("DROP SCHEMA elsewhere"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sqlite://", sa.MetaData(), "kept"), "bind is a SQLAlchemy Engine, not 'sqlite://'"),
        ((sa.create_engine("sqlite+aiosqlite://"), sa.MetaData(), "kept"), "aiosqlite is an async driver"),
        ((sa.create_engine("sqlite://"), "kept", sa.MetaData()), "metadata is a SQLAlchemy MetaData"),
        ((sa.create_engine("sqlite://"), sa.MetaData(), ""), "tablename is the name of a table, not ''"),
    ],
)
def test_what_makes_no_store(arguments: Any, says: str) -> None:
    """Each argument of the wrong kind is named."""
    with pytest.raises(ImproperlyConfigured, match=says):
        SqlTableStore(*arguments)


def test_other_databases_are_refused() -> None:
    """A database of which the upserts are not known is refused at once."""
    engine = sa.create_mock_engine("mssql+pyodbc://", lambda *_: None)
    from stockpyle.stores._sql_entries import Entries

    engine.get_execution_options = dict  # type: ignore[method-assign]
    with pytest.raises(ImproperlyConfigured, match="SQLite, PostgreSQL, MariaDB and MySQL, not on mssql"):
        Entries(engine, sa.MetaData(), "kept", None)  # type: ignore[arg-type]


# statements


def test_a_batch_is_a_statement_or_two(db: sa.Engine) -> None:
    """However many objects: one statement reads them by any keys, one puts them, one removes what their keys were."""
    store = store_in(db)
    store.put(Person(0))
    people = [Person(i, f"{i}@x", 7, f"u{i}") for i in range(500)]
    with traffic(db) as seen:
        store.batch_put(people)
    assert [s.split()[0] for s in seen.statements if not s.startswith("SET")] == ["INSERT", "DELETE"]
    with traffic(db) as seen:
        found = store.batch_get(Person, [{"email": f"{i}@x"} for i in range(500)] + [{"id": i} for i in range(500)])
    assert [person.id for person in found if person] == [*range(500), *range(500)]
    assert [s.split()[0] for s in seen.statements] == ["SELECT"]
    with traffic(db) as seen:
        store.batch_delete(people)
    assert [s.split()[0] for s in seen.statements if not s.startswith("SET")] == ["DELETE", "DELETE"]
    assert rows(store, db) == {}


class Single:
    """Has one key."""

    __stockpyle_keys__ = ("id",)

    def __init__(self, id: int) -> None:
        self.id = id


def test_objects_with_one_key_take_one_statement(lite: sa.Engine) -> None:
    """Where nothing can have moved, a put and a delete are one statement each."""
    store = store_in(lite)
    store.put(Single(0))
    with traffic(lite) as seen:
        store.batch_put([Single(i) for i in range(100)])
        assert all(store.batch_get(Single, [{"id": i} for i in range(100)]))
        store.batch_delete([Single(i) for i in range(100)])
    assert [statement.split()[0] for statement in seen.statements] == ["INSERT", "SELECT", "DELETE"]
    assert seen.commits == 2


def test_more_keys_than_a_driver_takes(db: sa.Engine) -> None:
    """A batch larger than what one statement may name is still one batch."""
    store = store_in(db)
    store.batch_put([Single(i) for i in range(12_000)])
    assert all(store.batch_get(Single, [{"id": i} for i in range(12_000)]))
    store.batch_delete([Single(i) for i in range(12_000)])
    assert rows(store, db) == {}


def test_keys_leave_no_rows_where_they_were(db: sa.Engine) -> None:
    """After keys moved, were taken over and given up, the table has a row for each key of each object, and no other."""
    store = store_in(db)
    store.batch_put([Person(1, "a@x", 7, "ann"), Person(2, "b@x")])
    store.batch_put([Person(1, "b@x"), Person(2, "c@x")])
    assert rows(store, db) == {
        "Person:id=1": "Person:id=1",
        "Person:id=2": "Person:id=2",
        "Person:email='b@x'": "Person:id=1",
        "Person:email='c@x'": "Person:id=2",
    }
    store.delete(Person(1))
    store.put(Person(2))
    assert rows(store, db) == {"Person:id=2": "Person:id=2"}


def test_a_polymorphic_object_is_kept_once(db: sa.Engine) -> None:
    """The keys of base classes lead to the one object, and go with it, unless another has taken them."""
    store = store_in(db, polymorphic=True)
    store.batch_put([Car(1, "v"), Truck(2, "w"), Automobile(3)])
    assert type(store.get(Automobile, {"vin": "w"})) is Truck
    with db.connect() as connection:
        kept = connection.execute(sa.select(sa.func.count(store.table.c.value))).scalar()
    assert kept == 3
    store.put(Truck(1, "v"))
    store.delete(Car(1))
    assert type(store.get(Automobile, {"vin": "v"})) is Truck
    store.invalidate(Truck)
    assert store.get(Automobile, {"plate": 1}) is None
    assert store.get(Automobile, {"plate": 3}) is not None
    store.put(Car(3))
    assert type(store.get(Automobile, {"plate": 3})) is Car
    store.invalidate(Automobile)
    assert rows(store, db) == {}


@pytest.mark.parametrize("order", [1, -1])
def test_one_batch_with_an_object_of_the_base_and_of_a_subclass(lite: sa.Engine, order: int) -> None:
    """Of an Automobile and a Car with one plate the last of a batch is found as the Automobile."""
    store = store_in(lite, polymorphic=True)
    both = [Automobile(1), Car(1)][::order]
    store.batch_put(both)
    assert type(store.get(Automobile, {"plate": 1})) is type(both[-1])
    assert type(store.get(Car, {"plate": 1})) is Car or order == 1


def test_keys_differ_by_case_and_blanks(db: sa.Engine) -> None:
    """Texts that differ in case, in accents or in trailing blanks only are different keys, whatever the collation."""
    store = store_in(db)
    texts = ["ann", "Ann", "ann ", "ann\t", "änn", "ann\x00", "%", "_", "'", "\\", "a" * 300, "A" * 300, ""]
    store.batch_put([Person(i, text, name=text) for i, text in enumerate(texts)])
    found = store.batch_get(Person, [{"email": text} for text in texts])
    assert [person.name for person in found if person] == texts
    assert store.get(Person, {"email": "ANN"}) is None


def test_any_bytes_are_kept(db: sa.Engine) -> None:
    """Values come back byte for byte: zeros, quotes, backslashes, and megabytes of noise."""
    store = store_in(db)
    noise = random.Random(7).randbytes(3_000_000)
    values = [b"", b"\x00", bytes(range(256)) * 5, noise, b"'; DROP TABLE kept; --", b"\\" * 99]
    store.batch_put([Pet(i, value) for i, value in enumerate(values[:3])])
    store.batch_put([Person(i, name=value) for i, value in enumerate(values)])  # type: ignore[arg-type]
    assert [p.name for p in store.batch_get(Person, [{"id": i} for i in range(len(values))]) if p] == values
    assert store.get(Pet, {"tag": bytes(range(256)) * 5}).id == 2  # type: ignore[union-attr]


def test_values_too_large_are_refused_before_they_are_sent(db: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that takes more bytes than the database takes is named, and nothing of its batch is written."""
    store = store_in(db)
    monkeypatch.setattr(store._entries, "_largest", 10_000.0)
    with pytest.raises(EncodeError, match=r"Person:id=2' takes \d+ bytes; sqltable takes 10000"):
        store.batch_put([Person(1), Person(2, name="x" * 20_000)])
    assert rows(store, db) == {}
    store.put(Person(3))


def test_what_mariadb_takes_is_asked(mariadb_url: str) -> None:
    """A value beyond half of max_allowed_packet is refused, with its name; one right below is kept."""
    engine = sa.create_engine(mariadb_url)
    store = store_in(engine)
    with engine.connect() as connection:
        half = connection.execute(sa.text("SELECT @@max_allowed_packet")).scalar_one() // 2
    with pytest.raises(EncodeError, match=r"takes \d+: max_allowed_packet is to be more than twice as many"):
        store.put(Person(1, name="x" * half))
    store.put(Person(1, name="x" * (half - 2000)))
    assert len(store.get(Person, {"id": 1}).name) == half - 2000  # type: ignore[union-attr]
    engine.dispose()


# what is stored


def test_mapped_instances_are_kept_as_rows(db: sa.Engine) -> None:
    """Used alone the store keeps instances of mapped classes, without pickles, and hands out detached copies."""
    store = store_in(db)
    ann = Reader(id=1, email="ann@x", name="Ann")
    store.put(ann)
    found = store.get(Reader, {"email": "ann@x"})
    assert found is not None
    assert found is not ann
    assert (found.id, found.name) == (1, "Ann")
    assert sa.inspect(found).detached
    ann.email = "new@x"
    store.put(ann)
    assert store.get(Reader, {"email": "ann@x"}) is None
    store.delete(ann)
    assert rows(store, db) == {}


def test_mapped_hierarchies(lite: sa.Engine) -> None:
    """An instance of a mapped subclass is found as one of its base, and not the other way round."""
    store = store_in(lite)
    store.batch_put([Employee(id=1, kind="employee"), Manager(id=2, kind="manager", staff=7)])
    found = store.get(Employee, {"id": 2})
    assert isinstance(found, Manager)
    assert found.staff == 7
    assert store.get(Manager, {"id": 1}) is None
    assert sorted(each.id for each in store.scan(Employee)) == [1, 2]
    assert [each.id for each in store.scan(Manager)] == [2]
    assert store.stats.corrupt == 0


def test_classes_inside_functions_are_refused(lite: sa.Engine) -> None:
    """A class that no other process can name is neither put nor looked for."""

    class Local(Single):
        __stockpyle_keys__ = ("id",)

    store = store_in(lite)
    for use in (lambda: store.put(Local(1)), lambda: store.get(Local, {"id": 1})):
        with pytest.raises(InvalidKeysDeclaration, match="Local is defined inside a function"):
            use()


def test_spoilt_bytes_are_counted_misses(db: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    """Bytes that are no record are a miss that is counted and logged; the others are found, and a put mends it."""
    store = store_in(db)
    store.batch_put([Person(1, "a@x"), Person(2)])
    row = store.table.c
    with db.begin() as connection:
        connection.execute(sa.update(store.table).where(row.key.like("%Person:id=1")).values(value=b"nonsense"))
    with caplog.at_level(logging.WARNING, "stockpyle"):
        found = store.batch_get(Person, [{"id": 1}, {"id": 2}, {"email": "a@x"}])
    assert [person and person.id for person in found] == [None, 2, None]
    assert store.stats.corrupt == 2
    assert "id" in caplog.text
    tier = Tier()
    chain = ChainedStore([tier, store])
    assert chain.get(Person, {"id": 1}) is None
    assert tier.took()[-1] == "fill"
    assert len(tier) == 0
    store.put(Person(1, "a@x"))
    assert chain.get(Person, {"email": "a@x"}) is not None


def test_signed_records_cannot_be_moved(lite: sa.Engine) -> None:
    """With a SignedCodec nothing unsigned is read, and no record under another object's key, by any of its keys."""
    codec = SignedCodec(b"k" * 32)
    store = store_in(lite, codec=codec)
    store.batch_put([Person(1, "a@x", name="one"), Person(2, "b@x", name="two")])
    assert store.get(Person, {"email": "a@x"}).name == "one"  # type: ignore[union-attr]
    row = store.table.c
    with lite.begin() as connection:
        connection.execute(
            sa.update(store.table).where(row.key.like("%email='a@x'")).values(owner=_owner(connection, store, "id=2"))
        )
    assert store.get(Person, {"email": "a@x"}) is None
    store_in(lite).put(Person(1, "a@x"))
    assert store.batch_get(Person, [{"id": 1}, {"email": "a@x"}]) == [None, None]
    assert store.stats.corrupt == 3
    assert store.get(Person, {"id": 2}).name == "two"  # type: ignore[union-attr]


def _owner(connection: sa.Connection, store: SqlTableStore, end: str) -> str:
    row = store.table.c
    return str(connection.execute(sa.select(row.key).where(row.key.like(f"%{end}"))).scalar_one())


def test_a_key_that_leads_to_somebody_elses_record(lite: sa.Engine) -> None:
    """A row that was made to lead elsewhere by hand misleads nobody: its record lacks the asked-for values."""
    store = store_in(lite)
    store.batch_put([Person(1, "a@x"), Person(2, "b@x")])
    with lite.begin() as connection:
        connection.execute(
            sa.update(store.table)
            .where(store.table.c.key.like("%email='a@x'"))
            .values(owner=_owner(connection, store, "id=2"))
        )
    assert store.get(Person, {"email": "a@x"}) is None
    assert store.stats.corrupt == 1


def test_a_class_of_the_same_keys_that_is_not_known_here(lite: sa.Engine) -> None:
    """An object of a subclass that this process has not imported is a counted miss that says so."""
    store = store_in(lite, polymorphic=True)
    store.put(Car(1))
    with lite.begin() as connection:
        connection.execute(sa.update(store.table).values(kind="stockpyle:elsewhere.Tractor:"))
    assert store.get(Automobile, {"plate": 1}) is None
    assert store.stats.corrupt == 1


# lifetimes


def test_lifetimes_by_the_clock_of_the_database(db: sa.Engine) -> None:
    """Without a clock passed in, what lives for an hour is there, and what lived until a moment ago is not."""
    store = store_in(db, lifetime=3600)
    store.put(Person(1, "a@x"))
    assert store.get(Person, {"email": "a@x"}) is not None
    assert store.sweep() == 0
    with db.begin() as connection:
        connection.execute(sa.update(store.table).values(expires=store.table.c.expires - 3600))
    assert store.get(Person, {"email": "a@x"}) is None
    assert store.get(Person, {"id": 1}) is None
    assert store.sweep() == 2


def test_the_database_knows_what_time_it_is(db: sa.Engine) -> None:
    """The time that lifetimes are reckoned by is that of the machine here, to the second."""
    import time

    store = store_in(db)
    before = time.time() - 1
    assert before < store._now() < time.time() + 1


def test_what_has_expired_is_swept(db: sa.Engine) -> None:
    """sweep() removes expired rows and no others, as many as it is told."""
    clock = Clock()
    store = store_in(db, lifetime_cb=lambda each: each.name or None, clock=clock)
    store.batch_put([Person(i, name=10 if i < 8 else 0) for i in range(10)])  # type: ignore[arg-type]
    assert store.sweep() == 0
    clock.advance(11)
    assert store.sweep(3) == 3
    assert len(rows(store, db)) == 7
    assert store.sweep() == 5
    assert sorted(rows(store, db)) == ["Person:id=8", "Person:id=9"]
    with pytest.raises(ImproperlyConfigured, match="limit"):
        store.sweep(0)


def test_writes_sweep_now_and_then(db: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects with lifetimes that are put again and again do not pile up, though nobody sweeps."""
    monkeypatch.setattr(module, "SWEEP_AFTER", 5)
    clock = Clock()
    store = store_in(db, lifetime=10, clock=clock)
    for i in range(40):
        store.put(Person(i))
        clock.advance(3)
    assert len(rows(store, db)) <= 15


def test_a_sweep_that_fails_fails_no_put(lite: sa.Engine, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """A put is durable when the sweep after it begins: what goes wrong there is counted and logged."""
    monkeypatch.setattr(module, "SWEEP_AFTER", 1)
    store = store_in(lite, lifetime=10)

    def fail(*_: Any) -> int:
        raise sa.exc.OperationalError("DELETE", {}, Exception("out of order"))

    monkeypatch.setattr(store._entries, "sweep", fail)
    store.put(Person(1))
    assert store.get(Person, {"id": 1}) is not None
    assert store.stats.errors == 1
    assert "out of order" in caplog.text


# in a chain


def test_source_of_plain_classes(db: sa.Engine) -> None:
    """Below a tier it is the source of plain classes: what was put is in the tier, and a cold read fills it."""
    store, tier = store_in(db), Tier()
    chain = ChainedStore([tier, store])
    chain.put(Person(1, "a@x", name="one"))
    with traffic(db) as seen:
        assert chain.get(Person, {"email": "a@x"}).name == "one"  # type: ignore[union-attr]
    assert seen.statements == []
    chain.put(Person(1, "b@x", name="two"))
    assert chain.get(Person, {"email": "a@x"}) is None
    cold = ChainedStore([Tier(), store])
    assert cold.get(Person, {"email": "b@x"}).name == "two"  # type: ignore[union-attr]
    chain.delete(Person(1))
    assert chain.get(Person, {"id": 1}) is None
    assert store.get(Person, {"id": 1}) is None


def test_mapped_classes_have_their_own_source(lite: sa.Engine) -> None:
    """In a chain a mapped class is at home in a SqlAlchemyStore, wherever that stands, and never in the table."""
    Base.metadata.create_all(lite)
    store = store_in(lite)
    chain = ChainedStore([ProcessMemoryStore(), SqlAlchemyStore(engine=lite), store])
    chain.batch_put([Reader(id=1, email="ann@x"), Person(1)])
    assert list(rows(store, lite)) == ["Person:id=1"]
    with pytest.raises(UnsupportedOperation, match="Reader"):
        ChainedStore([ProcessMemoryStore(), store]).put(Reader(id=1, email="ann@x"))


def test_what_a_chain_refuses_is_not_written(db: sa.Engine) -> None:
    """If a tier above cannot be told, and the chain refuses, the table's transaction is rolled back."""
    store, tier = store_in(db), Tier()
    chain = ChainedStore([tier, store], unreachable="refuse")

    def fail() -> None:
        raise StoreUnavailable("gone")

    store.put(Person(1, "old@x"))
    tier.on["lock"] = fail
    with pytest.raises(StoreUnavailable):
        chain.put(Person(1, "new@x"))
    assert store.get(Person, {"email": "old@x"}) is not None
    assert store.get(Person, {"email": "new@x"}) is None


@pytest.mark.parametrize("url", ["postgresql", "mariadb"], indirect=True)
def test_the_second_writer_of_an_object_waits_for_the_first(db: sa.Engine) -> None:
    """The tier is left with what was committed last, though another chain wrote the object at the same time."""
    store, tier = store_in(db), Tier()
    first, second = ChainedStore([tier, store]), ChainedStore([tier, store_in(db)])
    started, done = threading.Event(), threading.Event()

    def write() -> None:
        started.set()
        second.put(Person(1, "second@x", name="second"))
        done.set()

    thread = threading.Thread(target=write)

    def meanwhile() -> None:
        # the first holds the row, and has not committed
        thread.start()
        assert started.wait(10)
        assert not done.wait(0.2)

    tier.on["lock"] = meanwhile
    first.put(Person(1, "first@x", name="first"))
    thread.join(10)
    assert done.is_set()
    assert store.get(Person, {"id": 1}).name == "second"  # type: ignore[union-attr]
    assert first.get(Person, {"id": 1}).name == "second"  # type: ignore[union-attr]
    assert first.get(Person, {"email": "first@x"}) is None
    assert tier.holds(key(id=1)).value.name == "second"


# many users


def _hammer(url: str, seed: int, results: Any) -> None:
    engine = sa.create_engine(url, **({"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}))
    store = SqlTableStore(engine, sa.MetaData(), "kept")
    chance = random.Random(seed)
    try:
        for _ in range(40):
            ids, mails = chance.sample(range(8), 2), chance.sample("abcdefgh", 2)
            people = [Person(i, f"{mail}@x") for i, mail in zip(ids, mails, strict=True)]
            if chance.random() < 0.25:
                store.batch_delete(people)
            else:
                store.batch_put(people)
            found = store.batch_get(Person, [{"email": f"{mail}@x"} for mail in mails])
            assert all(person is None or person.email == f"{mail}@x" for person, mail in zip(found, mails, strict=True))
        results.put((seed, store.stats.corrupt))
    except BaseException as error:  # noqa: BLE001  # told to the parent, which fails
        results.put((seed, repr(error)))


def test_processes_that_move_keys_leave_no_key_that_misleads(url: str, db: sa.Engine) -> None:
    """Four processes put, move, swap and delete the same objects: each key left over finds an object that has it."""
    store = store_in(db)
    spawning = multiprocessing.get_context("spawn")
    results = spawning.Queue()
    workers = [spawning.Process(target=_hammer, args=(url, seed, results)) for seed in range(4)]
    for worker in workers:
        worker.start()
    assert sorted(results.get(timeout=120) for _ in workers) == [(seed, 0) for seed in range(4)]
    for worker in workers:
        worker.join(10)
    left = rows(store, db)
    assert all(left.get(owner) == owner for owner in left.values())
    for text in left:
        if "email" in text:
            assert store.get(Person, {"email": text.split("'")[1]}) is not None


def test_a_child_process_uses_the_store(db: sa.Engine) -> None:
    """After a fork both sides go on with the store, each on its own connections."""
    store = store_in(db)
    store.put(Person(1))

    def work() -> bool:
        store.put(Person(2, name="child"))
        return store.get(Person, {"id": 1}) is not None

    assert child_says(work)
    assert store.get(Person, {"id": 2}).name == "child"  # type: ignore[union-attr]


def test_an_engine_in_autocommit_is_given_transactions(url: str) -> None:
    """Even on an engine that commits each statement, a put happens as a whole, or not at all."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    store = store_in(engine)
    store.put(Person(1, "a@x"))
    with pytest.raises(KeyError), store.write([Person(1, "b@x")], []):
        raise KeyError
    assert store.get(Person, {"email": "a@x"}) is not None
    assert store.get(Person, {"email": "b@x"}) is None
    engine.dispose()


def test_a_deadlock_is_tried_again(postgres_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two writers that wait for each other the database ends one, which begins anew and succeeds."""
    store = store_in(postgres_engine)
    store.batch_put([Person(1, "a@x"), Person(2, "b@x")])
    met = threading.Barrier(2)
    put_rows = store._entries.write
    tries: list[Any] = []

    def write(connection: sa.Connection, batch: Any, name: str) -> None:
        tries.append(batch)
        if len(tries) <= 2:
            # both hold their own row before each wants the other's
            (own,) = batch.puts
            connection.execute(sa.update(store.table).where(store.table.c.owner == own).values(expires=None))
            met.wait(10)
        put_rows(connection, batch, name)

    monkeypatch.setattr(store._entries, "write", write)
    swap = [Person(1, "b@x"), Person(2, "a@x")]
    threads = [threading.Thread(target=store.put, args=[person]) for person in swap]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(tries) > 2
    assert [p and p.id for p in store.batch_get(Person, [{"email": "a@x"}, {"email": "b@x"}])] == [2, 1]


# failures


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_server_that_is_down(kind: str, request: pytest.FixtureRequest) -> None:
    """While the server is down every verb raises StoreUnavailable, caused by the driver's error; then it goes on."""
    server: Postgres | MariaDb = request.getfixturevalue("postgres" if kind == "postgresql" else "mariadb")
    engine = sa.create_engine(request.getfixturevalue(f"{'postgres' if kind == 'postgresql' else kind}_url"))
    store = store_in(engine)
    store.put(Person(1))
    server.stop("immediate")
    try:
        for use in (
            lambda: store.get(Person, {"id": 1}),
            lambda: store.put(Person(2)),
            lambda: store.delete(Person(1)),
        ):
            with pytest.raises(StoreUnavailable, match="sqltable") as told:
                use()
            assert isinstance(told.value.__cause__, sa.exc.DBAPIError)
    finally:
        server.start()
    engine.dispose()
    assert store.get(Person, {"id": 1}) is not None
    engine.dispose()


@pytest.mark.parametrize("answer", [b"", b"\0" * 100, b"HTTP/1.1 200 OK\r\n\r\n", b"\x05\0\0\0\n5.5\0", b"\xff" * 99])
@pytest.mark.parametrize("driver", ["mariadb+pymysql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_a_server_that_answers_nonsense(driver: str, answer: bytes) -> None:
    """Whatever comes from the port of a database, or nothing, is an error of the store's, with its cause."""
    with talking(answer) as port:
        engine = sa.create_engine(f"{driver}://root@{HOST}:{port}/kept", connect_args={"connect_timeout": 5})
        store = SqlTableStore(engine, sa.MetaData(), "kept")
        for use in (lambda: store.get(Person, {"id": 1}), lambda: store.put(Person(1))):
            with pytest.raises(StoreError, match="sqltable") as told:
                use()
            assert told.value.__cause__ is not None
        engine.dispose()


@contextmanager
def talking(answer: bytes) -> Iterator[int]:
    """Give whoever connects this answer and hang up; yield the port."""
    with socket.create_server((HOST, 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.sendall(answer)
                    connection.settimeout(0.2)
                    connection.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            # a socket that is only closed goes on waiting
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\n\r\n", b"\xff" * 99, None], ids=["none", "http", "ones", "half"]
)
@pytest.mark.parametrize("driver", ["pymysql", "psycopg", "psycopg2"])
def test_a_server_that_hangs_up_in_mid_reply(driver: str, answer: bytes | None, request: Any) -> None:
    """A connection in use on which half an answer comes, or nonsense, is unavailable; then the store goes on."""
    url = sa.make_url(request.getfixturevalue("mariadb_url" if driver == "pymysql" else "postgres_url"))
    with meddler((str(url.host), int(url.port or 0))) as between:
        own = url.set(port=between.address[1], drivername=f"{url.get_backend_name()}+{driver}")
        engine = sa.create_engine(own, connect_args={"read_timeout": 5} if driver == "pymysql" else {})
        store = store_in(engine)
        store.put(Person(1))
        for use in (
            lambda: store.get(Person, {"id": 1}),
            lambda: store.put(Person(2)),
            lambda: list(store.query(Person)),
            lambda: store.collection("settings").update(a=1),
            lambda: store.counter("visits").increment(),
        ):
            between.meddle = lambda said: [said[: len(said) // 2] if answer is None else answer]
            with pytest.raises(StoreUnavailable, match="sqltable") as told:
                use()
            assert told.value.__cause__ is not None
            between.meddle = None
            assert store.get(Person, {"id": 1}) is not None
        engine.dispose()


def test_a_server_that_hangs(mariadb: MariaDb, mariadb_url: str) -> None:
    """A server that does not answer costs as long as the engine was told, and is unavailable; then it goes on."""
    engine = sa.create_engine(mariadb_url, connect_args={"read_timeout": 1, "connect_timeout": 1})
    store = store_in(engine)
    store.put(Person(1))
    with mariadb.hung():
        for use in (lambda: store.get(Person, {"id": 1}), lambda: store.put(Person(2))):
            with pytest.raises(StoreUnavailable, match="sqltable"):
                use()
    assert store.get(Person, {"id": 1}) is not None
    engine.dispose()


def test_a_table_that_was_dropped_is_an_error(lite: sa.Engine) -> None:
    """What the database says of a table that has gone is raised, with its error as cause."""
    store = store_in(lite)
    store.put(Person(1))
    store.table.drop()
    with pytest.raises(StoreError, match="no such table: kept") as told:
        store.get(Person, {"id": 1})
    assert isinstance(told.value.__cause__, sa.exc.OperationalError)
