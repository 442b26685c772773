"""Waiting for a connection to become readable, or for another thread to say that there is something to do."""

from __future__ import annotations

import selectors
import socket
from contextlib import suppress

# poll keeps nothing in the kernel, which a child process would share after a fork
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Waker:
    """What one thread waits with, and others wake it by."""

    def __init__(self) -> None:
        self._mine, self._theirs = socket.socketpair()
        self._mine.setblocking(False)
        self._theirs.setblocking(False)
        self._woken = False

    def wake(self) -> None:
        """End the wait, or the next one if there is none."""
        if not self._woken:
            self._woken = True
            # a full pipe wakes as well, and a closed one has nobody to wake
            with suppress(OSError):
                self._theirs.send(b"\0")

    def wait(self, fileno: int | None, seconds: float) -> None:
        """Wait until there is something to read, somebody wakes, or the time is over."""
        with _Selector() as selector:
            selector.register(self._mine, selectors.EVENT_READ)
            if fileno is not None:
                selector.register(fileno, selectors.EVENT_READ)
            selector.select(seconds)
        with suppress(BlockingIOError):
            self._mine.recv(4096)
        # who is done before this line is seen by what follows the wait; who comes after it wakes again
        self._woken = False

    def close(self) -> None:
        """Give back the pipe."""
        self._mine.close()
        self._theirs.close()


def is_readable(fileno: int, seconds: float = 0.0) -> bool:
    """True if something has come, or the other side has closed, or does so within this time."""
    with _Selector() as selector:
        selector.register(fileno, selectors.EVENT_READ)
        return bool(selector.select(seconds))
