"""What stands under the keys of process memory: entries, which all keys of an object lead to, and leases.

All of that of one class is a Space, and what is under one of its keys an Index, so that a hit takes one look into one
dict, and nothing is built to be looked for.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any, cast

from stockpyle.keys import Ident, Key, KeySpec
from stockpyle.records import ABSENT, Busy, Record


class Index:
    """What stands under one key of one class: by the key's value, or of several attributes by the tuple of theirs."""

    __slots__ = ("names", "single", "slots", "space")

    def __init__(self, space: Space, names: tuple[str, ...]) -> None:
        self.space = space
        self.names = names
        self.single = len(names) == 1
        self.slots: dict[Any, Slot] = {}

    def at(self, values: tuple[Any, ...]) -> Any:
        """Return what is under these values of a key stands under here."""
        return values[0] if self.single else values

    def ident(self, at: Any) -> Ident:
        """Return the ident of the key of which this is the place."""
        return self.space.name, self.names, (at,) if self.single else at


class Entry:
    """A record, and where it stands: in an index, at a value; and in others, as the tuple of both of each.

    number is the space's, as long as the entry is held and counted; -1 before that and when it was removed.
    """

    __slots__ = ("aliases", "at", "index", "number", "record", "used")

    def __init__(self, index: Index, at: Any, record: Record) -> None:
        self.index = index
        self.at = at
        self.number = -1
        self.record = record
        self.aliases: tuple[Any, ...] = ()
        self.used = False

    @property
    def ident(self) -> Ident:
        """The ident of the key that the record is held under."""
        return self.index.ident(self.at)

    @property
    def is_held(self) -> bool:
        """False if it is not yet held, was removed, or its class was dropped."""
        return self.number == self.index.space.number

    def places(self) -> Iterator[tuple[Index, Any]]:
        """Yield where it is found, too."""
        return zip(self.aliases[::2], self.aliases[1::2], strict=True)

    def is_at(self, index: Index, at: Any) -> None:
        """Note that it is found there, too."""
        self.aliases = (*self.aliases, index, at)

    def is_not_at(self, index: Index, at: Any) -> None:
        """Note that it is not found there any more."""
        # no index has it twice under equal values
        kept = [place for place in self.places() if place[0] is not index or place[1] != at]
        self.aliases = tuple([each for place in kept for each in place])

    def let_go(self) -> None:
        """A reader without the mutex may still hold the entry, and the sieve may; neither needs the object."""
        self.record = _GONE


class LeaseSlot:
    """A reader's lease; the slot itself is its token. forks: the table's, when it was made."""

    __slots__ = ("at", "done", "expires", "forks", "index", "thread")

    def __init__(self, index: Index, at: Any, expires: float, forks: int = 0) -> None:
        self.index = index
        self.at = at
        self.expires = expires
        self.forks = forks
        self.thread = threading.get_ident()
        self.done: threading.Event | None = None

    @property
    def is_held(self) -> bool:
        """False if something has taken its place."""
        return self.index.slots.get(self.at) is self

    def finish(self) -> None:
        """Wake up those who wait for it."""
        if self.done is not None:
            self.done.set()


class LockSlot:
    """A writer's lock; the slot itself is its token.

    If the space's number has changed since, what the lock's owner loads may be older than that.
    """

    __slots__ = ("expires", "ident", "number", "space")

    def __init__(self, space: Space, ident: Ident, expires: float) -> None:
        self.space = space
        self.number = space.number
        self.ident = ident
        self.expires = expires


Slot = Entry | LeaseSlot


class Space:
    """All that is held of one class, or of one table: an index a key, by the key's names.

    To drop it all is to count `number` up and to give every index an empty dict, whatever is in there. home is the
    index that the records stand in themselves.
    closed_by: the locks of the class as a whole, one a writer: as long as one of them lives, nothing is handed out or
    kept. locks: those of single keys, which outlive the slots. count: how many entries there are.
    """

    __slots__ = ("closed_by", "count", "home", "indexes", "locks", "name", "number", "waited_for")

    def __init__(self, name: str) -> None:
        self.name = name
        self.number = 0
        self.count = 0
        self.home: Index | None = None
        self.indexes: dict[tuple[str, ...], Index] = {}
        self.locks: dict[Ident, LockSlot] = {}
        self.closed_by: list[LockSlot] = []
        self.waited_for: list[LeaseSlot] = []

    def index(self, names: tuple[str, ...]) -> Index:
        """Return what is under the key of these names, now and later."""
        return self.indexes.get(names) or self.indexes.setdefault(names, Index(self, names))

    def place(self, key: Key) -> tuple[Index, Any]:
        """Return the index of a key, and what it stands under there."""
        names, values = key.definition.names, key.values
        index = self.indexes.get(names) or self.index(names)
        return index, values[0] if index.single else values

    def items(self) -> list[tuple[Ident, Slot]]:
        """Return all slots, with the idents of the keys that lead to them."""
        return [(index.ident(at), slot) for index in self.indexes.values() for at, slot in index.slots.items()]

    def drop(self) -> list[dict[Any, Slot]]:
        """Hand out nothing of what was held, and return it; `number` has been counted up, and nothing is counted."""
        held = [index.slots for index in self.indexes.values()]
        # after an interrupt nothing is found under another key that cannot be found and removed under its own
        for index in sorted(self.indexes.values(), key=lambda index: index is self.home):
            index.slots = {}
        for lease in self.waited_for:
            lease.finish()
        self.waited_for.clear()
        return held

    def renew(self) -> None:
        """Begin anew in a child process, where whoever waits or holds a lock is not."""
        self.number, self.count = self.number + 1, 0
        self.drop()
        self.locks, self.closed_by = {}, []

    def leave_waiters(self) -> None:
        """In a child process: those who wait are the parent's, and one may have held the lock of what it waits for."""
        for lease in self.waited_for:
            lease.done = None
        self.waited_for = []

    def is_closed(self, now: float) -> bool:
        """True if a writer has locked the class as a whole; locks that have run out are forgotten."""
        if any(each.expires <= now for each in self.closed_by):
            self._keep([each for each in self.closed_by if each.expires > now])
        return bool(self.closed_by)

    def open(self, lock: object) -> None:
        """Take one of these locks away, if it is one."""
        if lock in self.closed_by:
            self._keep([each for each in self.closed_by if each is not lock])

    def _keep(self, locks: list[LockSlot]) -> None:
        # nothing is held now; but who has locked a key meanwhile may have loaded it too early, and publishes nothing
        self.number += 1
        self.closed_by = locks

    def busy(self, lease: LeaseSlot) -> Busy:
        """Return what waits for a lease."""
        if lease.done is None:
            lease.done = threading.Event()
            self.waited_for = [each for each in self.waited_for if each.is_held]
            self.waited_for.append(lease)
        return Busy(lease.done, own_thread=lease.thread == threading.get_ident())


_GONE = Record(spec=cast(KeySpec, None), value=ABSENT, deadline=-math.inf)
"""What stands in an entry that was removed: a record that expired long ago."""
