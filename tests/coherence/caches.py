"""The shared caches of a run: servers that are soon full, and lose what they hold when told to."""

from __future__ import annotations

import signal
import socket
from typing import ClassVar

from tests.servers import Memcached, Redis, Server


class SmallMemcached(Memcached):
    """A memcached with room for little; it begins empty."""

    megabytes: ClassVar = 8

    def _arguments(self) -> list[str]:
        return [*super()._arguments(), "-m", str(self.megabytes), "-t", "1", "-c", "512"]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        _signal(self, number)

    def evictions(self) -> int:
        """Return how many items it has evicted so far."""
        told = _ask(self, b"stats\r\n", b"END\r\n")
        return int(told.partition(b"STAT evictions ")[2].partition(b"\r")[0] or 0)

    def fill(self) -> None:
        """Put junk of the size of records into it until it evicts."""
        commands = [
            b"set junk%d 0 20 %d noreply\r\n%s\r\n" % (i, 60 + i % 10 * 60, b"x" * (60 + i % 10 * 60))
            for i in range(30_000)
        ]
        _ask(self, b"".join([*commands, b"version\r\n"]), b"VERSION")


class SmallRedis(Redis):
    """A Redis with room for little, that saves what it holds every second, and begins with what it has saved."""

    def _arguments(self) -> list[str]:
        settings = [
            "--maxmemory",
            "8mb",
            "--maxmemory-policy",
            "allkeys-lru",
            "--save",
            "1 1",
            "--dir",
            str(self.folder),
        ]
        return [*super()._arguments(), *settings]

    @property
    def address(self) -> tuple[str, int]:
        """Its host and port."""
        return self.host, self.port

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        _signal(self, number)

    def evictions(self) -> int:
        """Return how many keys it has evicted so far."""
        told = _ask(self, b"INFO stats\r\nECHO done\r\n", b"done")
        return int(told.partition(b"evicted_keys:")[2].partition(b"\r")[0] or 0)

    def fill(self) -> None:
        """Put junk of the size of records into it until it evicts."""
        commands = [b"SET junk%d %s EX 20\r\n" % (i, b"x" * (60 + i % 10 * 60)) for i in range(30_000)]
        _ask(self, b"".join([*commands, b"ECHO done\r\n"]), b"done")


Cache = SmallMemcached | SmallRedis


def _signal(server: Server, number: signal.Signals) -> None:
    assert server._process is not None
    server._process.send_signal(number)


def _ask(server: Cache, question: bytes, end: bytes) -> bytes:
    """Send commands and return what comes back up to this; nothing if there is no connection."""
    answer = b""
    try:
        with socket.create_connection(server.address, timeout=5) as connection:
            connection.setblocking(True)
            connection.settimeout(5)
            connection.sendall(question)
            while end not in answer[-200_000:]:
                got = connection.recv(65_536)
                if not got:
                    break
                answer += got
    except OSError:
        return b""
    return answer
