"""Objects in this process's memory: for all of its threads, or for each its own."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from stockpyle.classes import spec_of
from stockpyle.exceptions import ImproperlyConfigured
from stockpyle.forks import renew_after_fork
from stockpyle.keys import Ident, Key, KeySpec
from stockpyle.lifetimes import Lifetime, LifetimeCallback
from stockpyle.protocols import PubSub
from stockpyle.pubsub.handle import HEARTBEAT, TIMEOUT
from stockpyle.pubsub.local import Hub, LocalPubSub
from stockpyle.pubsub.wires import Notice
from stockpyle.records import Alias, Lock, Record
from stockpyle.stores._hits import Above, Hits
from stockpyle.stores._holding import Policy
from stockpyle.stores._in_memory import TableStore
from stockpyle.stores._table import LEASE_SECONDS, MemoryTable
from stockpyle.views.collection import Entries
from stockpyle.views.counter import Numbers
from stockpyle.views.local import LocalEntries, LocalNumbers

T = TypeVar("T")


class ProcessMemoryStore(TableStore):
    """Objects in this process's memory, shared by its threads.

    Plain objects are kept as they are (``store.get(...) is obj``), mapped instances as rows. Hits take no lock.

    maxsize bounds the number of objects; what was not used lately goes first. Or give a cachetools cache as
    `policy` (LRUCache, LFUCache, TTLCache, ...), for this store's use alone; then every hit takes a lock, since
    such a policy changes with every hit.

    validate is for a store right above a MemcacheStore or a RedisStore in a ChainedStore: each hit asks the tier below
    whether it still holds the very same, which is one round trip, and is a miss if not. So no commit of any process is
    missed. What may be kept is what was read from that tier, and for as long as there.
    """

    schemes = ("memory",)

    def __init__(
        self,
        polymorphic: bool = False,
        lifetime_cb: LifetimeCallback | None = None,
        maxsize: int | None = None,
        *,
        lifetime: Lifetime = None,
        policy: Policy | None = None,
        validate: bool = False,
        clock: Callable[[], float] = time.time,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        super().__init__(polymorphic, lifetime_cb, lifetime=lifetime, clock=clock)
        if not isinstance(validate, bool):
            raise ImproperlyConfigured(f"validate is True or False, not {validate!r}")
        self.validate = validate
        self._table = MemoryTable(maxsize, policy, clock, lease_seconds)
        self._hits = self.hits(spec_of)
        self._hub = Hub()
        self._local_entries = LocalEntries()
        self._local_numbers = LocalNumbers()

    def pubsub(
        self,
        *,
        on_lost: Notice | None = None,
        on_restored: Notice | None = None,
        heartbeat: float = HEARTBEAT,
        timeout: float = TIMEOUT,
    ) -> PubSub:
        """Return a channel of messages within this process: all that this store object has returned are connected.

        It needs no heartbeat; and it is lost in child processes only, which do not hear their parent.
        """
        return LocalPubSub(self._hub, self.name, on_lost, on_restored, heartbeat, timeout)

    def _collections(self) -> Entries:
        return self._local_entries

    def _counters(self) -> Numbers:
        return self._local_numbers

    def hits(self, spec_of: Callable[[type], KeySpec], above: Above | None = None) -> Hits | None:
        """Return what finds single objects for one reader, see Hits; None if a hit needs more than a look."""
        if self.validate or not self._table.needs_no_lock or type(self).read is not ProcessMemoryStore.read:
            return None
        return Hits(spec_of, self._table.index_of, self.clock, self.stats, above)

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> list[Lock]:
        """See Tier.lock."""
        return self._table.lock(keys, seconds, without_row_lock=without_row_lock)

    def publish(self, locked: Sequence[tuple[Lock, Record | Alias | None]]) -> None:
        """See Tier.publish."""
        self._table.publish(locked)

    def unlock(self, locks: Sequence[Lock]) -> None:
        """See Tier.unlock."""
        self._table.unlock(locks)

    def discard(self, held: Sequence[tuple[Key, Record]]) -> None:
        """Forget these records, unless others have taken their places."""
        self._table.discard(held)

    # used alone

    def accepts(self, klass: type) -> bool:
        """True for plain classes that declare keys; a store that validates keeps copies only."""
        return not self.validate and super().accepts(klass)

    def _records(self, keys: Sequence[Key | None], *, revised: bool = False) -> list[Record | None]:
        self._refuse_alone()
        return super()._records(keys, revised=revised)

    def _check(self, values: Mapping[Key, Record | Alias]) -> None:
        self._refuse_alone()

    def _refuse_alone(self) -> None:
        if self.validate:
            raise ImproperlyConfigured(
                f"{self.name}(validate=True) has no tier to ask when it is used alone: put it right above a "
                "MemcacheStore or a RedisStore in a ChainedStore, or leave validate out"
            )

    def heard(self, idents: Collection[Ident], spaces: Collection[str]) -> None:
        """See Listening.heard."""
        self._table.heard(idents, spaces)

    def deafen(self, listener: object) -> None:
        """See Listening.deafen."""
        self._table.deafen(listener)

    def hears(self, listener: object) -> None:
        """See Listening.hears."""
        self._table.hears(listener)

    def _replace(self, values: Mapping[Key, Record | Alias | None]) -> None:
        self._table.replace(values.items())

    def clear(self) -> None:
        """Forget every object."""
        self._table.clear()

    def close(self) -> None:
        """Forget every object: nobody else has them."""
        self.clear()


class ThreadLocalStore(TableStore):
    """Objects in this process's memory, each thread seeing only what it has put or loaded itself.

    In a chain it is a tier like any other: a commit in one thread invalidates the copies of all. release()
    forgets what this thread holds, as at the end of a request.
    """

    schemes = ("threadlocal",)

    def __init__(
        self,
        polymorphic: bool = False,
        lifetime_cb: LifetimeCallback | None = None,
        maxsize: int | None = None,
        *,
        lifetime: Lifetime = None,
        clock: Callable[[], float] = time.time,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        super().__init__(polymorphic, lifetime_cb, lifetime=lifetime, clock=clock)
        self._new_table = partial(MemoryTable, maxsize, None, clock, lease_seconds)
        self._local = threading.local()
        self._mutex = threading.RLock()
        self._tables: weakref.WeakSet[MemoryTable] = weakref.WeakSet()
        self._live: dict[Ident | int, tuple[float, Key, dict[MemoryTable, Lock]]] = {}
        """By what one replaces another: locks of a key do, those of a class do not."""
        self._listeners: weakref.WeakSet[Any] = weakref.WeakSet()
        self._deaf: weakref.WeakSet[Any] = weakref.WeakSet()
        renew_after_fork(self)

    @property
    def _table(self) -> MemoryTable:  # type: ignore[override]  # this thread's, which nobody sets
        table: MemoryTable | None = getattr(self._local, "table", None)
        if table is None:
            table = self._local.table = self._new_table()
            with self._mutex:
                self._tables.add(table)
                for listener in self._listeners:
                    table.deafen(listener)
                    if listener not in self._deaf:
                        table.hears(listener)
                now = self.clock()
                # a thread that comes in the middle of another's commit must find its keys locked as well
                for expires, key, locks in list(self._live.values()):
                    if expires > now:
                        (locks[table],) = table.lock([key], expires - now)
        return table

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> list[Lock]:
        """See Tier.lock; it locks the keys in the tables of all threads."""
        mine = self._table
        with self._mutex:
            now = self.clock()
            per_table = {
                table: table.lock(keys, seconds, without_row_lock=without_row_lock) for table in list(self._tables)
            }
            locks = []
            for i, key in enumerate(keys):
                everywhere = {table: per_table[table][i] for table in per_table}
                self._live[id(everywhere) if key.is_epoch else key.ident] = (now + seconds, key, everywhere)
                locks.append(Lock(key, everywhere, everywhere[mine].contended))
            self._live = {name: live for name, live in self._live.items() if live[0] > now}
        return locks

    def publish(self, locked: Sequence[tuple[Lock, Record | Alias | None]]) -> None:
        """See Tier.publish; the value goes to this thread's table, the others only lose their locks."""
        mine = self._table
        with self._mutex:
            for table, work in self._by_table([lock for lock, _ in locked]).items():
                if table is mine:
                    table.publish([(own, value) for own, (_, value) in zip(work, locked, strict=True)])
                else:
                    table.publish([(own, None) for own in work])

    def unlock(self, locks: Sequence[Lock]) -> None:
        """See Tier.unlock."""
        with self._mutex:
            for table, work in self._by_table(locks).items():
                table.unlock(work)

    def heard(self, idents: Collection[Ident], spaces: Collection[str]) -> None:
        """See Listening.heard; it concerns the tables of all threads."""
        with self._mutex:
            for table in list(self._tables):
                table.heard(idents, spaces)

    def deafen(self, listener: object) -> None:
        """See Listening.deafen."""
        with self._mutex:
            self._listeners.add(listener)
            self._deaf.add(listener)
            for table in list(self._tables):
                table.deafen(listener)

    def hears(self, listener: object) -> None:
        """See Listening.hears."""
        with self._mutex:
            self._deaf.discard(listener)
            for table in list(self._tables):
                table.hears(listener)

    def _replace(self, values: Mapping[Key, Record | Alias | None]) -> None:
        # what is put or deleted here, and not in a chain above, concerns this thread only
        self._table.replace(values.items())

    def _by_table(self, locks: Sequence[Lock]) -> dict[MemoryTable, list[Lock]]:
        work: dict[MemoryTable, list[Lock]] = {table: [] for table in self._tables}
        for lock in locks:
            for table in work:
                own: Lock = lock.token.get(table) or Lock(lock.key, object())
                work[table].append(Lock(own.key, own.token, lock.contended))
            name = id(lock.token) if lock.key.is_epoch else lock.key.ident
            if not lock.contended and self._live.get(name, (0, None, None))[2] is lock.token:
                del self._live[name]
        return work

    def release(self) -> None:
        """Forget what this thread holds."""
        self._local.table = None

    def close(self) -> None:
        """Forget what all threads hold: nobody else has it."""
        self.clear()

    def clear(self) -> None:
        """Forget what all threads hold."""
        with self._mutex:
            for table in list(self._tables):
                table.clear()

    def after_fork(self) -> None:
        """In a child process: another thread may have held the mutex, and nothing is heard there yet."""
        self._mutex = threading.RLock()
        self._deaf.update(self._listeners)


__all__ = ["ProcessMemoryStore", "ThreadLocalStore"]
