"""MemcacheStore on one server and on three: the contracts, its options, and the classes it refuses."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from ssl import SSLContext
from typing import Any

import pytest
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient

from stockpyle.exceptions import EncodeError, ImproperlyConfigured, InvalidKeysDeclaration
from stockpyle.stores import ChainedStore, MemcacheStore, ProcessMemoryStore
from stockpyle.testing import Clock, RevisedContract, StoreContract, TierContract
from stockpyle.testing.samples import Person
from tests.servers import Memcached


@pytest.fixture(scope="module")
def servers() -> Iterator[list[str]]:
    """Three memcached servers."""
    with Memcached() as one, Memcached() as two, Memcached() as three:
        yield [f"{server.host}:{server.port}" for server in (one, two, three)]


class OnOneServer:
    """Stores of their own on one server: each has a prefix that nobody else has."""

    @pytest.fixture(autouse=True)
    def _servers(self, servers: list[str]) -> None:
        self.servers = servers[:1]

    def make(self, **options: Any) -> MemcacheStore:
        return MemcacheStore(servers=self.servers, prefix=secrets.token_hex(4), **options)


class OnThreeServers(OnOneServer):
    """Stores whose keys are spread over three servers."""

    @pytest.fixture(autouse=True)
    def _servers(self, servers: list[str]) -> None:
        self.servers = servers


class TestContract(OnOneServer, StoreContract):
    def make_store(self, **options: Any) -> MemcacheStore:
        return self.make(**options)


class TestContractOnThreeServers(OnThreeServers, StoreContract):
    def make_store(self, **options: Any) -> MemcacheStore:
        return self.make(**options)


class TestTier(OnOneServer, TierContract):
    clock_is_ours = False

    def make_tier(self, clock: Clock) -> MemcacheStore:
        return self.make(clock=clock)


class TestRevisions(OnOneServer, RevisedContract):
    def make_tier(self, clock: Clock) -> MemcacheStore:
        return self.make(clock=clock)


class TestRevisionsOnThreeServers(OnThreeServers, RevisedContract):
    def make_tier(self, clock: Clock) -> MemcacheStore:
        return self.make(clock=clock)


class TestTierOnThreeServers(OnThreeServers, TierContract):
    clock_is_ours = False

    def make_tier(self, clock: Clock) -> MemcacheStore:
        return self.make(clock=clock)


# options


def make(**options: Any) -> MemcacheStore:
    """Make a store that is never used."""
    return MemcacheStore(**options)


ADDRESS = "127.0.0.1:11211"


@pytest.mark.parametrize(
    "servers",
    [
        [ADDRESS],
        ADDRESS,
        ("127.0.0.1", 11211),
        [("127.0.0.1", 11211)],
        [["127.0.0.1", 11211]],
        ["127.0.0.1"],
    ],
    ids=repr,
)
def test_ways_to_name_one_server(servers: Any) -> None:
    """A list, or one server by itself, as a string or a pair; the port may be left out."""
    assert [part.name for part in make(servers=servers).parts] == [ADDRESS]


def test_sockets_and_ipv6_are_named_as_pymemcache_does() -> None:
    """Paths, and IPv6 addresses in brackets."""
    store = make(servers=["/run/memcached.sock", "unix:/run/other.sock", "[::1]:11212", ("::1", 11213)])
    names = ["/run/memcached.sock", "/run/other.sock", "::1:11212", "::1:11213"]
    assert [part.name for part in store.parts] == names
    assert repr(make(servers=ADDRESS, prefix="app")) == f"MemcacheStore(servers=['{ADDRESS}'], prefix='app')"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "either servers="),
        ({"servers": [ADDRESS], "client": Client(("127.0.0.1", 11211))}, "either servers="),
        ({"servers": []}, "servers is a list"),
        ({"servers": 11211}, "servers is a list"),
        ({"servers": {ADDRESS: 1}}, "servers is a list"),
        ({"servers": ["127.0.0.1:port"]}, "'127.0.0.1:port' is no memcached server"),
        ({"servers": [11211]}, "11211 is no memcached server"),
        ({"servers": [None]}, "None is no memcached server"),
        ({"servers": [""]}, "'' is no memcached server"),
        ({"servers": [("127.0.0.1",)]}, "is no memcached server"),
        ({"servers": [("127.0.0.1", "port")]}, "is no memcached server"),
        ({"servers": [("127.0.0.1", 11211, 1)]}, "is no memcached server"),
        ({"servers": [("127.0.0.1", 0)]}, "is no memcached server"),
        ({"servers": [("127.0.0.1", 70000)]}, "is no memcached server"),
        ({"servers": [("", 11211)]}, "is no memcached server"),
        ({"servers": [(None, 11211)]}, "is no memcached server"),
        ({"servers": "h1:11211,h2:11211"}, "'h1:11211,h2:11211' is no memcached server"),
        ({"servers": ["memcache://localhost:11211"]}, "'memcache://localhost:11211' is no memcached server"),
        ({"servers": [" localhost:11211"]}, "' localhost:11211' is no memcached server"),
        ({"servers": ["./memcached.sock"]}, "'./memcached.sock' is no memcached server"),
        ({"servers": ["unix:memcached.sock"]}, "'unix:memcached.sock' is no memcached server"),
        ({"servers": ["::1"]}, "'::1' is no memcached server"),
        ({"servers": b"localhost:11211"}, "servers is a list"),
        ({"servers": [ADDRESS, ("127.0.0.1", 11211)]}, "named twice"),
        ({"client": HashClient([ADDRESS])}, "HashClient moves the keys of a dead server"),
        ({"client": object()}, "client is a pymemcache Client"),
        ({"client": Client("h1:11211,h2:11211")}, "client's server ('h1:11211,h2', 11211)"),
        ({"client": Client}, "client is a pymemcache Client"),
        ({"client": ADDRESS}, "client is a pymemcache Client"),
        ({"client": Client(ADDRESS, key_prefix=b"app:")}, "key_prefix b'app:' is not used: give prefix="),
        ({"client": PooledClient(ADDRESS, key_prefix=b"app:")}, "key_prefix b'app:' is not used: give prefix="),
        ({"servers": [ADDRESS], "prefix": "a", "namespace": "a"}, "either prefix or namespace"),
        ({"servers": [ADDRESS], "prefix": ""}, "prefix is 1 to 100"),
        ({"servers": [ADDRESS], "prefix": "a b"}, "prefix is 1 to 100"),
        ({"servers": [ADDRESS], "namespace": "x" * 101}, "prefix is 1 to 100"),
        ({"servers": [ADDRESS], "lifetime": 5, "lifetime_cb": lambda obj: 5}, "lifetime_cb or lifetime"),
        ({"servers": [ADDRESS], "tls_context": True}, "tls_context is an ssl.SSLContext, not True"),
        ({"servers": [ADDRESS], "tls_context": SSLContext}, "tls_context is an ssl.SSLContext, not <class"),
        ({"servers": [ADDRESS], "allow_pickle": "no"}, "allow_pickle is True or False, not 'no'"),
        ({"servers": [ADDRESS], "allow_pickle": 1}, "allow_pickle is True or False, not 1"),
        ({"servers": [ADDRESS], "pool_size": 0}, "pool_size is"),
        ({"servers": [ADDRESS], "pool_size": True}, "pool_size is"),
        ({"servers": [ADDRESS], "pool_size": 2.5}, "pool_size is"),
        ({"servers": [ADDRESS], "lease_seconds": None}, "lease_seconds is"),
        *(
            ({"servers": [ADDRESS], name: value}, f"{name} is a number of seconds")
            for name in ("timeout", "connect_timeout", "lease_seconds")
            for value in (0, -1, True, "1", float("nan"), float("inf"), 1e100)
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else " and ".join(value),
)
def test_options_that_make_no_sense(options: dict[str, Any], says: str) -> None:
    """ImproperlyConfigured names the option, and what is wrong with it."""
    with pytest.raises(ImproperlyConfigured, match=re.escape(says)):
        make(**options)


def test_python_memcached_is_no_client() -> None:
    """A client of another library, which looks alike, is refused by its class."""

    class PythonMemcached:
        """What python-memcached's client looks like."""

        servers = (ADDRESS,)

        def set(self, key: str, val: object, time: int = 0) -> bool:
            return True

        def get(self, key: str) -> None:
            return None

    with pytest.raises(ImproperlyConfigured, match=r"pymemcache Client or PooledClient, not .*PythonMemcached"):
        make(client=PythonMemcached())


@pytest.mark.parametrize("name", ["timeout", "connect_timeout"])
def test_a_client_has_its_own_timeouts(name: str) -> None:
    """What the client has is used, what it lacks may be given, and two different values are an error."""
    kept = make(client=Client(ADDRESS, **{name: 5}))
    assert getattr(kept.parts[0].server._new_client(), name) == 5
    given = make(client=Client(ADDRESS), **{name: 2})
    assert getattr(given.parts[0].server._new_client(), name) == 2
    make(client=Client(ADDRESS, **{name: 2}), **{name: 2})
    with pytest.raises(ImproperlyConfigured, match=f"the client has {name}=5, and MemcacheStore was given 2: give one"):
        make(client=Client(ADDRESS, **{name: 5}), **{name: 2})


def test_endless_timeouts() -> None:
    """None waits as long as the system does, and lease_seconds may be long."""
    store = make(servers=[ADDRESS], timeout=None, connect_timeout=None, lease_seconds=1e9)
    made = store.parts[0].server._new_client()
    assert (made.timeout, made.connect_timeout) == (None, None)


def test_namespace_is_the_prefix(servers: list[str]) -> None:
    """Both mean the same."""
    name = secrets.token_hex(4)
    MemcacheStore(servers=servers, namespace=name).put(Person(1, name="kept"))
    assert MemcacheStore(servers=servers, prefix=name).get(Person, {"id": 1}).name == "kept"
    assert MemcacheStore(servers=servers).prefix == "stockpyle"


def test_clients_of_pymemcache(servers: list[str]) -> None:
    """A Client and a PooledClient only say where the server is; they stay the caller's own."""
    name = secrets.token_hex(4)
    for client in (Client(servers[0]), PooledClient(servers[0], max_pool_size=2)):
        with MemcacheStore(client=client, prefix=name) as store:
            store.put(Person(1, name="kept"))
            assert store.get(Person, {"id": 1}).name == "kept"
        assert client.get("nothing") is None
        client.close()


# classes that have no name


def test_bound_in_a_chain(servers: list[str]) -> None:
    """In a chain a record lives a day in memcached, unless the store has a lifetime of its own, also a longer one."""
    clock = Clock()
    for own, seconds in ((None, 86400), (3600, 3600), (7 * 86400, 7 * 86400)):
        tier = MemcacheStore(servers=servers, prefix=secrets.token_hex(4), lifetime=own, clock=clock)
        chain = ChainedStore([tier, ProcessMemoryStore(clock=clock)])
        chain.put(Person(1))
        chain.get(Person, {"id": 1})
        clock.advance(seconds - 1)
        assert tier.get(Person, {"id": 1}).id == 1
        clock.advance(1)
        assert tier.get(Person, {"id": 1}) is None


def test_clear_after_a_change_of_servers(servers: list[str]) -> None:
    """What a server holds of keys that were another's meanwhile is gone with clear()."""
    prefix = secrets.token_hex(4)
    few, many = (MemcacheStore(servers=some, prefix=prefix) for some in (servers[:2], servers))
    few.batch_put([Person(i, name="old") for i in range(30)])
    many.batch_put([Person(i, name="new") for i in range(30)])
    keys = [{"id": i} for i in range(30)]
    assert {person.name for person in few.batch_get(Person, keys)} == {"old", "new"}
    few.clear()
    assert few.batch_get(Person, keys) == [None] * 30


def local_class() -> type:
    """Make a class inside a function."""

    class Local:
        __stockpyle_keys__ = ("id",)

        def __init__(self, id: int) -> None:
            self.id = id

    return Local


@pytest.mark.parametrize("where", ["alone", "source of a chain", "layer of a chain"])
@pytest.mark.parametrize("call", ["put", "get", "delete", "invalidate"])
def test_class_inside_a_function_is_refused(servers: list[str], where: str, call: str) -> None:
    """Its name means nothing to other processes: InvalidKeysDeclaration names class and cure, wherever the store is."""
    memcache = MemcacheStore(servers=servers, prefix=secrets.token_hex(4))
    store: Any = {
        "alone": memcache,
        "source of a chain": ChainedStore([ProcessMemoryStore(), memcache]),
        "layer of a chain": ChainedStore([memcache, ProcessMemoryStore()]),
    }[where]
    klass = local_class()
    calls = {
        "put": lambda: store.put(klass(1)),
        "get": lambda: store.get(klass, {"id": 1}),
        "delete": lambda: store.delete(klass(1)),
        "invalidate": lambda: store.invalidate(klass),
    }
    with pytest.raises(InvalidKeysDeclaration, match=r"local_class\.<locals>\.Local is .*__stockpyle_name__"):
        calls[call]()


def test_class_inside_a_function_is_kept_in_process_memory() -> None:
    """A chain without a shared tier takes such classes."""
    klass = local_class()
    chain = ChainedStore([ProcessMemoryStore(), ProcessMemoryStore()])
    chain.put(klass(1))
    assert chain.get(klass, {"id": 1}).id == 1


def test_named_class_inside_a_function(servers: list[str]) -> None:
    """__stockpyle_name__ cures it, where the codec can store the objects."""

    class Ids:
        name = "ids"

        def encode(self, obj: Any) -> bytes:
            return str(obj.id).encode()

        def decode(self, klass: type, data: bytes) -> Any:
            return klass(int(data))

    store = MemcacheStore(servers=servers, prefix=secrets.token_hex(4), codec=Ids())
    klass = local_class()
    klass.__stockpyle_name__ = "local"  # type: ignore[attr-defined]
    store.put(klass(7))
    assert store.get(klass, {"id": 7}).id == 7


def test_object_that_cannot_be_pickled(servers: list[str]) -> None:
    """A put says which class, and writes nothing of the batch."""
    store = MemcacheStore(servers=servers, prefix=secrets.token_hex(4))
    with pytest.raises(EncodeError, match="Person"):
        store.batch_put([Person(1), Person(2, name=lambda: None)])  # type: ignore[arg-type]
    assert store.batch_get(Person, [{"id": 1}, {"id": 2}]) == [None, None]
