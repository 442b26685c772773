"""Process memory as a tier: the table that keeps the protocol of leases and locks.

How it is built. Objects of one class (or one table) live in a _Space, a dict from key idents to slots; a slot is
an entry with a record, an alias of an entry, a reader's lease or a writer's lock. The slot object itself is the
token of a lease or lock: "unchanged" is ``is``. A hit takes no lock: it is one look into the dict, one at the
deadline, and it sets the entry's `used` bit; all that changes a dict does so under one mutex. To invalidate a
whole class its space is replaced by an empty one, in one step for those readers; leases of the old one fill nothing.

Eviction is CLOCK (F. J. Corbato, "A paging experiment with the Multics system", 1968): entries stand in a ring, the
hand passes over those that were used since it last came by, once. It makes room before an insertion, so that what was
just put stays. Each insertion also looks at two entries for ones that are expired or that a policy has evicted, so
that what is never asked for again does not stay for ever.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, cast

from stockpyle.exceptions import ImproperlyConfigured
from stockpyle.forks import renew_after_fork
from stockpyle.keys import Ident, Key, KeySpec
from stockpyle.records import ABSENT, LOCKED, MISS, Alias, Busy, Found, Lease, Lock, Record

LEASE_SECONDS = 10.0
"""How long a reader may take to load before another may."""

Policy = MutableMapping[Any, Any]


class _Entry:
    __slots__ = ("aliases", "gone", "ident", "record", "space", "used")

    def __init__(self, space: _Space, ident: Ident, record: Record) -> None:
        self.space = space
        self.ident = ident
        self.record = record
        self.aliases: list[Ident] = []
        self.used = False
        self.gone = False


class _AliasSlot:
    __slots__ = ("alias", "entry")

    def __init__(self, alias: Alias, entry: _Entry) -> None:
        self.alias = alias
        self.entry = entry


class _LeaseSlot:
    __slots__ = ("done", "expires", "thread")

    def __init__(self, expires: float) -> None:
        self.expires = expires
        self.thread = threading.get_ident()
        self.done: threading.Event | None = None

    def finish(self) -> None:
        if self.done is not None:
            self.done.set()


class _LockSlot:
    """bare: the whole class was invalidated meanwhile, so what this lock's owner loads may be older than that."""

    __slots__ = ("bare", "expires", "ident", "space")

    def __init__(self, space: str, ident: Ident, expires: float) -> None:
        self.space = space
        self.ident = ident
        self.expires = expires
        self.bare = False


_Slot = _Entry | _AliasSlot | _LeaseSlot | _LockSlot


class _Space:
    """All that is held of one class, or of one table, and its lock while somebody changes it as a whole."""

    __slots__ = ("lock", "slots")

    def __init__(self, lock: _LockSlot | None = None) -> None:
        self.slots: dict[Ident, _Slot] = {}
        self.lock = lock


class MemoryTable:
    """The tier protocol over dicts, bounded by `maxsize` records or by a cachetools `policy`."""

    def __init__(
        self,
        maxsize: int | None = None,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.time,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        if maxsize is not None and policy is not None:
            raise ImproperlyConfigured("give either maxsize or policy: a cachetools policy has a maxsize of its own")
        if maxsize is not None and (isinstance(maxsize, bool) or not isinstance(maxsize, int) or maxsize < 1):
            raise ImproperlyConfigured(f"maxsize is a number of objects, 1 or more, not {maxsize!r}")
        if policy is not None and (isinstance(policy, type) or not hasattr(policy, "popitem")):
            raise ImproperlyConfigured(
                f"policy is a cachetools cache, such as cachetools.LRUCache(1000), not {policy!r}"
            )
        if isinstance(lease_seconds, bool) or not isinstance(lease_seconds, int | float) or not lease_seconds > 0:
            raise ImproperlyConfigured(f"lease_seconds is a number of seconds above 0, not {lease_seconds!r}")
        self._maxsize = maxsize
        self._policy = policy
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._spaces: dict[str, _Space] = {}
        self._ring: deque[_Entry] = deque()
        self._locks: deque[_LockSlot] = deque()
        self._count = 0
        self._mutex = threading.RLock()
        renew_after_fork(self)

    def __len__(self) -> int:
        return self._count if self._policy is None else len(self._policy)

    # reading

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """See Tier.read."""
        found: list[Found] = []
        for key in keys:
            space = self._spaces.get(key.spec.space)
            slot = space.slots.get(key.ident) if space is not None else None
            if type(slot) is _Entry and self._policy is None:
                record = slot.record
                if record.deadline is None or record.deadline > self._clock():
                    slot.used = True
                    found.append(record)
                    continue
            found.append(self._look(key, lease))
        return found

    def _look(self, key: Key, lease: bool) -> Found:
        ident = key.ident
        with self._mutex:
            now = self._clock()
            space = self._space(key)
            if space.lock is not None:
                if space.lock.expires > now:
                    return LOCKED
                space.lock = None
            slot = space.slots.get(ident)
            if isinstance(slot, _Entry):
                if self._is_live(slot, now):
                    self._use(slot)
                    return slot.record
                self._remove(space, ident)
            elif isinstance(slot, _AliasSlot):
                if self._is_live(slot.entry, now):
                    return slot.alias
                self._remove(space, slot.entry.ident)
            elif slot is not None and slot.expires > now:
                return LOCKED if isinstance(slot, _LockSlot) else _busy(slot)
            elif slot is not None:
                self._remove(space, ident)
            if not lease:
                return MISS
            mine = space.slots[ident] = _LeaseSlot(now + self._lease_seconds)
            return Lease(key, mine)

    # filling

    def fill(self, leased: Sequence[tuple[Lease, Record | Alias | None]]) -> int:
        """See Tier.fill."""
        filled = 0
        with self._mutex:
            for lease, value in leased:
                space = self._space(lease.key)
                if space.slots.get(lease.key.ident) is lease.token:
                    self._remove(space, lease.key.ident)
                    filled += value is not None and self._set(space, lease.key.ident, value)
        return filled

    # writing

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> list[Lock]:
        """See Tier.lock."""
        loose = {key.ident for key in without_row_lock}
        locks = []
        with self._mutex:
            now = self._clock()
            self._forget_old_locks(now)
            for key in keys:
                ident = key.ident
                mine = _LockSlot(key.spec.space, ident, now + seconds)
                space = self._space(key)
                if key.is_epoch:
                    over: _Slot | None = space.lock
                    self._drop(key.spec.space, mine)
                else:
                    over = space.slots.get(ident)
                    self._remove(space, ident)
                    space.slots[ident] = mine
                    self._locks.append(mine)
                contended = ident in loose and isinstance(over, _LockSlot) and over.expires > now
                locks.append(Lock(key, mine, contended))
        return locks

    def publish(self, locked: Sequence[tuple[Lock, Record | Alias | None]]) -> None:
        """See Tier.publish."""
        with self._mutex:
            now = self._clock()
            for lock, value in locked:
                ident = lock.key.ident
                space = self._space(lock.key)
                held = space.lock if lock.key.is_epoch else space.slots.get(ident)
                mine = held is lock.token
                if lock.contended if mine else isinstance(held, _LockSlot) and held.expires > now:
                    continue
                if lock.key.is_epoch:
                    self._drop(lock.key.spec.space)
                    continue
                self._remove(space, ident)
                if mine and value is not None and space.lock is None and not lock.token.bare:
                    self._set(space, ident, value)

    def unlock(self, locks: Sequence[Lock]) -> None:
        """See Tier.unlock."""
        with self._mutex:
            for lock in locks:
                space = self._space(lock.key)
                if lock.contended:
                    continue
                if lock.key.is_epoch:
                    if space.lock is lock.token:
                        space.lock = None
                elif space.slots.get(lock.key.ident) is lock.token:
                    self._remove(space, lock.key.ident)

    def replace(self, values: Mapping[Key, Record | Alias | None], seconds: float) -> None:
        """Put these values in place of whatever is held, at once: no reader sees the keys without a value."""
        with self._mutex:
            locks = self.lock(list(values), seconds)
            self.publish([(lock, values[lock.key]) for lock in locks])

    def clear(self) -> None:
        """Forget every record; locks stay."""
        with self._mutex:
            for name, space in list(self._spaces.items()):
                self._drop(name, space.lock)

    # all below under the mutex

    def _space(self, key: Key) -> _Space:
        # not by the key's own space: a subclass's alternate keys have one, but belong to the table's epoch
        name = key.spec.space
        return self._spaces.get(name) or self._spaces.setdefault(name, _Space())

    def _is_live(self, entry: _Entry, now: float) -> bool:
        if entry.gone or (entry.record.deadline is not None and entry.record.deadline <= now):
            return False
        return self._policy is None or entry.ident in self._policy

    def _use(self, entry: _Entry) -> None:
        entry.used = True
        if self._policy is not None:
            self._policy.get(entry.ident)

    def _set(self, space: _Space, ident: Ident, value: Record | Alias) -> bool:
        """Put a value into an empty slot; False if there is no room or no record for it."""
        if isinstance(value, Alias):
            entry = space.slots.get(value.identity.ident)
            if not isinstance(entry, _Entry):
                return False
            space.slots[ident] = _AliasSlot(value, entry)
            entry.aliases.append(ident)
            return True
        if value.deadline is not None and value.deadline <= self._clock():
            return False
        self._make_room()
        entry = _Entry(space, ident, value)
        if self._policy is not None:
            try:
                self._policy[ident] = entry
            except ValueError:
                # cachetools refuses a value that is larger than the whole cache
                return False
        space.slots[ident] = entry
        self._count += 1
        self._ring.append(entry)
        return True

    def _drop(self, name: str, lock: _LockSlot | None = None) -> None:
        """Replace a class's space by an empty one; only the locks of single keys live on, without their values."""
        old = self._spaces.get(name)
        new = self._spaces[name] = _Space(lock)
        for ident, slot in () if old is None else old.slots.items():
            if isinstance(slot, _Entry):
                self._retire(slot)
            elif isinstance(slot, _LockSlot):
                slot.bare = True
                new.slots[ident] = slot
            elif isinstance(slot, _LeaseSlot):
                slot.finish()
        self._shrink_ring()

    def _remove(self, space: _Space, ident: Ident) -> None:
        slot = space.slots.pop(ident, None)
        if isinstance(slot, _LeaseSlot):
            slot.finish()
        elif isinstance(slot, _AliasSlot):
            slot.entry.aliases.remove(ident)
        elif isinstance(slot, _Entry):
            for alias in slot.aliases:
                del space.slots[alias]
            self._retire(slot)
            self._shrink_ring()

    def _retire(self, entry: _Entry) -> None:
        entry.gone = True
        # a reader without the mutex may still hold the entry, and the ring does; neither needs the object
        entry.record = _GONE
        self._count -= 1
        if self._policy is not None:
            self._policy.pop(entry.ident, None)

    def _shrink_ring(self) -> None:
        # each entry that is gone pays for being passed over once more
        if len(self._ring) > 2 * self._count + 16:
            self._ring = deque(entry for entry in self._ring if not entry.gone)

    def _make_room(self) -> None:
        """Before an insertion: evict one entry if it must be, else sweep two."""
        now = self._clock()
        if self._maxsize is None or self._count < self._maxsize:
            for _ in range(2):
                entry = self._ring.popleft() if self._ring else None
                if entry is None or entry.gone:
                    continue
                if self._is_live(entry, now):
                    self._ring.append(entry)
                else:
                    self._remove(entry.space, entry.ident)
        while self._maxsize is not None and self._count >= self._maxsize:
            entry = self._ring.popleft()
            if entry.gone:
                continue
            if entry.used and self._is_live(entry, now):
                entry.used = False
                self._ring.append(entry)
            else:
                self._remove(entry.space, entry.ident)

    def _forget_old_locks(self, now: float) -> None:
        """Remove locks that ran out and that nobody has asked for since."""
        while self._locks and (self._locks[0].expires <= now or not self._holds(self._locks[0])):
            old = self._locks.popleft()
            if self._holds(old):
                self._remove(self._spaces[old.space], old.ident)

    def _holds(self, lock: _LockSlot) -> bool:
        return self._spaces[lock.space].slots.get(lock.ident) is lock

    def after_fork(self) -> None:
        """In a child process: another thread may have held the mutex, and left things half done."""
        intact = self._mutex.acquire(blocking=False)
        self._mutex = threading.RLock()
        if not intact:
            self._spaces, self._ring, self._locks, self._count = {}, deque(), deque(), 0
            if self._policy is not None:
                self._policy.clear()


_GONE = Record(spec=cast(KeySpec, None), value=ABSENT, deadline=-math.inf)
"""What stands in an entry that was removed: a record that expired long ago."""


def _busy(slot: _LeaseSlot) -> Busy:
    if slot.done is None:
        slot.done = threading.Event()
    return Busy(slot.done, own_thread=slot.thread == threading.get_ident())
