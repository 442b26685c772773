"""What the tests of memcached are made of: foreign clients, counted sockets, and somebody who meddles in between."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pymemcache.client.base import Client

from stockpyle.classes import spec_of
from stockpyle.keys import Key
from stockpyle.records import Record
from stockpyle.stores import MemcacheStore
from stockpyle.testing.samples import Person, Pet

PERSON = spec_of(Person)
PET = spec_of(Pet)


def key(**names: Any) -> Key:
    """Return a key of Person."""
    found = PERSON.key(names)
    assert found is not None
    return found


def pet(id: int) -> Key:
    """Return a key of Pet."""
    found = PET.key({"id": id})
    assert found is not None
    return found


def record(id: Any = 1, email: Any = None, *, name: Any = "", deadline: float | None = None) -> Record:
    """Return the record of a Person."""
    return Record(PERSON, Person(id, email, name=name), deadline)


ONE = key(id=1)
TWO = key(id=2)


def new_prefix() -> str:
    """Return a prefix that nobody else has."""
    return secrets.token_hex(4)


def store_on(*addresses: tuple[str, int] | str, prefix: str | None = None, **options: Any) -> MemcacheStore:
    """Return a store on these servers, under a prefix of its own unless one is given."""
    return MemcacheStore(servers=list(addresses), prefix=prefix or new_prefix(), **options)


def holds(store: Any, wanted: Key = ONE) -> Any:
    """Return the name that is held, or what else is said; takes no lease."""
    (found,) = store.read([wanted], lease=False)
    return found.value.name if isinstance(found, Record) else found


def fill(store: Any, *records: Record) -> None:
    """Fill records under leases of their own."""
    leases = store.read([each.key(each.spec.identity) for each in records])
    assert store.fill(list(zip(leases, records, strict=True))) == len(records)


def text(store: MemcacheStore, wanted: Key) -> str:
    """Return the key's text, as other clients see it."""
    return wanted.text(store.prefix)


class Foreign:
    """Another client of the server, in another language perhaps."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        self.client = Client(address, default_noreply=False, timeout=10)

    def set(self, name: str, data: bytes, flags: int = 0) -> None:
        """Set a key."""
        assert self.client.set(name, data, flags=flags)

    def delete(self, name: str) -> bool:
        """Delete a key; False if it was not there."""
        return bool(self.client.delete(name))

    def get(self, name: str) -> bytes | None:
        """Return a value."""
        value: bytes | None = self.client.get(name)
        return value

    def meta(self, command: str) -> bytes:
        """Send a meta command that is answered in one line."""
        answer: bytes = self.client.raw_command(command)
        return answer

    def cas(self, name: str) -> int:
        """Return the CAS id of a key, 0 if it is not there."""
        answer = self.meta(f"mg {name} c")
        return int(answer.split(b" ")[1][1:]) if answer.startswith(b"HD") else 0

    def seconds_left(self, name: str) -> int:
        """Return how long a key still lives, -1 for without end."""
        answer = self.meta(f"mg {name} t")
        assert answer.startswith(b"HD"), answer
        return int(answer.split(b" t")[1])

    def stat(self, name: str) -> int:
        """Return one of the server's counters."""
        return int(self.client.stats()[name.encode()])

    def flush(self) -> None:
        """Empty the server."""
        assert self.client.flush_all(noreply=False)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()


@contextlib.contextmanager
def foreign(address: tuple[str, int] | str) -> Iterator[Foreign]:
    """Another client of the server."""
    client = Foreign(address)
    try:
        yield client
    finally:
        client.close()


class CountingSockets:
    """A socket module that counts round trips: how often something is waited for after something was sent.

    `before` is called with what is about to be sent.
    """

    def __init__(self) -> None:
        self.trips = 0
        self.sent: list[bytes] = []
        self.before: Callable[[bytes], None] = lambda data: None
        owner = self

        class Counting(socket.socket):
            waiting = False

            def sendall(self, data: Any, *flags: int) -> None:
                owner.before(bytes(data))
                self.waiting = True
                owner.sent.append(bytes(data))
                super().sendall(data, *flags)

            def recv(self, size: int, *flags: int) -> bytes:
                owner.trips += self.waiting
                self.waiting = False
                return super().recv(size, *flags)

        self.socket = Counting

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)

    @contextlib.contextmanager
    def counted(self) -> Iterator[list[int]]:
        """Count what happens inside; the one number is there when it is over."""
        before = self.trips
        self.sent.clear()
        result: list[int] = []
        yield result
        result.append(self.trips - before)


class Meddler:
    """Stands between a store and a memcached. While `meddle` is set, it makes another answer of each answer.

    What `meddle` yields is sent piece by piece; then the connection is closed. Else `forwarding` says in which pieces.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._server = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self.meddle: Callable[[bytes], Iterable[bytes]] | None = None
        self.forwarding: Callable[[bytes], Iterable[bytes]] = lambda answer: [answer]
        self.connections = 0
        self.over = threading.Event()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Cut all connections."""
        self.over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        _cut(*self._sockets)

    def silent(self, answer: bytes) -> Iterator[bytes]:
        """Say nothing, and stay."""
        self.over.wait()
        yield b""

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
        _cut(client, server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if (meddle := self.meddle) is None:
                    for piece in self.forwarding(data):
                        client.sendall(piece)
                    continue
                for piece in meddle(data):
                    client.sendall(piece)
                break
        _cut(client, server)


def _cut(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


@contextlib.contextmanager
def meddler(address: tuple[str, int]) -> Iterator[Meddler]:
    """Somebody in front of the server."""
    between = Meddler(address)
    # so that a test of something that would never end fails
    watch = threading.Timer(30, between.close)
    watch.daemon = True
    watch.start()
    try:
        yield between
    finally:
        watch.cancel()
        between.close()
