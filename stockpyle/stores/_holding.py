"""What a table in process memory holds, and what of it has to go: expired, evicted, dropped with its class.

Entries stand in a ring. Each insertion looks at the next two of it for ones that are expired or that a policy has
evicted, so that what is never asked for again does not stay for ever; each removal looks at two, for ones that are
gone. What is bounded has them in a Sieve, too, which says what makes room; that is before an insertion, so that what
was just put stays. What was dropped is freed a little at a time, by what comes next.

An interrupt, such as KeyboardInterrupt, may come between any two lines. So an entry begins and ceases to be held in the
very line that counts it; and what leads to one that is not held is as good as nothing, and removed when it is met.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any

from stockpyle.exceptions import ImproperlyConfigured
from stockpyle.stores._sieve import Sieve
from stockpyle.stores._slots import Entry, Index, LeaseSlot, Slot, Space

FREED_AT_ONCE = 1000
"""How much of a class that is dropped is freed right then; of the rest, so many at each insertion and removal: """
FREED_LATER = 8

Policy = MutableMapping[Any, Any]


class Holding:
    """Entries, bounded by `maxsize` of them or by a cachetools `policy`. Its callers hold the table's mutex."""

    def __init__(self, maxsize: int | None, policy: Policy | None, clock: Callable[[], float]) -> None:
        if maxsize is not None and policy is not None:
            raise ImproperlyConfigured("give either maxsize or policy: a cachetools policy has a maxsize of its own")
        if maxsize is not None and (isinstance(maxsize, bool) or not isinstance(maxsize, int) or maxsize < 1):
            raise ImproperlyConfigured(f"maxsize is a number of objects, 1 or more, not {maxsize!r}")
        if policy is not None and (isinstance(policy, type) or not hasattr(policy, "popitem")):
            raise ImproperlyConfigured(
                f"policy is a cachetools cache, such as cachetools.LRUCache(1000), not {policy!r}"
            )
        self.maxsize = maxsize
        self._policy = policy
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self.count = 0
        self.ring: deque[Entry] = deque()
        self.dropped: deque[dict[Any, Slot]] = deque()
        """What was dropped and is not freed yet."""
        self._sieve: Sieve[Entry] | None = None if self.maxsize is None else Sieve()

    def renew(self) -> None:
        """Hold nothing, in a child process where things may have been left half done."""
        self._begin()
        if self._policy is not None:
            self._policy.clear()

    def __len__(self) -> int:
        return self.count if self._policy is None else len(self._policy)

    def is_live(self, entry: Entry, now: float) -> bool:
        """True if an entry may be handed out."""
        if not entry.is_held or (entry.record.deadline is not None and entry.record.deadline <= now):
            return False
        return self._policy is None or entry.ident in self._policy

    def use(self, entry: Entry) -> None:
        """Note that an entry is handed out."""
        entry.used = True
        if self._policy is not None:
            self._policy.get(entry.ident)

    def add(self, entry: Entry) -> bool:
        """Hold an entry where it stands, which is empty; False if there is no room for it."""
        self._make_room()
        if self._policy is not None:
            try:
                self._policy[entry.ident] = entry
            except ValueError:
                # cachetools refuses a value that is larger than the whole cache
                return False
        self.ring.append(entry)
        if self._sieve is not None:
            self._sieve.add(entry)
        index = entry.index
        space = index.space
        space.home = index
        index.slots[entry.at], entry.number, space.count, self.count = (
            entry,
            space.number,
            space.count + 1,
            self.count + 1,
        )
        return True

    def remove(self, index: Index, at: Any) -> None:
        """Remove what stands there, if anything does; of an entry all that leads to it."""
        slot = index.slots.get(at)
        if isinstance(slot, Entry) and slot.index is index:
            self.end(slot)
            return
        index.slots.pop(at, None)
        if isinstance(slot, LeaseSlot):
            slot.finish()
        elif slot is not None:
            slot.is_not_at(index, at)
        self._free(FREED_LATER)

    def end(self, entry: Entry) -> None:
        """Remove an entry, and all that leads to it."""
        self._let_go(entry)
        if entry.is_held:
            space = entry.index.space
            entry.number, space.count, self.count = -1, space.count - 1, self.count - 1
        for index, at in ((entry.index, entry.at), *entry.places()):
            if index.slots.get(at) is entry:
                del index.slots[at]
        self._pass_over(2)
        self._free(FREED_LATER)

    def drop(self, space: Space) -> None:
        """Drop a whole class, but the locks of single keys, whose owners may not publish any more."""
        self.count, space.count, space.number = self.count - space.count, 0, space.number + 1
        self.dropped += space.drop()
        # a policy goes on counting what it holds
        self._free(FREED_AT_ONCE if self._policy is None else None)
        self._pass_over(FREED_AT_ONCE)

    def free(self, most: int | None = None) -> None:
        """Free so many slots of what was dropped, or all."""
        if self.dropped:
            self._free(most)

    def _free(self, most: int | None) -> None:
        left = sum(map(len, self.dropped)) if most is None else most
        while self.dropped and left:
            slots = self.dropped[0]
            if not slots:
                self.dropped.popleft()
                continue
            left -= 1
            _, slot = slots.popitem()
            if isinstance(slot, Entry):
                self._let_go(slot)

    def _let_go(self, entry: Entry) -> None:
        entry.let_go()
        if self._policy is not None:
            self._policy.pop(entry.ident, None)

    def _pass_over(self, most: int) -> None:
        """Take the ring's next entries out of it, if they are gone, and put them at its end if not."""
        for _ in range(min(most, len(self.ring))):
            if self.ring[0].is_held:
                self.ring.rotate(-1)
            else:
                self.ring.popleft()
        sieve = self._sieve
        # only if there are many of them: those that are kept are spared by it
        while sieve is not None and most and len(sieve) > 1.5 * self.count + FREED_LATER:
            most -= 1
            entry = sieve.take()
            if entry.is_held:
                sieve.keep(entry)

    def _make_room(self) -> None:
        """Before an insertion: sweep two entries, and evict what must go."""
        self._free(FREED_LATER)
        now = self._clock()
        for _ in range(2):
            # a removal takes out of the ring, too
            if not self.ring:
                break
            entry = self.ring[0]
            if self.is_live(entry, now):
                self.ring.rotate(-1)
            elif entry.is_held:
                self.end(entry)
            else:
                self.ring.popleft()
        sieve = self._sieve
        while sieve and self.maxsize is not None and self.count >= self.maxsize:
            entry = sieve.take()
            if not entry.is_held:
                continue
            if entry.used and self.is_live(entry, now):
                entry.used = False
                sieve.keep(entry)
            else:
                self.end(entry)
