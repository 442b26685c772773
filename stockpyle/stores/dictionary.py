"""A store over any mapping: a dict, a shelve, a diskcache, or one of your own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from stockpyle.classes import is_mapped, spec_of
from stockpyle.exceptions import ImproperlyConfigured, InvalidKey, StoreUnavailable, UnsupportedOperation
from stockpyle.forks import renew_after_fork
from stockpyle.keys import Key, KeySpec, checked_prefix
from stockpyle.lifetimes import Lifetime, LifetimeCallback, LifetimePolicy, deadline_of, earlier
from stockpyle.masking import displayed
from stockpyle.records import Record
from stockpyle.stores.base import ConcreteStore, listed
from stockpyle.values import write_name
from stockpyle.views.scanning import Scan, record_of
from stockpyle.views.selection import Search

T = TypeVar("T")


@dataclass(frozen=True)
class Pointer:
    """What stands under an alternate key: the text of the identity key to go on with."""

    identity: str


@dataclass(frozen=True)
class MappedRow:
    """What stands for a mapped instance: its class and column values."""

    klass: type
    values: dict[str, Any]


class BaseDictionaryStore(ConcreteStore):
    """A store over a mapping of str to anything. Subclass it for a mapping of your own, or use it as it is.

    Under the readable text of its identity key each object stands as a tuple ``(obj, expiredate)``, expiredate being a
    local datetime or None; under its alternate keys stands a pointer to that. The mapping needs only ``[]``, ``get``,
    ``del`` and ``clear``. It may be shared with other processes, so nothing in it can be compared and set: in a chain
    this store is a source, or an upper layer outside the chain's promise.
    """

    supports = frozenset({"plain", "mapped", "expiry", "polymorphic"})

    def __init__(
        self,
        dictionary: MutableMapping[str, Any] | None = None,
        polymorphic: bool = False,
        lifetime_cb: LifetimeCallback | None = None,
        *,
        lifetime: Lifetime = None,
        prefix: str = "stockpyle",
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        if dictionary is not None and (isinstance(dictionary, type) or not _is_mapping(dictionary)):
            raise ImproperlyConfigured(
                f"a {type(self).__name__} is made over a mutable mapping, not {displayed(dictionary)}"
            )
        self._dictionary: MutableMapping[str, Any] = {} if dictionary is None else dictionary
        self.polymorphic = polymorphic
        self.lifetimes = LifetimePolicy(lifetime_cb, lifetime)
        self.clock = clock
        self._prefix = checked_prefix(prefix)
        self._mutex = threading.RLock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a child process: another thread may have held the mutex."""
        self._mutex = threading.RLock()

    def accepts(self, klass: type) -> bool:
        """True for every class that has keys."""
        return is_mapped(klass) or hasattr(klass, "__stockpyle_keys__")

    def batch_put(self, objs: Iterable[Any], *, lifetime: Lifetime = None) -> None:
        """Keep several objects under all their keys, for the store's own lifetime, and at most for this one."""
        now = self.clock()
        ready = []
        for obj in listed(objs, "batch_put"):
            spec = spec_of(type(obj))
            deadline = earlier(self.lifetimes.deadline(obj, now), deadline_of(lifetime, now))
            owners = (spec, *spec.bases) if self.polymorphic else (spec,)
            ready.append((spec, obj, deadline, [owner.keys_of(obj) for owner in owners]))
        with self._mutex:
            for spec, obj, deadline, all_keys in ready:
                self.seen.add(spec)
                for identity, *alternates in all_keys:
                    if deadline is not None and deadline <= now:
                        self._forget(spec, identity)
                        continue
                    text, expires = identity.text(self._prefix), _local(deadline)
                    before = self._pointers_to(identity)
                    # first: if the mapping cannot keep the object, what was there stays
                    self._dictionary[text] = (_pack(spec, obj), expires)
                    own = [key.text(self._prefix) for key in alternates]
                    for each in before:
                        if each not in own:
                            del self._dictionary[each]
                    for each in own:
                        self._dictionary[each] = (Pointer(text), expires)

    def batch_delete(self, objs: Iterable[Any]) -> None:
        """Forget several objects; one that is not there is no error."""
        ready = []
        for obj in listed(objs, "batch_delete"):
            spec = spec_of(type(obj))
            ready.append((spec, spec.keys_of(obj), obj))
        with self._mutex:
            for spec, (identity, *_), obj in ready:
                self._forget(spec, identity)
                for base in spec.bases if self.polymorphic else ():
                    base_identity = base.keys_of(obj)[0]
                    held = self._held(base_identity.text(self._prefix))
                    # a Truck put later under the Automobile's key is not the Car that is now deleted
                    if type(held) is type(obj):
                        self._forget(base, base_identity)

    def _fetch(self, klass: type, keys: Sequence[Mapping[str, Any]]) -> list[Any]:
        spec = spec_of(klass)
        asked = [spec.key(key) for key in keys]
        with self._mutex:
            # not many mappings can be read while another thread writes to them
            found = [None if key is None else self._find(spec, key) for key in asked]
        self.stats.hits += sum(obj is not None for obj in found)
        self.stats.misses += sum(obj is None for obj in found)
        return found

    def _find(self, spec: KeySpec, key: Key) -> Any:
        held = self._held(key.text(self._prefix))
        if isinstance(held, Pointer):
            held = self._held(held.identity)
        if held is None or isinstance(held, Pointer):
            return None
        obj = _unpack(held)
        if not isinstance(obj, spec.klass):
            return None
        own = spec.key_of(obj, key.definition)
        return obj if own is not None and own.values == key.values else None

    def search(self, klass: type) -> Search:
        """Return what answers queries: it looks at all objects of the class, if the mapping can be iterated over."""
        spec = spec_of(klass)
        self._must_be_listed(spec, "be queried for")
        return Scan(spec, lambda: self._records(spec))

    def scan(self, klass: type[T]) -> Iterable[T]:
        """Yield every object of a class."""
        spec = spec_of(klass)
        self._must_be_listed(spec, "list")
        yield from (record.spec.materialise(record.value) for record in self._records(spec))

    def _records(self, spec: KeySpec) -> list[Record]:
        mine = tuple(f"{self._prefix}:{start}" for start in (f"{write_name(spec.space)}:", "#"))
        with self._mutex:
            texts = [text for text in list(self._dictionary) if isinstance(text, str) and text.startswith(mine)]
            held = [(text, self._held(text)) for text in texts]
        objs = [(text, _unpack(each)) for text, each in held if each is not None and not isinstance(each, Pointer)]
        own = [obj for text, obj in objs if isinstance(obj, spec.klass) and _text(spec, obj, self._prefix) == text]
        return [record_of(obj) for obj in own]

    def _must_be_listed(self, spec: KeySpec, what: str) -> None:
        if not isinstance(self._dictionary, Iterable):
            raise UnsupportedOperation(
                f"{self.name} cannot {what} {spec.klass.__qualname__}: its mapping cannot be listed"
            )

    def _held(self, text: str) -> Any:
        entry = self._dictionary.get(text)
        if entry is None:
            return None
        held, expires = entry
        return held if expires is None or expires.timestamp() > self.clock() else None

    def _forget(self, spec: KeySpec, identity: Key) -> None:
        text = identity.text(self._prefix)
        if self._dictionary.get(text) is None:
            return
        for each in self._pointers_to(identity):
            del self._dictionary[each]
        del self._dictionary[text]

    def _pointers_to(self, identity: Key) -> list[str]:
        """The texts of the other keys under which what is held of an identity is found."""
        text = identity.text(self._prefix)
        entry = self._dictionary.get(text)
        if entry is None:
            return []
        obj = _unpack(entry[0])
        texts = []
        for definition in identity.spec.definitions[1:]:
            # what stands there may be somebody else's, or have lost its attributes
            with suppress(InvalidKey):
                key = identity.spec.key_of(obj, definition)
                texts += [] if key is None else [key.text(self._prefix)]
        pointers = [(each, self._dictionary.get(each)) for each in texts]
        return [each for each, pointer in pointers if pointer is not None and _leads_to(pointer[0], text)]

    def _forget_class(self, spec: KeySpec) -> None:
        self._must_be_listed(spec, "forget all")
        with self._mutex:
            entries = [(text, self._dictionary.get(text)) for text in list(self._dictionary)]
            held = [(text, entry[0]) for text, entry in entries if entry is not None]
            gone = {text for text, each in held if _is_of(spec, each)}
            gone |= {text for text, each in held if isinstance(each, Pointer) and each.identity in gone}
            for text in gone:
                del self._dictionary[text]

    def ping(self) -> bool:
        """Return True if the mapping can be read; StoreUnavailable, with its error as the cause, if not."""
        try:
            with self._mutex:
                self._dictionary.get(f"{self._prefix}:ping")
        except Exception as error:  # a mapping may raise anything
            raise StoreUnavailable(f"its mapping cannot be read: {error!r}", self.name, "ping") from error
        return True

    def clear(self) -> None:
        """Forget every object."""
        with self._mutex:
            self._dictionary.clear()

    def invalidate(self, klass: type, key: Mapping[str, Any] | None = None) -> None:
        """Forget one object, or all of a class (if the mapping can be iterated), because somebody else changed them."""
        spec = spec_of(klass)
        if key is None:
            self._forget_class(spec)
            return
        target = spec.key(key)
        with self._mutex:
            found = None if target is None else self._find(spec, target)
            if found is not None:
                self.batch_delete([found])


def _text(spec: KeySpec, obj: Any, prefix: str) -> str | None:
    try:
        key = spec.key_of(obj, spec.identity)
    except InvalidKey:
        # it may have lost its key attributes since it was put
        return None
    return None if key is None else key.text(prefix)


def _is_mapping(thing: Any) -> bool:
    return all(hasattr(thing, name) for name in ("__setitem__", "__delitem__", "get"))


def _is_of(spec: KeySpec, held: Any) -> bool:
    if isinstance(held, Pointer):
        return False
    return spec_of(held.klass).space == spec.space if isinstance(held, MappedRow) else isinstance(held, spec.klass)


def _local(deadline: float | None) -> datetime | None:
    try:
        return None if deadline is None else datetime.fromtimestamp(deadline)
    except (OverflowError, OSError, ValueError):
        # later than any datetime
        return None


def _leads_to(held: Any, text: str) -> bool:
    return isinstance(held, Pointer) and held.identity == text


def _pack(spec: KeySpec, obj: Any) -> Any:
    if not spec.mapped:
        return obj
    names: tuple[str, ...] = getattr(spec, "attributes", ())
    return MappedRow(spec.klass, dict(zip(names, spec.dehydrate(obj), strict=True)))


def _unpack(held: Any) -> Any:
    return spec_of(held.klass).stand_in(held.values) if isinstance(held, MappedRow) else held
