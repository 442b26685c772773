"""create_store(store.dns) is an equal store; no string but a store or an ImproperlyConfigured; no password is shown."""

from __future__ import annotations

import logging
import traceback
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stockpyle import create_store
from stockpyle.addresses import ConnectionString
from stockpyle.exceptions import ImproperlyConfigured
from stockpyle.masking import masked
from stockpyle.parameters import converted, parameters_of, text_of
from stockpyle.stores import BaseStore, ChainedStore, MemcacheStore, ProcessMemoryStore, RedisStore

hosts = st.one_of(
    st.from_regex(r"[a-z][a-z0-9-]{0,10}(\.[a-z]{2,3})?", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
)
places = st.builds(
    lambda host, port: host if port is None else f"{host}:{port}", hosts, st.none() | st.integers(1, 65535)
)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
credentials = st.one_of(
    st.just(""),
    texts.map(lambda word: f":{quote(word, safe='')}@"),
    st.tuples(texts, texts).map(lambda pair: f"{quote(pair[0], safe='')}:{quote(pair[1], safe='')}@"),
)
durations = st.one_of(
    st.integers(1, 10**6).map(str),
    st.builds(lambda number, unit: f"{number}{unit}", st.integers(1, 999), st.sampled_from(["ms", "s", "m", "h", "d"])),
)
shared = {
    "namespace": st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20),
    "polymorphic": st.sampled_from(["true", "false", "yes", "no", "on", "off", "0", "1", "TRUE"]),
    "lifetime": durations,
    "unreachable": st.sampled_from(["proceed", "refuse"]),
    "lease_seconds": durations,
    "timeout": durations | st.just("none"),
}


@st.composite
def queries(draw: st.DrawFn, **known: Any) -> str:
    """Some of these parameters, as text."""
    names = draw(st.lists(st.sampled_from(sorted(known)), unique=True))
    texts = [f"{name}={quote(draw(known[name]), safe='')}" for name in names]
    return f"?{'&'.join(texts)}" if texts else ""


def strings(scheme: str, *parts: st.SearchStrategy[str], **known: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Connection strings of these parts, and some of these parameters."""
    return st.tuples(*parts, queries(**known)).map(lambda each: f"{scheme}://{''.join(each)}")


several = st.lists(places, min_size=1, max_size=3, unique_by=lambda place: place.lower()).map(",".join)
databases = st.sampled_from(["", "/", "/0", "/11"])
memory = strings("memory", **{name: shared[name] for name in ("polymorphic", "lifetime", "lease_seconds")})
single = st.one_of(
    memory,
    strings("null", lifetime=durations),
    strings("memcache", several, **shared),
    strings("redis", credentials, places, databases, **shared),
    strings("rediss", credentials, places, databases, **shared),
    strings("redis+cluster", credentials, several, **shared),
    strings("redis+sentinel", credentials, several, st.sampled_from(["/service", "/service/3"]), **shared),
    strings("postgresql+psycopg", credentials, places, st.sampled_from(["/db", ""]), connect_timeout=st.just("3")),
    st.sampled_from(["sqlite://", "sqlite:///x.db", "sqlite:////a b/c.db"]),
)
chains = st.lists(single, min_size=1, max_size=3).map(
    lambda each: "chain://?" + "&".join(f"stores={quote(one, safe='')}" for one in each)
)


def facts(store: Any) -> Any:
    """What makes two stores equal: class, servers, database, and what their constructors were given."""
    if isinstance(store, ChainedStore):
        return [facts(each) for each in store.stores]
    arguments = {**dict(zip(parameters_of(type(store)), store._given[0], strict=False)), **store._given[1]}
    arguments.pop("tls_context", None)
    return {
        "class": type(store),
        "servers": [part.name for part in getattr(store, "parts", ())],
        "database": store.database,
        "url": str(getattr(getattr(store, "engine", None), "url", None)),
        "arguments": arguments,
    }


@given(single | chains)
def test_the_string_of_a_store_makes_an_equal_store(url: str) -> None:
    """Class, servers, database and parameters are the same, and the string is the one that was given."""
    store = create_store(url)
    assert store.dns is not None
    again = create_store(store.dns)
    assert facts(again) == facts(store)
    assert again.dns == store.dns == url
    assert repr(again) == repr(store)


@given(
    maxsize=st.none() | st.integers(1, 10**12),
    polymorphic=st.booleans(),
    lifetime=st.one_of(
        st.none(),
        st.integers(-(10**9), 10**9),
        st.floats(0.001, 1e9),
        st.timedeltas(timedelta(0), timedelta(days=1000)),
        st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)),
    ),
    lease_seconds=st.floats(1e-9, 1e9),
)
@example(maxsize=None, polymorphic=False, lifetime=1e-9, lease_seconds=1.9999998807907104)
def test_a_store_made_by_hand_has_the_string_of_an_equal_one(lifetime: Any, **options: Any) -> None:
    """Numbers and times keep their value to the last digit."""
    store = ProcessMemoryStore(lifetime=lifetime, **options)
    assert store.dns is not None
    again = create_store(store.dns)
    assert (again.polymorphic, again._table._held.maxsize) == (store.polymorphic, store._table._held.maxsize)
    assert again.lifetimes.deadline(None, 0.0) == store.lifetimes.deadline(None, 0.0)
    assert again._given[1]["lease_seconds"] == options["lease_seconds"]
    assert create_store(again.dns).dns == again.dns


@given(
    st.sampled_from(["memcache", "redis", "memory", "chain", "sqlite", "postgresql", "unix", "redis+cluster"]),
    st.text(),
)
@example("redis", "://:\x00@h")
@example("redis", "://[")
@example("redis", "://[v1.x]")
@example("redis", "://h:\u0661")
@example("redis", "://@")
@example("memcache", ":///")
@example("memcache", "://,")
@example("memory", "://?lifetime=9999999999999999999")
@example("memory", "://?lifetime=999999999999w")
@example("memory", "://?maxsize=999999999999999999Gi")
@example("memory", "://?lease_seconds=1e400")
@example("sqlite", ":///\x00")
@example("sqlite", "://h/db")
@example("sqlite", "://?plugin=nosuch")
@example("postgresql", "://h:1:2/%ff")
@example("chain", "://?stores=" + "chain://%3Fstores=" * 50)
@example("chain", "://?stores=chain://")
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_a_store_or_a_wrong_configuration(scheme: str, text: str) -> None:
    """Whatever is written after a scheme, or in its place, nothing else is raised."""
    for url in (f"{scheme}{text}", f"{scheme}://{text}", text, f"{scheme}://h/1?{text}"):
        _makes_a_store_or_says_why_not(url)


def _makes_a_store_or_says_why_not(url: str) -> None:
    try:
        store = create_store(url)
    except ImproperlyConfigured:
        return
    assert isinstance(store, BaseStore)
    assert store.name
    assert store.dns


@given(single | chains, st.data())
def test_a_damaged_string_is_a_store_or_a_wrong_configuration(url: str, data: st.DataObject) -> None:
    """One character more, less or other makes no other error."""
    place = data.draw(st.integers(0, len(url)))
    length = data.draw(st.integers(0, 2))
    other = data.draw(st.text(st.sampled_from("/:@?#&=%[],+. \0é\ud800") | st.characters(), max_size=2))
    _makes_a_store_or_says_why_not(url[:place] + other + url[place + length :])


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner), max_leaves=3))
def test_any_setting_is_a_store_or_a_wrong_configuration(value: Any) -> None:
    """Whatever stands for a setting, nothing else is raised."""
    for backend, name in [
        ("memory", "maxsize"),
        ("memory", "lifetime"),
        ("redis", "host"),
        ("redis", "port"),
        ("redis", "db"),
        ("redis", "timeout"),
        ("memcache", "servers"),
        ("memcache", "password"),
        ("sqlite", "database"),
        ("sqlalchemy", "uri"),
        ("chain", "stores"),
    ]:
        try:
            create_store({"backend": backend, name: value})
        except ImproperlyConfigured:
            continue


SECRET = "s3cr3t-Pa55"


@pytest.mark.parametrize(
    "url",
    [
        f"redis://u:{SECRET}@h:x/1",
        f"redis://u:{SECRET}@h/x",
        f"redis://:{SECRET}@h?bogus=1",
        f"redis://u:{SECRET}/@h",
        f"redis://u:{SECRET}?@h",
        f"redis://u:{SECRET}#@h",
        f"redis://h?password={SECRET}&bogus=1",
        f"nosuch://u:{SECRET}@h",
        f"redis:/u:{SECRET}@h",
        f"redis+sentinel://u:{SECRET}@h",
        f"unix://u:{SECRET}@h/x",
        f"memcache://u:{SECRET}@h",
        f"memory://u:{SECRET}@h",
        f"sqlalchemy://u:{SECRET}@h/db",
        f"postgresql://u:{SECRET}@h:x/db",
        f"postgresql+nosuch://u:{SECRET}@h/db",
        f"postgresql+nosuch://h/db?password={SECRET}",
        f"postgresql://u:{SECRET}/db",
        f"redis://u:{SECRET}/0",
        f"redis://:{SECRET}",
        f"redis://u:{SECRET}:6379/0",
        f"redis://[::1]:{SECRET}",
        f"redis://u:a?{SECRET}@h",
        f"memcache://h?a:{SECRET}@h=5",
        f"no scheme://u:{SECRET}@h?x=y://z",
        f"memory://?polymorphic=redis://u:{SECRET}@h",
        f"memcache://h?prefix=redis://u:{SECRET}@h/é",
        f"postgresql//u:{SECRET}@h/db",
        f"sqlite://u:{SECRET}@h/db",
        f"chain://?stores=memory://&stores=redis://:{SECRET}@h/x",
        f"chain://?stores=memory://&bogus=redis://:{SECRET}@h/x",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    """Neither the error nor what led to it, as a traceback prints it."""
    with pytest.raises(ImproperlyConfigured) as told:
        create_store(url)
    lines = traceback.format_exception_only(told.value)
    cause = told.value.__cause__
    while cause is not None:
        lines += traceback.format_exception_only(cause)
        cause = cause.__cause__
    assert SECRET not in "".join(lines)
    assert "s3cr3t" not in "".join(lines)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://u:{SECRET}@localhost:1/1",
        f"redis://localhost:1?password={SECRET}",
        f"redis+cluster://:{SECRET}@localhost:1",
        f"redis+sentinel://:{SECRET}@localhost:1/service",
        f"postgresql+psycopg://u:{SECRET}@localhost:1/db",
        f"postgresql+psycopg://localhost:1/db?password={SECRET}",
    ],
)
def test_neither_repr_nor_log_nor_failure_shows_a_password(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A store that cannot reach its server says so without its password, alone and in a chain."""
    store = create_store(url)
    assert SECRET in (store.dns or "")
    chain = create_store([store, "memory://"])
    with caplog.at_level(logging.DEBUG):
        for each in (store, chain):
            assert SECRET not in repr(each)
            assert SECRET not in str(each)
            with pytest.raises(Exception, match=r"cannot be used|connection|refused") as told:
                each.ping()
            assert SECRET not in str(told.value) + repr(told.value)
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "spec",
    [
        f"redis://u:{SECRET}@h".encode(),
        {"backend": {"backend": "redis", "password": SECRET}},
        {"backend": "redis", "password": {"is": SECRET}},
        {"backend": "redis", "client": f"redis://u:{SECRET}@h"},
        {"backend": "redis", "url": [f"redis://u:{SECRET}@h"], "client": None},
        {"backend": "memcache", "client": f"memcache://u:{SECRET}@h"},
        {"backend": "memcache", "servers": [f"u:{SECRET}@h"]},
        {"backend": "memory", "maxsize": {"of": SECRET}},
        {"backend": "memory", "lifetime": [f"redis://u:{SECRET}@h"]},
        {"backend": "sqlalchemy", "uri": {"url": SECRET}},
        {"backend": "sqlalchemy", "uri": [f"postgresql://u:{SECRET}@h/db"]},
        {"backend": "sqlalchemy", "engine": f"postgresql://u:{SECRET}@h/db"},
        {"backend": "sqltable", "bind": f"postgresql://u:{SECRET}@h/db", "metadata": None, "tablename": "t"},
        {"backend": "shove", "shove": f"s3://u:{SECRET}@h"},
        {"backend": "mongodb", "db": f"mongodb://u:{SECRET}@h", "collection": "c"},
        {"backend": "chain", "stores": {"redis": f"redis://u:{SECRET}@h"}},
        {"backend": "chain", "stores": ["memory://"], "backplane": f"redis://u:{SECRET}@h"},
        ["memory://", [f"redis://u:{SECRET}@h:x"]],
        ["memory://", b"redis://u:" + SECRET.encode() + b"@h"],
    ],
)
def test_no_error_shows_a_password_of_wrong_settings(spec: Any) -> None:
    """A connection string, or a mapping, where something else belongs, is not shown as it is."""
    with pytest.raises(ImproperlyConfigured) as told:
        create_store(spec)
    assert SECRET not in str(told.value) + repr(told.value) + repr(told.value.__cause__)


def test_a_chain_of_texts_shows_no_password() -> None:
    """ChainedStore takes stores; given connection strings it says so, without their passwords."""
    with pytest.raises(ImproperlyConfigured) as told:
        ChainedStore([f"redis://u:{SECRET}@h"])  # type: ignore[list-item]
    assert SECRET not in str(told.value)


class Unshowable:
    """What cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


own = [Unshowable()]
own.append(own)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", range(6))
def test_values_that_cannot_be_shown_are_a_wrong_configuration(number: int) -> None:
    """An error about them is made of their types."""
    name: Any = ["backend", "maxsize", "polymorphic", "lifetime", 5, Unshowable()][number]
    for value in (Unshowable(), [Unshowable()], own, {1: own}):
        with pytest.raises(ImproperlyConfigured):
            create_store({"backend": "memory" if name != "backend" else value, name: value})
        with pytest.raises(ImproperlyConfigured):
            create_store(value)


def test_numbers_too_long_to_be_written_have_no_text() -> None:
    """They are refused by name, or are left out of the connection string."""
    assert create_store({"backend": "memory", "maxsize": 10**5000}).dns == "memory://"
    for wrong in ({"backend": 10**5000}, {"backend": "memory", "polymorphic": 10**5000}, 10**5000):
        with pytest.raises(ImproperlyConfigured, match=r"an int|of an int"):
            create_store(wrong)


def test_a_list_that_holds_itself_is_a_wrong_configuration() -> None:
    """It is not gone into for ever."""
    endless: list[Any] = ["memory://"]
    endless.append(endless)
    with pytest.raises(ImproperlyConfigured):
        create_store(endless)


def test_an_empty_list_has_no_text() -> None:
    """It does not leave a parameter without a name in the string."""
    assert str(ConnectionString.parse("postgresql://h/db").with_params({"x": []}).written(text_of)) == (
        "postgresql://h/db"
    )


def test_a_connection_string_in_hand_shows_no_password() -> None:
    """Its repr is masked, and so is any text that was meant as one."""
    assert repr(ConnectionString.parse("redis://u:p@h/1?x=1")) == "<redis://u:***@h/1?x=1>"
    assert masked("redis://h/1?password=p&x=1&ssl_password=q") == "redis://h/1?password=***&x=1&ssl_password=***"
    assert masked("redis://user@h/1") == "redis://user@h/1"
    for plain in ("redis://h:6379/1", "memcache://h:1,[::1]:2,g", "redis://h:", "sqlite:///C:/x", "a.b:C"):
        assert masked(plain) == plain
    assert masked("redis://u:p@h/postgresql://u:q@h") == "redis://u:***@h"
    assert masked("x://h/1?a=redis%3A%2F%2Fu%3Asecret%40h") == "x://h/1?a=redis%3A%2F%2Fu%3A***%40h"
    assert masked("memcache://h1:1,u:secret/x?y=1") == "memcache://h1:1,u:***/x?y=1"


@pytest.mark.parametrize(
    "url",
    [
        "redis://h?" + "pass" * 100_000,
        "redis://h?" + ";pass" * 100_000,
        "redis://" + "a:1," * 50_000 + ":x",
        "redis://" + "[" * 100_000,
        "memory://?lifetime=" + "1h" * 100_000 + "x",
        "a" * 100_000 + "://:@",
        "chain://?stores=" * 1_000,
    ],
    ids=lambda url: url[:30],
)
def test_strings_that_were_made_to_take_long(url: str) -> None:
    """They are refused as soon as others: in minutes, if each part of them were looked at with each other."""
    with pytest.raises(ImproperlyConfigured):
        create_store(url)


def test_what_has_no_text_is_left_out() -> None:
    """A codec, a callback or a client has none."""
    assert text_of(object()) is None
    assert text_of(float("inf")) is None
    assert text_of(b"x") is None
    assert text_of([object()]) is None
    store = MemcacheStore(servers="h", lifetime_cb=lambda obj: 5, timeout=None)
    assert store.dns == "memcache://h:11211?timeout=none"
    assert RedisStore("redis://h", allow_pickle=True).dns == "redis://h?allow_pickle=true"


def test_annotations_that_are_not_known_take_anything() -> None:
    """A parameter without a type, or with one that only a type checker can see, gets what was written."""

    class Odd:
        def __init__(self, plain, hidden: NoSuchName, number: int = 0, **rest):  # type: ignore[no-untyped-def]  # noqa: F821
            pass

    kinds = parameters_of(Odd)
    assert kinds == {"plain": Any, "hidden": Any, "number": int}
    assert converted("plain", "5", kinds["plain"]) == "5"
    assert parameters_of(object) == {}
