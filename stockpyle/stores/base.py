"""What all stores have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from stockpyle.exceptions import AmbiguousKeyError, InvalidKey, UndeclaredKeyError, UnsupportedOperation
from stockpyle.keys import KeySpec
from stockpyle.protocols import PubSub
from stockpyle.pubsub.handle import HEARTBEAT, TIMEOUT
from stockpyle.pubsub.wires import Notice
from stockpyle.records import ABSENT
from stockpyle.stats import Stats
from stockpyle.stores._connected import Connected
from stockpyle.stores._hits import NOT_SIMPLE, Hits
from stockpyle.views.collection import Collection, Entries, Values
from stockpyle.views.counter import Counter, Numbers
from stockpyle.views.query import Query
from stockpyle.views.scanning import scan_of
from stockpyle.views.selection import WHO_CAN, Search

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

T = TypeVar("T")
Self = TypeVar("Self", bound="BaseStore")


class BaseStore(Connected):
    """A store of your own, from scratch: subclass it and implement put, get and delete.

    The batch verbs call those one by one, unless you implement them too; or implement only the batch verbs, and
    put, get and delete call those. Such a store can be the last of a ChainedStore (its source) or an upper one
    (a cache: it is told to delete before and after a write, and filled on a miss). A class that only serves as a base
    of such stores, and lacks a verb, says so: ``class MyBase(BaseStore, abstract=True)``.
    """

    is_root = True

    def __init__(self) -> None:
        self.stats = Stats()

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if abstract:
            return
        for one, batch in (("put", "batch_put"), ("get", "batch_get"), ("delete", "batch_delete")):
            if getattr(cls, one) is getattr(BaseStore, one) and getattr(cls, batch) is getattr(BaseStore, batch):
                raise TypeError(f"{cls.__name__} must implement {one} or {batch}")

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
            raise UnsupportedOperation(f"{type(self).__name__} must implement {one} or {batch}")

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
        raise UnsupportedOperation(f"{type(self).__name__} cannot be cleared")

    def invalidate(self, klass: type, key: Mapping[str, Any] | None = None) -> None:
        """Forget one object, or all of a class, because somebody else changed them."""
        raise UnsupportedOperation(f"{type(self).__name__} cannot invalidate {getattr(klass, '__qualname__', klass)}")

    def query(self, klass: type[T]) -> Query[T]:
        """Return a query of all objects of a class; UnsupportedOperation names the stores that have queries."""
        return Query(self, klass)

    def search(self, klass: type) -> Search:
        """Return what answers queries of a class. By default it looks at all that scan() yields."""
        if type(self).scan is BaseStore.scan:
            self.scan(klass)
        return scan_of(klass, self.scan)

    def scan(self, klass: type[T]) -> Iterable[T]:
        """Yield every object of a class, in any order; a store that can do it has queries, too."""
        raise UnsupportedOperation(f"{self.name} cannot list its objects, so it cannot be queried: {WHO_CAN}")

    def pubsub(
        self,
        *,
        on_lost: Notice | None = None,
        on_restored: Notice | None = None,
        heartbeat: float = HEARTBEAT,
        timeout: float = TIMEOUT,
    ) -> PubSub:
        """Return what sends messages to everybody who listens at the same place, if the store has such a thing.

        on_lost and on_restored are called in the thread that listens: as soon as it hears nothing any more, and when it
        hears all again; what was sent between is lost. Every `heartbeat` seconds the server is asked if it is
        there, and may take `timeout` seconds to answer. UnsupportedOperation names the stores that have it.
        """
        raise UnsupportedOperation(
            f"{type(self).__name__} carries no messages: RedisStore, SqlAlchemyStore on PostgreSQL and "
            "ProcessMemoryStore do"
        )

    def collection(self, name: str, autosave: bool = True) -> Collection:
        """Return a dictionary that is kept here under a name, for all processes that share the store; see Collection.

        UnsupportedOperation if the store keeps none.
        """
        return Collection(self._collections(), name, self._values(), autosave)

    def counter(self, name: str) -> Counter:
        """Return an integer that is kept here under a name, for all processes that share the store; see Counter.

        UnsupportedOperation if the store keeps none.
        """
        return Counter(self._counters(), name)

    def _collections(self) -> Entries:
        """What the store's collections are kept in."""
        raise self._lacks("collection", "keeps no collections")

    def _values(self) -> Values:
        """What turns the values of collections into bytes."""
        return Values()

    def _counters(self) -> Numbers:
        """What the store's counters are kept in."""
        raise self._lacks("counter", "keeps no counters")

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
        raise UndeclaredKeyError(f"no class that was put or loaded through this store declares the key {key!r}")


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

    _hits: Hits | None = None
    """What finds objects quickly, if the store looks into process memory first."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = SeenClasses()

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(abstract, **kwargs)
        if not _is_ours(cls.batch_get) and _is_ours(cls.get):
            # get() takes a way of its own, which would go round the subclass
            cls.get = _get_by_batch  # type: ignore[method-assign]

    def _fetch(self, klass: type, keys: Sequence[Mapping[str, Any]]) -> list[Any]:
        raise NotImplementedError

    def _fetch_one(self, klass: type, key: Mapping[str, Any]) -> Any:
        return self._fetch(klass, [key])[0]

    def _found(self, klass: type, keys: list[Mapping[str, Any]]) -> list[Any]:
        hits = self._hits
        if hits is None:
            return self._fetch(klass, keys)
        found = [hits.get(klass, key) for key in keys]
        missing = [key for key, each in zip(keys, found, strict=True) if each is None]
        if not missing:
            return found
        fetched = self._fetch(klass, missing)
        hits.learn(klass, missing, fetched)
        rest = iter(fetched)
        return [next(rest) if each is None else each for each in found]

    @overload
    def get(self, klass: type[T], key: Mapping[str, Any]) -> T | None: ...
    @overload
    def get(self, klass: Mapping[str, Any]) -> Any: ...
    def get(self, klass: Any, key: Any = None) -> Any:
        """Return the object of `klass` that `key` identifies, or None.

        ``get(key)`` without a class looks among the exact classes put or loaded through this very store.
        """
        if key is not None:
            hits: Any = self._hits
            if hits is None:
                return self._fetch_one(klass, key)
            # what Hits.find does, line by line: to call it would take a fifth of a hit's time
            try:
                if len(key) == 1:
                    (name,) = key
                    way = hits.ways[klass][name]
                    wanted = key[name]
                else:
                    way = hits.ways[klass][tuple(key)]
                    wanted = way.asked(key)
                entry = way.index.slots[wanted]
                record = entry.record
                value = record.value
                is_simple = (
                    record.spec is way.spec
                    and value is not ABSENT
                    and (record.deadline is None or record.deadline > hits.clock())
                    and (
                        (own := way.own(value)) is wanted
                        or (
                            type(own) is type(wanted)
                            and own == wanted
                            and (
                                way.size == 1
                                or (
                                    type(own[0]) is type(wanted[0])
                                    and type(own[1]) is type(wanted[1])
                                    and (way.size == 2 or [*map(type, own)] == [*map(type, wanted)])
                                )
                            )
                        )
                    )
                )
                above = hits.above
            except NOT_SIMPLE:
                is_simple = False
            if is_simple and (above is None or above.guard.trusted):
                hits.stats.hits += 1
                if above is not None:
                    above.stats.hits += 1
                if not entry.used:
                    entry.used = True
                return value if way.materialise is None else way.materialise(value)
            return self._found(klass, [key])[0]
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
            return self._found(klass, listed(keys, "batch_get"))
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


def _is_ours(verb: Callable[..., Any]) -> bool:
    return verb.__module__ == __name__


def _get_by_batch(self: ConcreteStore, klass: Any, key: Any = None, **options: Any) -> Any:
    """Return what batch_get() does of one key."""
    batch_get: Callable[..., list[Any]] = self.batch_get
    if key is None and not isinstance(klass, type):
        return batch_get([klass], **options)[0]
    return batch_get(klass, None if key is None else [key], **options)[0]


class SessionStore(ConcreteStore, abstract=True):
    """A store that can hand out mapped objects as instances of a caller's session."""

    supports = frozenset({"sessions"})

    def _fetch_into(self, session: Session, klass: type, keys: Sequence[Mapping[str, Any]]) -> list[Any]:
        raise NotImplementedError

    def _one_into(self, session: Session, klass: type, key: Mapping[str, Any]) -> Any:
        return self._fetch_into(session, klass, [key])[0]

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
            if key is None:
                raise needs_class_and_keys(klass)
            return self._one_into(session, klass, key)
        if self._hits is None and key is not None:
            return self._fetch_one(klass, key)
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
        return self._fetch_into(session, klass, listed(keys, "batch_get"))
