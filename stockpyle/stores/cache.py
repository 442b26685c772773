"""The six verbs on top of a tier."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from stockpyle.classes import spec_of
from stockpyle.coherence.guards import Guards
from stockpyle.coherence.layers import Layer
from stockpyle.coherence.reader import fetch_each
from stockpyle.coherence.writer import LOCK_SECONDS, drop
from stockpyle.keys import Key, KeySpec
from stockpyle.lifetimes import Lifetime, LifetimeCallback, LifetimePolicy
from stockpyle.protocols import Change, Outcome, Pending
from stockpyle.records import ABSENT, Alias, Found, Lease, Lock, Record, materialised
from stockpyle.stores._writing import WritingStore


class CacheStore(WritingStore):
    """The six verbs on top of a Tier: a subclass brings read, fill, lock, publish and unlock.

    Used alone it is a keyed store of objects. In a chain it is a tier, or the source of plain classes if no store
    below it takes them; of a mapped class it never is the source.

    polymorphic: keep a plain object also under its base classes that declare keys, so that it is found as one
    of them. lifetime_cb: called with an object, returns how long it may be kept (seconds, timedelta, datetime,
    None); lifetime is the same for all. clock: seconds since the epoch.
    """

    supports = frozenset({"plain", "mapped", "tier", "expiry", "polymorphic"})

    shared = False
    """True if other processes see this tier too."""

    chain_lifetime = 60.0
    """Seconds that a chain lets a record live here, if the user did not say."""

    revised = False
    """True if it tells revisions, see stockpyle.protocols.Revised."""

    lock_seconds = LOCK_SECONDS

    def __init__(
        self,
        polymorphic: bool = False,
        lifetime_cb: LifetimeCallback | None = None,
        *,
        lifetime: Lifetime = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.guards = Guards(self)
        self._alone: dict[bool, Layer] = {}
        """What reads it when no chain does: with revisions, or without."""
        self.polymorphic = polymorphic
        self.lifetimes = LifetimePolicy(lifetime_cb, lifetime)
        self.clock = clock

    # the tier, which a subclass brings

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """See Tier.read."""
        raise NotImplementedError

    def fill(self, leased: Sequence[tuple[Lease, Record | Alias | None]]) -> int:
        """See Tier.fill."""
        raise NotImplementedError

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> list[Lock]:
        """See Tier.lock."""
        raise NotImplementedError

    def publish(self, locked: Sequence[tuple[Lock, Record | Alias | None]]) -> None:
        """See Tier.publish."""
        raise NotImplementedError

    def unlock(self, locks: Sequence[Lock]) -> None:
        """See Tier.unlock."""
        raise NotImplementedError

    # reading

    def _fetch(self, klass: type, keys: Sequence[Mapping[str, Any]]) -> list[Any]:
        spec = spec_of(klass)
        found = self._records(spec.keys(keys))
        missing = found.count(None)
        self.stats.hits += len(found) - missing
        self.stats.misses += missing
        return materialised(found)

    def _layer(self, *, revised: bool) -> Layer:
        layer = self._alone.get(revised)
        if layer is None:
            layer = self._alone[revised] = Layer(self, counted=False, revised=revised)
        return layer

    def _records(self, keys: Sequence[Key | None], *, revised: bool = False) -> list[Record | None]:
        layer = self._layer(revised=revised)
        known = iter(fetch_each([layer], None, [key for key in keys if key is not None]))
        return [None if key is None else next(known) for key in keys]

    def clear(self) -> None:
        """Forget every object."""
        raise NotImplementedError

    def invalidate(self, klass: type, key: Mapping[str, Any] | None = None) -> None:
        """Forget one object, or all of a class, because somebody else changed them."""
        spec = spec_of(klass)
        target = spec.epoch if key is None else spec.key(key)
        if target is not None:
            drop(Layer(self, counted=False), [target], self.lock_seconds)

    # the source of plain objects

    def load(self, klass: type, keys: Sequence[Key]) -> list[Record]:
        """See Source.load."""
        records = self._records(keys, revised=self.revised)
        return [record or Record(spec_of(klass), ABSENT) for record in records]

    @contextmanager
    def write(self, puts: Sequence[Any], deletes: Sequence[Any]) -> Iterator[Pending]:
        """See Source.write."""
        now = self.clock()
        stored = [(*self._entries(obj), self.lifetimes.deadline(obj, now)) for obj in puts]
        values = [
            Record(spec, spec.dehydrate(obj), deadline) for (spec, _, deadline), obj in zip(stored, puts, strict=True)
        ]
        removed = [self._entries(obj) for obj in deletes]
        # nothing keeps two writers of one object apart, so no key is protected
        changes = [
            Change(spec, (), keys[0][1], keys[0][1], obj) for (spec, keys, _), obj in zip(stored, puts, strict=True)
        ]
        changes += [
            Change(spec, keys[0][1], (), keys[0][1], obj) for (spec, keys), obj in zip(removed, deletes, strict=True)
        ]
        pending = Pending(changes)
        kept: dict[Key, Record | Alias] = {}
        for (_, keys, deadline), record in zip(stored, values, strict=True):
            for _, (identity, *alternates) in keys:
                kept.update({identity: record, **dict.fromkeys(alternates, Alias(identity, deadline))})
        self._check(kept)
        yield pending
        # A deleted object's other keys may be another object's by now: their aliases go with the record, or mislead
        # to nothing.
        records: dict[Key, Record | None] = {}
        aliases: dict[Key, Alias] = {}
        for (spec, keys), obj in zip(removed, deletes, strict=True):
            for owner, own_keys in keys:
                if owner is spec or self._holds(own_keys[0], obj):
                    records[own_keys[0]] = None
        for (spec, keys, deadline), record in zip(stored, values, strict=True):
            for _, (identity, *alternates) in keys:
                if records.get(identity) is not None:
                    aliases = {key: alias for key, alias in aliases.items() if alias.identity != identity}
                records[identity] = record
                aliases.update({key: Alias(identity, deadline) for key in alternates})
            self.seen.add(spec)
        # what fails in the middle may have happened, and may still happen where only the answer is late
        pending.outcome = Outcome.UNKNOWN
        self._replace({**records, **aliases})
        pending.outcome = Outcome.COMMITTED

    def _check(self, values: Mapping[Key, Record | Alias]) -> None:
        """Raise for a value that cannot be kept here, before anything is written."""

    def _replace(self, values: Mapping[Key, Record | Alias | None]) -> None:
        """Keep these values, records first, whatever is there now."""
        locks = self.lock(list(values), self.lock_seconds)
        self.publish([(lock, values[lock.key]) for lock in locks])

    def _entries(self, obj: Any) -> tuple[KeySpec, list[tuple[KeySpec, tuple[Key, ...]]]]:
        """The object's own spec, and its keys as an object of its class and of each base it is kept under."""
        spec = spec_of(type(obj))
        owners = (spec, *spec.bases) if self.polymorphic else (spec,)
        return spec, [(owner, tuple(owner.keys_of(obj))) for owner in owners]

    def _holds(self, identity: Key, obj: Any) -> bool:
        # a Truck put later under the Automobile's key is not the Car that is now deleted
        (found,) = self.read([identity], lease=False)
        return isinstance(found, Record) and type(found.value) is type(obj)
