"""Which entry makes room for another: SIEVE.

Entries stand in the order in which they came. A hand goes over them from the oldest to the newest and then begins anew;
it evicts what was not used since it last came by, and leaves the rest where it stands. So what has just come is looked
at before what has proven itself is looked at again, and a hit writes one bit. Y. Zhang, J. Yang, Y. Yue, Y. Vigfusson,
K. V. Rashmi, "SIEVE is Simpler than LRU", NSDI 2024, https://www.usenix.org/conference/nsdi24/presentation/zhang-yazhuo
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Sieve(Generic[T]):
    """Things in the order in which they came, and a hand between those it has passed and those ahead of it."""

    def __init__(self) -> None:
        self._passed: deque[T] = deque()
        self._ahead: deque[T] = deque()

    def add(self, thing: T) -> None:
        """Put the newest at the end."""
        self._begin_anew()
        self._ahead.append(thing)

    def take(self) -> T:
        """Return what the hand comes to next; it is out, unless it is kept. IndexError if there is nothing."""
        self._begin_anew()
        return self._ahead.popleft()

    def keep(self, thing: T) -> None:
        """Leave in its place what was just taken."""
        self._passed.append(thing)

    def _begin_anew(self) -> None:
        if not self._ahead:
            self._ahead, self._passed = self._passed, self._ahead

    def __len__(self) -> int:
        return len(self._ahead) + len(self._passed)
