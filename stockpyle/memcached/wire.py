"""One connection to one memcached: commands out, replies in, many at a time.

The connection itself (address, timeouts, TLS) is pymemcache's; the framing of batches on its socket is here. Commands
are sent in chunks, the next one before the replies to the last are read: memcached answers while it reads, and a batch
sent whole would stop both sides as soon as their buffers are full. (memcached's doc/protocol.txt, "Meta Commands".)
"""

from __future__ import annotations

import re
import secrets
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from stockpyle.exceptions import ImproperlyConfigured

T = TypeVar("T")

OLDEST = (1, 6, 13)
"""The first memcached whose meta commands do what is needed here."""

CHUNK_COMMANDS = 250
CHUNK_BYTES = 32 * 1024
"""Two chunks are under way at most: as much as the buffers of any system hold."""

TLS_CHUNK_BYTES = 4 * 1024
"""memcached does not see what is left of a TLS record when its own buffer (16 KiB) is full, until more arrives."""

LONGEST_LINE = 2048

MOST_SETTINGS = 1000
"""More lines than ``stats settings`` has."""

_VALUE = b"VALUE "
_NEXT = b"\r\nVALUE "
_END = b"\r\nEND\r\n"
_MN = b"\r\nMN\r\n"
_WITHOUT_DATA = frozenset({b"HD", b"EN", b"NF", b"NS", b"EX", b"SERVER_ERROR"})
_FLAGS = {b"%d" % flags: flags for flags in range(16)}

SLOWEST = 2**20
"""Bytes a second: an answer that comes no slower may take longer than the timeout."""


class Garbage(ConnectionError):
    """What came is no answer of memcached's: the connection is of no use any more."""


@dataclass(slots=True)
class Reply:
    """The answer to one meta command: HD (done), VA (with data), EN, NF (nothing there), NS, EX (not done)."""

    status: bytes
    flags: list[bytes]
    data: bytes = b""

    @property
    def said(self) -> str:
        """The reply, for an error's text."""
        return b" ".join([self.status, *self.flags])[:200].decode("ascii", "replace")

    @property
    def done(self) -> bool:
        """True if the command did what it said."""
        return self.status in (b"HD", b"VA")

    def number(self, flag: bytes) -> int:
        """Return the number that a flag carries, such as the CAS id (``c``) or the client flags (``f``)."""
        for each in self.flags:
            if each[:1] == flag:
                return _size([each[1:]])
        raise Garbage(f"{self!r} lacks the flag {flag!r}")

    def has(self, flag: bytes) -> bool:
        """True if the reply carries a flag without a value, such as ``W``: this reader has won."""
        return flag in self.flags


class Connection:
    """One connection. It is one thread's at a time, and closed for good after any error.

    run names the life of the server: CAS ids begin anew with each start of it, so that those of one run mean nothing
    in the next. It is a random value under `run_key` that whoever comes first after the start leaves there.
    """

    def __init__(self, client: Any, name: str, run_key: bytes) -> None:
        self.client = client
        self._timeout: float | None = client.timeout
        self._buffer = b""
        self._at = 0
        self._until = 0.0
        _connect(client)
        self._socket = client.sock
        leave_timeout_to_system(self._socket, self._timeout)
        self._chunk_bytes = TLS_CHUNK_BYTES if client.tls_context else CHUNK_BYTES
        self.largest = self._ask_settings(name)
        self.run = self._name_run(name, run_key)

    def _ask_settings(self, name: str) -> int:
        """Check the version; return the largest size of an item."""
        self._send(b"version\r\nstats settings\r\n")
        _check_version(name, self._line())
        largest = None
        for _ in range(MOST_SETTINGS):
            line = self._line()
            if line == b"END" and largest is not None:
                return largest
            parts = line.split(b" ")
            if parts[0] != b"STAT":
                raise Garbage(f"memcached answered {line[:80]!r} to stats settings")
            if parts[1:2] == [b"item_size_max"]:
                largest = _size(parts[2:])
        raise Garbage("memcached answered too much to stats settings")

    def _name_run(self, name: str, key: bytes) -> bytes:
        mine = secrets.token_hex(8).encode()
        _, held = self.meta([b"ms %b %d ME T0\r\n%b\r\n" % (key, len(mine), mine), b"mg %b v c\r\n" % key])
        if held.status != b"VA":
            # no room for it: then this connection is a run of its own
            return mine
        if held.number(b"c") == 0:
            raise ImproperlyConfigured(
                f"memcached at {name} runs with CAS off (-C), without which nothing tells a reader's copy from a newer "
                "one: start it without -C"
            )
        return held.data

    @property
    def is_quiet(self) -> bool:
        """True if nothing has come that nobody has asked for, such as the end of the connection."""
        return not select.select([self._socket], [], [], 0)[0]

    def meta(self, commands: Sequence[bytes]) -> list[Reply]:
        """Send meta commands (each with its line end and data block) and return their replies in order."""
        replies: list[Reply] = []
        under_way = 0
        for chunk in _chunks(commands, self._chunk_bytes):
            if len(chunk) > 1 or len(chunk[0]) <= self._chunk_bytes:
                self._send(b"".join(chunk) + b"mn\r\n")
            else:
                # nor what follows a large value in the same record
                self._send(chunk[0])
                self._send(b"mn\r\n")
            if under_way:
                self._meta_replies(under_way, replies)
            under_way = len(chunk)
        if under_way:
            self._meta_replies(under_way, replies)
        self._expect_no_more()
        return replies

    def get(self, keys: Sequence[bytes]) -> dict[bytes, tuple[int, bytes]]:
        """Return client flags and value of each key that is there: cheaper than ``mg`` where most of them are."""
        return self._get(b"get ", keys, None)

    def gets(self, keys: Sequence[bytes]) -> tuple[dict[bytes, tuple[int, bytes]], dict[bytes, int]]:
        """Return what get() does, and the CAS ids."""
        ids: dict[bytes, int] = {}
        return self._get(b"gets ", keys, ids), ids

    def _get(self, verb: bytes, keys: Sequence[bytes], ids: dict[bytes, int] | None) -> dict[bytes, tuple[int, bytes]]:
        found: dict[bytes, tuple[int, bytes]] = {}
        under_way = 0
        whole = b"%b%b\r\n" % (verb, b" ".join(keys))
        chunks = _chunks(keys, self._chunk_bytes)
        if len(keys) <= CHUNK_COMMANDS and len(whole) <= self._chunk_bytes:
            self._send(whole)
            under_way, chunks = len(keys), iter(())
        for chunk in chunks:
            self._send(verb + b" ".join(chunk) + b"\r\n")
            if under_way:
                self._values(under_way, found, ids)
            under_way = len(chunk)
        if under_way:
            self._values(under_way, found, ids)
        self._expect_no_more()
        return found

    def exchange(self, command: bytes, read: Callable[[Callable[[], bytes], Callable[[int], bytes]], T]) -> T:
        """Send any command, and have ``read(line, block)`` read all of the answer: lines, and data of so many bytes."""
        self._send(command)
        answer = read(self._line, self._block)
        self._expect_no_more()
        return answer

    def ids(
        self, keys: Sequence[bytes], others: Sequence[bytes], expected: bytes = b""
    ) -> tuple[list[int | None], dict[bytes, Any]] | None:
        """Return the CAS id of each key, None if it is not there, and what get() says of the others.

        If that is what is expected, as a whole, nothing is read out of it, and None returned.
        """
        found: list[int | None] = []
        under_way = 0
        *chunks, last = _chunks(keys, self._chunk_bytes) if len(keys) > 1 else (keys,)
        for chunk in chunks:
            self._send(_looks(chunk))
            self._ids(under_way, found)
            under_way = len(chunk)
        self._send(b"%bget %b\r\n" % (_looks(last), b" ".join(others)))
        self._ids(under_way, found)
        if expected and self._is_next(expected):
            self._expect_no_more()
            return None
        self._ids(len(last), found)
        values: dict[bytes, Any] = {}
        self._values(len(others), values, None)
        self._expect_no_more()
        return found, values

    def close(self) -> None:
        """Close the socket."""
        self.client.close()

    def give_away(self) -> Any:
        """Return the pymemcache Client, for somebody else to use: the connection is of no use here any more."""
        self._socket.settimeout(self._timeout)
        return self.client

    # replies

    def _meta_replies(self, count: int, replies: list[Reply]) -> None:
        if self._at == len(self._buffer):
            self._more()
        if self._meta_at_once(count, replies):
            return
        for _ in range(count):
            status, *flags = self._line().split(b" ")
            if status == b"VA":
                replies.append(Reply(status, flags[1:], self._block(_size(flags[:1]))))
            elif status in _WITHOUT_DATA:
                replies.append(Reply(status, flags))
            else:
                raise Garbage(f"memcached answered {status[:80]!r} to a meta command")
        end = self._line()
        if end != b"MN":
            raise Garbage(f"memcached answered {end[:80]!r} where the batch ends")

    def _meta_at_once(self, count: int, replies: list[Reply]) -> bool:
        """Take as many lines as there are replies, if they are all there and none has data to follow; else nothing."""
        end = self._buffer.find(_MN, self._at)
        lines = self._buffer[self._at : end].split(b"\r\n") if end >= 0 else ()
        if len(lines) != count:
            return False
        made = []
        for line in lines:
            status, *flags = line.split(b" ")
            if status not in _WITHOUT_DATA:
                return False
            made.append(Reply(status, flags))
        replies += made
        self._at = end + len(_MN)
        return True

    def _ids(self, count: int, found: list[int | None]) -> None:
        for _ in range(count):
            line = self._line()
            if line == b"EN":
                found.append(None)
            elif line[:4] == b"HD c":
                # a lease has more to say
                found.append(_size([line[4:].partition(b" ")[0]]))
            else:
                raise Garbage(f"memcached answered {line[:80]!r} to mg")

    def _values(self, count: int, found: dict[bytes, tuple[int, bytes]], ids: dict[bytes, int] | None) -> None:
        words = 4 if ids is None else 5
        seen = None
        if self._at == len(self._buffer):
            self._more()
        for left in range(count, -1, -1):
            if seen is not self._buffer:
                # more has come, so that this may be all of it
                if self._values_at_once(left, found, ids):
                    return
                seen = self._buffer
            line = self._line()
            if line == b"END":
                return
            parts = line.split(b" ")
            if len(parts) != words or parts[0] != b"VALUE":
                raise Garbage(f"memcached answered {line[:80]!r} to get")
            found[parts[1]] = (_size(parts[2:3]), self._block(_size(parts[3:4])))
            if ids is not None:
                ids[parts[1]] = _size(parts[4:])
        raise Garbage("memcached answered more values than it was asked for")

    def _values_at_once(self, count: int, found: dict[bytes, tuple[int, bytes]], ids: dict[bytes, int] | None) -> bool:
        """Take an answer that is there as a whole, cut where values seem to begin; True if all are as long as they say.

        If not (a value may have such bytes in it), what is in `found` by then is found once more, value by value.
        """
        end = self._buffer.find(_END, self._at)
        if end < 0 or not self._buffer.startswith(_VALUE, self._at):
            return False
        words = 3 if ids is None else 4
        values = self._buffer[self._at + len(_VALUE) : end].split(_NEXT)
        if len(values) > count:
            return False
        for each in values:
            head, _, data = each.partition(b"\r\n")
            parts = head.split(b" ")
            if len(parts) != words or parts[2] != b"%d" % len(data):
                return False
            flags = _FLAGS.get(parts[1])
            found[parts[0]] = (_size(parts[1:2]) if flags is None else flags, data)
            if ids is not None:
                ids[parts[0]] = _size(parts[3:])
        self._at = end + len(_END)
        return True

    # the socket

    def _send(self, data: bytes) -> None:
        if self._timeout is not None:
            self._until = time.monotonic() + self._timeout
        try:
            self._socket.sendall(data)
        except BlockingIOError as error:
            raise TimeoutError("memcached did not take what was sent in time") from error

    def _expect_no_more(self) -> None:
        # it would be taken for the answer to the next question
        if self._at < len(self._buffer):
            raise Garbage(f"memcached answered {self._buffer[self._at :][:80]!r} when all was said")

    def _is_next(self, expected: bytes) -> bool:
        """True if that comes next, which then is done with; else all that has come is still there to be read."""
        while not self._buffer.startswith(expected, self._at):
            if not expected.startswith(self._buffer[self._at :]):
                return False
            self._more()
        self._at += len(expected)
        return True

    def _line(self) -> bytes:
        end = self._buffer.find(b"\r\n", self._at)
        while end < 0:
            if len(self._buffer) - self._at > LONGEST_LINE:
                raise Garbage("memcached answered a line that never ends")
            self._more()
            end = self._buffer.find(b"\r\n", self._at)
        line = self._buffer[self._at : end]
        self._at = end + 2
        return line

    def _block(self, size: int) -> bytes:
        if size > self.largest:
            raise Garbage(f"memcached announced a value of {size} bytes, more than its largest")
        missing = self._at + size + 2 - len(self._buffer)
        if missing > 0:
            parts = [self._buffer[self._at :]]
            while missing > 0:
                parts.append(self._receive())
                missing -= len(parts[-1])
            self._buffer = b"".join(parts)
            self._at = 0
        end = self._at + size
        if self._buffer[end : end + 2] != b"\r\n":
            raise Garbage("memcached's value is longer than it said")
        data = self._buffer[self._at : end]
        self._at = end + 2
        return data

    def _more(self) -> None:
        """Receive more, and drop what was read from the buffer."""
        received = self._receive()
        self._buffer = self._buffer[self._at :] + received if self._at < len(self._buffer) else received
        self._at = 0

    def _receive(self) -> bytes:
        # a server that sends a byte now and then must not hold us much longer than one that sends none
        if self._timeout is not None and time.monotonic() > self._until:
            raise TimeoutError("memcached did not finish its answer in time")
        try:
            received: bytes = self._socket.recv(65536)
        except BlockingIOError as error:
            raise TimeoutError("memcached did not answer in time") from error
        if not received:
            raise ConnectionError("memcached closed the connection")
        self._until += len(received) / SLOWEST
        return received


def leave_timeout_to_system(connected: Any, seconds: float | None) -> None:
    """Have the system itself break off what takes a plain socket longer, with a BlockingIOError.

    Python would ask it, before each call, to wait until there is something to do: twice as many calls, and a thread
    that is put to sleep and woken more often. Sockets of other libraries (gevent's, say) wait in ways of their own.
    """
    if seconds is None or not sys.platform.startswith("linux") or type(connected).__module__ != "socket":
        return
    microseconds = max(1, int(seconds * 1_000_000))
    longest = struct.pack("@ll", *divmod(microseconds, 1_000_000))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connected.setsockopt(socket.SOL_SOCKET, option, longest)
    connected.settimeout(None)


class _OneAddress:
    """A socket module to which a host has this one address."""

    def __init__(self, module: Any, info: Any) -> None:
        self._module = module
        self._info = info

    def getaddrinfo(self, *_: Any) -> list[Any]:
        return [self._info]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _connect(client: Any) -> None:
    """Connect to the host's first address, or to the first of the other family: localhost is ::1, and 127.0.0.1.

    A second address of the same family may be another server, which would answer with values of its own.
    """
    module = client.socket_module
    families: dict[Any, Any] = {}
    if isinstance(client.server, tuple):
        asked = module.getaddrinfo(*client.server, module.AF_UNSPEC, module.SOCK_STREAM, module.IPPROTO_TCP)
        for info in asked:
            families.setdefault(info[0], info)
    *others, last = [_OneAddress(module, info) for info in families.values()] or [module]
    for each in others:
        client.socket_module = each
        with suppress(OSError):
            # pymemcache's public ways to connect send a command and read its answer, for however long that goes on
            client._connect()
            return
    client.socket_module = last
    client._connect()


def _looks(keys: Sequence[bytes]) -> bytes:
    return b"".join([b"mg %b c\r\n" % key for key in keys])


def _chunks(commands: Sequence[bytes], most: int) -> Iterator[list[bytes]]:
    if len(commands) <= CHUNK_COMMANDS and sum(map(len, commands)) <= most:
        if commands:
            yield list(commands)
        return
    chunk: list[bytes] = []
    size = 0
    for command in commands:
        if chunk and (len(chunk) >= CHUNK_COMMANDS or size + len(command) > most):
            yield chunk
            chunk, size = [], 0
        chunk.append(command)
        size += len(command)
    yield chunk


def _size(parts: Sequence[bytes]) -> int:
    if len(parts) == 1 and parts[0].isdigit() and len(parts[0]) <= 20:
        return int(parts[0])
    raise Garbage(f"memcached answered {parts!r} where a number belongs")


def _check_version(name: str, line: bytes) -> None:
    found = re.match(rb"VERSION ((\d{1,9})\.(\d{1,9})\.(\d{1,9})\S*)", line)
    if found is None:
        raise Garbage(f"memcached answered {line[:80]!r} to version")
    if tuple(map(int, found.groups()[1:])) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise ImproperlyConfigured(
            f"memcached at {name} is version {found[1][:80].decode('ascii', 'replace')}; {needed} or later is needed, "
            "for its meta commands"
        )
