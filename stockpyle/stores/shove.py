"""ShoveStore: objects in a Shove, or in any other mapping that keeps them somewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from stockpyle.addresses import ConnectionString
from stockpyle.exceptions import (
    ImproperlyConfigured,
    UnsupportedOperation,
)
from stockpyle.keys import KeySpec
from stockpyle.lifetimes import Lifetime, LifetimeCallback
from stockpyle.parameters import parameters_of, text_of
from stockpyle.stores._connected import with_text
from stockpyle.stores._kept import Kept, without_buffer
from stockpyle.stores._shove import import_shove, open_store, shown
from stockpyle.stores._shove_views import ShoveEntries
from stockpyle.stores.base import listed
from stockpyle.stores.dictionary import BaseDictionaryStore
from stockpyle.views.collection import Entries

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
        self._kept = Kept(make() if make else without_buffer(shove), f"{prefix}:", self.name, self.stats)
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
        with self._writing():
            super().batch_put(objs, lifetime=lifetime)

    def batch_delete(self, objs: Iterable[Any]) -> None:
        """Forget several objects; one that is not there is no error."""
        with self._writing():
            super().batch_delete(objs)

    def invalidate(self, klass: type, key: Mapping[str, Any] | None = None) -> None:
        """Forget one object, or all of a class (if the mapping can be iterated). They are kept nowhere else."""
        with self._writing():
            super().invalidate(klass, key)

    def _forget_class(self, spec: KeySpec) -> None:
        if not self._kept.is_listable:
            raise UnsupportedOperation(
                f"{self.name} cannot forget all {spec.klass.__qualname__}: its mapping cannot be listed"
            )
        super()._forget_class(spec)

    @contextmanager
    def _reading(self) -> Iterator[Kept]:
        with self._mutex:
            yield self._kept

    @contextmanager
    def _writing(self) -> Iterator[Kept]:
        with self._mutex, self._kept.settled():
            yield self._kept

    def _collections(self) -> Entries:
        if not self._kept.is_listable:
            raise UnsupportedOperation(f"the mapping of this {self.name} cannot be listed, and so keeps no collections")
        return ShoveEntries(self._prefix, self._reading, self._writing)

    def clear(self) -> None:
        """Forget every object under this prefix; all that is in the mapping, if that cannot be listed."""
        with self._writing() as kept:
            kept.clear()

    def close(self) -> None:
        """Write what is to be written; close what was opened by a URI. A mapping that was passed in stays open."""
        with self._mutex:
            self._kept.close(everything=self._uri is not None)

    def __repr__(self) -> str:
        if self._uri is None:
            return f"ShoveStore({type(self._kept.mapping).__name__}, prefix={self._prefix!r})"
        return f"ShoveStore(shoveuri={shown(self._uri)!r}, prefix={self._prefix!r})"


__all__ = ["ShoveStore", "import_shove"]
