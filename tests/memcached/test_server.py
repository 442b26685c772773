"""Connections: how they are made, kept, lost and replaced, and what a server's restart means to tokens."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymemcache.client.base import Client

from stockpyle.exceptions import StoreUnavailable
from stockpyle.memcached.wire import Connection
from stockpyle.records import LOCKED, MISS, Lease, Lock, Record
from stockpyle.stores import MemcacheStore
from stockpyle.testing.samples import Person
from tests.memcached.parts import (
    ONE,
    TWO,
    CountingSockets,
    Foreign,
    Meddler,
    fill,
    foreign,
    holds,
    key,
    meddler,
    new_prefix,
    record,
    store_on,
    text,
)
from tests.remote.parts import wait_for
from tests.servers import Memcached, MemcachedOnSocket, MemcachedWithTls, free_port


class TwoFamilies:
    """A socket module to which localhost is ::1, and then 127.0.0.1, as on most machines."""

    def getaddrinfo(self, host: str, port: int, *_: Any) -> list[Any]:
        """Return an address of each family."""
        assert host == "localhost"
        stream = socket.SOCK_STREAM, socket.IPPROTO_TCP, ""
        return [
            (socket.AF_INET6, *stream, ("::1", port, 0, 0)),
            (socket.AF_INET6, *stream, ("::1", port, 0, 0)),
            (socket.AF_INET, *stream, ("127.0.0.1", port)),
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_localhost_is_an_address_of_either_family(host: str) -> None:
    """A server that listens on one of the two addresses of localhost is found by that name."""
    with Memcached(host=host) as server:
        store = MemcacheStore(client=Client(("localhost", server.port), socket_module=TwoFamilies()))
        fill(store, record())
        assert isinstance(store.read([ONE])[0], Record)
        server.stop("immediate")
        with pytest.raises(StoreUnavailable, match="ConnectionRefused"):
            store.read([ONE])


def test_second_address_of_a_family_is_another_server(memcached: tuple[str, int]) -> None:
    """A name with two addresses of one family means the first of them: what the second holds is not asked for."""

    class TwoServers(TwoFamilies):
        def getaddrinfo(self, host: str, port: int, *_: Any) -> list[Any]:
            addresses = [("127.0.0.1", free_port()), ("127.0.0.1", port)]
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", each) for each in addresses]

    store = MemcacheStore(client=Client(("localhost", memcached[1]), socket_module=TwoServers()))
    with pytest.raises(StoreUnavailable, match="ConnectionRefused"):
        store.read([ONE])


@pytest.fixture
def between(memcached: tuple[str, int]) -> Iterator[Meddler]:
    """Somebody between a store and the memcached that all tests share."""
    with meddler(memcached) as meddling:
        yield meddling


# a server that ends and begins again


def _reach_cas(client: Foreign, wanted: int) -> None:
    """Write somewhere else until the next CAS id that the server gives is the wanted one."""
    while True:
        answer = client.meta("ms elsewhere 0 c\r\n")
        if int(answer.split(b"c")[1]) == wanted - 1:
            return


def test_lease_of_the_servers_former_run_fills_nothing(server: Memcached) -> None:
    """A lease whose CAS id another reader's lease has in the next run of the server does not fill over that."""
    store = store_on(server.address)
    for i in range(50, 60):
        store.read([key(id=i)])
    (lease,) = store.read([ONE])
    server.stop("immediate")
    server.start()
    # the pooled connection is replaced, the server writes the run's name and the epochs
    assert holds(store, TWO) is MISS
    store.read([TWO])
    with foreign(server.address) as client:
        _reach_cas(client, lease.token.cas)
        (now,) = store.read([ONE])
        assert now.token.cas == lease.token.cas
        assert store.fill([(lease, record(name="old"))]) == 0
        assert client.cas(text(store, ONE)) == now.token.cas
    assert store.fill([(now, record(name="new"))]) == 1
    assert holds(store) == "new"


@pytest.mark.parametrize("end", ["publish", "publish nothing", "unlock", "fill"])
def test_lock_of_the_servers_former_run_is_anothers(server: Memcached, end: str) -> None:
    """A lock whose CAS id another writer's lock has in the next run of the server neither replaces nor removes that."""
    store = store_on(server.address)
    for i in range(50, 60):
        store.read([key(id=i)])
    (lock,) = store.lock([ONE], 30)
    server.stop("immediate")
    server.start()
    store.read([TWO])
    with foreign(server.address) as client:
        _reach_cas(client, lock.token.cas)
        (others,) = store.lock([ONE], 30)
        assert others.token.cas == lock.token.cas
        _end(store, lock, end)
        assert holds(store) is LOCKED
        assert client.cas(text(store, ONE)) == others.token.cas


@pytest.mark.parametrize("end", ["publish", "publish nothing"])
def test_writer_of_the_servers_former_run_removes_what_came(server: Memcached, end: str) -> None:
    """A record or a lease that came after a restart may be older than the commit: publish removes it."""
    store = store_on(server.address)
    locks = store.lock([ONE, TWO], 30)
    server.stop("immediate")
    server.start()
    fill(store, record(name="perhaps old"))
    (lease,) = store.read([TWO])
    for lock in locks:
        _end(store, lock, end)
    assert holds(store) is MISS
    assert store.fill([(lease, record(2, name="perhaps old"))]) == 0


def _end(store: Any, lock: Lock, end: str) -> None:
    if end == "unlock":
        store.unlock([lock])
    elif end == "fill":
        store.fill([(Lease(lock.key, lock.token), record(name="old"))])
    else:
        store.publish([(lock, record(name="old") if end == "publish" else None)])


def test_flushed_server_keeps_nothing_of_a_writer_or_reader(memcached: tuple[str, int], server: Memcached) -> None:
    """After flush_all an old lease fills nothing, and a lock that is gone publishes nothing."""
    store = store_on(server.address)
    (lease,) = store.read([ONE])
    (lock,) = store.lock([TWO], 30)
    with foreign(server.address) as client:
        client.flush()
    assert store.fill([(lease, record(name="old"))]) == 0
    store.publish([(lock, record(2, name="new"))])
    assert holds(store) is MISS
    assert holds(store, TWO) is MISS
    fill(store, record(name="read again"))
    assert holds(store) == "read again"


def test_runs_name_that_is_gone_is_made_anew(memcached: tuple[str, int], other: Foreign) -> None:
    """When the run's name was evicted, tokens of before fill and publish nothing; those of after do."""
    store = store_on(memcached)
    (lease,) = store.read([ONE])
    (lock,) = store.lock([TWO], 30)
    assert other.delete(f"{store.prefix}::run")
    store.close()
    assert store.fill([(lease, record(name="old"))]) == 0
    store.publish([(lock, record(2, name="old"))])
    assert holds(store, TWO) is LOCKED
    (lock,) = store.lock([TWO], 30)
    store.publish([(lock, record(2, name="new"))])
    assert holds(store, TWO) == "new"


def test_pool_has_connections_of_one_run_only(memcached: tuple[str, int], other: Foreign) -> None:
    """Once a connection has found another name of the run, those that know the former one are not used again."""
    store = store_on(memcached)
    server = store.parts[0].server

    def runs_of(connections: int, meanwhile: Callable[[], object] = lambda: None) -> set[bytes]:
        """Use so many connections at the same time."""

        def work(connection: Connection) -> set[bytes]:
            if connections == 1:
                meanwhile()
                return {connection.run}
            return {connection.run} | runs_of(connections - 1, meanwhile)

        return server.call("read", work)

    assert len(runs_of(3)) == 1
    first = runs_of(3, lambda: other.delete(f"{store.prefix}::run"))
    both = runs_of(4)
    assert first < both
    assert runs_of(4) == both - first


# what a retried call leaves


def _cutting_once(between: Meddler) -> None:
    """Let the next answer be lost with its connection."""

    def meddle(answer: bytes) -> Iterator[bytes]:
        between.meddle = None
        yield b""

    between.meddle = meddle


def test_loose_lock_whose_answer_was_lost_contends_with_itself(between: Meddler) -> None:
    """A lock taken twice by one call counts as contended, and runs out; readers bypass it, nobody is misled."""
    store = store_on(between.address)
    holds(store)
    _cutting_once(between)
    (lock,) = store.lock([ONE], 30, without_row_lock=[ONE])
    assert lock.contended
    store.publish([(lock, None)])
    assert holds(store) is LOCKED


def test_firm_lock_whose_answer_was_lost_is_taken_again(between: Meddler) -> None:
    """With the row's lock the second try replaces the first, and publishes."""
    store = store_on(between.address)
    holds(store)
    _cutting_once(between)
    (lock,) = store.lock([ONE], 30)
    store.publish([(lock, record(name="new"))])
    assert holds(store) == "new"


def test_publish_whose_answer_was_lost_leaves_the_value_or_nothing(between: Meddler) -> None:
    """The second try finds no lock of its own and removes what the first has published."""
    store = store_on(between.address)
    (lock,) = store.lock([ONE], 30)
    _cutting_once(between)
    store.publish([(lock, record(name="new"))])
    assert holds(store) is MISS


def test_fill_whose_answer_was_lost_stands(between: Meddler) -> None:
    """The first try has filled; the second finds that the lease is used and counts nothing."""
    store = store_on(between.address)
    (lease,) = store.read([ONE])
    _cutting_once(between)
    assert store.fill([(lease, record(name="new"))]) == 0
    assert holds(store) == "new"


def test_lease_whose_answer_was_lost_makes_busy_until_it_runs_out(between: Meddler) -> None:
    """The second try meets the lease of the first: it is told that somebody is loading."""
    store = store_on(between.address)
    fill(store, record(2))
    _cutting_once(between)
    # the answer to `get` is lost, that to the lease is not: nobody has a lease yet
    assert isinstance(store.read([ONE])[0], Lease)


# pools, threads, processes


def test_error_in_the_midst_of_a_call_closes_the_connection(memcached: tuple[str, int]) -> None:
    """Whatever breaks a call off, such as an interrupt, its connection with half an answer in it is not used again."""
    store = store_on(memcached)
    server = store.parts[0].server
    holds(store)

    def interrupted(connection: Connection) -> None:
        connection._socket.sendall(b"version\r\n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        server.call("read", interrupted)
    assert not server._idle
    assert holds(store) is MISS


# ways to reach a server


def test_unix_socket() -> None:
    """A path in place of host and port, as a string or in a pymemcache client."""
    with MemcachedOnSocket() as server:
        for store in (
            MemcacheStore(servers=[server.path]),
            MemcacheStore(servers=[f"unix:{server.path}"]),
            MemcacheStore(client=Client(server.path)),
        ):
            store.put(Person(1, name="kept"))
            assert store.get(Person, {"id": 1}).name == "kept"
            found = store.read([key(id=i) for i in range(10_000)])
            assert len(found) == 10_000
        server.stop("immediate")
        server.start()
        assert store.get(Person, {"id": 1}) is None


def test_ipv6() -> None:
    """An IPv6 address, with or without brackets."""
    with Memcached(host="::1") as server:
        for each in (f"[::1]:{server.port}", ("::1", server.port)):
            store = MemcacheStore(servers=[each], prefix=new_prefix())
            store.put(Person(1, name="kept"))
            assert store.get(Person, {"id": 1}).name == "kept"


@pytest.fixture(scope="module")
def tls() -> Iterator[MemcachedWithTls]:
    """A memcached that speaks TLS only."""
    with MemcachedWithTls() as server:
        yield server
        server.stop("immediate")


def test_tls(tls: MemcachedWithTls) -> None:
    """With a context that trusts the server everything works, large batches too, given here or in the client."""
    context = ssl.create_default_context(cafile=tls.certificate)
    for store in (
        store_on(tls.address, tls_context=context),
        MemcacheStore(client=Client(tls.address, tls_context=context), prefix=new_prefix()),
    ):
        store.put(Person(1, name="x" * 500_000))
        assert store.get(Person, {"id": 1}).name == "x" * 500_000
        for size in (4000, 12_000, 16_000, 20_000, 30_000, 40_000):
            fill(store, *[record(size + i, name="x" * size) for i in range(3)])
        assert len(store.read([key(id=i) for i in range(5000)])) == 5000
        tls.stop("immediate")
        tls.start()
        assert store.get(Person, {"id": 1}) is None


def test_tls_that_does_not_fit(tls: MemcachedWithTls, memcached: tuple[str, int]) -> None:
    """No trust, plain text to a TLS server, TLS to a plain one: StoreUnavailable each time."""
    trusting = ssl.create_default_context(cafile=tls.certificate)
    for store in (
        store_on(tls.address, tls_context=ssl.create_default_context()),
        store_on(tls.address, timeout=0.5),
        store_on(memcached, tls_context=trusting, timeout=0.5, connect_timeout=0.5),
    ):
        with pytest.raises(StoreUnavailable):
            holds(store)
    with pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        holds(store_on(tls.address, tls_context=ssl.create_default_context()))


def test_clients_own_timeouts_and_socket_module_are_used(memcached: tuple[str, int]) -> None:
    """Of a pymemcache client its address, timeouts, TLS context and socket module are taken over."""
    sockets = CountingSockets()
    store = MemcacheStore(client=Client(memcached, timeout=7, connect_timeout=6, socket_module=sockets))
    store.get(Person, {"id": 1})
    assert sockets.trips
    made = store.parts[0].server._new_client()
    assert (made.timeout, made.connect_timeout) == (7, 6)


def test_answer_that_nobody_has_asked_for(memcached: tuple[str, int]) -> None:
    """It is not taken for the answer to the next question: the connection that has it is used no more."""
    store = store_on(memcached)
    fill(store, record(name="right"))
    assert store.get(Person, {"id": 1}).name == "right"
    server = store.parts[0].server
    (connection,) = server._idle
    connection._send(b"get k\r\n")
    wait_for(lambda: not connection.is_quiet)
    assert store.get(Person, {"id": 1}).name == "right"
    assert connection not in server._idle
