"""A store that keeps nothing: a cache switched off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from stockpyle.keys import Key
from stockpyle.protocols import InThisProcess
from stockpyle.records import MISS, Alias, Found, Lease, Lock, Record
from stockpyle.stores.cache import CacheStore


class NullStore(InThisProcess, CacheStore):
    """Accepts everything and keeps nothing. In a chain it is a tier that always misses, and never a source."""

    schemes = ("null",)

    def accepts(self, klass: type) -> bool:
        """False: what nobody keeps has no source."""
        return False

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """Miss."""
        return [MISS] * len(keys)

    def fill(self, leased: Sequence[tuple[Lease, Record | Alias | None]]) -> int:
        """Keep nothing."""
        return 0

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> list[Lock]:
        """Nothing is held, so nothing needs a mark."""
        return [Lock(key) for key in keys]

    def publish(self, locked: Sequence[tuple[Lock, Record | Alias | None]]) -> None:
        """Keep nothing."""

    def unlock(self, locks: Sequence[Lock]) -> None:
        """Nothing was locked."""

    def batch_delete(self, objs: Iterable[Any]) -> None:
        """Nothing is there."""

    def clear(self) -> None:
        """Nothing is there."""
