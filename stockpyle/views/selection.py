"""What a query asks of its store, and what a store brings that can be asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from stockpyle.exceptions import InvalidQuery
from stockpyle.keys import Key, KeySpec
from stockpyle.views.attributes import Attribute
from stockpyle.views.conditions import All, Condition

EVERYTHING = All()


@dataclass(frozen=True)
class Order:
    """One attribute to sort by."""

    attribute: Attribute
    descending: bool

    def __str__(self) -> str:
        return ("-" if self.descending else "") + "__".join(self.attribute.names)


@dataclass(frozen=True)
class Selection:
    """Objects of one class: which, in which order, and from which to which of them. stop=None: to the last.

    Objects that no order tells apart are sorted by their identity keys.
    """

    condition: Condition = EVERYTHING
    orders: tuple[Order, ...] = ()
    start: int = 0
    stop: int | None = None

    @property
    def is_sliced(self) -> bool:
        """True if it is a part of what the condition selects."""
        return self.start > 0 or self.stop is not None

    def part(self, which: slice) -> Selection:
        """Return a slice of the selection."""
        if which.step not in (None, 1):
            raise InvalidQuery(f"a query has slices without a step, not with {which.step!r}")
        for bound in (which.start, which.stop):
            if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int) or bound < 0):
                raise InvalidQuery(f"a query is sliced by numbers from 0 on, not by {bound!r}")
        start = self.start + (which.start or 0)
        ends = [end for end in (self.stop, None if which.stop is None else self.start + which.stop) if end is not None]
        return replace(self, start=start, stop=max(start, min(ends)) if ends else None)


class Search(Protocol):
    """How the objects of one class are searched in one store."""

    @property
    def spec(self) -> KeySpec:
        """The keys of the class, as the store names them."""
        ...

    @property
    def follows(self) -> bool:
        """True if the relationships of mapped classes can be followed."""
        ...

    def identities(self, selection: Selection) -> list[Key]:
        """Return the identity keys of the objects selected, in their order."""
        ...

    def objects(self, selection: Selection) -> Iterable[Any]:
        """Return the objects selected, in their order, as the store's get hands them out."""
        ...

    def count(self, selection: Selection) -> int:
        """Return how many objects are selected."""
        ...

    def values(self, selection: Selection, attributes: Sequence[Attribute]) -> list[tuple[Any, ...]]:
        """Return these attributes of the objects selected, in their order."""
        ...


WHO_CAN = (
    "ProcessMemoryStore, ThreadLocalStore, BaseDictionaryStore, ShoveStore, SqlAlchemyStore, SqlTableStore and "
    "MongoStore can, a chain whose source is one of them, and a store of your own that has scan(klass)"
)
"""What errors say of the stores that can be queried."""
