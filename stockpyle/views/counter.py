"""Counters: integers that a store keeps, and that all processes change without losing a step."""

from __future__ import annotations

from typing import Any, Final, Protocol

from stockpyle.exceptions import InvalidNumber
from stockpyle.views.names import checked_name

LEAST: Final = -(2**63)
MOST: Final = 2**63 - 1


class Numbers(Protocol):
    """Where a store keeps the counters. Every method is atomic between processes, and thread-safe."""

    def read(self, name: str) -> int:
        """Return a counter's value; 0 if it was never changed."""
        ...

    def add(self, name: str, by: int) -> int | None:
        """Add to a counter and return its new value; None, and nothing is added, if it would leave its range."""
        ...

    def swap(self, name: str, to: int) -> int:
        """Set a counter and return its old value."""
        ...


class Counter:
    """An integer of 64 bits that a store keeps. ``store.counter(name)`` makes it. It begins at 0.

    InvalidNumber, a ValueError, for what is no int, or would leave the range.
    """

    def __init__(self, numbers: Numbers, name: str) -> None:
        self.name = checked_name(name, "a counter")
        self._numbers = numbers

    @property
    def value(self) -> int:
        """What the counter says now."""
        return self._numbers.read(self.name)

    def increment(self, by: int = 1) -> int:
        """Add `by`, which may be negative, and return the new value: nobody else is given the same by the same step."""
        new = self._numbers.add(self.name, _checked("by", by))
        if new is None:
            raise InvalidNumber(f"the counter {self.name!r} would leave the range of 64 bits if {by} were added")
        return new

    def reset(self, to: int = 0) -> int:
        """Set the counter to `to`, and return what it was."""
        return self._numbers.swap(self.name, _checked("to", to))

    def __repr__(self) -> str:
        return f"<Counter {self.name!r}>"


def _checked(what: str, number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int):
        raise InvalidNumber(f"{what} is an int, not {number!r} ({type(number).__name__})")
    if not LEAST <= number <= MOST:
        raise InvalidNumber(f"{what} is an int of 64 bits, not {number}")
    return int(number)
