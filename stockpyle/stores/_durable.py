"""A store that keeps objects in a database of somebody else's: a source, and a store to be used alone.

Each object is kept once, as bytes, under the text of its identity; the texts of its other keys lead to it. Which of
them do is decided by the last put, so that no key leads to two objects, and none to where its object is no more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from stockpyle.classes import spec_of
from stockpyle.codecs import Codec, RecordCodec
from stockpyle.coherence.logs import Seldom
from stockpyle.coherence.outcomes import committed
from stockpyle.exceptions import DecodeError, EncodeError
from stockpyle.keys import Ident, Key, KeySpec, chosen_prefix
from stockpyle.lifetimes import Lifetime, LifetimeCallback, LifetimePolicy
from stockpyle.protocols import Change, Pending
from stockpyle.records import ABSENT, Record
from stockpyle.stores._writing import WritingStore
from stockpyle.views.collection import Values
from stockpyle.views.scanning import Scan
from stockpyle.views.selection import Search

T = TypeVar("T")

NO_EPOCH = bytes(16)
"""What is durable has no generations."""


PAGE = 500
"""How many objects are listed at a time."""


@dataclass(slots=True)
class Entry:
    """One object as it is kept: all its keys, that of its identity first, its class, its bytes and its deadline."""

    keys: tuple[str, ...]
    kind: str
    value: bytes
    deadline: float | None


@dataclass(slots=True)
class Batch:
    """What is written at once: objects to be kept, and objects to be removed, by the text of their identity.

    No key leads to two of the objects. has_others is False if none of the classes has a key but its identity.
    """

    puts: dict[str, Entry] = field(default_factory=dict)
    deletes: dict[str, None] = field(default_factory=dict)
    has_others: bool = False

    def put(self, entry: Entry, owners: dict[str, str]) -> None:
        """Add an object, which takes its keys from the objects before it."""
        own = entry.keys[0]
        self.deletes.pop(own, None)
        self.puts[own] = entry
        for text in entry.keys:
            other = self.puts.get(owners.get(text, own))
            if text in self.puts and text != own:
                # a plain object of the base has this very identity
                del self.puts[text]
            elif other is not None and other is not entry:
                other.keys = tuple(each for each in other.keys if each != text)
            owners[text] = own

    def delete(self, own: str) -> None:
        """Add an object that is not to be there."""
        self.puts.pop(own, None)
        self.deletes[own] = None


@dataclass(slots=True)
class Held:
    """What a key has led to: the text of the object's identity, its class, and its bytes."""

    own: str
    kind: str
    value: bytes


class DurableStore(WritingStore, abstract=True):
    """The six verbs, and a chain's source of plain classes, for a store that can find entries by any of their keys.

    A subclass brings _find, _list, _writing and _forget_kinds. The options are those of every store.
    """

    supports = frozenset({"plain", "mapped", "shared", "expiry", "polymorphic"})

    shared = True
    """Other processes see these objects too."""

    serialises = False
    """True if a writer of an object excludes, up to its commit, all others of the same object."""

    def __init__(
        self,
        polymorphic: bool,
        lifetime_cb: LifetimeCallback | None,
        lifetime: Lifetime,
        prefix: str | None,
        namespace: str | None,
        codec: Codec | None,
        allow_pickle: bool,
        clock: Callable[[], float] | None,
    ) -> None:
        super().__init__()
        self.prefix = chosen_prefix(prefix, namespace)
        self.polymorphic = polymorphic
        self.lifetimes = LifetimePolicy(lifetime_cb, lifetime)
        self.clock = clock or time.time
        self._value_codec = codec
        self._codec = RecordCodec(codec, allow_pickle=allow_pickle, prefix=self.prefix)
        self._seldom = Seldom()

    # what a subclass brings

    def _find(self, texts: Sequence[str], *, identities: bool) -> tuple[dict[str, Held], bool]:
        """Return what the keys with these texts lead to and has not expired, and if the answer is the latest state.

        identities: all of them are identities of objects that are kept under no base class.
        """
        raise NotImplementedError

    def _writing(self, batch: Batch) -> AbstractContextManager[Callable[[], None]]:
        """Begin to write; what is yielded makes it durable. An exception inside undoes it."""
        raise NotImplementedError

    def _list(self, kinds: Sequence[str]) -> Iterator[Held]:
        """Yield all objects of these classes that have not expired."""
        raise NotImplementedError

    def _forget_kinds(self, kinds: Sequence[str]) -> None:
        """Remove all objects of these classes."""
        raise NotImplementedError

    def _now(self) -> float:
        """Return the time by which lifetimes are reckoned."""
        return self.clock()

    def _failed_for_sure(self, error: Exception) -> bool:
        """True if a write that failed when it was to be made durable certainly did not happen."""
        return False

    # writing

    @contextmanager
    def write(self, puts: Sequence[Any], deletes: Sequence[Any]) -> Iterator[Pending]:
        """See Source.write."""
        batch, changes = self._planned(puts, deletes)
        pending = Pending(changes)
        with self._writing(batch) as commit, committed(pending, commit, self._failed_for_sure):
            yield pending
        for change in changes:
            if change.after:
                self.seen.add(change.spec)

    def _planned(self, puts: Sequence[Any], deletes: Sequence[Any]) -> tuple[Batch, list[Change]]:
        """Return what is to be written, before anything is: whatever cannot be kept raises here."""
        batch, changes = Batch(), []
        for obj in deletes:
            spec = self._spec(obj)
            keys = tuple(spec.keys_of(obj))
            changes.append(Change(spec, keys, (), keys, obj))
            batch.delete(keys[0].text(self.prefix))
            batch.has_others |= self._has_others(spec)
        ready = []
        for obj in puts:
            spec = self._spec(obj)
            keys = tuple(spec.keys_of(obj))
            also = [key for base in (spec.bases if self.polymorphic else ()) for key in base.keys_of(obj)]
            # an object of a subclass may be, in a tier above, what its base's key leads to, and has a row of its own
            changes.append(Change(spec, (), keys, () if self.serialises and not spec.bases else keys, obj))
            batch.has_others |= self._has_others(spec)
            ready.append((spec, obj, keys[0], tuple(key.text(self.prefix) for key in (*keys, *also))))
        now = self._now() if ready and self.lifetimes.configured else self.clock()
        owners: dict[str, str] = {}
        for spec, obj, identity, texts in ready:
            deadline = self.lifetimes.deadline(obj, now)
            if deadline is not None and deadline <= now:
                batch.delete(texts[0])
                continue
            record = Record(spec, spec.dehydrate(obj), deadline)
            _, data = self._codec.encode(identity, record, NO_EPOCH, now)
            batch.put(Entry(texts, self._kind(spec), data, deadline), owners)
        return batch, changes

    def _spec(self, obj: Any) -> KeySpec:
        spec = spec_of(type(obj))
        spec.check_portable(self.name)
        return spec

    def _has_others(self, spec: KeySpec) -> bool:
        return len(spec.definitions) > 1 or bool(self.polymorphic and spec.bases)

    def _kind(self, spec: KeySpec) -> str:
        return spec.epoch.text(self.prefix)

    # reading

    def load(self, klass: type, keys: Sequence[Key]) -> list[Record]:
        """See Source.load."""
        if not keys:
            return []
        found, latest, spoilt = self._records(keys)
        records = []
        for key in keys:
            record = found.get(key.ident) or Record(spec_of(klass), ABSENT, fillable=key.ident not in spoilt)
            record.fillable = record.fillable and latest
            records.append(record)
        return records

    def _fetch(self, klass: type, keys: Sequence[Mapping[str, Any]]) -> list[Any]:
        spec = spec_of(klass)
        asked = [spec.key(key) for key in keys]
        wanted = [key for key in asked if key is not None]
        found = self._records(wanted)[0] if wanted else {}
        records = [None if key is None else found.get(key.ident) for key in asked]
        hits = sum(record is not None for record in records)
        self.stats.hits += hits
        self.stats.misses += len(records) - hits
        for loaded in {record.spec for record in found.values()}:
            self.seen.add(loaded)
        return [None if record is None else record.spec.materialise(record.value) for record in records]

    def _records(self, keys: Iterable[Key]) -> tuple[dict[Ident, Record], bool, set[Ident]]:
        """Return what the keys lead to, if that is the latest state, and which of them lead to what cannot be used."""
        unique = {key.ident: key for key in keys}
        texts = {ident: key.text(self.prefix) for ident, key in unique.items()}
        for spec in {key.spec for key in unique.values()}:
            spec.check_portable(self.name)
        identities = not self.polymorphic and all(key.is_identity for key in unique.values())
        held, latest = self._find(list(texts.values()), identities=identities)
        found: dict[Ident, Record] = {}
        spoilt: set[Ident] = set()
        for ident, key in unique.items():
            each = held.get(texts[ident])
            if each is None:
                continue
            try:
                record = self._decoded(key.spec, each)
                if record is not None and not key.spec.serves(record.spec, record.value):
                    # an Employee is no Manager, though they share their identities
                    continue
                if record is not None and not record.answers(key):
                    raise DecodeError(f"it leads to {each.own!r}, which has other values")
            except DecodeError as error:
                spoilt.add(ident)
                self._spoilt(key.spec, key, error)
                continue
            if record is not None:
                found[ident] = record
        return found, latest, spoilt

    def _spoilt(self, spec: KeySpec, what: object, error: DecodeError) -> None:
        self.stats.corrupt += 1
        self._seldom.log(logging.WARNING, spec, "%s has no use for what is under %r: %s", self, what, error)

    def _decoded(self, asked: KeySpec, held: Held) -> Record | None:
        spec = self._spec_of_kind(asked, held.kind)
        if spec is None:
            if not self.polymorphic:
                return None
            raise DecodeError(f"{held.kind!r} is no {asked.klass.__name__} that this process knows: import its module")
        record = self._codec.decode_stored(spec, held.own, held.value, NO_EPOCH)
        if record is None:
            raise DecodeError("it was written by another version of the class, or with another codec")
        return record

    def search(self, klass: type) -> Search:
        """Return what answers queries: it looks at all objects of the class."""
        spec = spec_of(klass)
        return Scan(spec, lambda: self._scanned(spec))

    def scan(self, klass: type[T]) -> Iterator[T]:
        """Yield every object of a class, in any order."""
        yield from (record.spec.materialise(record.value) for record in self._scanned(spec_of(klass)))

    def _scanned(self, spec: KeySpec) -> Iterator[Record]:
        for held in self._list(self._kinds(spec)):
            try:
                record = self._decoded(spec, held)
            except DecodeError as error:
                self._spoilt(spec, held.own, error)
                continue
            if record is not None and spec.serves(record.spec, record.value):
                yield record

    def _kinds(self, spec: KeySpec) -> list[str]:
        """The classes whose objects are, for this store, of this class."""
        below = spec.subclasses() if self.polymorphic and not spec.mapped else []
        return [self._kind(each) for each in (spec, *below)]

    def _spec_of_kind(self, asked: KeySpec, kind: str) -> KeySpec | None:
        if kind == self._kind(asked):
            return asked
        below = asked.subclasses() if self.polymorphic and not asked.mapped else []
        return next((spec for spec in below if self._kind(spec) == kind), None)

    # upkeep

    def _values(self) -> Values:
        return Values(self._value_codec)

    def invalidate(self, klass: type, key: Mapping[str, Any] | None = None) -> None:
        """Forget one object, or all of a class. What is forgotten here is kept nowhere else."""
        spec = spec_of(klass)
        if key is None:
            self._forget_kinds(self._kinds(spec))
            return
        target = spec.key(key)
        if target is None:
            return
        held, _ = self._find([target.text(self.prefix)], identities=False)
        if held:
            batch = Batch(deletes=dict.fromkeys(each.own for each in held.values()), has_others=True)
            with self._writing(batch) as commit:
                commit()


def check_size(store: str, text: str, value: bytes, largest: float, cure: str = "") -> None:
    """Raise EncodeError for what takes more bytes than a store can keep; text: what it is to be kept under."""
    if len(value) > largest:
        raise EncodeError(
            f"what is to be kept under {text!r} takes {len(value)} bytes; {store} takes {largest:.0f}{cure}"
        )
