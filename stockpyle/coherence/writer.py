"""The writers' half of the protocol: lock every key in every tier before the commit, publish or unlock after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from stockpyle.coherence.backplane import Backplane
from stockpyle.coherence.guards import Bypassed
from stockpyle.coherence.layers import Layer, Unreachable
from stockpyle.coherence.logs import logger
from stockpyle.coherence.parts import Value
from stockpyle.exceptions import StoreUnavailable
from stockpyle.keys import Ident, Key, KeySpec
from stockpyle.protocols import Change
from stockpyle.records import Alias, Lock, Record

LOCK_SECONDS = 30.0
"""How long a lock lives whose writer never comes back."""


class Writer:
    """One commit, as the tiers see it: lock(), then exactly one of publish(), unlock() and leave().

    changes are the objects that the commit writes; epochs are whole classes that it may have changed, which is
    all that is known of them. unreachable: see Layer.lock; what a tier could not be told of before the commit is owed
    to it as soon as the commit has happened. backplane: who tells other processes' memory, when all tiers are done.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        changes: Sequence[Change],
        epochs: Iterable[Key] = (),
        lock_seconds: float = LOCK_SECONDS,
        unreachable: Unreachable | None = None,
        backplane: Backplane | None = None,
    ) -> None:
        self._unreachable = unreachable
        self.backplane = backplane
        self._announced: bytes | None = None
        self._untold = False
        self._found: dict[Ident, Key] = {}
        """Keys that nobody knew of before the commit."""
        self._layers = layers
        self._changes = changes
        self._epochs = {key.ident: key for key in epochs}
        self._seconds = lock_seconds
        self._locks: list[tuple[Layer, list[Lock]]] = []
        self._keys: dict[Ident, Key] | None = None
        self._unprotected: set[Ident] = {
            key.ident for change in changes if change.unprotected for key in (*change.unprotected, *_base_keys(change))
        }

    @property
    def locked(self) -> bool:
        """True between lock() and what ends it."""
        return bool(self._locks)

    @property
    def publishable(self) -> list[Key]:
        """The identities whose committed records may be published: those that a row's lock protected."""
        found: dict[Ident, Key] = {}
        if all(lock.owed for _, locks in self._locks for lock in locks):
            return []
        unprotected = self._unprotected
        for change in self._changes:
            for key in change.identities if change.reload else ():
                if key.spec.cacheable and not (unprotected and key.ident in unprotected):
                    found[key.ident] = key
        return list(found.values())

    def lock(self, *, late: bool = False) -> None:
        """Lock all keys, one call a tier. If a tier refuses, the others are unlocked and its error raised.

        late: the commit has already happened, so that there is nothing left to refuse: what fails is owed, even if it
        raises.
        """
        unreachable: Unreachable | None = "proceed" if late else self._unreachable
        self._untold = True
        for layer in self._layers:
            keys = self._keys_for(layer)
            if not keys:
                continue
            loose: list[Key] = []
            if self._unprotected or self._epochs:
                loose = [key for ident, key in keys.items() if ident in self._unprotected or key.is_epoch]
            wanted = list(keys.values())
            try:
                if layer.forgets:
                    layer.forget(self._changes, self._epochs.values(), wanted, unreachable)
                    self._locks.append((layer, []))
                else:
                    locks = layer.lock(wanted, self._seconds, without_row_lock=loose, unreachable=unreachable)
                    self._locks.append((layer, locks))
            except BaseException:
                if late:
                    self._owe_all()
                else:
                    self.unlock()
                raise

    def announce(self, connection: Any) -> None:
        """Inside the transaction that is about to commit, tell the backplane of it, if it is for that.

        connection is the transaction's, None if there is none. StoreUnavailable is raised if it cannot be told.
        """
        if self.backplane is not None and self.backplane.in_transaction and connection is not None:
            keys = self._keys_for().values()
            self._announced = self.backplane.announce(connection, keys) if keys else None

    def owe_beforehand(self) -> None:
        """Right before a commit of whose end one may hear late: owe it already where it could not be locked."""
        for layer, locks in self._locks:
            layer.owe([replace(lock, contended=True) for lock in locks if lock.owed], self._seconds)

    def _owe_all(self) -> None:
        self._locks = []
        for layer in self._layers:
            layer.owe([Lock(key) for key in self._keys_for(layer).values()], self._seconds)
        self._tell()

    def _tell(self, *, settled: bool = False) -> None:
        """When all tiers are done: tell the others, or that nothing is left of what they were told beforehand."""
        untold, self._untold = self._untold, False
        if self.backplane is None or not untold:
            return
        if settled and self._announced is not None and not any(layer.owes for layer in self._layers):
            self.backplane.tell(self._found.values())
            self.backplane.settled(self._announced)
        else:
            self.backplane.tell({**self._keys_for(), **self._found}.values())

    def publish(
        self,
        records: Mapping[Ident, Record] = {},  # never changed
        bounded: Callable[[Layer, Record], Record | None] = Layer.bounded,
    ) -> None:
        """After the commit: replace our locks by `records` (by identity) and the aliases to them, remove the others.

        Goes on if a tier fails: the commit is durable, and the tier is told of it later.
        """
        self._each(lambda layer, locks: self._publish(layer, locks, records, bounded), settled=True)

    def _publish(
        self,
        layer: Layer,
        locks: list[Lock],
        records: Mapping[Ident, Record],
        bounded: Callable[[Layer, Record], Record | None],
    ) -> None:
        values, strays = self._values_for(layer, {lock.key.ident: lock for lock in locks}, records, bounded)
        if strays:
            self._found.update((key.ident, key) for key in strays)
            # owed from here on, whatever interrupts it
            self._locks[-1] = (layer, [*locks, *(Lock(key, owed=True) for key in strays)])
            locks = [*locks, *layer.lock(strays, self._seconds, without_row_lock=strays, unreachable="proceed")]
            self._locks[-1] = (layer, locks)
        first: list[tuple[Lock, Value]] = []
        rest: list[tuple[Lock, Value]] = []
        for lock in locks:
            value = values.get(id(lock))
            (first if isinstance(value, Record) else rest).append((lock, value))
        layer.publish(first + rest, self._seconds)

    def unlock(self) -> None:
        """After a definite rollback: remove our locks. Nothing is owed."""
        for layer, locks in reversed(self._locks):
            if locks:
                layer.unlock(locks)
        self._locks = []
        self._untold = False

    def leave(self) -> None:
        """After a commit whose outcome is unknown: our locks stay until they run out, anything else is removed."""
        self._each(
            lambda layer, locks: layer.publish([(replace(lock, contended=True), None) for lock in locks], self._seconds)
        )

    def _each(self, end: Callable[[Layer, list[Lock]], None], *, settled: bool = False) -> None:
        """End the commit in every tier, the slowest first; whatever happens, each is told of it now or owed it."""
        try:
            while self._locks:
                layer, locks = self._locks[-1]
                if layer.forgets:
                    keys = list(self._keys_for(layer).values())
                    layer.forget_again(self._changes, self._epochs.values(), keys, self._seconds)
                else:
                    self._try(end)
                self._locks.pop()
        finally:
            for layer, locks in self._locks:
                layer.owe(locks or [Lock(key) for key in self._keys_for(layer).values()], self._seconds)
            self._locks = []
            self._tell(settled=settled)

    def _try(self, end: Callable[[Layer, list[Lock]], None]) -> None:
        layer, locks = self._locks[-1]
        try:
            end(layer, locks)
        except Exception:  # a durable commit must not look like a failed one, whatever is in it
            layer.stats.errors += 1
            logger.exception("%s was not told of a commit, but will be", layer.name)
            layer.owe(self._locks[-1][1], self._seconds)

    def _keys_for(self, layer: Layer | None = None) -> dict[Ident, Key]:
        # all layers: also where a tier keeps no Car as an Automobile it may keep that there is no such Automobile
        if self._keys is None:
            keys = dict(self._epochs)
            for change in self._changes:
                for key in change.keys:
                    keys[key.ident] = key
                if change.obj is not None:
                    keys.update((key.ident, key) for key in _base_keys(change))
            self._keys = keys
        return self._keys

    def _values_for(
        self,
        layer: Layer,
        locked: Mapping[Ident, Lock],
        records: Mapping[Ident, Record],
        bounded: Callable[[Layer, Record], Record | None],
    ) -> tuple[dict[int, Value], list[Key]]:
        """What is put in the places of a layer's locks, by the locks' id(); and the strays."""
        values: dict[int, Value] = {}
        strays: dict[Ident, Key] = {}
        fails = False
        unprotected = self._unprotected
        for ident, record in records.items():
            kept = None
            if record.fillable and ident in locked and not fails and not (unprotected and ident in unprotected):
                try:
                    kept = bounded(layer, record)
                except Exception:  # a user's load event, say; the locks must go all the same
                    layer.stats.errors += 1
                    logger.exception("%s keeps nothing of this commit", layer.name)
                    fails = True
            if record.is_absent:
                if kept is not None:
                    values[id(locked[ident])] = kept
                continue
            own = record.spec.idents_in(record.value)
            locks = [locked.get(each) for each in own if each is not None]
            if None in locks or own[0] is None:
                strays.update((key.ident, key) for key in self._strays(locked, record))
            if kept is None:
                continue
            _lead_to(kept, record.spec, own, locked, values)
            if layer.polymorphic:
                # the base's own keys: a tier that finds the alias must see an identity key of the base in it
                for base in record.spec.bases:
                    _lead_to(kept, base, base.idents_in(record.value), locked, values)
        return {} if fails else values, list(strays.values())

    @staticmethod
    def _strays(locked: Mapping[Ident, Lock], record: Record) -> list[Key]:
        """The keys that the database, a trigger for one, has given to what was written, and that nobody knew of."""
        return [key for key in record.spec.keys_in(record.value) if key.ident not in locked]


def _lead_to(
    record: Record,
    spec: KeySpec,
    idents: Sequence[Ident | None],
    locked: Mapping[Ident, Lock],
    values: dict[int, Value],
) -> None:
    """Put a record in the place of the lock of its identity, and aliases of that in those of its other keys."""
    first, *others = idents
    lock = None if first is None else locked.get(first)
    if lock is None:
        return
    values[id(lock)] = record
    identity = lock.key if lock.key.spec is spec else Key(spec, spec.identity, lock.key.values)
    alias = Alias(identity, record.deadline)
    for ident in others:
        other = None if ident is None else locked.get(ident)
        if other is not None:
            values[id(other)] = alias


def drop(
    layer: Layer, keys: Iterable[Key], seconds: float = LOCK_SECONDS, unreachable: Unreachable | None = None
) -> None:
    """Remove what a tier holds under these keys, and the object that an alternate one leads to.

    A tier that cannot be reached is owed it, or raises StoreUnavailable when all that can be is removed.
    """
    if layer.forgets:
        layer.drop(list(keys), seconds, unreachable)
        return
    dropped: dict[Ident, Key] = {}
    left = [each for key in keys for each in (related_epochs(key) if key.is_epoch and layer.polymorphic else [key])]
    while left:
        key = left.pop()
        if key.ident in dropped:
            continue
        dropped[key.ident] = key
        if key.is_epoch:
            continue
        try:
            held = layer.look(key)
        except Bypassed:
            if layer.polymorphic or not key.is_identity:
                # nobody can tell what the key leads to
                left += related_epochs(key) if layer.polymorphic else [key.spec.epoch]
            continue
        if isinstance(held, Alias):
            left.append(held.identity)
        elif isinstance(held, Record) and not held.is_absent:
            specs = (held.spec, *held.spec.bases) if layer.polymorphic else (held.spec,)
            identities = [spec.key_in(held.value, spec.identity) for spec in specs]
            left += [identity for identity in identities if identity is not None]
    wanted = list(dropped.values())
    locks = layer.lock(wanted, seconds, without_row_lock=wanted, unreachable="proceed")
    refused = False
    try:
        if any(lock.owed for lock in locks):
            layer.may_proceed(unreachable, "invalidate", layer.error)
    except StoreUnavailable:
        refused = True
        raise
    finally:
        layer.publish([(lock, None) for lock in locks], seconds, owing=not refused)


def related_epochs(key: Key) -> list[Key]:
    """The epochs under which a polymorphic tier may hold objects of a class: those of subclasses and bases, too."""
    own = [key.spec, *key.spec.subclasses()]
    return [spec.epoch for each in own for spec in (each, *each.bases)]


def _base_keys(change: Change) -> list[Key]:
    if change.obj is None or change.spec.mapped:
        return []
    return [key for base in change.spec.bases for key in base.keys_of(change.obj)]
