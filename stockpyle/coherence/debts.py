"""What a tier is owed: the keys of durable commits that it could not be told of.

Under such a key the tier may hold what was replaced. So as long as this process owes a tier anything, it believes
nothing that the tier says. Debts are kept in this process's memory only: a process that ends before it has delivered
them leaves the tier with what it holds, until that runs out. Lifetimes bound it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stockpyle.keys import Ident, Key

LIMIT = 10_000
"""How many keys one part of a tier can be owed before whole classes are owed instead."""

_EVERYTHING: Ident = ("", (), ())


@dataclass(slots=True, eq=False)
class Debt:
    """One key that a tier has to forget; None for all that it holds.

    left: a lock is put there and left to run out, because nobody knows if the commit has happened, or may still
    happen. seconds: how long a lock lives that is put there. keys: how many it stands for.
    """

    key: Key | None
    left: bool
    seconds: float
    keys: int = 1

    @property
    def ident(self) -> Ident:
        """What tells it from other debts."""
        return _EVERYTHING if self.key is None else self.key.ident


class Debts:
    """What one part of a tier is owed, each key once.

    It is not safe in several threads by itself: whoever has it brings the mutex. But the same thread may add debts in
    the midst of anything.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._owed: dict[Ident, Debt] = {}

    def __len__(self) -> int:
        return len(self._owed)

    def owe(self, debts: Iterable[Debt]) -> int:
        """Add debts, and return how many are new; above the limit each class is owed as a whole."""
        new = 0
        for debt in debts:
            if debt.key is not None and debt.key.spec.epoch.ident in self._owed and not debt.key.is_epoch:
                debt = replace(debt, key=debt.key.spec.epoch)
                self._add(self._owed, debt, debt.keys)
                new += debt.keys
            else:
                new += self._add(self._owed, debt, 0)
        if len(self._owed) > self._limit:
            fine, self._owed = self._owed, {}
            for debt in fine.values():
                whole = debt if debt.key is None else replace(debt, key=debt.key.spec.epoch)
                self._add(self._owed, whole, debt.keys)
        return new

    @staticmethod
    def _add(owed: dict[Ident, Debt], debt: Debt, more: int) -> int:
        """Add a debt, which stands for so many keys more if there is one already."""
        old = owed.get(debt.ident)
        if old is None:
            owed[debt.ident] = debt
            return debt.keys
        # always a new object: what is being delivered at this moment is not what has just been owed again
        owed[debt.ident] = replace(
            debt, left=debt.left or old.left, seconds=max(debt.seconds, old.seconds), keys=old.keys + more
        )
        return 0

    def some(self, number: int) -> list[Debt]:
        """Return so many of the debts, or as many as there are."""
        return list(self._owed.values())[:number]

    def settle(self, debts: Iterable[Debt]) -> int:
        """Remove these debts, but for those that were owed again meanwhile; return for how many keys they stood."""
        settled = 0
        for debt in debts:
            if self._owed.get(debt.ident) is debt:
                del self._owed[debt.ident]
                settled += debt.keys
        return settled


def deliver(tier: Any, debts: Sequence[Debt], settled: Callable[[], None]) -> None:
    """Make a tier forget what it is owed; settled() is called as soon as nothing stale can be read from it.

    That is when every key is locked. What was there is gone then, and whoever has a lease from before can fill
    nothing. The removal of those locks comes after it, and may fail: then they run out, and leave the key empty. A lock
    that has replaced another's is never removed, as always without the row's lock in the database.
    """
    keys = [debt.key for debt in debts if debt.key is not None]
    if len(keys) < len(debts):
        tier.clear()
    if not keys or hasattr(tier, "forget"):
        if keys:
            tier.drop(keys)
        settled()
        return
    locks = tier.lock(keys, max(debt.seconds for debt in debts), without_row_lock=keys)
    settled()
    left = {debt.ident for debt in debts if debt.left}
    removed = [(lock, None) for lock in locks if lock.key.ident not in left]
    if removed:
        tier.publish(removed)
