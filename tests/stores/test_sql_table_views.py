"""Collections and counters in the table of a SqlTableStore, on each database."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from stockpyle.exceptions import DecodeError, EncodeError, ImproperlyConfigured, InvalidNumber
from stockpyle.stores import SqlTableStore
from stockpyle.testing import Clock, Person
from tests.databases import traffic
from tests.stores.test_sql_table_rows import db, lite, rows, store_in, url

__all__ = ["db", "lite", "url"]


def test_objects_beside_them_know_nothing_of_them(db: sa.Engine) -> None:
    """What is done to objects, also to all of them, leaves collections and counters as they are, and vice versa."""
    clock = Clock()
    store = store_in(db, lifetime=60, clock=clock)
    store.collection("settings").update(a=1, **{"x" * 300: 2})
    store.counter("visits").increment(7)
    store.put(Person(1, "ann@x"))
    assert [person.id for person in store.query(Person)] == [1]
    clock.advance(61)
    assert store.sweep() == 2
    store.put(Person(2))
    store.invalidate(Person)
    store.put(Person(3))
    store.clear()
    assert store.get(Person, {"id": 3}) is None
    assert dict(store.collection("settings")) == {"a": 1, "x" * 300: 2}
    assert store.counter("visits").value == 7
    store.put(Person(4))
    store.collection("settings").drop()
    assert store.get(Person, {"id": 4}) is not None
    assert len(rows(store, db)) == 2


def test_other_prefixes_have_others(db: sa.Engine) -> None:
    """Stores that share a table under other prefixes share neither collections nor counters."""
    one, other = store_in(db, prefix="app"), store_in(db, prefix="App")
    one.collection("settings")["a"] = 1
    one.counter("visits").increment()
    assert dict(other.collection("settings")) == {}
    assert other.counter("visits").value == 0


def test_a_step_is_one_statement(db: sa.Engine) -> None:
    """To count is one statement, which returns the new number; so is to put any number of names, and to read them."""
    store = store_in(db)
    counter, settings = store.counter("visits"), store.collection("settings")
    counter.increment()
    settings["name"] = 0
    with traffic(db) as seen:
        assert counter.increment(5) == 6
        settings.update({f"name {i}": i for i in range(100)})
        assert len(settings.items()) == 101
        assert len(settings.keys("name 9")) == 11
    verbs = [statement.split()[0] for statement in seen.statements if not statement.startswith("SET")]
    assert verbs == ["INSERT", "INSERT", "SELECT", "SELECT"]
    assert seen.commits == 2


@pytest.mark.parametrize("url", ["sqlite", "mariadb"], indirect=True)
def test_a_database_that_does_not_tell_what_it_has_written(db: sa.Engine) -> None:
    """Without RETURNING, as on MySQL and an old SQLite, a step is two statements, and as safe."""
    store = store_in(db)
    counter = store.counter("visits")
    assert counter.value == 0
    db.dialect.insert_returning = False
    with traffic(db) as seen:
        assert [counter.increment(2), counter.increment(-5), counter.reset(2**63 - 1)] == [2, -3, -3]
    assert not any("RETURNING" in statement for statement in seen.statements)
    with pytest.raises(InvalidNumber):
        counter.increment()
    assert counter.value == 2**63 - 1


def test_values_too_large_are_refused(db: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that takes more bytes than the database takes is named, and nothing that was written with it is."""
    store = store_in(db)
    monkeypatch.setattr(store._entries, "_largest", 1000.0)
    settings = store.collection("settings")
    with pytest.raises(EncodeError, match=r"settings;large' takes \d+ bytes; sqltable takes 1000"):
        settings.update(small=1, large=b"x" * 1001)
    assert dict(settings) == {}


def test_without_the_table(db: sa.Engine) -> None:
    """Before the table is made, it is said how to make it."""
    store = SqlTableStore(db, sa.MetaData(), "kept")
    for use in (lambda: store.collection("settings").get("a"), store.counter("visits").increment):
        with pytest.raises(ImproperlyConfigured, match=r"store\.table\.create\(\)"):
            use()


def test_foreign_bytes(lite: sa.Engine) -> None:
    """What stands where a value should be, and is none, is an error that names it."""
    store = store_in(lite)
    settings = store.collection("settings")
    settings.update({"a": 1, "x" * 300: 2})
    with lite.begin() as connection:
        connection.execute(sa.update(store.table).values(value=b"\x00\x00\xff\xffnonsense"))
    for name in ("a", "x" * 300):
        with pytest.raises(DecodeError, match="no value of a collection"):
            settings[name]
