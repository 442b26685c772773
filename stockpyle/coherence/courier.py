"""The thread that delivers debts while nobody uses the tier, and finds out when one that has failed works again.

Other processes read from the tier all the same; and nobody in this one waits for a server that does not answer.
"""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol

from stockpyle.forks import renew_after_fork

SECONDS = 1.0
"""How often it looks, on average, whether a tier can be reached again."""


class Debtor(Protocol):
    """Who has something to deliver."""

    def settle(self) -> bool:
        """Try the tier, and to deliver; True if nothing is left. It raises nothing."""
        ...

    @property
    def waits(self) -> bool:
        """True if something is left."""
        ...


class Courier:
    """One daemon thread for all debtors of a process: it starts with the first debt and ends with the last.

    It keeps no debtor alive: the debts of a store that nobody has any more are gone with it. seconds is the pause
    between two rounds, on average, and `pause` what waits. Processes that have heard the same thing at the same moment,
    or have lost the same server, so do not all come to it at once.
    """

    def __init__(self, seconds: float = SECONDS, pause: Callable[[float], None] = time.sleep) -> None:
        self._seconds = seconds
        self._pause = pause
        self.debtors: weakref.WeakSet[Debtor] = weakref.WeakSet()
        # reentrant: see Guard
        self._mutex = threading.RLock()
        self.thread: threading.Thread | None = None
        """What runs now, if anything is owed."""
        renew_after_fork(self)

    def call(self, debtor: Debtor) -> None:
        """Come by for this debtor, until it owes nothing; RuntimeError if no thread can be started."""
        with self._mutex:
            self.debtors.add(debtor)
            if self.thread is None:
                thread = threading.Thread(target=self.run, name="stockpyle-courier", daemon=True)
                thread.start()
                self.thread = thread

    def run(self) -> None:
        """Go on until nobody owes anything."""
        while True:
            self._pause(self._seconds * random.uniform(0.5, 1.5))
            self._visit()
            if self._is_done():
                return

    def _visit(self) -> None:
        with self._mutex:
            debtors = list(self.debtors)
        for debtor in debtors:
            debtor.settle()

    def _is_done(self) -> bool:
        with self._mutex:
            self.debtors = weakref.WeakSet(debtor for debtor in self.debtors if debtor.waits)
            done = not self.debtors
            if done:
                self.thread = None
            return done

    def after_fork(self) -> None:
        """In a child process: there is no thread; the next debt starts one."""
        self._mutex = threading.RLock()
        self.thread = None


COURIER = Courier()
"""The one of this process."""
