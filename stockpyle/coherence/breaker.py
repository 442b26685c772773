"""A breaker: after a failure nobody calls, but that one caller at a time may try again a little later."""

from __future__ import annotations

from collections.abc import Callable

PROBE_SECONDS = 1.0
"""How long after a failure the next try is due."""

LONGEST_TRY = 60.0
"""Seconds after which nobody waits any more for a try: an interrupt has come between it and its end."""


class Breaker:
    """Closed while all goes well; it opens at the first failure, and closes again after a try that went well.

    One failure is enough, so that a server which hangs costs its timeout once. clock counts seconds from anywhere.
    It is not safe in several threads by itself: whoever has it brings the mutex.
    """

    def __init__(self, probe_seconds: float, clock: Callable[[], float]) -> None:
        self._probe_seconds = probe_seconds
        self._clock = clock
        self._due = 0.0
        self._trying = False
        self._tried_until = 0.0
        self.error: Exception | None = None
        """What opened it, while it is open."""

    @property
    def is_open(self) -> bool:
        """True if nobody should call, but who is let through by begin()."""
        return self.error is not None

    def begin(self) -> bool:
        """Let one caller try, if nobody else does and it is time; it must call end()."""
        now = self._clock()
        if (self._trying and now < self._tried_until) or (self.is_open and now < self._due):
            return False
        self._trying, self._tried_until = True, now + LONGEST_TRY
        return True

    def end(self) -> None:
        """The try is over, however it went."""
        self._trying = False

    def failed(self, error: Exception) -> bool:
        """Open, or stay open until another try is due; True if this has changed it."""
        changed = not self.is_open
        self.error = error
        self._due = self._clock() + self._probe_seconds
        return changed

    def succeeded(self) -> bool:
        """Close; True if this has changed it."""
        changed = self.is_open
        self.error = None
        return changed
