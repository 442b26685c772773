"""Stores that know only the six verbs, as layers of a chain.

Such a store cannot compare and set, so what it holds may be older than the source, for as long as its entries live.
Promise: it is told to delete what a commit changes, right before and right after; everything else is bounded by its
lifetimes.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from stockpyle.classes import spec_of
from stockpyle.coherence.layers import DEFAULT_BOUND
from stockpyle.coherence.logs import logger
from stockpyle.exceptions import StoreError, UnsupportedOperation
from stockpyle.keys import Key, KeySpec
from stockpyle.lifetimes import LifetimePolicy, earlier
from stockpyle.protocols import Change, Outcome, Pending, Store
from stockpyle.records import ABSENT, MISS, Alias, Found, Lease, Lock, Record
from stockpyle.stats import Stats


def batch_get(store: Store, keys: Sequence[Key]) -> list[Record | None]:
    """Ask a store for keys of any classes, one call a class."""
    found: dict[Key, Any] = {}
    for klass in dict.fromkeys(key.spec.klass for key in keys):
        own = [key for key in keys if key.spec.klass is klass]
        answers = store.batch_get(klass, [key.as_dict() for key in own])
        if not isinstance(answers, Sequence) or len(answers) != len(own):
            raise _wrong_answer(store, f"{answers!r} for {len(own)} keys: it must be a list with an entry for each")
        for key, answer in zip(own, answers, strict=True):
            if answer is not None and not isinstance(answer, klass):
                raise _wrong_answer(store, f"{answer!r} for {key.as_dict()}, which is no {klass.__qualname__}")
            found[key] = answer
    return [None if found[key] is None else record_of(found[key]) for key in keys]


def _wrong_answer(store: Store, what: str) -> StoreError:
    return StoreError(f"it has answered {what}", str(getattr(store, "name", type(store).__name__)), "batch_get")


def record_of(obj: Any) -> Record:
    """Return the record of an object that a store handed out."""
    spec = spec_of(type(obj))
    return Record(spec, spec.dehydrate(obj))


class VerbTier:
    """A store of six verbs as an upper layer: filled on a miss, told to delete before and after a commit."""

    keeps_absent = False

    def __init__(self, store: Store) -> None:
        self.store = store
        self.stats = Stats.of(store)
        self.lifetimes = LifetimePolicy.of(store)
        self.clock: Callable[[], float] = time.time
        if callable(getattr(store, "clock", None)):
            self.clock = store.clock  # type: ignore[attr-defined]
        self.chain_lifetime = DEFAULT_BOUND
        self.polymorphic: bool = getattr(store, "polymorphic", False)
        self._takes_lifetime = "lifetime" in inspect.signature(store.batch_put).parameters

    @property
    def name(self) -> str:
        """What logs call this layer."""
        return str(getattr(self.store, "name", type(self.store).__name__))

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """Hand out what the store has; a miss may always be filled."""
        found = batch_get(self.store, keys)
        return [record or (Lease(key) if lease else MISS) for key, record in zip(keys, found, strict=True)]

    def fill(self, leased: Sequence[tuple[Lease, Record | Alias | None]]) -> int:
        """Put the objects, under all their keys at once."""
        records = [value for _, value in leased if isinstance(value, Record)]
        self._put(records)
        return sum(value is not None for _, value in leased)

    def _put(self, records: Sequence[Record]) -> None:
        if not records:
            return
        objs = [record.spec.materialise(record.value) for record in records]
        deadline: float | None = None
        for record in records:
            deadline = earlier(deadline, record.deadline)
        if self._takes_lifetime and deadline is not None:
            self.store.batch_put(objs, lifetime=deadline - self.clock())  # type: ignore[call-arg]
        else:
            self.store.batch_put(objs)

    def forget(self, changes: Sequence[Change], epochs: Iterable[Key]) -> None:
        """Delete everything that these changes touch, in one call."""
        objs = [obj for change in changes for obj in _touched(change)]
        if objs:
            self.store.batch_delete(objs)
        for epoch in epochs:
            try:
                self._invalidate(epoch.spec.klass)
            except UnsupportedOperation:
                self.stats.errors += 1
                logger.warning("%s cannot forget all objects of %s", self.name, epoch.spec.klass.__qualname__)

    def _invalidate(self, klass: type) -> None:
        invalidate = getattr(self.store, "invalidate", None)
        if invalidate is None:
            raise UnsupportedOperation(f"{self.name} cannot forget all objects of {klass.__qualname__}")
        invalidate(klass)

    def drop(self, keys: Sequence[Key]) -> None:
        """Delete what is held under these keys, because somebody else changed it."""
        for epoch in [key for key in keys if key.is_epoch]:
            self._invalidate(epoch.spec.klass)
        found = batch_get(self.store, [key for key in keys if not key.is_epoch])
        objs = [record.spec.materialise(record.value) for record in found if record is not None]
        if objs:
            self.store.batch_delete(objs)

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> list[Lock]:
        """Nothing can be locked here; see forget."""
        return []

    def publish(self, locked: Sequence[tuple[Lock, Record | Alias | None]]) -> None:
        """Nothing can be published here; see forget."""

    def unlock(self, locks: Sequence[Lock]) -> None:
        """Nothing was locked."""


def _touched(change: Change) -> list[Any]:
    if change.obj is not None and not change.spec.mapped:
        return [change.obj]
    states = [state for state in (change.before, change.after) if state]
    if len(states) == 2 and [key.ident for key in states[0]] == [key.ident for key in states[1]]:
        states = states[:1]
    return [_stand_in(change.spec, state) for state in states]


def _stand_in(spec: KeySpec, keys: Iterable[Key]) -> Any:
    """An object with these keys and nothing else, for a store that deletes by object."""
    values: dict[str, Any] = {name: None for definition in spec.definitions for name in definition.attributes}
    for key in keys:
        values.update(key.as_dict())
    return spec.stand_in(values)


class VerbSource:
    """A store of six verbs as the last of a chain."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lifetimes = LifetimePolicy.of(store)

    def accepts(self, klass: type) -> bool:
        """True for what the store says, else for every class that has keys."""
        accepts = getattr(self.store, "accepts", None)
        return True if accepts is None else bool(accepts(klass))

    def load(self, klass: type, keys: Sequence[Key]) -> list[Record]:
        """See Source.load."""
        return [
            record or Record(key.spec, ABSENT) for key, record in zip(keys, batch_get(self.store, keys), strict=True)
        ]

    @contextmanager
    def write(self, puts: Sequence[Any], deletes: Sequence[Any]) -> Iterator[Pending]:
        """See Source.write; what the store does is durable, or not, when its verbs return.

        Nothing keeps two writers of one object apart meanwhile, so no key is protected.
        """
        changes, epochs = [], []
        for obj in puts:
            spec = spec_of(type(obj))
            if spec.mapped and spec.key_of(obj, spec.identity) is None:
                # the store's database gives it one, under which somebody may have found nothing before
                epochs.append(spec.epoch)
            else:
                keys = tuple(spec.keys_of(obj))
                changes.append(Change(spec, (), keys, keys, obj))
        for obj in deletes:
            spec = spec_of(type(obj))
            keys = tuple(spec.keys_of(obj))
            changes.append(Change(spec, keys, (), keys, obj))
        for obj in puts:
            self._lifetimes.deadline(obj, 0.0)
        pending = Pending(changes, epochs)
        yield pending
        pending.outcome = Outcome.UNKNOWN
        if deletes:
            self.store.batch_delete(deletes)
        if puts:
            self.store.batch_put(puts)
        pending.outcome = Outcome.COMMITTED
