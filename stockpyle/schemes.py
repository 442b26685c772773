"""The registry: which scheme of a connection string, and which other name, stands for which class of stores.

A class that declares ``schemes`` is in it from its definition on. A package that is installed beside stockpyle can
announce its classes as entry points of the group "stockpyle.stores", named by their schemes.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from stockpyle.exceptions import ImproperlyConfigured, NoSuchStoreBackend, StockpyleWarning

GROUP = "stockpyle.stores"
"""The group of the entry points."""

_SCHEME = re.compile(r"[a-z][a-z0-9.+-]{0,99}\Z")
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*([:.][^\W\d]\w*)+\Z")
_VERBS = ("put", "get", "delete", "batch_put", "batch_get", "batch_delete")


class DataStores(Mapping[str, str]):
    """Every scheme that is known, with the path of its class, such as ``"stockpyle.stores.redis:RedisStore"``."""

    def __init__(self) -> None:
        self._paths: dict[str, str] = {}
        self._classes: dict[str, type] = {}
        self._announced = False

    def __getitem__(self, scheme: str) -> str:
        if scheme not in self._paths:
            self._discover()
        return self._paths[scheme]

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._paths))

    def __len__(self) -> int:
        self._discover()
        return len(self._paths)

    def __repr__(self) -> str:
        return f"data_stores({dict(self)!r})"

    def add(self, scheme: str, path: str, klass: type | None = None, *, replace: bool = False) -> None:
        """Register a scheme; ImproperlyConfigured if it is none, or another class has it."""
        if not isinstance(scheme, str) or not _SCHEME.match(scheme):
            raise ImproperlyConfigured(
                f"{scheme!r} is no scheme: it is lower-case letters, digits, '.', '+' and '-', a letter first"
            )
        taken = path if replace else self._paths.setdefault(scheme, path)
        if taken != path:
            raise ImproperlyConfigured(f"the scheme {scheme!r} is that of {taken}: give replace=True to replace it")
        self._paths[scheme] = path
        if klass is not None:
            self._classes[path] = klass

    def schemes_of(self, klass: type) -> list[str]:
        """Return the schemes that stand for a class, in the order in which they were registered."""
        own = path_of(klass)
        known = list(self._paths.items())
        return [scheme for scheme, path in known if path == own or self._classes.get(path) is klass]

    def class_of(self, scheme: str) -> type | None:
        """Return the class that a scheme stands for; "shove+file" is a shove, if nothing else is registered for it.

        Its module is imported, if it has not been yet.
        """
        for name in (scheme, scheme.partition("+")[0]):
            path = self.get(name)
            if path is not None:
                return self._loaded(path, f"the store that is registered as {name!r}")
        return None

    def class_named(self, name: str) -> type | None:
        """Return the class of this name among those that have a scheme."""
        for path in dict.fromkeys(self.values()):
            if path.rpartition(":")[2].rpartition(".")[2] == name:
                return self._loaded(path, f"the store {name}")
        return None

    def _loaded(self, path: str, what: str) -> type:
        klass = self._classes.get(path)
        if klass is None:
            klass = self._classes[path] = load(path, what)
        return klass

    def _discover(self) -> None:
        if self._announced:
            return
        points = entry_points(group=GROUP)
        self._announced = True
        for point in points:
            try:
                self.add(point.name, path_in(point.value))
            except ImproperlyConfigured as error:
                warnings.warn(f"the entry point {point.name!r} is not used: {error}", StockpyleWarning, stacklevel=2)


data_stores = DataStores()


def register_store(scheme: str, store: str | type, *, replace: bool = False) -> None:
    """Register a store for a scheme, so that ``create_store("scheme://...")`` makes one.

    store is a class, or the path of one, such as "package.module:Class", that is imported when it is first needed.
    A scheme that another class has is an error, unless replace is true.
    """
    if isinstance(store, type):
        data_stores.add(scheme, path_of(checked_class(store, path_of(store))), store, replace=replace)
    else:
        data_stores.add(scheme, path_in(store), replace=replace)


def path_of(klass: type) -> str:
    """Return the path of a class: "module:qualified name"."""
    return f"{klass.__module__}:{klass.__qualname__}"


def path_in(text: Any) -> str:
    """Return a path as it is registered; ImproperlyConfigured if it is none."""
    if not isinstance(text, str) or not _PATH.match(text):
        raise ImproperlyConfigured(f'{text!r} is no path of a class, such as "package.module:Class"')
    if ":" in text:
        return text
    module, _, name = text.rpartition(".")
    return f"{module}:{name}"


def load(path: str, what: str = "a store") -> type:
    """Import a class by its path; NoSuchStoreBackend says why it cannot be, and keeps the error as its cause."""
    module_name, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # what a module raises while it is imported can be anything
        raise NoSuchStoreBackend(
            f"{what} cannot be imported: importing {module_name} raised {type(error).__name__}: {error}"
        ) from error
    for each in name.split("."):
        try:
            found = getattr(found, each)
        except AttributeError:
            raise NoSuchStoreBackend(
                f"{what} cannot be imported: {module_name} has no {name}{_instead(found, each)}"
            ) from None
    return checked_class(found, path)


def _instead(place: Any, name: str) -> str:
    if not isinstance(place, ModuleType):
        return ""
    near = get_close_matches(name, [each for each, found in vars(place).items() if isinstance(found, type)], 1)
    return f": do you mean {near[0]}?" if near else ""


def checked_class(found: Any, path: str) -> type:
    """Return what stands at a path, if it is a class of stores; NoSuchStoreBackend if it is not."""
    if isinstance(found, ModuleType):
        classes = [name for name, each in vars(found).items() if isinstance(each, type) and not lacking(each)]
        instead = f", which has {', '.join(classes)}" if classes else ""
        raise NoSuchStoreBackend(f"{path} is a module{instead}: give the path of a class in it")
    if not isinstance(found, type):
        raise NoSuchStoreBackend(f"{path} is no class, but {found!r:.200}")
    lacks = lacking(found)
    if lacks:
        raise NoSuchStoreBackend(f"{path} is no class of stores: it lacks {', '.join(lacks)}")
    return found


def lacking(store: Any) -> list[str]:
    """Return the verbs that a store, or a class of stores, lacks."""
    return [verb for verb in _VERBS if not callable(getattr(store, verb, None))]
