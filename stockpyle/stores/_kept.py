"""A mapping that somebody else made, as ShoveStore uses it."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from shelve import Shelf
from typing import Any

from stockpyle.coherence.logs import Seldom
from stockpyle.exceptions import EncodeError, StoreError, StoreTimeout, StoreUnavailable, UnsupportedOperation
from stockpyle.stats import Stats
from stockpyle.stores._shove import SPOILT, unbuffered


class Kept:
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

    def bytes_at(self, text: str) -> bytes | None:
        """Return the bytes of an entry that is not an object's; None if there are none."""
        entry = self.get(text)
        if entry is None or isinstance(entry[0], bytes):
            return None if entry is None else entry[0]
        self._spoilt(text, f"a {type(entry[0]).__name__} is no value of a collection", None)
        return None

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
        return iter(self.texts(self._beginning))

    def texts(self, beginning: str) -> list[str]:
        """Return the keys that begin like this."""
        return [text for text in self.mapping if isinstance(text, str) and text.startswith(beginning)]

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


def without_buffer(mapping: Any) -> Any:
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
