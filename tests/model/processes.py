"""Processes that read and write one row of a database through a MemcacheStore.

They run `fetch`, `Writer`, `publish_committed`, `drop`, MemcachedTier, Server and Connection as they are. Only the
socket below them and the database are simulated, by whoever answers what they do at their Port.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import pytest

from stockpyle.classes import spec_of
from stockpyle.coherence.guards import Guards
from stockpyle.coherence.layers import Layer
from stockpyle.coherence.publishing import publish_committed
from stockpyle.coherence.reader import fetch
from stockpyle.coherence.validated import ValidatedLayer
from stockpyle.coherence.writer import Writer, drop
from stockpyle.keys import Key
from stockpyle.memcached import closing, epochs, wire
from stockpyle.protocols import Change
from stockpyle.records import ABSENT, Record
from stockpyle.remote import tier
from stockpyle.stores.memcache import MemcacheStore
from stockpyle.stores.memory import ProcessMemoryStore
from tests.model.histories import Port
from tests.model.memcached import parse

RESET = "reset"
"""What a command is answered by a server that was started anew since the connection to it was made."""


class Row:
    """One version of the only row; it can be found by either of its keys."""

    __stockpyle_keys__ = ("id", "email")
    __stockpyle_name__ = "row"

    def __init__(self, version: int, email: str) -> None:
        self.id = 1
        self.version = version
        self.email = email


SPEC = spec_of(Row)
ID, A, B = {"id": 1}, {"email": "a"}, {"email": "b"}


def key_of(asked: dict[str, Any]) -> Key:
    """Return the key that is asked for."""
    key = SPEC.key(asked)
    assert key is not None
    return key


def text_of(key: Key) -> bytes:
    """Return what memcached calls a key."""
    return key.text("m").encode("ascii")


@cache
def keys_of(email: str | None) -> tuple[Key, ...]:
    """Return the keys of the row with this address; None is for no row."""
    return () if email is None else tuple(SPEC.keys_of(Row(0, email)))


RUN, ALL, EPOCH = b"m::run", b"m::", text_of(SPEC.epoch)


@cache
def short(text: bytes) -> str:
    """Return a key as schedules show it."""
    return {RUN: "run", ALL: "everything", EPOCH: "epoch"}.get(text, text.decode().removeprefix("m:row:"))


class Source:
    """The database, from a process."""

    def __init__(self, port: Port) -> None:
        self.port = port

    def accepts(self, klass: type) -> bool:
        """See Source.accepts."""
        return klass is Row

    def load(self, klass: type, keys: Sequence[Key]) -> list[Record]:
        """See Source.load."""
        version, email = self.port.act("load")
        found = [Record(SPEC, ABSENT if email is None else Row(version, email)) for _ in keys]
        return [each if each.answers(key) else Record(SPEC, ABSENT) for each, key in zip(found, keys, strict=True)]


_SILENT = socket.socketpair()


class Socket:
    """A connection's end in a process; and as much of a pymemcache Client as is asked of one."""

    server = "/memcached"
    socket_module = None
    timeout = None
    tls_context = None

    def __init__(self, port: Port) -> None:
        self.port = port
        self.sock = self
        self.received = b""

    def _connect(self) -> None:
        self.port.act("connect")

    def fileno(self) -> int:
        """Return what nothing comes on that nobody has asked for."""
        return _SILENT[0].fileno()

    def sendall(self, data: bytes) -> None:
        """Have all these commands done."""
        if data == b"version\r\nstats settings\r\n":
            self.received += b"VERSION 1.6.18\r\nSTAT item_size_max 1048576\r\nEND\r\n"
            return
        replies = self.port.act("send", data)
        if replies == RESET:
            raise ConnectionResetError
        self.received += b"".join(replies) + parse(data)[1]

    def recv(self, size: int) -> bytes:
        """Return what has come."""
        received, self.received = self.received, b""
        return received

    def close(self) -> None:
        """Close the connection, unless it is only that the script's remains are cleared away."""
        if self.port.running:
            self.port.act("close")


def connected(port: Port) -> MemcacheStore:
    """Return a process's store; the pool of its server has one connection, and nobody delivers in the background."""
    store = MemcacheStore(servers="memcached:11211", prefix="m", clock=lambda: 1000.0)
    store.guards = Guards(store, clock=store.clock, courier=None)
    (part,) = store.parts
    part.server._new_client = partial(Socket, port)
    part.server.call("connect", lambda connection: None)
    return store


def check(store: MemcacheStore) -> None:
    """Fail if a guard has kept the failure of its tier from whoever has used it."""
    stats = store.stats
    assert (stats.errors, stats.owed, stats.corrupt, stats.oversize) == (0, 0, 0, 0), stats
    assert all(guard.trusted for guard in store.guards.parts)


@pytest.fixture(autouse=True)
def no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers are told apart by who has drawn them; and nobody waits, as others may go first at each step."""
    drawn = SimpleNamespace(
        token_bytes=lambda size: b"%0*d" % (size, Port.current().act("draw")),
        token_hex=lambda size: str(Port.current().act("draw")).zfill(2 * size),
    )
    monkeypatch.setattr(wire, "secrets", drawn)
    monkeypatch.setattr(epochs, "secrets", drawn)
    monkeypatch.setattr(closing, "secrets", drawn)
    monkeypatch.setattr(tier, "time", SimpleNamespace(sleep=lambda seconds: None))


class Processes:
    """What each process does, in scripts: one for each turn of a reader, one for each other process."""

    def __init__(self, row_locks: bool, publish: bool) -> None:
        self.row_locks, self.on_write = row_locks, "publish" if publish else "invalidate"
        self.names: list[str] = []
        self.scripts: list[list[Callable[[Port], None]]] = []
        self.stable: set[bytes] = set()
        """Keys of memcached's that nobody changes, so that it does not matter when they are asked for."""
        self.validates = False
        """True if somebody keeps copies of records, with their CAS ids."""

    def reads(self, *turns: dict[str, Any]) -> None:
        """Add a process that asks for these, one after the other."""
        self._add("r", *(partial(self._read, asked) for asked in turns))

    def reads_validated(self, *turns: dict[str, Any]) -> None:
        """Add a process that asks for these, one after the other, with a validating memory above its store."""
        self.validates = True
        self._add("r", partial(self._read_validated, turns))

    def writes(self, email: str | None = "a", *, commits: bool = True, loose: bool = False) -> None:
        """Add a process that gives the row this address, or deletes it.

        loose: though the row is locked in the database, its keys are not known to be protected by that.
        """
        self._add("w", partial(self._write, email, commits, loose))

    def changes_class(self, email: str = "a", *, commits: bool = True) -> None:
        """Add a process that writes, and all it can tell the tier is the class."""
        self.stable.discard(EPOCH)
        self._add("c", partial(self._change_class, email, commits))

    def invalidates(self, *keys: Key) -> None:
        """Add a process that drops these keys, or a class, by hand; nothing is written."""
        if SPEC.epoch in keys:
            self.stable.discard(EPOCH)
        self._add("i", partial(self._invalidate, keys))

    def clears(self) -> None:
        """Add a process that drops everything."""
        self.stable.discard(ALL)
        self._add("x", self._clear)

    def _add(self, kind: str, *scripts: Callable[[Port], None]) -> None:
        self.names.append(f"{kind}{len(self.names)}")
        self.scripts.append(list(scripts))

    # what they do

    def _read(self, asked: dict[str, Any], port: Port) -> None:
        store = connected(port)
        key = key_of(asked)
        record = fetch([Layer(store)], Source(port), [key])[key.ident]
        check(store)
        port.act("answer", key, None if record is None else record.value.version)

    @staticmethod
    def _read_validated(turns: Sequence[dict[str, Any]], port: Port) -> None:
        store = connected(port)
        below = Layer(store)
        memory = ProcessMemoryStore(validate=True, clock=store.clock)
        layers = [ValidatedLayer(memory, below), below]
        for asked in turns:
            port.act("begin")
            key = key_of(asked)
            record = fetch(layers, Source(port), [key])[key.ident]
            check(store)
            port.act("answer", key, None if record is None else record.value.version)

    def _write(self, email: str | None, commits: bool, loose: bool, port: Port) -> None:
        store = connected(port)
        before, after = keys_of(port.act("change")), keys_of(email)
        # a writer that holds no row lock and publishes all the same is what must be found out
        unprotected = loose or (not self.row_locks and self.on_write != "publish")
        change = Change(SPEC, before, after, (*before, *after) if unprotected or not after else ())
        self._commit(port, store, Writer([Layer(store)], [change]), email, commits)

    def _change_class(self, email: str, commits: bool, port: Port) -> None:
        store = connected(port)
        port.act("change")
        self._commit(port, store, Writer([Layer(store)], [], [SPEC.epoch]), email, commits)

    def _commit(self, port: Port, store: MemcacheStore, writer: Writer, email: str | None, commits: bool) -> None:
        writer.lock()
        if commits:
            port.act("commit", email)
            publish_committed(writer, Source(port), self.on_write)
            port.act("settle")
        else:
            port.act("roll back")
            writer.unlock()
        check(store)

    def _invalidate(self, keys: Sequence[Key], port: Port) -> None:
        store = connected(port)
        drop(Layer(store), keys)
        check(store)

    def _clear(self, port: Port) -> None:
        store = connected(port)
        store.clear()
        check(store)

    @staticmethod
    def _read_all(keys: Sequence[dict[str, Any]], port: Port) -> None:
        store = connected(port)
        for asked in keys:
            fetch([Layer(store)], Source(port), [key_of(asked)])
        check(store)
