"""SQLAlchemy's registries of the classes that stockpyle has met in this process, and when to look at them again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Mapper, mapperlib

_registries: dict[Any, None] = {}
_mappers_made = 0
_mutex = threading.Lock()
_listening = False

# there is no public way from a table to the classes that are mapped to it
_all_registries: Callable[[], Iterable[Any]] = getattr(mapperlib, "_all_registries", tuple)


def meet(registry: Any) -> None:
    """Remember a registry of which a class is used."""
    _registries.setdefault(registry)


def meet_those_of(metadata: Any) -> None:
    """Remember the registries whose tables are in this MetaData, or all of them if it is None.

    The first thing that a process does may be a statement on a table whose objects other processes have in a cache.
    """
    for each in _all_registries():
        if metadata is None or each.metadata is metadata:
            meet(each)


def known_registries() -> list[Any]:
    """Return the registries met so far."""
    return list(_registries)


def generation() -> tuple[int, int]:
    """Return what stays the same as long as no class is mapped and no registry met: so do answers found in them."""
    return _mappers_made, len(_registries)


def start_counting() -> None:
    """Count from now on the classes that are mapped."""
    global _listening

    def made(mapper: Mapper[Any], klass: type) -> None:
        global _mappers_made
        _mappers_made += 1

    with _mutex:
        if not _listening:
            event.listen(Mapper, "after_mapper_constructed", made)
            _listening = True
