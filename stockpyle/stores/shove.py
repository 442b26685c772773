"""ShoveStore: objects in a Shove, or in any other mapping that keeps them somewhere."""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from shelve import Shelf
from typing import Any

from stockpyle.addresses import ConnectionString
from stockpyle.coherence.logs import Seldom
from stockpyle.exceptions import (
    EncodeError,
    ImproperlyConfigured,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
    UnsupportedOperation,
)
from stockpyle.keys import KeySpec
from stockpyle.lifetimes import Lifetime, LifetimeCallback
from stockpyle.parameters import parameters_of, text_of
from stockpyle.stats import Stats
from stockpyle.stores._connected import with_text
from stockpyle.stores._shove import SPOILT, import_shove, open_store, shown, unbuffered
from stockpyle.stores.base import listed
from stockpyle.stores.dictionary import BaseDictionaryStore

_IN_PROCESS = ("simple", "memory")
_OF_SHOVE = (*_IN_PROCESS, "file", "lite", "dbm")


class ShoveStore(BaseDictionaryStore):
    """Objects in a Shove, as tuples ``(obj, expiredate)`` under readable keys. What is put is durable when put returns.

    Give one of the two. shoveuri: "file:///folder", "lite:///file", "dbm:///file", "memory://" or "simple://", for
    which shove has to be installed. shove: a Shove, or any mutable mapping of str to objects, such as a shelve or a
    diskcache, or one of your own over something else.

    Objects are pickled: whoever can write to the place can run code in this process. Bytes that are none of its objects
    are counted (`stats.corrupt`), logged, and a miss.
    """

    schemes = ("shove",)

    @classmethod
    def from_url(cls, url: ConnectionString) -> dict[str, Any]:
        """See BaseStore.from_url: what follows the scheme's + is the URI of a shove."""
        own, rest = url.take(parameters_of(cls))
        if url.inner in _OF_SHOVE:
            # these have paths and no parameters: what looks like one would become the end of a path
            return {"shoveuri": f"{url.inner}://{rest.rest}", **own, **rest.params}
        if url.inner:
            return {"shoveuri": replace(rest, scheme=url.inner).written(text_of), **own}
        if rest.rest or not own.keys() & {"shove", "shoveuri"}:
            raise url.wrong("it names no shove: write shove+file:///path, for example")
        return {**own, **rest.params}

    def to_url(self, scheme: str, arguments: Mapping[str, Any]) -> ConnectionString | None:
        """See BaseStore.to_url; None for a mapping."""
        rest = {name: value for name, value in arguments.items() if name not in ("shove", "shoveuri")}
        if self._uri is None:
            return None
        return with_text(ConnectionString.parse(f"{scheme}+{self._uri}"), rest)

    def __init__(
        self,
        shove: MutableMapping[str, Any] | None = None,
        shoveuri: str | None = None,
        polymorphic: bool = False,
        lifetime_cb: LifetimeCallback | None = None,
        *,
        lifetime: Lifetime = None,
        prefix: str = "stockpyle",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if (shove is None) == (shoveuri is None):
            raise ImproperlyConfigured("give a ShoveStore either a mapping (shove=) or a URI (shoveuri=)")
        if isinstance(shove, str):
            raise ImproperlyConfigured("a URI is given as ShoveStore(shoveuri=...); shove= is a mapping")
        # the same checks of a mapping as its base's
        super().__init__(shove, polymorphic, lifetime_cb, lifetime=lifetime, prefix=prefix, clock=clock)
        make = (lambda: open_store(shoveuri)) if shoveuri is not None else None
        self._uri = shoveuri
        self._kept = _Kept(make() if make else _without_buffer(shove), f"{prefix}:", self.name, self.stats)
        in_process = shoveuri is not None and shoveuri.partition("://")[0] in _IN_PROCESS
        self._make = None if in_process else make
        self._dictionary: Any = self._kept

    def after_fork(self) -> None:
        """In a child process: leave the parent's files to the parent, and open them anew."""
        super().after_fork()
        if self._make is not None:
            self._kept.renew(self._make)

    def batch_put(self, objs: Iterable[Any], *, lifetime: Lifetime = None) -> None:
        """Keep several objects under all their keys. Nothing is written if one of them cannot be pickled."""
        objs = listed(objs, "batch_put")
        for obj in objs:
            self._kept.check(obj)
        with self._mutex, self._kept.settled():
            super().batch_put(objs, lifetime=lifetime)

    def batch_delete(self, objs: Iterable[Any]) -> None:
        """Forget several objects; one that is not there is no error."""
        with self._mutex, self._kept.settled():
            super().batch_delete(objs)

    def invalidate(self, klass: type, key: Mapping[str, Any] | None = None) -> None:
        """Forget one object, or all of a class (if the mapping can be iterated). They are kept nowhere else."""
        with self._mutex, self._kept.settled():
            super().invalidate(klass, key)

    def _forget_class(self, spec: KeySpec) -> None:
        if not self._kept.is_listable:
            raise UnsupportedOperation(
                f"{self.name} cannot forget all {spec.klass.__qualname__}: its mapping cannot be listed"
            )
        super()._forget_class(spec)

    def clear(self) -> None:
        """Forget every object under this prefix; all that is in the mapping, if that cannot be listed."""
        with self._mutex, self._kept.settled():
            self._kept.clear()

    def close(self) -> None:
        """Write what is to be written; close what was opened by a URI. A mapping that was passed in stays open."""
        with self._mutex:
            self._kept.close(everything=self._uri is not None)

    def __repr__(self) -> str:
        if self._uri is None:
            return f"ShoveStore({type(self._kept.mapping).__name__}, prefix={self._prefix!r})"
        return f"ShoveStore(shoveuri={shown(self._uri)!r}, prefix={self._prefix!r})"


class _Kept:
    """A mapping as BaseDictionaryStore needs it: what goes wrong in it is said, or counted, and touches one key only.

    Its methods are called under the store's mutex.
    """

    def __init__(self, mapping: Any, beginning: str, store: str, stats: Stats) -> None:
        self._mapping = mapping
        self._make: Callable[[], Any] | None = None
        self._parents: list[Any] = []
        self._closed = False
        self._beginning = beginning
        self._store = store
        self._stats = stats
        self._seldom = Seldom()

    @property
    def mapping(self) -> Any:
        """What the entries are in."""
        if self._make is not None:
            make, self._make = self._make, None
            self._mapping = make()
        return self._mapping

    def renew(self, make: Callable[[], Any]) -> None:
        """Open it anew when it is next needed; the old one is kept, since to close it would disturb the parent's."""
        self._parents.append(self._mapping)
        self._make = make

    @property
    def is_listable(self) -> bool:
        """True if it can tell its keys."""
        return isinstance(self.mapping, Iterable)

    def check(self, obj: Any) -> None:
        """Raise EncodeError for what cannot be pickled where the mapping would find out too late."""
        inner = self.mapping
        keeps_bytes = isinstance(inner, Shelf) or (
            type(inner).__module__.startswith(("shove.", __package__))
            and type(getattr(inner, "_store", None)) is not dict
        )
        if keeps_bytes:
            try:
                pickle.dumps(obj, pickle.HIGHEST_PROTOCOL)
            except Exception as error:
                # pickling calls the methods of the user's own classes
                raise self._cannot(type(obj).__qualname__, error) from error

    def _cannot(self, what: str, error: Exception) -> EncodeError:
        return EncodeError(
            f"{self._store} cannot pickle this {what}: {error}; leave out of it what cannot be stored (__getstate__)"
        )

    def get(self, text: str, default: Any = None) -> Any:
        """Return an entry; the default if there is none, or none that can be used."""
        try:
            entry = self.mapping[text]
        except KeyError:
            return default
        except SPOILT as error:
            if "closed" in str(error):
                raise StoreUnavailable(str(error), self._store, "get") from error
            return self._spoilt(text, repr(error), default)
        except Exception as error:  # whatever the mapping is made of
            raise self._failed("get", error) from error
        if type(entry) is tuple and len(entry) == 2 and isinstance(entry[1], datetime | None):
            return entry
        return self._spoilt(text, f"a {type(entry).__name__} is no (obj, expiredate)", default)

    def _spoilt(self, text: str, what: str, default: Any) -> Any:
        self._stats.corrupt += 1
        self._seldom.log(logging.WARNING, "", "%s has no use for what is under %r: %s", self._store, text, what)
        return default

    def __setitem__(self, text: str, entry: Any) -> None:
        try:
            self.mapping[text] = entry
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            self._forget_unwritten()
            raise self._cannot(type(entry[0]).__qualname__, error) from error
        except Exception as error:  # whatever the mapping is made of
            self._forget_unwritten()
            raise self._failed("put", error) from error

    def _forget_unwritten(self) -> None:
        """Have a Shove of several stores try no more to write what it could not: it would fail with every other key."""
        if type(self.mapping).__module__ == "shove.core":
            for name in list(self.mapping._buffer):
                del self.mapping._buffer[name]
                with suppress(KeyError):
                    del self.mapping._cache[name]

    def __delitem__(self, text: str) -> None:
        try:
            del self.mapping[text]
        except KeyError:
            # somebody else was first
            return
        except Exception as error:  # whatever the mapping is made of
            raise self._failed("delete", error) from error

    def __iter__(self) -> Iterator[str]:
        if not self.is_listable:
            raise UnsupportedOperation(f"the mapping of this {self._store} cannot be listed")
        return iter([text for text in self.mapping if isinstance(text, str) and text.startswith(self._beginning)])

    def clear(self) -> None:
        """Remove what is under the prefix; everything, if it cannot be listed."""
        if not self.is_listable:
            self.mapping.clear()
            return
        for text in list(self):
            del self[text]

    @contextmanager
    def settled(self) -> Iterator[None]:
        """At the end of the block all that was written inside is durable, also if a later part of it has failed."""
        try:
            yield
        finally:
            self.settle()

    def settle(self) -> None:
        """Have the mapping write what it has kept back."""
        sync = getattr(self.mapping, "sync", None)
        if callable(sync):
            try:
                sync()
            except Exception as error:  # whatever the mapping is made of
                self._forget_unwritten()
                raise self._failed("sync", error) from error

    def close(self, *, everything: bool) -> None:
        """Write what is to be written, and close the mapping."""
        if not everything:
            self.settle()
        elif self._make is None and not self._closed:
            self._closed = True
            self._mapping.close()

    def _failed(self, operation: str, error: Exception) -> StoreError:
        kind = StoreError
        if isinstance(error, TimeoutError):
            kind = StoreTimeout
        elif isinstance(error, OSError) or "closed" in str(error):
            kind = StoreUnavailable
        return kind(repr(error) if isinstance(error, KeyError) else str(error), self._store, operation)


def _without_buffer(mapping: Any) -> Any:
    """A Shove's own store: in front of it are a buffer that writes late, and a cache that shows late."""
    if type(mapping).__module__ == "shove.core" and type(mapping).__name__ == "Shove":
        mapping.sync()
        return _Unbuffered(mapping)
    return mapping


class _Unbuffered:
    """The store of a Shove, whose cache is told of what was written past it."""

    def __init__(self, shove: Any) -> None:
        self._shove = shove
        self._inner = unbuffered(shove._store)

    @property
    def _store(self) -> Any:
        return getattr(self._inner, "_store", None)

    def __getitem__(self, name: str) -> Any:
        return self._inner[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._uncached(name)
        self._inner[name] = value

    def __delitem__(self, name: str) -> None:
        self._uncached(name)
        del self._inner[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._inner)

    def _uncached(self, name: str) -> None:
        with suppress(KeyError):
            del self._shove._cache[name]

    def sync(self) -> None:
        """Write what somebody else has put into the Shove."""
        self._shove.sync()


__all__ = ["ShoveStore", "import_shove"]
