"""Process memory as a tier: the table that keeps the protocol of leases and locks.

How it is built. Objects of one class (or one table) live in a Space, which has an Index for each of the class's keys:
a dict of slots. A slot is an entry with a record, which stands in the index of the identity and, for its other keys, in
others, too; or a reader's lease. Writers' locks stand in a dict beside them. The slot object itself is the token of a
lease or lock: "unchanged" is ``is``. A hit takes no lock: it is one look into the dict, one at the deadline, and it
sets the entry's `used` bit; all that changes a dict does so under one mutex.

To invalidate a whole class its dicts are replaced by empty ones, in the same time whatever they held; leases of the old
ones fill nothing.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from stockpyle.forks import renew_after_fork
from stockpyle.keys import Ident, Key, KeySpec
from stockpyle.lifetimes import check_seconds
from stockpyle.records import LOCKED, MISS, Alias, Found, Lease, Lock, Record
from stockpyle.stores._holding import FREED_LATER, Holding, Policy
from stockpyle.stores._slots import Entry, Index, LeaseSlot, LockSlot, Space

LEASE_SECONDS = 10.0
"""How long a reader may take to load before another may."""

PASSED_AT_ONCE = 8
"""How many old locks each call looks at, besides two for each of its own."""


class MemoryTable:
    """The tier protocol over dicts, bounded by `maxsize` records or by a cachetools `policy`."""

    def __init__(
        self,
        maxsize: int | None = None,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.time,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        check_seconds("lease_seconds", lease_seconds)
        self._held = Holding(maxsize, policy, clock)
        self._policy = policy
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._spaces: dict[str, Space] = {}
        self._locks: deque[LockSlot] = deque()
        self._listeners: weakref.WeakSet[Any] = weakref.WeakSet()
        self._deaf: weakref.WeakSet[Any] = weakref.WeakSet()
        """Which of the listeners hear nothing now: as long as there is one, nothing is kept."""
        self._forks = 0
        """How many forks ago the table came to be; leases of before the last one may have nobody to finish them."""
        self._mutex = threading.RLock()
        renew_after_fork(self)

    def __len__(self) -> int:
        return len(self._held)

    # reading

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """See Tier.read."""
        found: list[Found] = []
        for key in keys:
            space = self._spaces.get(key.spec.space)
            index = space.indexes.get(key.definition.names) if space is not None else None
            slot = index.slots.get(key.values[0] if index.single else key.values) if index is not None else None
            if type(slot) is Entry and slot.index is index and self._policy is None:
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
            if space.closed_by and space.is_closed(now):
                return LOCKED
            lock = space.locks.get(ident)
            if lock is not None:
                if lock.expires > now:
                    return LOCKED
                del space.locks[ident]
            index, at = space.place(key)
            slot = index.slots.get(at)
            if isinstance(slot, Entry):
                if self._held.is_live(slot, now):
                    if slot.index is not index:
                        return self._alias(key, slot)
                    self._held.use(slot)
                    return slot.record
                self._held.end(slot)
                index.slots.pop(at, None)
            elif slot is not None:
                if slot.expires > now and slot.forks == self._forks:
                    return space.busy(slot)
                self._held.remove(index, at)
            if not lease or self._deaf:
                return MISS
            mine = index.slots[at] = LeaseSlot(index, at, now + self._lease_seconds, self._forks)
            return Lease(key, mine)

    @staticmethod
    def _alias(key: Key, entry: Entry) -> Alias:
        spec, (_, _, values) = key.spec, entry.ident
        return Alias(Key(spec, spec.identity, values), entry.record.deadline)

    @property
    def needs_no_lock(self) -> bool:
        """True if a hit changes nothing but its entry; a policy must be told of each."""
        return self._policy is None

    def index_of(self, key: Key) -> Index:
        """Return where what is under such keys is kept, now and later."""
        return self._space(key).index(key.definition.names)

    def lacks(self, keys: Sequence[Key | None]) -> bool:
        """True if nothing at all is known of these keys: they have no values, and nobody loads or writes them."""
        asked = [key for key in keys if key is not None]
        if any(map(self._knows, asked)):
            return False
        # in the middle of a put nothing is known of what is there before and after it
        with self._mutex:
            return not any(map(self._knows, asked))

    def _knows(self, key: Key) -> bool:
        space = self._space(key)
        index, at = space.place(key)
        return at in index.slots or bool(space.locks or space.closed_by)

    def records(self, spec: KeySpec) -> list[tuple[Ident, Record]]:
        """Return every record that is held of a class, with the identity that it is held under."""
        with self._mutex:
            now = self._clock()
            space = self._spaces.get(spec.space)
            return [
                (ident, slot.record)
                for ident, slot in ([] if space is None else space.items())
                if isinstance(slot, Entry) and slot.ident == ident and self._held.is_live(slot, now)
            ]

    # filling

    def fill(self, leased: Sequence[tuple[Lease, Record | Alias | None]]) -> int:
        """See Tier.fill."""
        filled = 0
        with self._mutex:
            for lease, value in leased:
                index, at = self._space(lease.key).place(lease.key)
                if index.slots.get(at) is lease.token:
                    self._held.remove(index, at)
                    filled += value is not None and self._set(index, at, value)
        return filled

    # writing

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> list[Lock]:
        """See Tier.lock."""
        loose = {key.ident for key in without_row_lock}
        locks = []
        with self._mutex:
            now = self._clock()
            expires = now + seconds
            held, spaces = self._held, self._spaces
            self._forget_old_locks(now, 2 * len(keys) + PASSED_AT_ONCE)
            for key in keys:
                ident = key.ident
                space = spaces.get(key.spec.space) or self._space(key)
                if not key.values:
                    held.drop(space)
                    mine = LockSlot(space, ident, expires)
                    space.closed_by.append(mine)
                    locks.append(Lock(key, mine))
                    continue
                index, at = space.place(key)
                if at in index.slots:
                    held.remove(index, at)
                over = space.locks.get(ident) if loose else None
                mine = space.locks[ident] = LockSlot(space, ident, expires)
                self._locks.append(mine)
                locks.append(Lock(key, mine, over is not None and ident in loose and over.expires > now))
            held.free(FREED_LATER * len(keys))
        return locks

    def publish(self, locked: Sequence[tuple[Lock, Record | Alias | None]]) -> None:
        """See Tier.publish."""
        with self._mutex:
            now = self._clock()
            deaf = bool(self._deaf)
            for lock, value in locked:
                key, token = lock.key, lock.token
                space = self._space(key)
                if not key.values:
                    if not lock.contended:
                        space.open(token)
                    if not space.is_closed(now):
                        self._held.drop(space)
                    continue
                held = space.locks.get(key.ident)
                mine = held is token
                if lock.contended if mine else held is not None and held.expires > now:
                    continue
                if held is not None:
                    del space.locks[key.ident]
                index, at = space.place(key)
                if at in index.slots:
                    self._held.remove(index, at)
                closed = space.closed_by and space.is_closed(now)
                if mine and value is not None and not closed and not deaf and token.number == space.number:
                    self._put(index, at, value)
            self._held.free(FREED_LATER * len(locked))

    def unlock(self, locks: Sequence[Lock]) -> None:
        """See Tier.unlock."""
        with self._mutex:
            for lock in locks:
                space = self._space(lock.key)
                if lock.contended:
                    continue
                if lock.key.is_epoch:
                    space.open(lock.token)
                elif space.locks.get(lock.key.ident) is lock.token:
                    del space.locks[lock.key.ident]

    def replace(self, values: Iterable[tuple[Key, Record | Alias | None]]) -> None:
        """Put these values in place of whatever is held, in their order; who has locked a key publishes nothing."""
        with self._mutex:
            now = self._clock()
            for key, value in values:
                space = self._space(key)
                index, at = space.place(key)
                if space.locks:
                    space.locks.pop(key.ident, None)
                if at in index.slots:
                    self._held.remove(index, at)
                if value is not None and not (space.closed_by and space.is_closed(now)):
                    self._set(index, at, value)

    def discard(self, held: Sequence[tuple[Key, Record]]) -> None:
        """Forget these records, unless others have taken their places."""
        with self._mutex:
            for key, record in held:
                index, at = self._space(key).place(key)
                slot = index.slots.get(at)
                if isinstance(slot, Entry) and slot.index is index and slot.record is record:
                    self._held.remove(index, at)

    def clear(self) -> None:
        """Forget every record; locks stay."""
        with self._mutex:
            self._drop_all()
            self._held.free()

    # what other processes have changed

    def heard(self, idents: Iterable[Ident], spaces: Iterable[str]) -> None:
        """See Listening.heard."""
        with self._mutex:
            for name in spaces:
                if name in self._spaces:
                    self._held.drop(self._spaces[name])
            for ident in idents:
                space = self._spaces.get(ident[0])
                if space is not None:
                    self._disown(space, ident)

    def deafen(self, listener: object) -> None:
        """See Listening.deafen."""
        with self._mutex:
            self._listeners.add(listener)
            self._deaf.add(listener)
            self._drop_all()

    def hears(self, listener: object) -> None:
        """See Listening.hears."""
        with self._mutex:
            # a writer that has locked its keys meanwhile may have loaded them meanwhile, too
            self._drop_all()
            self._deaf.discard(listener)

    # all below under the mutex

    def _disown(self, space: Space, ident: Ident) -> None:
        """Remove all that is held under a key, and what it leads to; whoever loaded it before may keep it nowhere."""
        lock = space.locks.get(ident)
        if lock is not None:
            # readers stay locked out; its owner publishes nothing that was loaded before this
            lock.number = -1
        index = space.index(ident[1])
        at = index.at(ident[2])
        slot = index.slots.get(at)
        if not isinstance(slot, Entry):
            self._held.remove(index, at)
            return
        record = slot.record
        self._held.end(slot)
        if not record.is_absent and record.spec.bases:
            # a plain object may be kept as one of its bases, too
            for spec in (record.spec, *record.spec.bases):
                key = spec.key_in(record.value, spec.identity)
                if key is not None:
                    self._held.remove(*self._space(key).place(key))

    def _space(self, key: Key) -> Space:
        name = key.spec.space
        return self._spaces.get(name) or self._spaces.setdefault(name, Space(name))

    def _set(self, index: Index, at: Any, value: Record | Alias) -> bool:
        """Put a value into an empty slot; False if there is no room or no record for it."""
        return not self._deaf and self._put(index, at, value)

    def _put(self, index: Index, at: Any, value: Record | Alias) -> bool:
        if isinstance(value, Alias):
            home, name = self._space(value.identity).place(value.identity)
            entry = home.slots.get(name)
            if not isinstance(entry, Entry) or entry.index is not home or not entry.is_held:
                return False
            entry.is_at(index, at)
            index.slots[at] = entry
            return True
        if value.deadline is not None and value.deadline <= self._clock():
            return False
        return self._held.add(Entry(index, at, value))

    def _drop_all(self) -> None:
        for space in self._spaces.values():
            self._held.drop(space)

    def _forget_old_locks(self, now: float, most: int) -> None:
        """Remove so many of the locks that ran out and that nobody has asked for since."""
        locks = self._locks
        for _ in range(min(most, len(locks))):
            old = locks[0]
            if old.space.locks.get(old.ident) is old:
                if old.expires > now:
                    return
                del old.space.locks[old.ident]
            locks.popleft()

    def after_fork(self) -> None:
        """In a child process: another thread may have held the mutex, and left things half done, and loads no more."""
        intact = self._mutex.acquire(blocking=False)
        self._mutex = threading.RLock()
        # the parent's subscriptions are not the child's
        self._deaf.update(self._listeners)
        self._forks += 1
        for space in self._spaces.values():
            space.leave_waiters()
        if not intact or self._listeners:
            for space in self._spaces.values():
                space.renew()
            self._locks = deque()
            self._held.renew()
