"""What stands under the keys of process memory: entries, aliases of them, leases; and all of that of one class."""

from __future__ import annotations

import math
import threading
from typing import cast

from stockpyle.keys import Ident, KeySpec
from stockpyle.records import ABSENT, Alias, Busy, Record


class Entry:
    """A record. `number` is the space's, as long as the entry is held; -1 when it was removed."""

    __slots__ = ("aliases", "ident", "number", "record", "space", "used")

    def __init__(self, space: Space, ident: Ident, record: Record) -> None:
        self.space = space
        self.number = space.number
        self.ident = ident
        self.record = record
        self.aliases: list[Ident] = []
        self.used = False

    @property
    def is_held(self) -> bool:
        """False if it was removed, or its class was dropped."""
        return self.number == self.space.number

    def let_go(self) -> None:
        """A reader without the mutex may still hold the entry, and the ring may; neither needs the object."""
        self.record = _GONE
        self.number = -1


class AliasSlot:
    """What an alternate key leads to."""

    __slots__ = ("alias", "entry")

    def __init__(self, alias: Alias, entry: Entry) -> None:
        self.alias = alias
        self.entry = entry


class LeaseSlot:
    """A reader's lease; the slot itself is its token."""

    __slots__ = ("done", "expires", "ident", "thread")

    def __init__(self, ident: Ident, expires: float) -> None:
        self.ident = ident
        self.expires = expires
        self.thread = threading.get_ident()
        self.done: threading.Event | None = None

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


Slot = Entry | AliasSlot | LeaseSlot


class Space:
    """All that is held of one class, or of one table.

    To drop it all is to put an empty dict in the place of `slots` and to count `number` up, whatever is in there.
    closed_by: the locks of the class as a whole, one a writer: as long as one of them lives, nothing is handed out or
    kept. locks: those of single keys, which outlive the slots. count: how many entries there are.
    """

    __slots__ = ("closed_by", "count", "locks", "number", "slots", "waited_for")

    def __init__(self) -> None:
        self.number = 0
        self.count = 0
        self.slots: dict[Ident, Slot] = {}
        self.locks: dict[Ident, LockSlot] = {}
        self.closed_by: list[LockSlot] = []
        self.waited_for: list[LeaseSlot] = []

    def drop(self) -> dict[Ident, Slot]:
        """Begin anew; return what was held."""
        old, self.slots = self.slots, {}
        self.number += 1
        self.count = 0
        for lease in self.waited_for:
            lease.finish()
        self.waited_for.clear()
        return old

    def renew(self) -> None:
        """Begin anew in a child process, where whoever waits or holds a lock is not."""
        self.slots, self.locks, self.closed_by, self.waited_for = {}, {}, [], []
        self.number += 1
        self.count = 0

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
            self.waited_for = [each for each in self.waited_for if self.slots.get(each.ident) is each]
            self.waited_for.append(lease)
        return Busy(lease.done, own_thread=lease.thread == threading.get_ident())


_GONE = Record(spec=cast(KeySpec, None), value=ABSENT, deadline=-math.inf)
"""What stands in an entry that was removed: a record that expired long ago."""
