"""A TCP proxy between who listens and the server, which loses what is sent, or says things of its own."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import sqlalchemy as sa


class Proxy:
    """Forwards connections to the server of a URL, which has a host and a port; `url` is its own."""

    def __init__(self, url: str) -> None:
        server = sa.make_url(url)
        self._server = (str(server.host), int(server.port or 0))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = server.set(port=self._listener.getsockname()[1]).render_as_string(hide_password=False)
        self.loses_all = False
        """While it is True, what is sent does not arrive, and no side is told so."""
        self._sockets: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in self._sockets:
            self._cut(*pair)

    def say(self, data: bytes) -> None:
        """Send something to all clients, as if it were the server's."""
        for client, _ in self._sockets:
            with contextlib.suppress(OSError):
                client.sendall(data)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                pair = client, socket.create_connection(self._server)
                self._sockets.append(pair)
                for one, other in (pair, pair[::-1]):
                    threading.Thread(target=self._forward, args=(one, other), daemon=True).start()

    def _forward(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                if not self.loses_all:
                    other.sendall(data)
        self._cut(one, other)

    def _cut(self, *sockets: socket.socket) -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class Pooler(Proxy):
    """What a client sees of a PgBouncer: not the server's process, nor its notifications unless it pools sessions."""

    def __init__(self, url: str, *, pools_sessions: bool) -> None:
        super().__init__(url)
        # a connection begins as the protocol has it, not with a question about TLS
        self.url += "?sslmode=disable&gssencmode=disable"
        self._pools_sessions = pools_sessions

    def _forward(self, one: socket.socket, other: socket.socket) -> None:
        if all(other is not client for client, _ in self._sockets):
            super()._forward(one, other)
            return
        with contextlib.suppress(OSError), one.makefile("rb") as server:
            while head := server.read(5):
                kind, length = struct.unpack(">cI", head)
                body = server.read(length - 4)
                if kind == b"K":
                    body = bytes(4) + body[4:]
                if kind != b"A" or self._pools_sessions:
                    other.sendall(head + body)
        self._cut(one, other)
