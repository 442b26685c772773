"""Connection strings: what they say, and what is said of wrong ones."""

from __future__ import annotations

import pickle
import ssl
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stockpyle import create_store
from stockpyle.exceptions import ImproperlyConfigured, NoSuchStoreBackend, StoreUnavailable
from stockpyle.stores import ChainedStore, MemcacheStore, NullStore, ProcessMemoryStore, RedisStore, SqlAlchemyStore
from tests.servers import MemcachedWithTls


def test_the_store_of_the_documents() -> None:
    """Name, database and connection string are as documented; a keyword parameter is added to the string."""
    url = "redis://user:password@127.0.0.1:6500/11"
    store = create_store(url)
    assert (store.name, store.database, store.dns) == ("redis", "11", url)
    assert create_store(url, namespace="test_").dns == f"{url}?namespace=test_"


@pytest.mark.parametrize(
    ("url", "servers"),
    [
        ("memcache://", ["localhost:11211"]),
        ("memcached://h", ["h:11211"]),
        ("memcache://h1:1,h2,[::1]:3", ["h1:1", "h2:11211", "::1:3"]),
        ("memcache:///run/m.sock", ["/run/m.sock"]),
        ("memcache:///run/a%20b.sock", ["/run/a b.sock"]),
        ("MEMCACHE://h:5", ["h:5"]),
        ("redis://", ["localhost:6379"]),
        ("redis://[::1]:7/2", ["::1:7"]),
        ("redis://:word@h", ["h:6379"]),
        ("rediss://u:w@h", ["h:6379"]),
        ("unix:///run/r.sock?db=2", ["/run/r.sock"]),
        ("redis+cluster://a:1,b:2", ["a:1,b:2"]),
        ("redis+sentinel://a,b:2/service/3", ["a,b:2/service"]),
    ],
)
def test_servers(url: str, servers: list[str]) -> None:
    """Each way to name servers is understood, with the backend's own port where none is given."""
    assert [part.name for part in create_store(url).parts] == servers


@pytest.mark.parametrize(
    ("url", "database"),
    [
        ("redis://h", "0"),
        ("redis://h/", "0"),
        ("redis://h?db=4", "4"),
        ("unix:///s?db=3", "3"),
        ("redis+sentinel://h/service", "0"),
        ("redis+sentinel://h/service/5", "5"),
        ("redis+cluster://h", "0"),
        ("memcache://h", None),
        ("memory://", None),
        ("postgresql+psycopg://h/app", "app"),
        ("sqlite:///some.db", "some.db"),
        ("sqlite://", None),
        ("chain://?stores=memory://", None),
    ],
)
def test_databases(url: str, database: str | None) -> None:
    """The database is what the backend calls so."""
    assert create_store(url).database == database


def test_credentials_are_decoded() -> None:
    """User and password are percent-decoded; a plus is a plus; a blank password is one, and a blank user none."""
    for url, user, password in [
        ("redis://us%40er:p%3A%2F%23%25+w@h", "us@er", "p:/#%+w"),
        ("redis://:pass@h", None, "pass"),
        ("redis://%C3%A4:%C3%B6@h", "ä", "ö"),
    ]:
        store = create_store(url)
        assert (store._url.user, store._url.password) == (user, password)
        client = store._clients(1, 1)[1](lambda connection: None)
        kwargs = client.connection_pool.connection_kwargs
        assert (kwargs.get("username") or None, kwargs["password"]) == (user, password)
    assert create_store("redis://user:@h")._url.password == ""


def test_parameters_are_read_by_their_types() -> None:
    """Durations, sizes, switches, times and choices are written as people write them."""
    store = create_store("memory://?maxsize=10k&lifetime=5m&polymorphic=yes&lease_seconds=1.5s")
    assert store._table._held.maxsize == 10_000
    assert store.lifetimes.deadline(None, 1000.0) == 1300.0
    assert store.polymorphic is True
    assert create_store("memory://?maxsize=2Ki")._table._held.maxsize == 2048
    assert create_store("memory://?maxsize=none&polymorphic=off").polymorphic is False
    until = create_store("memory://?lifetime=2040-01-31T12:00").lifetimes.deadline(None, 0.0)
    assert until == datetime(2040, 1, 31, 12).timestamp()
    assert create_store("memcache://h?unreachable=refuse&namespace=a%2Bb").prefix == "a+b"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("250ms", 0.25),
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1w", 604_800),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """A duration is a number with a unit, or several, or a number of seconds."""
    assert create_store(f"memory://?lifetime={text}").lifetimes.deadline(None, 0.0) == seconds


def test_a_blank_value_is_a_value() -> None:
    """`name=` is an empty text, which is refused where one makes no sense, and not taken for nothing."""
    with pytest.raises(ImproperlyConfigured, match="prefix is 1 to 100"):
        create_store("memcache://h?namespace=")
    with pytest.raises(ImproperlyConfigured, match=r"maxsize is a whole number, .* not ''"):
        create_store("memory://?maxsize=")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "'' is no connection string, such as"),
        ("redis", "is no connection string, .*: write redis://"),
        ("localhost:6379", "is no connection string"),
        ("redis:/h", "is no connection string"),
        ("://h", "is no connection string"),
        ("redis://h\n", "control character, or a blank at an end"),
        (" redis://h", "is no connection string"),
        ("redis://h\ud800", "half a character"),
        ("redis://h:", "'' is no port"),
        ("redis://h:0", "'0' is no port"),
        ("redis://h:65536", "'65536' is no port"),
        ("redis://h:٣", "'٣' is no port"),
        ("redis://h:99999999999999999999", "is no port"),
        ("redis://h h", "'h h' is no host"),
        ("redis://a,b", "several hosts: that is redis\\+cluster"),
        ("redis://h/many", "a database of Redis is a number, not 'many'"),
        ("redis://::1", "an IPv6 address stands in brackets"),
        ("redis://[::1", "IPv6 address stands in brackets|is no host"),
        ("redis://[xyz]:1", "'\\[xyz\\]' is no IPv6 address"),
        ("redis://:%ff@h", "the password is not UTF-8"),
        ("redis://:a#b@h", "the password has a #: write it as %23"),
        ("redis://h?db=x", "'x' is no db"),
        ("redis://h?bogus=1", "no parameter 'bogus', .* it has client_name, db"),
        ("redis://h?decode_responses=true", "no parameter 'decode_responses'"),
        ("redis://h?timeout=soon", "timeout is a number of seconds, or a duration"),
        ("redis://h?unreachable=panic", "unreachable is 'proceed' or 'refuse', not 'panic'"),
        ("redis://h?namespace=a&namespace=b", "namespace is given 2 times|prefix is 1 to 100"),
        ("redis://h?namespace", "the parameter 'namespace' is written as name=value"),
        ("redis://h?=5", "the parameter '5' is written as name=value"),
        ("redis://h?x=%ff", "its parameters are not UTF-8"),
        ("unix://h/run.sock", "a UNIX socket has no host"),
        ("unix://", "it names no socket"),
        ("redis+sentinel://h", "the path of a Sentinel's URL is /service"),
        ("redis+cluster://h/3", "a cluster has no databases but 0"),
        ("memcache://h/app", "memcached has no databases such as 'app': give namespace="),
        ("memcache://u:p@h", "memcached asks for no user and no password"),
        ("memcache://h,h", "is named twice"),
        ("memcache://h,,g", "'' is no host"),
        ("memcache://h?ssl_ca_certs=x", "a MemcacheStore has no parameter 'ssl_ca_certs'; it has client, servers"),
        ("memcaches://h?ssl_ca_certs=/nowhere.pem", "ssl_ca_certs cannot be read"),
        ("memcaches://h?ssl_cert_reqs=maybe", "ssl_cert_reqs is required or none, not 'maybe'"),
        ("memory://h", "a ProcessMemoryStore has no host"),
        ("memory:///p", "a ProcessMemoryStore has no database"),
        ("memory://u@", "a ProcessMemoryStore has no user"),
        ("memory://?maxsize=many", "maxsize is a whole number, such as 500 or 10k"),
        ("memory://?maxsize=0", "maxsize is a number of objects, 1 or more"),
        ("memory://?polymorphic=maybe", "polymorphic is true or false, not 'maybe'"),
        ("memory://?lifetime=soon", "lifetime is a duration such as 30s"),
        ("memory://?lifetime_cb=now", "lifetime_cb cannot be given as text: give create_store the object itself"),
        ("memory://?size=5", "a ProcessMemoryStore has no parameter 'size'; it has polymorphic, lifetime_cb, maxsize"),
        ("sqlalchemy://h/db", "it names no database: write sqlalchemy\\+postgresql"),
        ("postgresql://h:many/db", "is no database URL"),
        ("sqlalchemy+nosuch://h/db", "nosuch"),
        ("chain://", "a chain needs at least one store"),
        ("chain://?stores=memory://&stores=nosuch://", "no store is called 'nosuch'"),
        ("chain://?stores=memory://&on_write=later", "on_write is 'publish' or 'invalidate', not 'later'"),
    ],
)
def test_wrong_strings(url: str, says: str) -> None:
    """The error names the part that is wrong, and can be pickled."""
    with pytest.raises(ImproperlyConfigured, match=says) as told:
        create_store(url)
    again = pickle.loads(pickle.dumps(told.value))
    assert (type(again), str(again)) == (type(told.value), str(told.value))


def test_unknown_schemes_are_named_with_those_that_are_known() -> None:
    """A scheme that nobody has registered is a NoSuchStoreBackend, which lists all, and the nearest."""
    with pytest.raises(NoSuchStoreBackend, match=r"'reddis' \(do you mean 'redis'\?\): .*memcache, .*sqlite") as told:
        create_store("reddis://:secret@h")
    assert "secret" not in str(told.value)


def test_sql_urls_are_sqlalchemys() -> None:
    """A SQL URL is passed to SQLAlchemy as it is, with its parameters, whether its scheme says so or is a dialect."""
    url = "postgresql+psycopg://us%40er:p%2Fw@h1:5/app?connect_timeout=3&options=-c%20a"
    for spec in (url, f"sqlalchemy+{url}"):
        store = create_store(spec)
        assert isinstance(store, SqlAlchemyStore)
        assert store.engine.url.render_as_string(hide_password=False) == SqlAlchemyStore(
            url
        ).engine.url.render_as_string(hide_password=False)
        assert (store.name, store.dns) == ("sqlalchemy", spec)
    assert create_store("sqlite:////a/b c.db").database == "/a/b c.db"
    assert create_store(url, connect_timeout=9).engine.url.query["connect_timeout"] == "9"


def test_keyword_parameters_win() -> None:
    """A keyword parameter takes the place of the string's, be it a parameter, a host or a password."""
    store = create_store("redis://u:old@h:1/2?prefix=a&timeout=1", prefix="b", password="n@w", host="other", database=7)
    assert store.dns == "redis://u:n%40w@other/7?timeout=1&prefix=b"
    assert store.prefix == "b"
    assert create_store("memcache://a:1,b:2", port=9).dns == "memcache://a:9,b:9"
    memory = create_store("memory://?maxsize=5&lifetime=1", maxsize=10, lifetime=timedelta(minutes=1))
    assert memory.dns == "memory://?maxsize=10&lifetime=60"
    assert create_store("memory://", lifetime_cb=lambda obj: 5).dns == "memory://"


def test_a_part_that_is_none_is_not_given() -> None:
    """What a setting does not have, as `os.environ.get("PASSWORD")`, is as if it were not there."""
    assert create_store("redis://u:p@h/3", password=None, port=None).dns == "redis://u:p@h/3"
    for backend, given in (("redis", {"host": "h"}), ("sqlite", {}), ("memory", {}), ("memcache", {"host": "h"})):
        nothing = dict.fromkeys(("user", "password", "port", "hosts", "database", "path"))
        with_none = create_store({"backend": backend, **nothing, **given})
        assert with_none.dns == create_store({"backend": backend, **given}).dns
    for url, name in (("redis://h", "ssl_ca_certs"), ("postgresql://h/db", "sslmode")):
        with pytest.raises(ImproperlyConfigured, match=f"no parameter '{name}'"):
            create_store(url, **{name: None})


@pytest.mark.parametrize("url", ["redis://h/3", "redis+sentinel://h/service/3"])
def test_the_database_of_redis_as_a_parameter(url: str) -> None:
    """It wins over the path's, as every parameter does, and the store says so."""
    store = create_store(url, db=4)
    assert store.database == "4"
    assert create_store("redis://h?db=3", database=4).dns == "redis://h/4"
    assert create_store(store.dns).database == "4"
    made = store._server._new_client(lambda connection: None)
    assert made.connection_pool.connection_kwargs["db"] == 4


def test_a_list_is_a_chain() -> None:
    """A list of whatever makes stores makes a chain of them, with the keyword parameters for the chain."""
    source = create_store("sqlite://")
    chain = create_store(["memory://?maxsize=5", {"backend": "null"}, source], on_write="invalidate")
    assert isinstance(chain, ChainedStore)
    assert [type(store) for store in chain.stores] == [ProcessMemoryStore, NullStore, SqlAlchemyStore]
    assert chain.stores[2] is source
    assert chain.on_write == "invalidate"
    assert chain.name == "chain"
    with pytest.raises(ImproperlyConfigured, match="at least one store"):
        create_store([])


def test_a_store_is_returned_as_it_is() -> None:
    """A store stays the same object; parameters for it come too late, and that is said."""
    store = ProcessMemoryStore()
    assert create_store(store) is store
    with pytest.raises(ImproperlyConfigured, match="ProcessMemoryStore is a store already: it cannot be given maxsize"):
        create_store(store, maxsize=5)  # type: ignore[call-overload]


@pytest.mark.parametrize("spec", [None, 5, b"memory://", {"memory"}, object(), ProcessMemoryStore, [None]])
def test_what_makes_no_store(spec: Any) -> None:
    """Anything else is refused with what would do."""
    with pytest.raises(ImproperlyConfigured, match=r"connection string|is a class: give a store"):
        create_store(spec)


def test_tls() -> None:
    """memcaches:// makes a connection with TLS, whose certificate is checked unless one says otherwise."""
    with MemcachedWithTls() as server:
        where = f"memcaches://{server.host}:{server.port}"
        with create_store(f"{where}?ssl_ca_certs={server.certificate}") as store:
            assert store.ping() is True
            assert store.dns == f"{where}?ssl_ca_certs={server.certificate}"
        with create_store(f"{where}?ssl_cert_reqs=none") as store:
            assert store.ping() is True
        with (
            create_store(where) as store,
            pytest.raises(StoreUnavailable, match=r"CERTIFICATE_VERIFY_FAILED|certificate verify"),
        ):
            store.ping()
    with pytest.raises(ImproperlyConfigured, match="ssl_cert_reqs and a tls_context say the same"):
        create_store("memcaches://h?ssl_cert_reqs=none", tls_context=ssl.create_default_context())


def test_no_connection_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """create_store asks nobody: neither a server, nor a name server, nor a file."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("it has connected")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("socket.gethostbyname", refuse)
    for url in (
        "redis://h/1",
        "redis+cluster://a,localhost",
        "redis+sentinel://a,b/s",
        "memcache://a,b",
        "memcaches://a",
        "postgresql+psycopg://h/db",
        f"sqlite:///{tmp_path}/new.db",
    ):
        create_store(url)
    assert not (tmp_path / "new.db").exists()


def test_stores_made_by_hand_have_a_connection_string_too() -> None:
    """What a constructor was given is said by the store's string, except for what has no text."""
    import redis
    from pymemcache.client.base import Client

    assert ProcessMemoryStore(True, maxsize=5, lifetime=timedelta(minutes=1)).dns == (
        "memory://?polymorphic=true&maxsize=5&lifetime=60"
    )
    assert MemcacheStore(servers=["h", ("::1", 5)], namespace="a").dns == "memcache://h:11211,[::1]:5?namespace=a"
    assert MemcacheStore(servers=["/a.sock"]).dns == "memcache:///a.sock"
    assert MemcacheStore(servers=["/a.sock", "h:1"]).dns == "memcache://?servers=/a.sock&servers=h:1"
    assert MemcacheStore(Client(("h", 5))).dns == "memcache://h:5"
    context = ssl.create_default_context()
    assert MemcacheStore(servers="h", tls_context=context).dns == "memcaches://h:11211"
    assert RedisStore("redis://:a%2Fb@h/3?client_name=x", timeout=2).dns == "redis://:a%2Fb@h/3?client_name=x&timeout=2"
    with redis.Redis("h", 7, 4, password="p/w") as client:
        assert RedisStore(client=client).dns == "redis://:p%2Fw@h:7/4"
        assert RedisStore(client=client).database == "4"
    assert SqlAlchemyStore("sqlite:///x.db").dns == "sqlite:///x.db"
    assert ChainedStore([NullStore(), SqlAlchemyStore("sqlite://")], lock_seconds=5).dns == (
        "chain://?stores=null://&stores=sqlite://&lock_seconds=5"
    )
