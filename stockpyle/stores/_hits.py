"""Hits in process memory, without what every other read needs: no Key, no lock, no list.

Who has once found an object by some spelling of a key, ``{"org": 1, "login": "ann"}`` say, has a Way for that class and
these names in this order. It knows where the table keeps such objects, so that finding one takes two looks into dicts.
Key values are compared as Python does, see stockpyle.values; so they need no normalising to be looked up: what equals
the normal value is found, and everything else (a miss, a lock, a mistake) is for the full protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any

from stockpyle.coherence.guards import Guard
from stockpyle.keys import Key, KeySpec
from stockpyle.records import ABSENT, Record
from stockpyle.stats import Stats
from stockpyle.stores._slots import AliasSlot, Entry, Space


class Way:
    """How the objects of one class are found by one spelling of one key.

    asked and own return the key's values, of what is asked and of what is held: a tuple, or of a single attribute its
    value. sure is True if what is held under the key has these values without a look.
    """

    __slots__ = ("asked", "names", "own", "single", "space", "spec", "sure", "where")

    def __init__(self, key: Key, space: Space) -> None:
        spec, definition = key.spec, key.definition
        attributes = definition.attributes
        self.spec = spec
        self.space = space
        self.where = definition.space
        self.names = definition.names
        self.single = len(attributes) == 1
        self.asked = itemgetter(*attributes)
        self.own: Callable[[Any], Any] = spec.getter(attributes)
        # a row stays as it was filled, under its own identity; a plain object may have been changed in place
        self.sure = spec.mapped and key.is_identity


class Hits:
    """The ways that one reader knows into one table.

    spec_of returns the keys of a class as the reader names them, space_of where the table keeps what is under a key.
    stats are those of the store whose table it is, and own those of a chain above it; a chain has a guard, too, which
    says whether the store is to be believed.
    """

    def __init__(
        self,
        spec_of: Callable[[type], KeySpec],
        space_of: Callable[[Key], Space],
        clock: Callable[[], float],
        stats: Stats,
        own: Stats | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._ways: dict[tuple[Any, ...], Way] = {}
        self._spec_of = spec_of
        self._space_of = space_of
        self._clock = clock
        self._stats = stats
        self._own = own
        self._guard = guard

    def find(self, klass: Any, key: Any) -> Record | None:
        """Return the live record of an object that is held under this key; None for all that is not so simple."""
        try:
            name = (klass, *key)
            way = self._ways[name]
            asked = way.asked(key)
            slot: Any = way.space.slots[way.where, way.names, (asked,) if way.single else asked]
            entry: Entry = slot.entry if type(slot) is AliasSlot else slot
            record = entry.record
            if record.spec is not way.spec or record.value is ABSENT:
                return None
            if not way.sure:
                own = way.own(record.value)
                # what is of another type may have an equality of its own
                if own is not asked and (type(own) is not type(asked) or own != asked):
                    return None
        except (KeyError, TypeError, AttributeError, ValueError):
            return None
        deadline = record.deadline
        if deadline is not None and deadline <= self._clock():
            return None
        guard = self._guard
        if guard is not None and not guard.trusted:
            return None
        if not entry.used:
            entry.used = True
        self._stats.hits += 1
        if self._own is not None:
            self._own.hits += 1
        return record

    def get(self, klass: Any, key: Any) -> Any:
        """Return the object that is found; None if it is not so simple."""
        record = self.find(klass, key)
        return None if record is None else record.spec.materialise(record.value)

    def learn(self, klass: type, keys: Iterable[Mapping[str, Any]], found: Iterable[Any]) -> None:
        """Remember the ways by which objects of this class have just been found; None is one that was not."""
        for asked, each in zip(keys, found, strict=True):
            name = None if each is None else (klass, *asked)
            if name is None or name in self._ways:
                continue
            key = self._spec_of(klass).key(asked)
            # a synonym is not what the object's attribute is called
            if key is not None and key.definition.attributes == tuple(sorted(asked)):
                self._ways[name] = Way(key, self._space_of(key))
