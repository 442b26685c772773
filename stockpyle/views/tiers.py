"""Queries of a chain: the source says which objects, the tiers hand them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from stockpyle.keys import Key
from stockpyle.views.attributes import Attribute
from stockpyle.views.selection import Search, Selection

BATCH = 1000
"""How many objects are fetched from the tiers at once."""


class ThroughTiers:
    """A Search of a chain's source whose objects come from `fetch`, the chain's own get of many, None for misses.

    What the source's rows hold is neither handed out nor filled into a tier: a query's snapshot may be older than what
    a tier has, or was not read under a lease.
    """

    def __init__(self, source: Search, fetch: Callable[[Sequence[Key]], Sequence[Any]]) -> None:
        self._source = source
        self._fetch = fetch
        self.spec = source.spec
        self.follows = source.follows

    def identities(self, selection: Selection) -> list[Key]:
        """See Search.identities."""
        return self._source.identities(selection)

    def objects(self, selection: Selection) -> Iterator[Any]:
        """See Search.objects. They are fetched a batch at a time; one that is deleted before is left out."""
        keys = self._source.identities(selection)
        for start in range(0, len(keys), BATCH):
            yield from (obj for obj in self._fetch(keys[start : start + BATCH]) if obj is not None)

    def count(self, selection: Selection) -> int:
        """See Search.count."""
        return self._source.count(selection)

    def values(self, selection: Selection, attributes: Sequence[Attribute]) -> list[tuple[Any, ...]]:
        """See Search.values. They are the source's."""
        return self._source.values(selection, attributes)
