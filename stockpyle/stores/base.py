"""What all stores have in common, and the six verbs on top of a tier."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from stockpyle.classes import is_mapped, spec_of
from stockpyle.coherence.layers import Layer
from stockpyle.coherence.reader import fetch
from stockpyle.coherence.writer import LOCK_SECONDS, drop
from stockpyle.exceptions import AmbiguousKeyError, InvalidKey, StockpyleError, UnsupportedOperation
from stockpyle.keys import Key, KeySpec
from stockpyle.lifetimes import Lifetime, LifetimeCallback, LifetimePolicy
from stockpyle.protocols import Change, Outcome, Pending
from stockpyle.records import ABSENT, Alias, Found, Lease, Lock, Record
from stockpyle.stats import Stats

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

T = TypeVar("T")
Self = TypeVar("Self", bound="BaseStore")


class BaseStore:
    """A store of your own, from scratch: subclass it and implement put, get and delete.

    The batch verbs call those one by one, unless you implement them too; or implement only the batch verbs, and
    put, get and delete call those. Such a store can be the last of a ChainedStore (its source) or an upper one
    (a cache: it is told to delete before and after a write, and filled on a miss).
    """

    def __init__(self) -> None:
        self.stats = Stats()

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if abstract:
            return
        for one, batch in (("put", "batch_put"), ("get", "batch_get"), ("delete", "batch_delete")):
            if getattr(cls, one) is getattr(BaseStore, one) and getattr(cls, batch) is getattr(BaseStore, batch):
                raise TypeError(f"{cls.__name__} must implement {one} or {batch}")

    @property
    def name(self) -> str:
        """What errors and logs call this store."""
        return type(self).__name__

    def put(self, obj: Any) -> None:
        """Keep `obj` under all its keys, in place of what was there."""
        self._must_have("batch_put", "put")
        self.batch_put([obj])

    def get(self, klass: type[T], key: Mapping[str, Any]) -> T | None:
        """Return the object of `klass` that `key` identifies, or None."""
        self._must_have("batch_get", "get")
        return self.batch_get(klass, [key])[0]

    def delete(self, obj: Any) -> None:
        """Forget `obj`; one that is not there is no error."""
        self._must_have("batch_delete", "delete")
        self.batch_delete([obj])

    def _must_have(self, batch: str, one: str) -> None:
        # each calls the other, so a BaseStore itself has neither
        if getattr(type(self), batch) is getattr(BaseStore, batch):
            raise UnsupportedOperation(f"{self.name} must implement {one} or {batch}")

    def batch_put(self, objs: Iterable[Any]) -> None:
        """Put several objects."""
        for obj in objs:
            self.put(obj)

    def batch_get(self, klass: type[T], keys: Iterable[Mapping[str, Any]]) -> list[T | None]:
        """Get several objects, in the order of `keys`, with None for each that is not there."""
        return [self.get(klass, key) for key in keys]

    def batch_delete(self, objs: Iterable[Any]) -> None:
        """Delete several objects."""
        for obj in objs:
            self.delete(obj)

    def release(self) -> None:
        """Give back what this thread holds of the store; the store stays usable."""

    def close(self) -> None:
        """End the store and give back all that it holds."""
        self.release()

    def clear(self) -> None:
        """Forget every object, if the store is a cache."""
        raise UnsupportedOperation(f"{self.name} cannot be cleared")

    def invalidate(self, klass: type, key: Mapping[str, Any] | None = None) -> None:
        """Forget one object, or all of a class, because somebody else changed them."""
        raise UnsupportedOperation(f"{self.name} cannot invalidate {getattr(klass, '__qualname__', klass)}")

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} holds locks and connections and cannot be pickled or copied")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class SeenClasses:
    """The classes of the objects that one store has put or loaded, for keys that come without a class."""

    def __init__(self) -> None:
        self._specs: dict[type, KeySpec] = {}

    def add(self, spec: KeySpec) -> None:
        """Remember a class."""
        self._specs[spec.klass] = spec

    def declaring(self, key: Any) -> type:
        """Return the one class that declares a key of these attributes.

        Raises UndeclaredKeyError (a LookupError) if none does, AmbiguousKeyError if several do.
        """
        found = []
        failure: InvalidKey | None = None
        for spec in list(self._specs.values()):
            try:
                spec.key(key)
            except LookupError:
                continue
            except InvalidKey as error:
                failure = error
                continue
            found.append(spec.klass)
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(sorted(klass.__qualname__ for klass in found))
            raise AmbiguousKeyError(f"{key!r} is a key of several classes ({names}): give the class too")
        if failure is not None:
            raise failure
        raise _nothing_declares(key)


def _nothing_declares(key: Any) -> StockpyleError:
    from stockpyle.exceptions import UndeclaredKeyError

    return UndeclaredKeyError(f"no class that was put or loaded through this store declares the key {key!r}")


def listed(things: Iterable[Any], verb: str) -> list[Any]:
    """Return what a batch verb was given as a list; TypeError, naming it, if it is a single thing."""
    try:
        each = iter(things)
    except TypeError:
        raise TypeError(f"{verb} takes several at once, such as a list, not {things!r}") from None
    return list(each)


def needs_class_and_keys(given: Any) -> InvalidKey:
    """Return the error for a get that has only one of the two, or with a session only the keys."""
    if isinstance(given, type):
        name = given.__name__
        return InvalidKey(f"give the key or keys too: get({name}, {{...}}), batch_get({name}, [...])")
    return InvalidKey(f"with session= give the class too: get(User, {given!r}, session=...)")


class ConcreteStore(BaseStore, abstract=True):
    """A store of ours: it also takes keys without a class, for scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = SeenClasses()

    def _fetch(self, klass: type, keys: Sequence[Mapping[str, Any]]) -> list[Any]:
        raise NotImplementedError

    @overload
    def get(self, klass: type[T], key: Mapping[str, Any]) -> T | None: ...
    @overload
    def get(self, klass: Mapping[str, Any]) -> Any: ...
    def get(self, klass: Any, key: Any = None) -> Any:
        """Return the object of `klass` that `key` identifies, or None.

        ``get(key)`` without a class looks among the exact classes put or loaded through this very store.
        """
        if key is not None:
            return self.batch_get(klass, [key])[0]
        asked: Any = klass if isinstance(klass, type) else [klass]
        return self.batch_get(asked)[0]

    @overload
    def batch_get(self, klass: type[T], keys: Iterable[Mapping[str, Any]]) -> list[T | None]: ...
    @overload
    def batch_get(self, klass: Iterable[Mapping[str, Any]]) -> list[Any]: ...
    def batch_get(self, klass: Any, keys: Any = None) -> list[Any]:
        """Get several objects, in the order of `keys`, with None for each that is not there.

        ``batch_get(keys)`` without a class looks among the exact classes put or loaded through this very store.
        """
        if keys is not None:
            return self._fetch(klass, listed(keys, "batch_get"))
        if isinstance(klass, type):
            raise needs_class_and_keys(klass)
        asked = listed(klass, "batch_get")
        classes = [self.seen.declaring(each) for each in asked]
        results: list[Any] = [None] * len(asked)
        for group in dict.fromkeys(classes):
            places = [i for i, each in enumerate(classes) if each is group]
            for place, found in zip(places, self._fetch(group, [asked[i] for i in places]), strict=True):
                results[place] = found
        return results


class SessionStore(ConcreteStore, abstract=True):
    """A store that can hand out mapped objects as instances of a caller's session."""

    def _fetch_into(self, session: Session, klass: type, keys: Sequence[Mapping[str, Any]]) -> list[Any]:
        raise NotImplementedError

    @overload
    def get(self, klass: type[T], key: Mapping[str, Any], *, session: Session | None = None) -> T | None: ...
    @overload
    def get(self, klass: Mapping[str, Any]) -> Any: ...
    def get(self, klass: Any, key: Any = None, *, session: Session | None = None) -> Any:
        """Return the object of `klass` that `key` identifies, or None.

        A mapped instance is detached, fully loaded and the caller's own. With `session` it is that session's own,
        persistent in it; what the session's transaction has written itself is read through it.
        ``get(key)`` without a class looks among the exact classes put or loaded through this very store.
        """
        if session is not None:
            keys: Any = None if key is None else [key]
            return self.batch_get(klass, keys, session=session)[0]
        return super().get(klass, key)

    @overload
    def batch_get(
        self, klass: type[T], keys: Iterable[Mapping[str, Any]], *, session: Session | None = None
    ) -> list[T | None]: ...
    @overload
    def batch_get(self, klass: Iterable[Mapping[str, Any]]) -> list[Any]: ...
    def batch_get(self, klass: Any, keys: Any = None, *, session: Session | None = None) -> list[Any]:
        """Get several objects, in the order of `keys`, with None for each that is not there; see get."""
        if session is None:
            return super().batch_get(klass, keys)
        if keys is None:
            raise needs_class_and_keys(klass)
        return self._fetch_into(session, klass, list(keys))


class CacheStore(ConcreteStore):
    """The six verbs on top of a Tier: a subclass brings read, fill, lock, publish and unlock.

    Used alone it is a keyed store of objects. In a chain it is a tier, or the source of plain classes if no store
    below it takes them; of a mapped class it never is the source.

    polymorphic: keep a plain object also under its base classes that declare keys, so that it is found as one
    of them. lifetime_cb: called with an object, returns how long it may be kept (seconds, timedelta, datetime,
    None); lifetime is the same for all. clock: seconds since the epoch.
    """

    shared = False
    """True if other processes see this tier too."""

    chain_lifetime = 60.0
    """Seconds that a chain lets a record live here, if the user did not say."""

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

    # the verbs

    def batch_put(self, objs: Iterable[Any]) -> None:
        """Keep several objects under all their keys. Nothing is written if one of them cannot be."""
        objs = listed(objs, "batch_put")
        if objs:
            with self.write(objs, []):
                pass

    def batch_delete(self, objs: Iterable[Any]) -> None:
        """Forget several objects; one that is not there is no error."""
        objs = listed(objs, "batch_delete")
        if objs:
            with self.write([], objs):
                pass

    def _fetch(self, klass: type, keys: Sequence[Mapping[str, Any]]) -> list[Any]:
        spec = spec_of(klass)
        asked = [spec.key(key) for key in keys]
        found = self._records(asked)
        self.stats.hits += sum(record is not None for record in found)
        self.stats.misses += sum(record is None for record in found)
        return [None if record is None else record.spec.materialise(record.value) for record in found]

    def _records(self, keys: Sequence[Key | None]) -> list[Record | None]:
        found = fetch([Layer(self, counted=False)], None, [key for key in keys if key is not None])
        records = [None if key is None else found[key.ident] for key in keys]
        return [None if record is None or record.is_absent else record for record in records]

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

    def accepts(self, klass: type) -> bool:
        """True for plain classes that declare keys."""
        return not is_mapped(klass) and hasattr(klass, "__stockpyle_keys__")

    def load(self, klass: type, keys: Sequence[Key]) -> list[Record]:
        """See Source.load."""
        return [record or Record(spec_of(klass), ABSENT) for record in self._records(keys)]

    @contextmanager
    def write(self, puts: Sequence[Any], deletes: Sequence[Any]) -> Iterator[Pending]:
        """See Source.write."""
        now = self.clock()
        stored = [(*self._entries(obj), self.lifetimes.deadline(obj, now)) for obj in puts]
        values = [
            Record(spec, spec.dehydrate(obj), deadline) for (spec, _, deadline), obj in zip(stored, puts, strict=True)
        ]
        removed = [self._entries(obj) for obj in deletes]
        changes = [Change(spec, (), keys[0][1], obj=obj) for (spec, keys, _), obj in zip(stored, puts, strict=True)]
        changes += [Change(spec, keys[0][1], (), obj=obj) for (spec, keys), obj in zip(removed, deletes, strict=True)]
        pending = Pending(changes)
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
        self._replace({**records, **aliases})
        pending.outcome = Outcome.COMMITTED

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


__all__ = ["BaseStore", "CacheStore", "ConcreteStore", "SeenClasses", "listed", "needs_class_and_keys"]
