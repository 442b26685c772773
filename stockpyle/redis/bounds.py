"""How long an answer of Redis's may take, however it is cut into packets: redis-py has a time for each packet alone."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stockpyle.remote.answers import SLOWEST


class BoundedSocket:
    """A connection's socket. What comes has the connection's timeout as a whole, and longer only if it is much."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._socket = connection._sock
        self._until = math.inf

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def begin(self) -> None:
        """Have what comes from now on take no longer than the timeout."""
        seconds = self._connection.socket_timeout
        self._until = math.inf if seconds is None else time.monotonic() + seconds

    def recv(self, size: int) -> bytes:
        """Receive what a socket does; TimeoutError if the answer ought to be there as a whole."""
        self._expect_in_time()
        received: bytes = self._socket.recv(size)
        self._until += len(received) / SLOWEST
        return received

    def recv_into(self, buffer: Any) -> int:
        """Receive what a socket does; TimeoutError if the answer ought to be there as a whole."""
        self._expect_in_time()
        size: int = self._socket.recv_into(buffer)
        self._until += size / SLOWEST
        return size

    def _expect_in_time(self) -> None:
        # a server that sends a byte now and then must not hold us much longer than one that sends none
        if time.monotonic() > self._until:
            raise TimeoutError("Redis did not finish its answer in time")

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have redis-py's parser read from this, and not from the socket itself, for a while."""
        parser = self._connection._parser
        # of the one in Python it is a buffer that reads
        reads: Any
        for reads in (getattr(parser, "_buffer", None), parser):
            if getattr(reads, "_sock", None) is self._socket:
                break
        else:
            # redis-py has connected anew
            yield
            return
        reads._sock = self
        try:
            yield
        finally:
            # after an error it may have none, or another
            if reads._sock is self:
                reads._sock = self._socket
