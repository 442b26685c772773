"""Settings and the registry: which class a name stands for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from stockpyle import create_store, data_stores, register_store
from stockpyle.exceptions import ImproperlyConfigured, NoSuchStoreBackend, StockpyleWarning
from stockpyle.schemes import GROUP, DataStores
from stockpyle.stores import (
    BaseDictionaryStore,
    BaseStore,
    MemcacheStore,
    ProcessMemoryStore,
    RedisStore,
    SqlAlchemyStore,
)


class Local(BaseStore):
    """A store of a third party, whose constructor names the parts of a connection string as usual."""

    def __init__(
        self, host: str = "nowhere", port: int = 1, database: str = "", *, password: str = "", depth=3
    ) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.made_with = host, port, database, password, depth

    def put(self, obj: Any) -> None: ...

    def get(self, klass: type, key: Any) -> None: ...

    def delete(self, obj: Any) -> None: ...


@pytest.fixture
def schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(data_stores, "_paths", dict(data_stores._paths))


@pytest.mark.parametrize(
    ("backend", "klass"),
    [
        ("memory", ProcessMemoryStore),
        ("ProcessMemoryStore", ProcessMemoryStore),
        ("MemcachedStore", MemcacheStore),
        ("stockpyle.stores.ProcessMemoryStore", ProcessMemoryStore),
        ("stockpyle.stores:ProcessMemoryStore", ProcessMemoryStore),
        (ProcessMemoryStore, ProcessMemoryStore),
        ("redis+cluster", RedisStore),
        ("tests.urls.test_backends.Local", Local),
    ],
)
def test_a_backend_is_a_scheme_a_class_its_name_or_its_path(backend: Any, klass: type) -> None:
    """Each of them names the class."""
    assert (
        type(
            create_store({"backend": backend, "host": "h"} if klass is not ProcessMemoryStore else {"backend": backend})
        )
        is klass
    )


def test_one_changed_line_switches_backends() -> None:
    """Parts of a connection string can be settings of their own, whatever the backend makes of them."""
    where = {"host": "h", "port": 5, "user": "u", "password": "p@", "database": "7"}
    assert create_store({"backend": "redis", **where}).dns == "redis://u:p%40@h:5/7"
    assert create_store({"backend": "postgresql+psycopg", **where}).dns == "postgresql+psycopg://u:p%40@h:5/7"
    assert create_store({"backend": "memcache", "hosts": ["a", "::1"], "port": 5}).dns == "memcache://a:5,[::1]:5"
    assert create_store({"backend": "memcache", "hosts": "a:1,b"}).dns == "memcache://a:1,b"
    assert create_store({"backend": "unix", "path": "/run/r.sock", "db": 3}).dns == "unix:///run/r.sock?db=3"
    assert create_store({"backend": "sqlite", "database": "x.db"}).dns == "sqlite:///x.db"
    assert create_store({"backend": Local, "host": "h", "port": "5"}).made_with == ("h", 5, "", "", 3)


@pytest.mark.parametrize("backend", ["sqlite", "sqlalchemy+sqlite", "sqltable+sqlite"])
def test_the_path_of_a_database_is_the_file(backend: str, tmp_path: Path) -> None:
    """An absolute one is one, and a relative one is none."""
    store = create_store({"backend": backend, "path": str(tmp_path / "x.db")})
    assert store.database == str(tmp_path / "x.db")
    store.execute("SELECT 1")
    assert (tmp_path / "x.db").exists()
    assert create_store(store.dns).database == store.database
    assert create_store({"backend": backend, "path": "x.db"}).database == "x.db"
    assert create_store({"backend": backend, "database": "y.db"}).database == "y.db"


def test_settings_are_the_constructors_parameters_too() -> None:
    """Text is read as in a connection string, other values are taken as they are; keyword parameters win."""
    store = create_store({"backend": "memory", "maxsize": "10k", "polymorphic": True}, maxsize=5)
    assert store._table._held.maxsize == 5
    assert store.polymorphic is True
    assert create_store({"backend": "redis", "url": "redis://h/3"}).dns == "redis://h/3"
    assert create_store({"backend": "memcache", "servers": ["h:5"]}).dns == "memcache://h:5"
    assert isinstance(create_store({"backend": "sqlalchemy", "uri": "sqlite://"}), SqlAlchemyStore)
    chain = create_store({"backend": "chain", "stores": ["memory://", {"backend": "null"}], "on_write": "invalidate"})
    assert chain.on_write == "invalidate"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, 'settings have a "backend"'),
        ({"host": "h"}, 'settings have a "backend": .* these have host'),
        ({"backend": None}, "a scheme, a class, its name or its path, not None"),
        ({"backend": "redis://h:secret@x"}, "'redis://h:\\*\\*\\*@x' is a connection string"),
        ({"backend": "nothing"}, "no store is called 'nothing'"),
        ({"backend": "no.such.Store"}, "importing no.such raised ModuleNotFoundError: No module named 'no'"),
        ({"backend": "json.Decoder"}, "json has no Decoder"),
        ({"backend": "json.decoder.JSONDecoder"}, "is no class of stores: it lacks put, get"),
        ({"backend": "stockpyle.stores"}, "is a module, which has .*RedisStore.*: give the path of a class in it"),
        ({"backend": "os.sep"}, "os:sep is no class"),
        ({"backend": "..x"}, "is no path of a class"),
        ({"backend": dict}, "dict is no class of stores"),
        ({"backend": "stockpyle.stores.RedisStor"}, "has no RedisStor: do you mean RedisStore"),
    ],
)
def test_wrong_backends(settings: Any, says: str) -> None:
    """A NoSuchStoreBackend says what was tried."""
    with pytest.raises(NoSuchStoreBackend, match=says):
        create_store(settings)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"backend": "memory", 5: 6}, "the names of settings are text, not 5"),
        ({"backend": "postgresql", "host": "h", "": 6}, "a parameter has an empty name"),
        ({"backend": "memory", "maxsize": [1]}, "maxsize is a whole number, .* not \\[1\\]"),
        ({"backend": "memory", "polymorphic": 3}, "polymorphic is true or false, not 3"),
        ({"backend": "memory", "maxsize": True}, "maxsize is a whole number, .* not True"),
        ({"backend": "memory", "lifetime": object()}, "lifetime is a duration"),
        ({"backend": "redis", "host": 5.5}, "host is a text, not float"),
        ({"backend": "redis", "port": "x"}, "port is a number, not str"),
        ({"backend": "redis", "port": 70000}, "is no port"),
        ({"backend": "redis", "hosts": [5]}, "hosts is a text, not list"),
        ({"backend": "redis", "codec": 5}, "codec"),
        ({"backend": "memory", "clock": 5}, "clock is a function, not 5"),
        ({"backend": "memcache", "lifetime_cb": {}}, "lifetime_cb is a function \\(or none\\), not a dict"),
        ({"backend": "redis", "password": 5, "url": "redis://h"}, "it names a server, and so does its url"),
        ({"backend": "memcache", "servers": 5}, "servers is a list such as"),
        ({"backend": "chain", "stores": 5}, "a chain is made of a list of stores, not of 5"),
        (
            {"backend": Local, "speed": 3},
            "a Local has no parameter 'speed'; it has host, port, database, password, depth",
        ),
    ],
)
def test_wrong_settings(settings: Any, says: str) -> None:
    """What does not fit a parameter is refused by its name."""
    with pytest.raises(ImproperlyConfigured, match=says):
        create_store(settings)


def test_a_path_is_the_database_as_it_is(schemes: None) -> None:
    """An absolute path stays absolute in what the store says of itself."""

    class InFile(Local):
        schemes = ("in-file",)

        def __init__(self, path: str = "") -> None:
            super().__init__("")

    assert create_store("in-file:///var/x").database == "/var/x"
    assert create_store("in-file://").database is None


def test_parameters_that_are_handed_on_are_those_of_the_class_above() -> None:
    """Their types are known, though the constructor says `**options`, or their names alone."""

    class HandingOn(BaseDictionaryStore):
        def __init__(self, path: Path, polymorphic=False, **options):  # type: ignore[no-untyped-def]
            super().__init__({}, polymorphic, **options)
            self.path = path

    class Further(HandingOn):
        def __init__(self, *rest, depth: int = 0, **options):  # type: ignore[no-untyped-def]
            super().__init__(*rest, **options)

    store = create_store({"backend": Further, "path": "x", "polymorphic": "yes", "lifetime": "5m", "depth": "3"})
    assert (store.path, store.polymorphic) == (Path("x"), True)
    assert store.lifetimes.deadline(None, 0.0) == 300
    with pytest.raises(ImproperlyConfigured, match="lifetime is a duration"):
        create_store({"backend": HandingOn, "path": "x", "lifetime": "soon"})
    with pytest.raises(ImproperlyConfigured, match="unexpected keyword argument 'bogus'"):
        create_store({"backend": HandingOn, "path": "x", "bogus": "1"})


def test_a_path_that_fails_to_import_shows_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a module raises while it is imported is told, and is the cause."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, line, kind in (("raises", "1 / 0", ZeroDivisionError), ("leaves", "raise SystemExit(3)", SystemExit)):
        (tmp_path / f"broken_that_{name}.py").write_text(line)
        with pytest.raises(NoSuchStoreBackend, match=f"importing broken_that_{name} raised {kind.__name__}") as told:
            create_store({"backend": f"broken_that_{name}.Store"})
        assert isinstance(told.value.__cause__, kind)


def test_a_constructor_that_fails_is_a_wrong_configuration() -> None:
    """Whatever a third party's constructor raises becomes an ImproperlyConfigured, which keeps it as its cause."""

    class Failing(Local):
        def __init__(self, host: str) -> None:
            raise OSError(f"cannot use {host}")

    with pytest.raises(ImproperlyConfigured, match="Failing: OSError: cannot use h") as told:
        create_store({"backend": Failing, "host": "h"})
    assert isinstance(told.value.__cause__, OSError)
    with pytest.raises(ImproperlyConfigured, match=r"Failing: TypeError: .*missing.*'host'"):
        create_store({"backend": Failing})


def test_register_store(schemes: None) -> None:
    """A registered scheme leads to its class, which is imported when it is needed; the store has its name."""
    register_store("local", "tests.urls.test_backends:Local")
    assert data_stores["local"] == "tests.urls.test_backends:Local"
    store = create_store("local://:word@h:5/data?depth=9")
    assert store.made_with == ("h", 5, "data", "word", "9")
    assert (store.name, store.database, store.dns) == ("local", "data", "local://:word@h:5/data?depth=9")
    assert Local("h", 5, depth=2).dns == "local://h:5?depth=2"
    assert type(create_store("local+sub://h")) is Local
    with pytest.raises(ImproperlyConfigured, match="a Local has no list of hosts"):
        create_store("local://a,b")
    with pytest.raises(ImproperlyConfigured, match="a Local has no user"):
        create_store("local://me@h")


def test_register_store_takes_a_class_and_refuses_nonsense(schemes: None) -> None:
    """A scheme is registered once, unless its replacement is meant."""
    register_store("mine", Local)
    register_store("mine", "tests.urls.test_backends.Local")
    with pytest.raises(ImproperlyConfigured, match=r"the scheme 'redis' is that of stockpyle.stores.redis:RedisStore"):
        register_store("redis", Local)
    register_store("redis", Local, replace=True)
    assert type(create_store("redis://h")) is Local
    for scheme in ("", "Up", "a b", "ü", 5, "a://"):
        with pytest.raises(ImproperlyConfigured, match="is no scheme"):
            register_store(scheme, Local)  # type: ignore[arg-type]
    for path in ("", "module", "a b.C", 5, "://"):
        with pytest.raises(ImproperlyConfigured, match="is no path of a class"):
            register_store("other", path)  # type: ignore[arg-type]
    with pytest.raises(NoSuchStoreBackend, match="is no class of stores"):
        register_store("other", dict)


def test_a_class_registers_itself(schemes: None) -> None:
    """A class that declares schemes is known from its definition on; a class below it has them not."""

    class Own(Local):
        schemes = ("own", "own2")

    class Below(Own): ...

    assert type(create_store("own2://h")) is Own
    assert Own().name == "own"
    assert (Below().name, Below().dns) == ("Below", None)
    with pytest.raises(ImproperlyConfigured, match="the scheme 'own' is that of"):

        class Other(Local):
            schemes = ("own",)


def test_entry_points_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package announces its stores as entry points; one that takes a scheme of ours is not used, with a warning."""
    info = tmp_path / "otherstore-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: otherstore\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nother = tests.urls.test_backends:Local\ntaken = x.y:Z\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = DataStores()
    found.add("taken", "our.own:Store")
    with pytest.warns(StockpyleWarning, match="the entry point 'taken' is not used: .* is that of our.own:Store"):
        assert found["other"] == "tests.urls.test_backends:Local"
    assert sorted(found) == ["other", "taken"]
    assert found.class_of("other") is Local


def test_data_stores_lists_every_scheme() -> None:
    """The registry is a mapping of schemes to paths."""
    assert data_stores["redis"] == "stockpyle.stores.redis:RedisStore"
    assert {"chain", "memcache", "memory", "null", "postgresql", "rediss", "sqlite", "threadlocal", "unix"} <= set(
        data_stores
    )
    assert "nosuch" not in data_stores
