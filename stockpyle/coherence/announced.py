"""Commits that were announced from inside their transactions, and of which nobody has said yet that they are settled.

A writer that is killed right after its commit, or that cannot reach the shared tier, has then still told everybody
what it has changed. Whoever has heard it and hears of no settlement within the grace time removes these keys from the
shared tier in its place.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection

from stockpyle.coherence.courier import COURIER, Courier
from stockpyle.coherence.logs import logger
from stockpyle.coherence.messages import Changes
from stockpyle.forks import renew_after_fork

GRACE = 5.0
"""Seconds that a writer has to settle what it has announced."""

LIMIT = 50_000
"""How many announced commits are remembered; of more, the oldest are settled at once."""


class Announced:
    """What this process has heard of. clean removes keys from the shared tiers; it may raise, and is called again.

    clock: seconds from anywhere. courier calls settle(); None for nobody. Each process waits up to twice the grace
    time, so that not all of them do the same at once.
    """

    def __init__(
        self,
        clean: Callable[[Changes], None],
        grace: float = GRACE,
        *,
        clock: Callable[[], float] = time.monotonic,
        courier: Courier | None = COURIER,
        limit: int = LIMIT,
    ) -> None:
        self._clean = clean
        self._grace = grace
        self._clock = clock
        self._courier = courier
        self._limit = limit
        self._heard: dict[bytes, tuple[float, Changes]] = {}
        self._mutex = threading.RLock()
        self._failed = False
        renew_after_fork(self)

    def __len__(self) -> int:
        return len(self._heard)

    def hear(self, number: bytes, changes: Changes) -> None:
        """Remember an announced commit."""
        with self._mutex:
            self._heard[number] = self._clock() + self._grace * random.uniform(1.0, 2.0), changes
        if self._courier is not None:
            try:
                self._courier.call(self)
            except Exception:  # no more threads, or the interpreter ends
                logger.exception("nobody looks after the commits that were announced")

    def settled(self, numbers: Collection[bytes]) -> Changes | None:
        """Forget these commits; return what they have changed, or None if one of them was never heard of."""
        changes: Changes | None = Changes()
        with self._mutex:
            for number in numbers:
                heard = self._heard.pop(number, None)
                if heard is None:
                    changes = None
                elif changes is not None:
                    changes.add(heard[1], self._limit)
        return changes

    @property
    def waits(self) -> bool:
        """True if something is not settled."""
        return bool(self._heard)

    def settle(self) -> bool:
        """Settle what is overdue; True if nothing is left. Raises nothing."""
        overdue = Changes()
        with self._mutex:
            now = self._clock()
            too_many = len(self._heard) - self._limit
            for i, (number, (due, changes)) in enumerate(self._heard.items()):
                if due <= now or i < too_many:
                    overdue.settled[number] = None
                    overdue.add(changes, self._limit)
        if overdue:
            try:
                self._clean(overdue)
            except Exception:  # whatever a tier does; the courier comes again
                if not self._failed:
                    logger.exception("what others have committed and not settled could not be; it is tried again")
                self._failed = True
            else:
                self._failed = False
                self.settled(list(overdue.settled))
        return not self._heard

    def forget(self) -> None:
        """Leave all of it to others."""
        with self._mutex:
            self._heard = {}

    def after_fork(self) -> None:
        """In a child process: the parent has heard what it has heard."""
        self._mutex = threading.RLock()
        self._heard = {}
