"""A TCP proxy in front of PostgreSQL that cuts a connection at its COMMIT."""

from __future__ import annotations

import contextlib
import socket
import threading

import sqlalchemy as sa


class CuttingProxy:
    """Forwards connections to a server. Once `cut` is set, it cuts the next one that sends a COMMIT.

    "before" the server gets to see it, or "after" it has answered, the answer withheld.
    """

    def __init__(self, url: str) -> None:
        server = sa.make_url(url)
        self._server = (str(server.host), int(server.port or 0))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = server.set(port=self._listener.getsockname()[1]).render_as_string(hide_password=False)
        self.cut = ""
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Cut all connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._cut(*self._sockets)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                ending = threading.Event()
                threading.Thread(target=self._upward, args=(client, server, ending), daemon=True).start()
                threading.Thread(target=self._downward, args=(server, client, ending), daemon=True).start()

    def _upward(self, client: socket.socket, server: socket.socket, ending: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.cut and b"COMMIT" in data:
                    cut, self.cut = self.cut, ""
                    if cut == "before":
                        break
                    ending.set()
                server.sendall(data)
        if not ending.is_set():
            self._cut(client, server)

    def _downward(self, server: socket.socket, client: socket.socket, ending: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if ending.is_set():
                    break
                client.sendall(data)
        self._cut(client, server)

    def _cut(self, *sockets: socket.socket) -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
