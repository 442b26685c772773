"""One connection of redis-py's, used without what redis-py takes longer for than Redis.

What is sent goes in chunks, the next one before the replies to the last are read: Redis keeps in memory what it has to
say to those who do not read it, which of a batch sent whole would be all of the answer.
"""

from __future__ import annotations

import math
import select
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from stockpyle.redis.bounds import BoundedSocket
from stockpyle.remote.answers import cut_value
from stockpyle.remote.chunks import chunks_of

T = TypeVar("T")

CHUNK_COMMANDS = 500
CHUNK_BYTES = 64 * 1024
CHUNK_KEYS = 500
"""A chunk has no more commands, nor, unless a single one is longer, more bytes; and a command names no more keys."""

RECEIVED_AT_ONCE = 65536


class Pipe:
    """A connection that is ready to be used. errors is the module redis.exceptions."""

    def __init__(self, connection: Any, errors: Any) -> None:
        self.connection = connection
        self._errors = errors
        self._sock = connection._sock
        self._bounded = BoundedSocket(connection)
        self._reader: Any = getattr(connection._parser, "_reader", None)
        self._poll: Any = None
        # where connections are asked how they are now and then, redis-py does that as it sends
        self.is_direct = self._reader is not None and self._sock is not None and not connection.health_check_interval
        if self._reader is not None and self._sock is not None and hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(self._sock, select.POLLIN)

    @property
    def is_quiet(self) -> bool:
        """True if nothing has come that nobody has asked for, such as the end of the connection."""
        if self.connection._sock is not self._sock:
            return False
        if self._poll is not None and not self._reader.has_data() and not self._poll.poll(0):
            return True
        with suppress(self._errors.RedisError, OSError):
            return not self.connection.can_read()
        return False

    def value(self, asks: bytes, head: bytes, tail: bytes, read: Callable[[bytes], T | None]) -> T | None:
        """Send a command that is answered with several strings; return what `read` makes of the first.

        head and tail are what is expected before its size and after it. Where something else comes, or `read` returns
        None, so does this; then the answer is still to be read, with replies().
        """
        self._bounded.begin()
        self._sock.sendall(asks)
        received, value = cut_value(self._receive, head, tail, math.inf)
        found = None if value is None else read(value)
        if found is None:
            self._reader.feed(received)
        return found

    def tells(self, asks: bytes, expected: bytes) -> bool | None:
        """Send commands; True if the answer is as expected. Else None, and it is still to be read, with replies()."""
        self._bounded.begin()
        self._sock.sendall(asks)
        return self._is_next(expected) or None

    def _receive(self) -> bytes:
        received = self._bounded.recv(RECEIVED_AT_ONCE)
        if not received:
            raise self._errors.ConnectionError("it has closed the connection")
        return received

    def exchange(self, commands: Sequence[bytes], expected: bytes = b"") -> list[Any] | None:
        """Send commands and return their replies, of which one may be an error; None if they are what is expected."""
        replies: list[Any] = []
        under_way = 0
        chunks = list(chunks_of(commands, CHUNK_COMMANDS, CHUNK_BYTES))
        for chunk in chunks:
            self._bounded.begin()
            self.connection.send_packed_command([b"".join(chunk)])
            if expected and len(chunks) == 1 and self._is_next(expected):
                return None
            replies += self.replies(under_way)
            under_way = len(chunk)
        return replies + self.replies(under_way)

    def replies(self, count: int) -> list[Any]:
        """Return the next replies, of which one may be an error."""
        with self._bounded.in_place():
            return [self.reply() for _ in range(count)]

    def reply(self) -> Any:
        """Return the next reply, which may be an error, for as long as each packet of it comes in time."""
        try:
            return self.connection.read_response()
        except self._errors.ResponseError as error:
            return error

    def _is_next(self, expected: bytes) -> bool:
        """True if that comes next, which then is done with; else the parser has all that has come."""
        # the connection may have been made anew
        if self._reader is None or self.connection._sock is not self._sock:
            return False
        received = b""
        while received != expected:
            received += self._receive()
            if not expected.startswith(received):
                self._reader.feed(received)
                return False
        return True


def packer() -> Callable[[tuple[Any, ...]], bytes]:
    """Return what turns a command, of bytes and scripts, into what is sent."""
    try:
        from hiredis import pack_command
    except ImportError:
        return _packed
    packed: Callable[[tuple[Any, ...]], bytes] = pack_command
    return packed


def _packed(command: tuple[Any, ...]) -> bytes:
    words = [word.encode("ascii") if isinstance(word, str) else word for word in command]
    return b"*%d\r\n%b" % (len(words), b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))
