"""One level of a chain as the readers' and writers' halves of the protocol see it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

from stockpyle.coherence.debts import Debt
from stockpyle.coherence.guards import Bypassed, DebtListener, Guard, Guards, guards_of, raise_first
from stockpyle.coherence.logs import Seldom, logger
from stockpyle.coherence.parts import Places
from stockpyle.coherence.talks import Asked
from stockpyle.exceptions import ImproperlyConfigured, InvalidLifetime, StoreUnavailable, UnsupportedOperation
from stockpyle.keys import Ident, Key
from stockpyle.lifetimes import LifetimePolicy, earlier
from stockpyle.protocols import Change, Tier
from stockpyle.records import MISS, Alias, Found, Lease, Lock, Record
from stockpyle.stats import Stats

T = TypeVar("T")

Unreachable = Literal["proceed", "refuse"]
"""What happens to a commit that a tier cannot be told of beforehand: it happens, and is owed; or it does not."""

DEFAULT_BOUND = 60.0
"""Seconds that a tier which does not say keeps a record in a chain."""

RETRACT_SECONDS = 30.0
"""How long the lock lives by which a reader cleans up. It may replace a writer's, and must then last as long."""


def checked_unreachable(value: Unreachable | None) -> Unreachable | None:
    """Return what is done when a tier cannot be locked before a commit; ImproperlyConfigured if it is nonsense."""
    if value not in (None, "proceed", "refuse"):
        raise ImproperlyConfigured(f'unreachable is "proceed" or "refuse", not {value!r}')
    return value


def _itself(key: Any) -> Key:
    own: Key = key
    return own


def _of_held(held: tuple[Key, Any]) -> Key:
    return held[0]


def _of_lease(leased: tuple[Lease, Any]) -> Key:
    return leased[0].key


class Layer:
    """A tier, with what a chain adds to it: bounded lifetimes, counting, guards, and which objects it may keep.

    Nothing is read from a tier that fails, nor from one that is owed something, see Guard; the other layers answer.
    counted=False is for a tier used alone: it counts hits and misses itself, and its failures are the caller's.
    A tier that cannot lock brings `forget` instead, which is called before and after a commit. revised: records are
    read with their revisions. bound: how many seconds a record is kept if neither the user nor, with None, the tier
    says.
    """

    def __init__(self, tier: Any, *, counted: bool = True, revised: bool = False, bound: float | None = None) -> None:
        self.tier: Tier = tier
        self._seldom = Seldom()
        self._guards: Guards | None = guards_of(tier) if counted else None
        parts = self._guards.parts if self._guards else ()
        self._only: Guard | None = parts[0] if len(parts) == 1 else None
        self._one: Callable[..., Found] | None = getattr(self._only.tier if self._only else tier, "read_one", None)
        self._places = Places(len(parts), getattr(tier, "place", None))
        own = getattr(tier, "stats", None)
        self.stats: Stats = Stats() if self._guards is None else own if isinstance(own, Stats) else self._guards.stats
        self.polymorphic: bool = getattr(tier, "polymorphic", False)
        self.keeps_absent: bool = getattr(tier, "keeps_absent", True)
        self.forgets: bool = getattr(tier, "forget", None) is not None
        self._unreachable = checked_unreachable(getattr(tier, "unreachable", None)) if counted else None
        self._lifetimes = LifetimePolicy.of(tier)
        self._clock = getattr(tier, "clock", None) or time.time
        self.bound: float = getattr(tier, "chain_lifetime", DEFAULT_BOUND) if bound is None else bound
        self.revised = revised

    @property
    def name(self) -> str:
        """What logs call this layer."""
        return str(getattr(self.tier, "name", type(self.tier).__name__))

    @property
    def guard(self) -> Guard | None:
        """The guard of a tier that is one part; None if it has several, or is used alone."""
        return self._only

    # reading and filling

    def read(self, keys: Sequence[Key], *, lease: bool) -> list[Found]:
        """See Tier.read. A part that fails, or is owed something, has nothing."""
        only = self._only
        if only is not None and only.trusted:
            try:
                return self._reads(self.tier)(keys, lease=lease)
            except Exception as error:  # noqa: BLE001 - the guard raises what is not the tier's fault
                only.judge("read", error)
                return [MISS] * len(keys)
        if self._guards is None:
            return self._reads(self.tier)(keys, lease=lease)
        found: dict[Ident, Found] = {}
        shares = self._places.split(keys, _itself)
        reads = "read_revised" if self.revised else "read"
        answers, failed = self._guards.use(
            "read", {part: (reads, (own,), {"lease": lease}) for part, own in shares.items()}
        )
        raise_first(failed)
        for part, told in answers.items():
            found.update(zip([key.ident for key in shares[part]], told, strict=True))
        return [found.get(key.ident, MISS) for key in keys]

    def read_one(self, key: Key, *, lease: bool) -> Found:
        """Return what read() does of one key."""
        one, guard = self._one, self._only
        if one is None or self.revised:
            return self.read([key], lease=lease)[0]
        if guard is None:
            if self._guards is None:
                found: Found = one(key, lease=lease)
                return found
            guard = self._guards.parts[self._places.of(key)[0]]
            one = guard.tier.read_one
        if not guard.trusted:
            return self.read([key], lease=lease)[0]
        try:
            answer: Found = one(key, lease=lease)
        except Exception as error:  # noqa: BLE001 - the guard raises what is not the tier's fault
            guard.judge("read", error)
            return MISS
        return answer

    def _reads(self, tier: Any) -> Callable[..., list[Found]]:
        read: Callable[..., list[Found]] = tier.read_revised if self.revised else tier.read
        return read

    def unchanged(self, held: Sequence[tuple[Key, Record]]) -> list[bool | None]:
        """Return of each record if its revision is still its key's; None where a part fails, or is owed something.

        See Revised.revisions.
        """
        only = self._only
        if only is not None and only.trusted:
            expected = [record.revision for _, record in held]
            tier: Any = only.tier
            try:
                answers: Sequence[bytes | None] = tier.revisions([key for key, _ in held], expected)
            except Exception as error:  # noqa: BLE001 - the guard raises what is not the tier's fault
                only.judge("read", error)
                return [None] * len(held)
            if answers is expected:
                return [True] * len(held)
            return [a is not None and a == b for a, b in zip(answers, expected, strict=True)]
        if self._guards is None:
            return [None] * len(held)
        found: dict[Ident, bool] = {}
        shares = self._places.split(held, _of_held)
        asked: dict[int, Asked] = {
            part: ("revisions", ([key for key, _ in own], [record.revision for _, record in own]), {})
            for part, own in shares.items()
        }
        told, failed = self._guards.use("read", asked)
        raise_first(failed)
        for part, revisions in told.items():
            for (key, record), answer in zip(shares[part], revisions, strict=True):
                found[key.ident] = answer is not None and answer == record.revision
        return [found.get(key.ident) for key, _ in held]

    def is_unchanged(self, key: Key, record: Record) -> bool | None:
        """Return what unchanged() does of one record."""
        guards, revision = self._guards, record.revision
        if guards is None or revision is None:
            return self.unchanged([(key, record)])[0]
        guard = self._only or guards.parts[self._places.of(key)[0]]
        has: Callable[[Key, bytes], bool] | None = getattr(guard.tier, "has_revision", None)
        if has is None or not guard.trusted:
            return self.unchanged([(key, record)])[0]
        try:
            return has(key, revision)
        except Exception as error:  # noqa: BLE001 - the guard raises what is not the tier's fault
            guard.judge("read", error)
            return None

    def look(self, key: Key) -> Found:
        """Read one key without a lease; raises Bypassed if what is held there cannot be told."""
        if self._guards is None:
            return self.tier.read([key], lease=False)[0]
        ((guard, own),) = self._by_part([key])
        answers: list[Found] = guard.use("read", partial(guard.tier.read, own, lease=False))
        return answers[0]

    def fill(self, leased: Sequence[tuple[Lease, Record | Alias | None]]) -> None:
        """Fill, and count what came too late. A part that fails, or is owed something, is not filled."""
        if self._guards is None:
            return
        shares = self._places.split(leased, _of_lease)
        done, failed = self._guards.use("filled", {part: ("fill", (own,), {}) for part, own in shares.items()})
        for part, own in shares.items():
            if part in failed:
                # what was loaded is the caller's, whether or not it can be kept
                self.stats.errors += 1
                self._seldom.log(logging.ERROR, "fill", "%s could not be filled", self.name, exc_info=failed[part])
                continue
            wanted = sum(isinstance(value, Record) for _, value in own)
            aliases = sum(isinstance(value, Alias) for _, value in own)
            filled = done.get(part, 0)
            self.stats.fills += min(filled, wanted)
            self.stats.refused += wanted + aliases - filled

    # locking and what follows

    def lock(
        self,
        keys: Sequence[Key],
        seconds: float,
        *,
        without_row_lock: Sequence[Key] = (),
        unreachable: Unreachable | None = None,
    ) -> list[Lock]:
        """See Tier.lock. Keys in a part that cannot be reached get owed locks; or, if refused, StoreUnavailable.

        unreachable is "proceed" or "refuse"; None means what the tier says.
        """
        if self._guards is None:
            return self.tier.lock(keys, seconds, without_row_lock=without_row_lock)
        loose = {key.ident for key in without_row_lock}
        shares = self._places.split(keys, _itself)
        asked: dict[int, Asked] = {
            part: ("lock", (own, seconds), {"without_row_lock": [key for key in own if key.ident in loose]})
            for part, own in shares.items()
        }
        taken: dict[int, list[Lock]] = {}
        bypassed: dict[int, BaseException | None] = {}
        try:
            _, failed = self._guards.use("locked", asked, taken, bypassed)
            raise_first(failed)
            for part, cause in bypassed.items():
                self.may_proceed(unreachable, "lock", cause)
                taken[part] = [Lock(key, owed=True) for key in shares[part]]
        except BaseException:
            self._unlock(taken)
            raise
        return self._places.join(keys, taken)

    @property
    def owes(self) -> bool:
        """True if a part of the tier is still to be told of something."""
        return self._guards is not None and any(guard.owes for guard in self._guards.parts)

    def told_late(self, listener: DebtListener) -> None:
        """Have `listener` hear of every debt that is delivered from now on, as long as it lives."""
        if self._guards is not None:
            self._guards.listeners.add(listener)

    @property
    def error(self) -> Exception | None:
        """What a part of the tier failed with, if one is bypassed now."""
        guards = self._guards.parts if self._guards else ()
        return next((guard.error for guard in guards if guard.error is not None), None)

    def may_proceed(self, unreachable: Unreachable | None, operation: str, cause: BaseException | None) -> None:
        """Raise StoreUnavailable if a part that cannot be reached, for this cause, is a reason to stop."""
        if (unreachable or self._unreachable) == "refuse":
            why = "another thread is just trying it" if cause is None else repr(cause)
            raise StoreUnavailable(
                f'it cannot be reached, and unreachable="refuse" was asked for: {why}', self.name, operation
            ) from cause

    def publish(
        self, locked: Sequence[tuple[Lock, Record | Alias | None]], seconds: float, *, owing: bool = True
    ) -> None:
        """See Tier.publish. What cannot be published is owed; nothing is raised, unless the tier is used alone.

        seconds: how long the locks live with which a debt is delivered. owing=False: what could not be locked is not
        owed either.
        """
        if self._guards is None:
            self.tier.publish(locked)
            return
        shares = self._places.shares(locked)
        if not owing:
            shares = {part: [each for each in own if not each[0].owed] for part, own in shares.items()}
        asked: dict[int, Asked] = {
            part: ("publish", (own,), {})
            for part, own in shares.items()
            if own and not any(lock.owed for lock, _ in own)
        }
        told, failed = self._guards.use("told of a commit", asked)
        for error in failed.values():
            # a value that cannot be kept, say; the commit is durable
            self.stats.errors += 1
            logger.error("%s keeps nothing of this commit", self.name, exc_info=error)
        untold = {self._guards.parts[part]: own for part, own in shares.items() if own and part not in told}
        for guard, own in untold.items():
            guard.owe([Debt(lock.key, lock.contended, seconds) for lock, _ in own])
        for guard in untold:
            guard.settle_now()

    def owe(self, locks: Sequence[Lock], seconds: float) -> None:
        """Have the tier told of these keys later. Raises nothing."""
        if self._guards is None:
            return
        for part, own in self._places.shares((lock, None) for lock in locks).items():
            self._guards.parts[part].owe([Debt(lock.key, lock.contended, seconds) for lock, _ in own])

    def unlock(self, locks: Sequence[Lock]) -> None:
        """See Tier.unlock. In a part that cannot be reached the locks run out by themselves."""
        if self._guards is None:
            self.tier.unlock(locks)
            return
        shares = self._places.shares((lock, None) for lock in locks)
        self._unlock({part: [lock for lock, _ in own] for part, own in shares.items()})

    def _unlock(self, locks: Mapping[int, Sequence[Lock]]) -> None:
        if self._guards is None:
            return
        left = {part: [lock for lock in own if not lock.owed] for part, own in locks.items()}
        asked: dict[int, Asked] = {
            part: ("unlock", (own,), {}) for part, own in left.items() if own and not self._guards.parts[part].is_open
        }
        _, failed = self._guards.use("unlocked", asked, whatever=True)
        for error in failed.values():
            # the caller has an error of its own by now, or has rolled back by choice
            self.stats.errors += 1
            logger.error("%s was not told of a rollback; its locks are left to run out", self.name, exc_info=error)

    def retract(self, keys: Sequence[Key]) -> None:
        """Remove what has misled a reader under these keys, if the tier can be reached."""
        locks = self.lock(keys, RETRACT_SECONDS, without_row_lock=keys, unreachable="proceed")
        self.publish([(lock, None) for lock in locks], RETRACT_SECONDS, owing=False)

    # tiers that cannot lock

    def forget(
        self,
        changes: Sequence[Change],
        epochs: Iterable[Key],
        keys: Sequence[Key],
        unreachable: Unreachable | None = None,
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

    def drop(self, keys: Sequence[Key], seconds: float, unreachable: Unreachable | None = None) -> None:
        """Have a tier that cannot lock drop what it holds under these keys."""
        for guard, own in self._by_part(keys):
            try:
                guard.use("told to forget", partial(self.tier.drop, own))  # type: ignore[attr-defined]
            except Bypassed as bypassed:
                self.may_proceed(unreachable, "invalidate", bypassed.__cause__)
                guard.owe([Debt(key, False, seconds) for key in own])

    def clear(self, unreachable: Unreachable | None = None) -> None:
        """Have the tier forget everything."""
        clear = getattr(self.tier, "clear", None)
        if clear is None:
            raise UnsupportedOperation(f"{self.name} cannot be cleared")
        if self._guards is None:
            clear()
            return
        bypassed: dict[int, BaseException | None] = {}
        _, failed = self._guards.use(
            "cleared", dict.fromkeys(range(len(self._guards.parts)), ("clear", (), {})), bypassed=bypassed
        )
        refused: StoreUnavailable | None = None
        for part, cause in bypassed.items():
            try:
                self.may_proceed(unreachable, "clear", cause)
            except StoreUnavailable as error:
                refused = error
            else:
                self._guards.parts[part].owe([Debt(None, False, 0.0)])
        raise_first(failed)
        if refused is not None:
            raise refused

    def _by_part(
        self, things: Sequence[T], key_of: Callable[[T], Key] = _itself
    ) -> Sequence[tuple[Guard, Sequence[T]]]:
        """Split a batch by the parts of the tier that keep its keys."""
        if self._only is not None:
            return ((self._only, things),) if things else ()
        if self._guards is None:
            return ()
        return [(self._guards.parts[part], own) for part, own in self._places.split(things, key_of).items()]

    # what may be kept

    def keeps(self, key: Key, record: Record) -> bool:
        """True if this layer may keep `record` under `key`: unless polymorphic, no Car as an Automobile."""
        if record.is_absent:
            return self.keeps_absent
        return record.spec.mapped or self.polymorphic or key.spec.klass is record.spec.klass

    def deadline(self, obj: Any) -> float | None:
        """Return when `obj` expires here by the user's rule or the chain's bound; raises InvalidLifetime."""
        now = self._clock()
        return self._lifetimes.deadline(obj, now) if self._lifetimes.configured else now + self.bound

    def bounded(self, record: Record) -> Record | None:
        """Return `record` as this layer may keep it, or None if it may not: expired, or its lifetime cannot be told."""
        if not self._lifetimes.configured:
            return self.until(record, self._clock() + self.bound)
        if self._lifetimes.asks_object and record.is_absent:
            own: float | None = self._clock() + self.bound
        else:
            try:
                own = self.deadline(record.spec.materialise(record.value) if self._lifetimes.asks_object else None)
            except InvalidLifetime:
                self.stats.errors += 1
                klass = record.spec.klass.__qualname__
                self._seldom.log(logging.ERROR, klass, "%s keeps no %s", self.name, klass, exc_info=True)
                return None
        return self.until(record, own)

    def until(self, record: Record, deadline: float | None) -> Record | None:
        """Return `record` with the earlier of its own deadline and this one, or None if that has passed."""
        deadline = deadline if record.deadline is None else earlier(deadline, record.deadline)
        if deadline is not None and deadline <= self._clock():
            return None
        if deadline == record.deadline:
            return record
        return Record(record.spec, record.value, deadline, record.fillable, record.revision)
