"""Counters in memcached. A value is kept as how far it is above the least one, since memcached counts without signs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stockpyle.coherence.talks import Talk
from stockpyle.memcached.server import Server
from stockpyle.memcached.wire import Connection
from stockpyle.views.counter import LEAST
from stockpyle.views.names import short_name

_ALL = 2**64


class MemcachedNumbers:
    """See Numbers. servers, and which of them keeps a text, are the store's."""

    def __init__(self, servers: Sequence[Server], place: Callable[[str], int], prefix: str) -> None:
        self._servers = servers
        self._place = place
        self._prefix = prefix

    def _at(self, name: str) -> tuple[Server, bytes]:
        text = f"{self._prefix}:counter:{short_name(name)}"
        return self._servers[self._place(text) if len(self._servers) > 1 else 0], text.encode("ascii")

    def read(self, name: str) -> int:
        """See Numbers.read."""
        server, key = self._at(name)
        (reply,) = server.call("counter", lambda connection: connection.meta([b"mg %b v\r\n" % key]))
        return int(reply.data) + LEAST if reply.status == b"VA" else 0

    def add(self, name: str, by: int) -> int | None:
        """See Numbers.add."""
        server, key = self._at(name)

        def count(connection: Connection, step: int) -> Talk[int]:
            # adding all but a little is taking a little away: memcached goes around at 64 bits
            (reply,) = yield from connection.meta([b"ma %b v N0 J%d D%d MI\r\n" % (key, by - LEAST, step % _ALL)])
            return int(reply.data)

        def add(connection: Connection) -> Talk[int | None]:
            new = yield from count(connection, by)
            if new >= by if by >= 0 else new < _ALL + by:
                return new + LEAST
            yield from count(connection, -by)
            return None

        return server.once("counter", add)

    def swap(self, name: str, to: int) -> int:
        """See Numbers.swap."""
        server, key = self._at(name)
        digits = b"%d" % (to - LEAST)

        def swap(connection: Connection) -> Talk[int]:
            while True:
                (held,) = yield from connection.meta([b"mg %b v c\r\n" % key])
                found = held.status == b"VA"
                unchanged = b"C%d" % held.number(b"c") if found else b"ME"
                swap = b"ms %b %d %b T0\r\n%b\r\n" % (key, len(digits), unchanged, digits)
                (reply,) = yield from connection.meta([swap])
                if reply.done:
                    return int(held.data) + LEAST if found else 0

        return server.once("counter", swap)
