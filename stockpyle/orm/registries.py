"""SQLAlchemy's registries of the classes that stockpyle has met in this process, and when to look at them again."""

from __future__ import annotations

import threading
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Mapper

_registries: dict[Any, None] = {}
_mappers_made = 0
_mutex = threading.Lock()
_listening = False


def meet(registry: Any) -> None:
    """Remember a registry of which a class is used."""
    _registries.setdefault(registry)


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
