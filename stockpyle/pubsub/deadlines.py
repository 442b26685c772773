"""An end to waiting for a server that has stopped to answer, where a driver knows none.

libpq waits for the answer to a statement for as long as the connection stands, and a server that hangs keeps it
standing. Shutting the socket down, from another thread, ends the wait with an error.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from stockpyle.forks import renew_after_fork


class _Wait:
    __slots__ = ("deadline", "fileno", "was_cut")

    def __init__(self, deadline: float, fileno: int) -> None:
        self.deadline = deadline
        self.fileno = fileno
        self.was_cut = False


class Deadlines:
    """One daemon thread that cuts the connections of those who wait for too long; it starts with the first wait."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a child process: nobody waits."""
        self._changed = threading.Condition()
        self._waits: set[_Wait] = set()
        self._thread: threading.Thread | None = None
        self._looks_at = math.inf
        """When the thread looks next, if nobody wakes it."""

    @contextmanager
    def within(self, seconds: float, fileno: int) -> Iterator[None]:
        """Cut the connection of this socket if the block is not left in time; then TimeoutError is raised."""
        wait = _Wait(self._clock() + seconds, fileno)
        try:
            self._add(wait)
            yield
        except Exception as error:
            if wait.was_cut:
                raise TimeoutError(f"no answer within {seconds} s") from error
            raise
        finally:
            # not before the thread is done with it: the number may be another's then
            with self._changed:
                self._waits.discard(wait)

    def _add(self, wait: _Wait) -> None:
        with self._changed:
            self._waits.add(wait)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="stockpyle-deadlines", daemon=True)
                thread.start()
                self._thread = thread
            elif wait.deadline < self._looks_at:
                self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while True:
                now = self._clock()
                for wait in [each for each in self._waits if each.deadline <= now]:
                    wait.was_cut = True
                    self._waits.discard(wait)
                    _cut(wait.fileno)
                self._looks_at = min((each.deadline for each in self._waits), default=math.inf)
                self._changed.wait(None if self._looks_at == math.inf else self._looks_at - now)


def _cut(fileno: int) -> None:
    # it may have been closed by the other side already
    with suppress(OSError), socket.fromfd(fileno, socket.AF_INET, socket.SOCK_STREAM) as copy:
        copy.shutdown(socket.SHUT_RDWR)


deadlines = Deadlines()
