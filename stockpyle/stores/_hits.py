"""Hits in process memory, without what every other read needs: no Key, no lock, no list.

Who has once found an object by some spelling of a key, ``{"org": 1, "login": "ann"}`` say, has a Way for that class and
these names in this order. It knows where the table keeps such objects, so that finding one takes one look into a dict.
Key values are compared as Python does, see stockpyle.values; so they need no normalising to be looked up: what equals
the normal value, and is of its type, is found; everything else (a miss, a lock, a mistake) is for the full protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

from stockpyle.coherence.guards import Guard
from stockpyle.keys import Key, KeySpec
from stockpyle.records import ABSENT, Record
from stockpyle.stats import Stats
from stockpyle.stores._slots import Index

NOT_SIMPLE = (KeyError, TypeError, AttributeError, ValueError)
"""What a look raises if there is nothing, or a lease, or if the key is none."""


class Way:
    """How the objects of one class are found by one spelling of one key.

    asked and own return the key's values, of what is asked and of what is held: a tuple, or of a single attribute its
    value; size is how many there are. materialise returns what is handed out for what is held; None if that is itself.
    """

    __slots__ = ("asked", "index", "materialise", "own", "size", "spec")

    def __init__(self, key: Key, index: Index) -> None:
        spec, attributes = key.spec, key.definition.attributes
        self.spec = spec
        self.materialise: Callable[[Any], Any] | None = spec.materialise if spec.mapped else None
        self.index = index
        self.asked = itemgetter(*attributes)
        # a plain object may have been changed in place; and of a row it tells the type that may be asked for
        self.own: Callable[[Any], Any] = spec.getter(attributes)
        self.size = len(attributes)


class Above:
    """A chain whose first level the table is: the chain's guard says whether the store is to be believed."""

    __slots__ = ("guard", "stats")

    def __init__(self, stats: Stats, guard: Guard) -> None:
        self.stats = stats
        self.guard = guard


class Hits:
    """The ways that one reader knows into one table, by class, and by a key's names or its only name.

    spec_of returns the keys of a class as the reader names them, index_of where the table keeps what is under a key.
    stats are those of the store whose table it is.
    """

    __slots__ = ("_index_of", "_spec_of", "above", "clock", "stats", "ways")

    def __init__(
        self,
        spec_of: Callable[[type], KeySpec],
        index_of: Callable[[Key], Index],
        clock: Callable[[], float],
        stats: Stats,
        above: Above | None = None,
    ) -> None:
        self.ways: dict[Any, dict[Any, Way]] = {}
        self._spec_of = spec_of
        self._index_of = index_of
        self.clock = clock
        self.stats = stats
        self.above = above

    def find(self, klass: Any, key: Any) -> Record | None:
        """Return the live record of an object that is held under this key; None for all that is not so simple."""
        try:
            if len(key) == 1:
                (name,) = key
                way = self.ways[klass][name]
                asked = key[name]
            else:
                way = self.ways[klass][tuple(key)]
                asked = way.asked(key)
            entry: Any = way.index.slots[asked]
            record: Record = entry.record
            if record.spec is not way.spec or record.value is ABSENT:
                return None
            own = way.own(record.value)
            if own is not asked:
                # what is of another type may have an equality of its own
                if type(own) is not type(asked) or own != asked:
                    return None
                if way.size > 1:
                    # two are looked at one by one because that takes a fifth of the time
                    if type(own[0]) is not type(asked[0]) or type(own[1]) is not type(asked[1]):
                        return None
                    if way.size > 2 and [*map(type, own)] != [*map(type, asked)]:
                        return None
        except NOT_SIMPLE:
            return None
        if record.deadline is not None and record.deadline <= self.clock():
            return None
        above = self.above
        if above is not None:
            if not above.guard.trusted:
                return None
            above.stats.hits += 1
        self.stats.hits += 1
        if not entry.used:
            entry.used = True
        return record

    def get(self, klass: Any, key: Any) -> Any:
        """Return the object that is found; None if it is not so simple."""
        record = self.find(klass, key)
        return None if record is None else record.spec.materialise(record.value)

    def learn(self, klass: type, keys: Iterable[Mapping[str, Any]], found: Iterable[Any]) -> None:
        """Remember the ways by which objects of this class have just been found; None is one that was not."""
        for asked, each in zip(keys, found, strict=True):
            if each is None:
                continue
            ways = self.ways.setdefault(klass, {})
            name = tuple(asked) if len(asked) != 1 else next(iter(asked))
            if name in ways:
                continue
            key = self._spec_of(klass).key(asked)
            # a synonym is not what the object's attribute is called
            if key is not None and key.definition.attributes == tuple(sorted(asked)):
                ways[name] = Way(key, self._index_of(key))
