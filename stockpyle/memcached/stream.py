"""What comes from one memcached, and goes there: bytes on a socket, cut into lines and blocks, in bounded time.

The connection itself (address, timeouts, TLS) is pymemcache's.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from stockpyle.remote.answers import SLOWEST

LONGEST_LINE = 2048


class Garbage(ConnectionError):
    """What came is no answer of memcached's: the connection is of no use any more."""


class Stream:
    """The socket of a pymemcache Client, which is connected here, and what has come and was not read yet."""

    largest: int
    """Bytes of the largest item that the server takes."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._timeout: float | None = client.timeout
        self._buffer = b""
        self._at = 0
        self._until = 0.0
        _connect(client)
        self._socket = client.sock
        self._pending: Any = getattr(self._socket, "pending", None)
        self._poll: Any = None
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(self._socket, select.POLLIN)
        leave_timeout_to_system(self._socket, self._timeout)

    @property
    def is_quiet(self) -> bool:
        """True if nothing has come that nobody has asked for, such as the end of the connection."""
        return not self._has_come(0)

    def _has_come(self, seconds: float) -> bool:
        if self._pending is not None and self._pending():
            return True
        if self._poll is None:
            return bool(select.select([self._socket], [], [], seconds)[0])
        return bool(self._poll.poll(seconds * 1000))

    def close(self) -> None:
        """Close the socket."""
        self.client.close()

    def give_away(self) -> Any:
        """Return the pymemcache Client, for somebody else to use: the connection is of no use here any more."""
        self._socket.settimeout(self._timeout)
        return self.client

    def _send(self, data: bytes) -> None:
        if self._timeout is not None:
            self._until = time.monotonic() + self._timeout
        try:
            self._socket.sendall(data)
        except BlockingIOError as error:
            raise TimeoutError("memcached did not take what was sent in time") from error

    def _is_back(self) -> None:
        """Go on after a pause, in which others were waited for: what has come meanwhile has come in time."""
        if self._timeout is None:
            return
        now = time.monotonic()
        if now > self._until:
            if not self._has_come(0):
                raise TimeoutError("memcached did not answer in time")
            self._until = now + self._timeout

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


def size_of(parts: Sequence[bytes]) -> int:
    """Return the number that the one part is; Garbage if it is none."""
    if len(parts) == 1 and parts[0].isdigit() and len(parts[0]) <= 20:
        return int(parts[0])
    raise Garbage(f"memcached answered {parts!r} where a number belongs")


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
