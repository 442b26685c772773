"""One connection to one memcached: commands out, replies in, many at a time.

Commands are sent in chunks, the next one before the replies to the last are read: memcached answers while it reads, and
a batch sent whole would stop both sides as soon as their buffers are full. (memcached's doc/protocol.txt, "Meta
Commands".) What has an answer is a talk, see stockpyle.coherence.talks.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from stockpyle.coherence.talks import Talk, finish
from stockpyle.exceptions import ImproperlyConfigured
from stockpyle.memcached.stream import Garbage, Stream, size_of
from stockpyle.remote.answers import cut_value
from stockpyle.remote.chunks import chunks_of

T = TypeVar("T")
Values = dict[bytes, tuple[int, bytes]]
"""Client flags and value by key."""

OLDEST = (1, 6, 13)
"""The first memcached whose meta commands do what is needed here."""

CHUNK_COMMANDS = 250
CHUNK_BYTES = 32 * 1024
"""Two chunks are under way at most: as much as the buffers of any system hold."""

TLS_CHUNK_BYTES = 4 * 1024
"""memcached does not see what is left of a TLS record when its own buffer (16 KiB) is full, until more arrives."""

MOST_SETTINGS = 1000
"""More lines than ``stats settings`` has."""

_VALUE = b"VALUE "
_NEXT = b"\r\nVALUE "
_END = b"\r\nEND\r\n"
_MN = b"\r\nMN\r\n"
_WITHOUT_DATA = frozenset({b"HD", b"EN", b"NF", b"NS", b"EX", b"SERVER_ERROR"})
_FLAGS = {b"%d" % flags: flags for flags in range(16)}


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
                digits = each[1:]
                return int(digits) if len(digits) <= 20 and digits.isdigit() else size_of([digits])
        raise Garbage(f"{self!r} lacks the flag {flag!r}")

    def has(self, flag: bytes) -> bool:
        """True if the reply carries a flag without a value, such as ``W``: this reader has won."""
        return flag in self.flags


_DONE = Reply(b"HD", [])
"""What is most often answered; nobody changes it."""


class Connection(Stream):
    """One connection. It is one thread's at a time, and closed for good after any error.

    run names the life of the server: CAS ids begin anew with each start of it, so that those of one run mean nothing
    in the next. It is a random value under `run_key` that whoever comes first after the start leaves there.
    """

    def __init__(self, client: Any, name: str, run_key: bytes) -> None:
        super().__init__(client)
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
                largest = size_of(parts[2:])
        raise Garbage("memcached answered too much to stats settings")

    def _name_run(self, name: str, key: bytes) -> bytes:
        mine = secrets.token_hex(8).encode()
        commands = [b"ms %b %d ME T0\r\n%b\r\n" % (key, len(mine), mine), b"mg %b v c\r\n" % key]
        _, held = finish(self.meta(commands))
        if held.status != b"VA":
            # no room for it: then this connection is a run of its own
            return mine
        if held.number(b"c") == 0:
            raise ImproperlyConfigured(
                f"memcached at {name} runs with CAS off (-C), without which nothing tells a reader's copy from a newer "
                "one: start it without -C"
            )
        return held.data

    def meta(self, commands: Sequence[bytes]) -> Talk[list[Reply]]:
        """Send meta commands (each with its line end and data block) and return their replies in order."""
        replies: list[Reply] = []
        under_way = 0
        for chunk in chunks_of(commands, CHUNK_COMMANDS, self._chunk_bytes):
            if len(chunk) > 1 or len(chunk[0]) <= self._chunk_bytes:
                self._send(b"".join(chunk) + b"mn\r\n")
            else:
                # nor what follows a large value in the same record
                self._send(chunk[0])
                self._send(b"mn\r\n")
            if under_way:
                yield
                self._is_back()
                self._meta_replies(under_way, replies)
            under_way = len(chunk)
        if under_way:
            yield
            self._is_back()
            self._meta_replies(under_way, replies)
        self._expect_no_more()
        return replies

    def get(self, keys: Sequence[bytes]) -> Talk[Values]:
        """Return client flags and value of each key that is there: cheaper than ``mg`` where most of them are."""
        return self._get(b"get ", keys, None)

    def gets(self, keys: Sequence[bytes]) -> Talk[tuple[Values, dict[bytes, int]]]:
        """Return what get() does, and the CAS ids."""
        ids: dict[bytes, int] = {}
        found = yield from self._get(b"gets ", keys, ids)
        return found, ids

    def _get(self, verb: bytes, keys: Sequence[bytes], ids: dict[bytes, int] | None) -> Talk[Values]:
        found: Values = {}
        under_way = 0
        whole = b"%b%b\r\n" % (verb, b" ".join(keys))
        chunks = chunks_of(keys, CHUNK_COMMANDS, self._chunk_bytes)
        if len(keys) <= CHUNK_COMMANDS and len(whole) <= self._chunk_bytes:
            self._send(whole)
            under_way, chunks = len(keys), iter(())
        for chunk in chunks:
            self._send(verb + b" ".join(chunk) + b"\r\n")
            if under_way:
                yield
                self._is_back()
                self._values(under_way, found, ids)
            under_way = len(chunk)
        if under_way:
            yield
            self._is_back()
            self._values(under_way, found, ids)
        self._expect_no_more()
        return found

    def value(self, asks: bytes, head: bytes, tail: bytes, read: Callable[[bytes], T | None]) -> T | None:
        """Send a get of one key and of others; return what `read` makes of the one's value.

        head and tail are what is expected before the size of the value and after it. Where something else comes, or
        `read` returns None, so does this; then the answer is still to be read, with rest().
        """
        self._send(asks)
        self._buffer, value = cut_value(self._receive, head, tail, self.largest)
        self._at = 0
        found = None if value is None else read(value)
        if found is not None:
            self._at = len(self._buffer)
        return found

    def tells(self, asks: bytes, expected: bytes) -> bool | None:
        """Send commands; True if the answer is what is expected. Else None, and it is still to be read."""
        self._send(asks)
        if not self._is_next(expected):
            return None
        self._expect_no_more()
        return True

    def rest_of_ids(self, count: int, others: int) -> tuple[list[int | None], Values]:
        """Return what ids() would of so many keys, after tells()."""
        found: list[int | None] = []
        self._ids(count, found)
        return found, self.rest(others)

    def rest(self, count: int) -> Values:
        """Return what get() would of so many keys, after a value()."""
        found: Values = {}
        self._values(count, found, None)
        self._expect_no_more()
        return found

    def exchange(self, command: bytes, read: Callable[[Callable[[], bytes], Callable[[int], bytes]], T]) -> Talk[T]:
        """Send any command, and have ``read(line, block)`` read all of the answer: lines, and data of so many bytes."""
        self._send(command)
        yield
        self._is_back()
        answer = read(self._line, self._block)
        self._expect_no_more()
        return answer

    def ids(
        self, keys: Sequence[bytes], others: Sequence[bytes], expected: bytes = b""
    ) -> Talk[tuple[list[int | None], Values] | None]:
        """Return the CAS id of each key, None if it is not there, and what get() says of the others.

        If that is what is expected, as a whole, nothing is read out of it, and None returned.
        """
        found: list[int | None] = []
        under_way = 0
        *chunks, last = chunks_of(keys, CHUNK_COMMANDS, self._chunk_bytes) if len(keys) > 1 else (keys,)
        for chunk in chunks:
            self._send(_looks(chunk))
            self._ids(under_way, found)
            under_way = len(chunk)
        self._send(b"%bget %b\r\n" % (_looks(last), b" ".join(others)))
        yield
        self._is_back()
        self._ids(under_way, found)
        if expected and self._is_next(expected):
            self._expect_no_more()
            return None
        self._ids(len(last), found)
        values: Values = {}
        self._values(len(others), values, None)
        self._expect_no_more()
        return found, values

    # replies

    def _meta_replies(self, count: int, replies: list[Reply]) -> None:
        if self._at == len(self._buffer):
            self._more()
        if self._meta_at_once(count, replies):
            return
        for _ in range(count):
            status, *flags = self._line().split(b" ")
            if status == b"VA":
                replies.append(Reply(status, flags[1:], self._block(size_of(flags[:1]))))
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
            if line == b"HD":
                made.append(_DONE)
                continue
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
                found.append(size_of([line[4:].partition(b" ")[0]]))
            else:
                raise Garbage(f"memcached answered {line[:80]!r} to mg")

    def _values(self, count: int, found: Values, ids: dict[bytes, int] | None) -> None:
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
            found[parts[1]] = (size_of(parts[2:3]), self._block(size_of(parts[3:4])))
            if ids is not None:
                ids[parts[1]] = size_of(parts[4:])
        raise Garbage("memcached answered more values than it was asked for")

    def _values_at_once(self, count: int, found: Values, ids: dict[bytes, int] | None) -> bool:
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
            found[parts[0]] = (size_of(parts[1:2]) if flags is None else flags, data)
            if ids is not None:
                ids[parts[0]] = size_of(parts[3:])
        self._at = end + len(_END)
        return True


def _looks(keys: Sequence[bytes]) -> bytes:
    return b"".join([b"mg %b c\r\n" % key for key in keys])


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
