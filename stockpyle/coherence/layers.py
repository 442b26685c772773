"""One level of a chain as the readers' and writers' halves of the protocol see it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, overload

from stockpyle.coherence.debts import Debt
from stockpyle.coherence.guards import Bypassed, Guard, Guards, guards_of
from stockpyle.coherence.logs import logger
from stockpyle.exceptions import ImproperlyConfigured, InvalidLifetime, StoreUnavailable, UnsupportedOperation
from stockpyle.keys import Ident, Key
from stockpyle.lifetimes import LifetimePolicy, earlier
from stockpyle.protocols import Change, Tier
from stockpyle.records import MISS, Alias, Found, Lease, Lock, Record
from stockpyle.stats import Stats

T = TypeVar("T")

DEFAULT_BOUND = 60.0
"""Seconds that a tier which does not say keeps a record in a chain."""


def checked_unreachable(value: str | None) -> str | None:
    """Return what is done when a tier cannot be locked before a commit; ImproperlyConfigured if it is nonsense."""
    if value not in (None, "proceed", "refuse"):
        raise ImproperlyConfigured(f'unreachable is "proceed" or "refuse", not {value!r}')
    return value


def of_lease(leased: tuple[Lease, Any]) -> Key:
    """The key of a lease with its value."""
    return leased[0].key


def of_lock(locked: tuple[Lock, Any]) -> Key:
    """The key of a lock with its value."""
    return locked[0].key


class Layer:
    """A tier, with what a chain adds to it: bounded lifetimes, counting, guards, and which objects it may keep.

    Nothing is read from a tier that fails, nor from one that is owed something, see Guard; the other layers answer.
    counted=False is for a tier used alone: it counts hits and misses itself, and its failures are the caller's.
    A tier that cannot lock brings `forget` instead, which is called before and after a commit.
    """

    def __init__(self, tier: Any, *, counted: bool = True) -> None:
        self.tier: Tier = tier
        self._guards: Guards | None = guards_of(tier) if counted else None
        self._part_of: Callable[[Key], Hashable] | None = getattr(tier, "part_of", None)
        self._only: Guard | None = None if self._guards is None or self._part_of else self._guards.whole
        own = getattr(tier, "stats", None)
        self.stats: Stats = Stats() if self._guards is None else own if isinstance(own, Stats) else self._guards.stats
        self.polymorphic: bool = getattr(tier, "polymorphic", False)
        self.keeps_absent: bool = getattr(tier, "keeps_absent", True)
        self.forgets: bool = getattr(tier, "forget", None) is not None
        self._unreachable = checked_unreachable(getattr(tier, "unreachable", None)) if counted else None
        self._lifetimes = LifetimePolicy.of(tier)
        self._clock = getattr(tier, "clock", None) or time.time
        self._bound: float = getattr(tier, "chain_lifetime", DEFAULT_BOUND)

    @property
    def name(self) -> str:
        """What logs call this layer."""
        return str(getattr(self.tier, "name", type(self.tier).__name__))

    # reading and filling

    def read(self, keys: Sequence[Key], *, lease: bool) -> list[Found]:
        """See Tier.read. A part that fails, or is owed something, has nothing."""
        only = self._only
        if only is not None and only.trusted:
            try:
                return self.tier.read(keys, lease=lease)
            except Exception as error:  # noqa: BLE001 - the guard raises what is not the tier's fault
                only.judge("read", error)
                return [MISS] * len(keys)
        if self._guards is None:
            return self.tier.read(keys, lease=lease)
        found: dict[Ident, Found] = {}
        for guard, own in self._by_part(keys):
            try:
                answers = guard.use("read", partial(self.tier.read, own, lease=lease))
            except Bypassed:
                continue
            found.update(zip([key.ident for key in own], answers, strict=True))
        return [found.get(key.ident, MISS) for key in keys]

    def look(self, key: Key) -> Found:
        """Read one key without a lease; raises Bypassed if what is held there cannot be told."""
        if self._guards is None:
            return self.tier.read([key], lease=False)[0]
        ((guard, own),) = self._by_part([key])
        return guard.use("read", partial(self.tier.read, own, lease=False))[0]

    def fill(self, leased: Sequence[tuple[Lease, Record | Alias | None]]) -> None:
        """Fill, and count what came too late. A part that fails, or is owed something, is not filled."""
        for guard, own in self._by_part(leased, of_lease):
            wanted = sum(isinstance(value, Record) for _, value in own)
            aliases = sum(isinstance(value, Alias) for _, value in own)
            filled = 0
            try:
                filled = guard.use("filled", partial(self.tier.fill, own))
            except Bypassed:
                pass
            except Exception:  # what was loaded is the caller's, whether or not it can be kept
                self.stats.errors += 1
                logger.exception("%s could not be filled", self.name)
                continue
            self.stats.fills += min(filled, wanted)
            self.stats.refused += wanted + aliases - filled

    # locking and what follows

    def lock(
        self,
        keys: Sequence[Key],
        seconds: float,
        *,
        without_row_lock: Sequence[Key] = (),
        unreachable: str | None = None,
    ) -> list[Lock]:
        """See Tier.lock. Keys in a part that cannot be reached get owed locks; or, if refused, StoreUnavailable.

        unreachable is "proceed" or "refuse"; None means what the tier says.
        """
        if self._guards is None:
            return self.tier.lock(keys, seconds, without_row_lock=without_row_lock)
        loose = {key.ident for key in without_row_lock}
        locks: list[Lock] = []
        try:
            for guard, own in self._by_part(keys):
                own_loose = [key for key in own if key.ident in loose]
                try:
                    locks += guard.use("locked", partial(self.tier.lock, own, seconds, without_row_lock=own_loose))
                except Bypassed as bypassed:
                    self.may_proceed(unreachable, "lock", bypassed.__cause__)
                    locks += [Lock(key, bypassed.__cause__, owed=True) for key in own]
        except BaseException:
            self.unlock(locks)
            raise
        return locks

    def may_proceed(self, unreachable: str | None, operation: str, cause: BaseException | None) -> None:
        """Raise StoreUnavailable if a part that cannot be reached, for this cause, is a reason to stop."""
        if (unreachable or self._unreachable) == "refuse":
            why = "another thread is just trying it" if cause is None else repr(cause)
            raise StoreUnavailable(
                f'it cannot be reached, and unreachable="refuse" was asked for: {why}', self.name, operation
            ) from cause

    def publish(self, locked: Sequence[tuple[Lock, Record | Alias | None]], seconds: float) -> None:
        """See Tier.publish. What cannot be published is owed; nothing is raised, unless the tier is used alone.

        seconds: how long the locks live with which a debt is delivered.
        """
        if self._guards is None:
            self.tier.publish(locked)
            return
        for guard, own in self._by_part(locked, of_lock):
            self._publish(guard, own, seconds)

    def _publish(self, guard: Guard, locked: Sequence[tuple[Lock, Record | Alias | None]], seconds: float) -> None:
        if not any(lock.owed for lock, _ in locked):
            try:
                guard.use("told of a commit", partial(self.tier.publish, locked))
                return
            except Bypassed:
                pass
            except Exception:  # a value that cannot be kept, say; the commit is durable
                self.stats.errors += 1
                logger.exception("%s keeps nothing of this commit", self.name)
        guard.owe([Debt(lock.key, lock.contended, seconds) for lock, _ in locked])
        guard.settle()

    def owe(self, locks: Sequence[Lock], seconds: float) -> None:
        """Have the tier told of these keys later. Raises nothing."""
        for guard, own in self._by_part([(lock, None) for lock in locks], of_lock):
            guard.owe([Debt(lock.key, lock.contended, seconds) for lock, _ in own])

    def unlock(self, locks: Sequence[Lock]) -> None:
        """See Tier.unlock. In a part that cannot be reached the locks run out by themselves."""
        for guard, own in self._by_part([(lock, None) for lock in locks if not lock.owed], of_lock):
            if guard.is_open:
                continue
            try:
                guard.run("unlocked", partial(self.tier.unlock, [lock for lock, _ in own]))
            except Bypassed:
                pass
            except Exception:  # the caller has an error of its own by now, or has rolled back by choice
                self.stats.errors += 1
                logger.exception("%s was not told of a rollback; its locks are left to run out", self.name)

    # tiers that cannot lock

    def forget(
        self, changes: Sequence[Change], epochs: Iterable[Key], keys: Sequence[Key], unreachable: str | None = None
    ) -> None:
        """Before a commit: have a tier that cannot lock drop what the commit will change."""
        for guard, _ in self._by_part(keys):
            try:
                guard.use("told to forget", partial(self._forget, changes, epochs))
            except Bypassed as bypassed:
                self.may_proceed(unreachable, "forget", bypassed.__cause__)

    def forget_again(
        self, changes: Sequence[Change], epochs: Iterable[Key], keys: Sequence[Key], seconds: float
    ) -> None:
        """After a commit: have such a tier drop what was filled in between. Raises nothing."""
        for guard, own in self._by_part(keys):
            done = False
            try:
                guard.use("told to forget", partial(self._forget, changes, epochs))
                done = True
            except Bypassed:
                pass
            except Exception:  # the commit is durable
                self.stats.errors += 1
                logger.exception("%s did not forget what a commit has changed", self.name)
            finally:
                if not done:
                    guard.owe([Debt(key, False, seconds) for key in own])

    def _forget(self, changes: Sequence[Change], epochs: Iterable[Key]) -> None:
        forget: Callable[[Sequence[Change], Iterable[Key]], None] = self.tier.forget  # type: ignore[attr-defined]
        forget(changes, epochs)

    # upkeep

    def drop(self, keys: Sequence[Key], seconds: float, unreachable: str | None = None) -> None:
        """Have a tier that cannot lock drop what it holds under these keys."""
        for guard, own in self._by_part(keys):
            try:
                guard.use("told to forget", partial(self.tier.drop, own))  # type: ignore[attr-defined]
            except Bypassed as bypassed:
                self.may_proceed(unreachable, "invalidate", bypassed.__cause__)
                guard.owe([Debt(key, False, seconds) for key in own])

    def clear(self, unreachable: str | None = None) -> None:
        """Have the tier forget everything."""
        clear = getattr(self.tier, "clear", None)
        if clear is None:
            raise UnsupportedOperation(f"{self.name} cannot be cleared")
        if self._guards is None:
            clear()
            return
        try:
            self._guards.whole.use("cleared", clear)
        except Bypassed as bypassed:
            self.may_proceed(unreachable, "clear", bypassed.__cause__)
            self._guards.whole.owe([Debt(None, False, 0.0)])

    @overload
    def _by_part(self, things: Sequence[Key]) -> Iterable[tuple[Guard, Sequence[Key]]]: ...
    @overload
    def _by_part(self, things: Sequence[T], key_of: Callable[[T], Key]) -> Iterable[tuple[Guard, Sequence[T]]]: ...
    def _by_part(
        self, things: Sequence[Any], key_of: Callable[[Any], Key] | None = None
    ) -> Iterable[tuple[Guard, Sequence[Any]]]:
        """Split a batch by the parts of the tier that keep its keys."""
        if not things:
            return ()
        if self._only is not None:
            return ((self._only, things),)
        assert self._guards is not None
        assert self._part_of is not None
        split: dict[Hashable, list[Any]] = {}
        for thing in things:
            split.setdefault(self._part_of(thing if key_of is None else key_of(thing)), []).append(thing)
        return [(self._guards.of(part), own) for part, own in split.items()]

    # what may be kept

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
