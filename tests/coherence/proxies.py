"""Proxies in a process of their own, between some workers and the servers, that cut connections when told to."""

from __future__ import annotations

import contextlib
import re
import selectors
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.coherence import history
from tests.coherence.faults import CUT_CACHE, CUT_COMMIT

PASS, BEFORE, DURING, AFTER, LATE, OFF = range(6)
"""What a proxy does. Of the next COMMIT: keeps it from the server; cuts as soon as it is sent; waits for the answer and
withholds it; cuts first and sends it a moment later. OFF: nobody gets through at all."""

_COMMIT = re.compile(rb"COMMIT(?!TED)")
"""The statement, and not the isolation level."""

COMMITS = {BEFORE: "before", DURING: "during", AFTER: "after", LATE: "late"}


@dataclass
class Way:
    """One listening socket, and the server behind it."""

    listener: socket.socket
    server: tuple[str, int]
    pairs: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    off_since: int = 0


def listen() -> socket.socket:
    """Return a socket that listens on a free port, for `serve` in another process."""
    return socket.create_server(("127.0.0.1", 0), backlog=64)


def serve(listeners: list[socket.socket], server: tuple[str, int], modes: Any, stopping: Any, path: Path) -> None:
    """Forward until told to stop; modes are what each listener's connections are to suffer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Proxy(listeners, server, modes, history.HistoryWriter(path)).work(stopping)


class _Proxy:
    def __init__(
        self, listeners: list[socket.socket], server: tuple[str, int], modes: Any, writer: history.HistoryWriter
    ) -> None:
        self.modes = modes
        self.history = writer
        self.selector = selectors.DefaultSelector()
        self.ways = [Way(listener, server) for listener in listeners]
        for number, way in enumerate(self.ways):
            self.selector.register(way.listener, selectors.EVENT_READ, (number, None, None))

    def work(self, stopping: Any) -> None:
        while not stopping.value:
            for number, way in enumerate(self.ways):
                self._turn(number, way)
            for key, _ in self.selector.select(0.02):
                number, one, other = key.data
                way = self.ways[number]
                if one is None:
                    self._accept(number, way)
                elif one.fileno() != -1:
                    self._forward(number, way, one, other)
        self.history.close()

    def _turn(self, number: int, way: Way) -> None:
        off = self.modes[number] == OFF
        if off and not way.off_since:
            way.off_since = time.monotonic_ns()
            for client, server in list(way.pairs):
                self._cut(way, client, server)
        elif not off and way.off_since:
            self.history.add(history.FAULT, way.off_since, time.monotonic_ns(), CUT_CACHE, number)
            self.history.flush()
            way.off_since = 0

    def _accept(self, number: int, way: Way) -> None:
        client, _ = way.listener.accept()
        if way.off_since:
            client.close()
            return
        try:
            server = socket.create_connection(way.server, timeout=5)
        except OSError:
            client.close()
            return
        for each in (client, server):
            each.settimeout(5)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        way.pairs.append((client, server))
        self.selector.register(client, selectors.EVENT_READ, (number, client, server))
        self.selector.register(server, selectors.EVENT_READ, (number, server, client))

    def _forward(self, number: int, way: Way, one: socket.socket, other: socket.socket) -> None:
        from_client = any(client is one for client, _ in way.pairs)
        try:
            data = one.recv(262_144)
            if not data:
                self._cut(way, one, other)
            elif from_client and self.modes[number] in COMMITS and _COMMIT.search(data):
                self._cut_commit(number, way, one, other, data)
            else:
                other.sendall(data)
        except OSError:
            self._cut(way, one, other)

    def _cut_commit(self, number: int, way: Way, client: socket.socket, server: socket.socket, data: bytes) -> None:
        mode, self.modes[number] = self.modes[number], PASS
        begin = time.monotonic_ns()
        with contextlib.suppress(OSError):
            if mode == LATE:
                self._close(client)
                time.sleep(0.15)
            if mode != BEFORE:
                server.sendall(data)
            if mode in (AFTER, LATE):
                server.recv(262_144)
        self._cut(way, client, server)
        self.history.add(history.FAULT, begin, time.monotonic_ns(), CUT_COMMIT, COMMITS[mode])
        self.history.flush()

    def _cut(self, way: Way, one: socket.socket, other: socket.socket) -> None:
        way.pairs = [pair for pair in way.pairs if one not in pair]
        self._close(one)
        self._close(other)

    def _close(self, each: socket.socket) -> None:
        if each.fileno() == -1:
            return
        with contextlib.suppress(KeyError):
            self.selector.unregister(each)
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
