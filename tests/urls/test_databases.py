"""Connection strings of the stores in databases of somebody else's."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from stockpyle import create_store
from stockpyle.exceptions import ImproperlyConfigured, StoreUnavailable
from stockpyle.stores import MongoStore, ShoveStore, SqlTableStore
from stockpyle.testing.samples import Person
from tests.servers import free_port


def test_a_table(tmp_path: Path, postgres_url: str) -> None:
    """What follows the + is SQLAlchemy's URL, with its parameters; the store's own are taken out of it."""
    for url in (f"sqlite:///{tmp_path}/t.db?timeout=3", f"{postgres_url}?connect_timeout=3"):
        store = create_store(f"sqltable+{url}&tablename=things&lifetime=5m")
        assert isinstance(store, SqlTableStore)
        assert (store.name, store.table.name) == ("sqltable", "things")
        assert store._engine.url == sa.make_url(url)
        store.table.create(store._engine)
        store.put(Person(1, name="kept"))
        assert store.dns is not None
        again = create_store(store.dns)
        assert again.get(Person, {"id": 1}).name == "kept"
        assert again.ping() is True
        assert again.execute("SELECT count(*) FROM things")[0][0] >= 1
        store.close()
        again.close()
    made = SqlTableStore(sa.create_engine("sqlite:///x.db"), sa.MetaData(), "t", lifetime=5)
    assert (made.dns, made.database) == ("sqltable+sqlite:///x.db?tablename=t&lifetime=5", "x.db")


def test_a_shove(tmp_path: Path) -> None:
    """What follows the + is the URI of a shove."""
    store = create_store(f"shove+file://{tmp_path}/shove?prefix=app")
    assert isinstance(store, ShoveStore)
    store.put(Person(1, name="kept"))
    assert store.dns == f"shove+file://{tmp_path}/shove?prefix=app"
    assert create_store(store.dns).get(Person, {"id": 1}).name == "kept"
    assert ShoveStore(shoveuri="memory://", lifetime=3).dns == "shove+memory://?lifetime=3"
    assert ShoveStore({}).dns is None


def test_a_mongo() -> None:
    """The path is the database, the collection a parameter; what is not the store's own is pymongo's."""
    url = "mongodb://user:p%40ss@h1:1,h2/app?collection=things&replicaSet=rs&lifetime=1h"
    store = create_store(url)
    assert isinstance(store, MongoStore)
    assert (store.name, store.database, store.dns) == ("mongodb", "app", url)
    assert "p@ss" not in repr(store)
    store.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqltable://h", "it names no database: write sqltable"),
        ("sqltable+postgresql://h:many/x", "is no database URL"),
        ("sqltable+sqlite://?liftime=5m", "no parameter 'liftime' \\(do you mean 'lifetime'\\?\\)"),
        ("shove://x", "it names no shove"),
        ("shove+s3://key:secret@bucket", "this shove has no store for s3"),
        ("shove+file:///tmp/x?lifetme=5m", "a ShoveStore has no parameter 'lifetme'; it has shove, shoveuri"),
        ("shove+memory://?bogus=1", "a ShoveStore has no parameter 'bogus'"),
        ("mongodb://h", "it names no database"),
        ("mongodb://h/a/b", "it names no database"),
        ("mongodb://h/a?bogus=1", "bogus"),
        ("mongodb://h:many/a", "Port contains non-digit"),
        ("mongodb://u:se@cret@h/a", "must be escaped"),
    ],
)
def test_wrong_strings(url: str, says: str) -> None:
    """The error says what is wrong, and shows no password."""
    with pytest.raises(ImproperlyConfigured, match=says) as told:
        create_store(url)
    assert "secret" not in str(told.value)
    assert "cret@h" not in str(told.value)


def test_a_mongo_that_is_down() -> None:
    """Nobody is connected to before the store is asked something."""
    store = create_store(f"mongodb://127.0.0.1:{free_port()}/app?serverSelectionTimeoutMS=50")
    with pytest.raises(StoreUnavailable, match=r"mongodb.ping"):
        store.ping()
    store.close()
