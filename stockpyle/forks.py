"""After a fork the child has one thread only, and the locks that the others held would stay locked for ever."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """What has locks or connections that a child process cannot use."""

    def after_fork(self) -> None:
        """In a child process: replace them."""
        ...


_renewables: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_after_fork(thing: Renewable) -> None:
    """Have `thing.after_fork()` called in child processes, for as long as it lives."""
    _renewables.add(thing)


def _after_fork() -> None:
    for thing in list(_renewables):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
