"""One level of a chain as the readers' and writers' halves of the protocol see it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from stockpyle.exceptions import InvalidLifetime
from stockpyle.keys import Key
from stockpyle.lifetimes import LifetimePolicy, earlier
from stockpyle.protocols import Change, Tier
from stockpyle.records import MISS, Alias, Found, Lease, Lock, Record
from stockpyle.stats import Stats

logger = logging.getLogger("stockpyle")

DEFAULT_BOUND = 60.0
"""Seconds that a tier which does not say keeps a record in a chain."""


class Layer:
    """A tier, with what a chain adds to it: bounded lifetimes, counting, and which objects it may keep.

    counted=False is for a tier used alone: it counts hits and misses itself, and its failures are the caller's.
    A tier that cannot lock brings `forget` instead, which is called before and after a commit.
    """

    def __init__(self, tier: Any, *, counted: bool = True) -> None:
        self.tier: Tier = tier
        self._alone = not counted
        self.stats: Stats = Stats() if self._alone else Stats.of(tier)
        self.polymorphic: bool = getattr(tier, "polymorphic", False)
        self.keeps_absent: bool = getattr(tier, "keeps_absent", True)
        self.forget: Callable[[Sequence[Change], Iterable[Key]], None] | None = getattr(tier, "forget", None)
        self._lifetimes = LifetimePolicy.of(tier)
        self._clock = getattr(tier, "clock", None) or time.time
        self._bound: float = getattr(tier, "chain_lifetime", DEFAULT_BOUND)

    @property
    def name(self) -> str:
        """What logs call this layer."""
        return str(getattr(self.tier, "name", type(self.tier).__name__))

    def read(self, keys: Sequence[Key], *, lease: bool) -> list[Found]:
        """See Tier.read. A cache that fails has nothing."""
        try:
            return self.tier.read(keys, lease=lease)
        except Exception:
            if self._alone:
                raise
            self.stats.errors += 1
            logger.exception("%s could not be read", self.name)
            return [MISS] * len(keys)

    def fill(self, leased: Sequence[tuple[Lease, Record | Alias | None]]) -> None:
        """Fill, and count what came too late. A cache that fails is not filled."""
        wanted = sum(isinstance(value, Record) for _, value in leased)
        aliases = sum(isinstance(value, Alias) for _, value in leased)
        try:
            filled = self.tier.fill(leased)
        except Exception:
            self.stats.errors += 1
            logger.exception("%s could not be filled", self.name)
            return
        self.stats.fills += min(filled, wanted)
        self.stats.refused += wanted + aliases - filled

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> list[Lock]:
        """See Tier.lock."""
        return self.tier.lock(keys, seconds, without_row_lock=without_row_lock)

    def publish(self, locked: Sequence[tuple[Lock, Record | Alias | None]]) -> None:
        """See Tier.publish."""
        self.tier.publish(locked)

    def unlock(self, locks: Sequence[Lock]) -> None:
        """See Tier.unlock."""
        self.tier.unlock(locks)

    def keeps(self, key: Key, record: Record) -> bool:
        """True if this layer may keep `record` under `key`: unless polymorphic, no Car as an Automobile."""
        if record.is_absent:
            return self.keeps_absent
        return record.spec.mapped or self.polymorphic or key.spec.klass is record.spec.klass

    def deadline(self, obj: Any) -> float | None:
        """Return when `obj` expires here by the user's rule or the chain's bound; raises InvalidLifetime."""
        now = self._clock()
        return self._lifetimes.deadline(obj, now) if self._lifetimes.configured else now + self._bound

    def bounded(self, record: Record) -> Record | None:
        """Return `record` as this layer may keep it, or None if it may not: expired, or its lifetime cannot be told."""
        if self._lifetimes.asks_object and record.is_absent:
            own: float | None = self._clock() + self._bound
        else:
            try:
                own = self.deadline(record.spec.materialise(record.value) if self._lifetimes.asks_object else None)
            except InvalidLifetime:
                self.stats.errors += 1
                logger.exception("%s keeps no %s", self.name, record.spec.klass.__qualname__)
                return None
        return self.until(record, own)

    def until(self, record: Record, deadline: float | None) -> Record | None:
        """Return `record` with the earlier of its own deadline and this one, or None if that has passed."""
        deadline = earlier(deadline, record.deadline)
        if deadline is not None and deadline <= self._clock():
            return None
        return record if deadline == record.deadline else replace(record, deadline=deadline)
