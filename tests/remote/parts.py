"""What the tests of stores on servers are made of: keys and records, counted sockets, and somebody who meddles."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stockpyle.classes import spec_of
from stockpyle.keys import Key
from stockpyle.records import Record
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


def holds(store: Any, wanted: Key = ONE) -> Any:
    """Return the name that is held, or what else is said; takes no lease."""
    (found,) = store.read([wanted], lease=False)
    return found.value.name if isinstance(found, Record) else found


def fill(store: Any, *records: Record) -> None:
    """Fill records under leases of their own."""
    leases = store.read([each.key(each.spec.identity) for each in records])
    assert store.fill(list(zip(leases, records, strict=True))) == len(records)


def wait_for(what: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class CountingSockets:
    """A socket module that counts round trips: how often something is waited for after something was sent.

    `before` is called with what is about to be sent.
    """

    def __init__(self) -> None:
        self.trips = 0
        self.sent: list[bytes] = []
        self.received: list[bytes] = []
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
                self.wait()
                received = super().recv(size, *flags)
                owner.received.append(received)
                return received

            def recv_into(self, buffer: Any, *sizes: int) -> int:
                self.wait()
                size = super().recv_into(buffer, *sizes)
                owner.received.append(bytes(buffer[:size]))
                return size

            def wait(self) -> None:
                owner.trips += self.waiting
                self.waiting = False

        self.socket = Counting

    def __getattr__(self, name: str) -> Any:
        return getattr(socket, name)

    @contextlib.contextmanager
    def counted(self) -> Iterator[list[int]]:
        """Count what happens inside; the one number is there when it is over."""
        before = self.trips
        self.sent.clear()
        self.received.clear()
        result: list[int] = []
        yield result
        result.append(self.trips - before)


class Meddler:
    """Stands between a store and a server. While `meddle` is set, it makes another answer of each answer.

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
