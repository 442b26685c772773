"""shove on today's Python: its import, and its stores as mappings that lose nothing.

shove 0.6.6, the last, was written for Python 2.6 to 3.4. What ShoveStore uses of it are its stores; in front of them
shove has a buffer and a cache: they write late, show others' changes late, and keep what could not be written.
"""

from __future__ import annotations

import collections
import collections.abc
import hashlib
import os
import pickle
import sqlite3
import struct
import sys
import tempfile
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any
from urllib.parse import quote_plus, unquote_plus

from stockpyle.exceptions import ImproperlyConfigured, MissingDependency

MAX_NAME = 240
"""How long the name of a file may be, in bytes."""

_LONG = "="
"""How the name of a file begins whose key is too long: no quoted key does."""

SPOILT = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    ImportError,
    IndexError,
    TypeError,
    ValueError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What bytes that are no pickle, or one of a class that is no more, make of themselves."""

_NAMES = ("MutableMapping", "Mapping", "Sequence")
_importing = threading.Lock()


def import_shove() -> Any:
    """Return the module shove.core; MissingDependency if there is none.

    After this, ``from shove.core import Shove`` works too.
    """
    with _importing:
        known = sys.modules.get("shove.core")
        if known is not None:
            return known
        with _as_it_was():
            try:
                core = import_module("shove.core")
                import_module("shove.store")
                import_module("shove.cache")
            except ImportError as error:
                raise MissingDependency(
                    f"ShoveStore with shoveuri= needs shove: pip install 'stockpyle[shove]' ({error})"
                ) from error
        return core


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Let the names be where shove looks for them, as long as it is imported."""
    lacking = [name for name in _NAMES if not hasattr(collections, name)]
    resources: Any = ModuleType("pkg_resources")
    resources.iter_entry_points = lambda group: entry_points(group=group)
    before = sys.modules.get("pkg_resources")
    for name in lacking:
        setattr(collections, name, getattr(collections.abc, name))
    sys.modules["pkg_resources"] = resources
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in lacking:
            delattr(collections, name)
        if before is None:
            del sys.modules["pkg_resources"]
        else:
            sys.modules["pkg_resources"] = before


def open_store(uri: Any) -> Any:
    """Return shove's store for a URI, made safe for several threads; ImproperlyConfigured if it has none for it."""
    if not isinstance(uri, str) or "://" not in uri:
        raise ImproperlyConfigured(f"{uri!r} is no URI of a shove, such as 'file:///var/lib/app/objects'")
    scheme, _, rest = uri.partition("://")
    core = import_shove()
    known = sys.modules["shove._imports"].stores
    if scheme not in known:
        # the rest of the URI may hold a password
        raise ImproperlyConfigured(
            f"this shove has no store for {scheme}://, only for {', '.join(sorted(known))}. For anything else give a "
            "mapping of str to objects over its client: ShoveStore(shove=...); docs/shove.md has one for S3 over boto3"
        )
    if scheme in ("file", "lite", "dbm") and not rest:
        raise ImproperlyConfigured(f"{uri!r} names no path: {scheme}:///path")
    kind = known[scheme].load()
    store_module = sys.modules["shove.store"]
    special = {
        getattr(store_module, "FileStore", None): _atomic,
        getattr(store_module, "SQLiteStore", None): _for_all_threads,
        getattr(store_module, "DBMStore", None): _dbm_for_all_threads,
    }
    make = special.get(kind)
    try:
        return core.store_backend(uri) if make is None else make(kind)(uri)
    except (OSError, sqlite3.Error) as error:
        raise ImproperlyConfigured(f"{shown(uri)} cannot be opened: {error}") from error


def shown(uri: str) -> str:
    """Return a URI as it may be shown: without what may be a password."""
    scheme, _, rest = uri.partition("://")
    credentials, at, where = rest.rpartition("@")
    return f"{scheme}://{'***@' if credentials else at}{where}"


def _atomic(base: Any) -> Any:
    """Files that are replaced as a whole, so that no reader and no crash sees half of one; for keys of any length."""

    class Files(base):  # type: ignore[misc]
        def __getitem__(self, key: str) -> Any:
            path, is_long = self._place(key)
            try:
                with open(path, "rb") as file:
                    data = file.read()
            except FileNotFoundError:
                raise KeyError(key) from None
            found = self.loads(data)
            return found[1] if is_long else found

        def __setitem__(self, key: str, value: Any) -> None:
            place, is_long = self._place(key)
            data = self.dumps((key, value) if is_long else value)
            # the names that shove does not list begin with a dot
            number, path = tempfile.mkstemp(dir=self._dir, prefix=".")
            try:
                with open(number, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(number)
                os.replace(path, place)
            except BaseException:
                os.unlink(path)
                raise

        def __delitem__(self, key: str) -> None:
            try:
                os.remove(self._place(key)[0])
            except FileNotFoundError:
                raise KeyError(key) from None

        def __iter__(self) -> Iterator[str]:
            for name in os.listdir(self._dir):
                if not name.startswith((".", _LONG)):
                    yield unquote_plus(name)
                elif name.startswith(_LONG):
                    with suppress(*SPOILT, OSError), open(os.path.join(self._dir, name), "rb") as file:
                        yield self.loads(file.read())[0]

        def _place(self, key: str) -> tuple[str, bool]:
            """The path of a file, and if its name is too short for the key, which then stands inside."""
            name = quote_plus(key)
            if len(name) <= MAX_NAME:
                return os.path.join(self._dir, name), False
            digest = hashlib.blake2b(key.encode(), digest_size=32).hexdigest()
            return os.path.join(self._dir, _LONG + digest), True

    return Files


def unbuffered(store: Any) -> Any:
    """Return the store of somebody's Shove; one of files as they are here."""
    kind = type(store)
    if kind.__module__ != "shove.store" or kind.__name__ != "FileStore":
        return store
    files = _atomic(kind)(store._dir)
    vars(files).update(vars(store))
    return files


def _for_all_threads(base: Any) -> Any:
    """An SQLite file on a connection that may be used in any thread, in one at a time."""

    class Lite(base):  # type: ignore[misc]
        def __init__(self, engine: str, **options: Any) -> None:
            super().__init__(engine, **options)
            own: Any = self.__dict__["_store"]
            anybodys = sqlite3.connect(self._engine, check_same_thread=False)
            if self._engine == ":memory:":
                # the table that was made belongs to that connection alone
                own.backup(anybodys)
            own.close()
            self._store, self._cursor = anybodys, anybodys.cursor()

    return Lite


def _dbm_for_all_threads(base: Any) -> Any:
    """A DBM file; from Python 3.13 on it may be one of SQLite's, which is bound to a thread."""

    class Dbm(base):  # type: ignore[misc]
        def __init__(self, engine: str, **options: Any) -> None:
            super().__init__(engine, **options)
            own = getattr(self._store, "_cx", None)
            if isinstance(own, sqlite3.Connection):
                options = {"autocommit": True, "check_same_thread": False}
                self._store._cx = sqlite3.connect(self._engine, **options)
                own.close()

    return Dbm
