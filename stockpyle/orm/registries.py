"""SQLAlchemy's registries of the classes that stockpyle has met in this process, and when to look at them again."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterable
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Mapper, registry
from sqlalchemy.orm.exc import UnmappedClassError

_registries: dict[Any, None] = {}
_names_met: tuple[tuple[int, int], set[str]] = ((-1, -1), set())
_names_of_none: tuple[int, frozenset[str]] = (-1, frozenset())
_mappers_made = 0
_mutex = threading.Lock()
_listening = False


def meet(registry: Any) -> None:
    """Remember a registry of which a class is used."""
    _registries.setdefault(registry)


def known_registries() -> list[Any]:
    """Return the registries met so far."""
    return list(_registries)


def meet_those_who_map(tables: Iterable[str]) -> None:
    """Meet the registries that map one of these tables (see name_of), if none of those met so far does.

    A process that only writes meets a class first in a statement, when others have long cached its objects.
    """
    global _names_of_none
    made, of_none = _names_of_none
    if made != _mappers_made or len(of_none) > _MANY:
        of_none = frozenset()
    made = _mappers_made
    unknown = set(tables) - _names_in_met() - of_none
    if unknown:
        for each in _all_registries():
            if not unknown.isdisjoint(_names_in(each)):
                meet(each)
        _names_of_none = made, of_none | (unknown - _names_in_met())


_MANY = 1000
"""Of how many tables that nobody maps the names are remembered: temporary ones have a new name each."""


def meet_all() -> None:
    """Meet every registry that there is."""
    for each in _all_registries():
        meet(each)


def name_of(table: Any) -> str:
    """Return the name that a table is known by here: without its schema, in lower case."""
    return str(getattr(table, "name", "")).lower()


def _names_in_met() -> set[str]:
    global _names_met
    now = generation()
    if _names_met[0] != now:
        _names_met = now, {name for each in known_registries() for name in _names_in(each)}
    return _names_met[1]


def mappers_of(one: Any) -> list[Any]:
    """Return the mappers of a registry, without those of classes that are not mapped before all others are."""
    try:
        return list(one.mappers)
    except UnmappedClassError:
        return [manager.mapper for manager in list(one._managers) if manager.is_mapped]


def _names_in(one: Any) -> set[str]:
    return {name_of(table) for mapper in mappers_of(one) for table in mapper.tables}


def _all_registries() -> list[Any]:
    # SQLAlchemy lists them where only its own modules look
    listed: Any = getattr(sys.modules.get("sqlalchemy.orm.mapper"), "_all_registries", None)
    if listed is not None:
        return list(listed())
    return [each for each in gc.get_objects() if isinstance(each, registry)]


def generation() -> tuple[int, int]:
    """Return what stays the same as long as no class is mapped and no registry met: so do answers found in them."""
    return _mappers_made, len(_registries)


def metadata_generation() -> tuple[int, int, int]:
    """Return what stays the same as long as generation() does and no table is described."""
    return _mappers_made, len(_registries), sum([len(each.metadata.tables) for each in _registries])


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
