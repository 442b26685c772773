"""The contracts: what anybody may call a store, a chain's caching level, a chain's source, and publish/subscribe.

The protocol between readers and writers is that of leases: a reader that misses may take the lease of a key and
fill it later, if nothing happened to the key meanwhile; a writer locks all its keys right before its database
commits, and replaces its own locks afterwards. (R. Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013,
has leases against stale sets; the locks that span a database's commit are added here.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeVar, runtime_checkable

from stockpyle.keys import Ident, Key, KeySpec
from stockpyle.records import Alias, Found, Lease, Lock, Record

T = TypeVar("T")
Callback = Callable[[str, bytes], object]
"""What is called with a message: its channel and its data."""


@runtime_checkable
class Store(Protocol):
    """The six verbs and release: enough to take part in a chain."""

    def put(self, obj: Any, /) -> None:
        """Keep an object under all its keys."""
        ...

    def get(self, klass: type[T], key: Mapping[str, Any], /) -> T | None:
        """Return the object that a key identifies, or None."""
        ...

    def delete(self, obj: Any, /) -> None:
        """Forget an object; one that is not there is no error."""
        ...

    def batch_put(self, objs: Iterable[Any], /) -> None:
        """Put several objects."""
        ...

    def batch_get(self, klass: type[T], keys: Iterable[Mapping[str, Any]], /) -> list[T | None]:
        """Get several objects, in the order of the keys, None for misses."""
        ...

    def batch_delete(self, objs: Iterable[Any], /) -> None:
        """Delete several objects."""
        ...

    def release(self) -> None:
        """Give back what this thread holds; the store stays usable."""
        ...


class InThisProcess:
    """A store whose objects are in this process: there is nobody to ask if they are there."""

    def ping(self) -> bool:
        """Return True."""
        return True


@runtime_checkable
class Tier(Protocol):
    """A caching level that keeps the protocol of leases and locks. Every method is safe in any thread.

    In a chain a tier may raise whatever it likes where it fails: see stockpyle.coherence.guards. One that keeps its
    keys in several places, which fail one by one, has ``parts``, each a tier of its own, and ``place(key)``, which
    returns the number of the part that keeps a key; then a chain calls the parts; those that have ``talk(operation,
    ...)``, a generator that pauses before it waits for a server, are asked together. ``read_one(key, lease=...)`` may
    do what ``read`` does of one key, sooner. ``ping()``, of the tier or of a part, raises what is wrong with it; where
    it is there, a failed tier is tried again in the background. ``unreachable`` is "proceed" or "refuse": what a chain
    does at a commit if the tier cannot be reached, if the chain does not say.
    """

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """Answer each key: what is held, or LOCKED, or with `lease` a Lease (Busy if another has it), or MISS."""
        ...

    def fill(self, leased: Sequence[tuple[Lease, Record | Alias | None]]) -> int:
        """Put each value in place of its lease where the lease is unchanged, and return how many were.

        None gives the lease back. A record stands before the aliases that point to it.
        """
        ...

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> list[Lock]:
        """Put a lock in place of whatever is held under each key.

        A lock on one of `without_row_lock` (which are among `keys`) says if it replaced another's live lock. A lock on
        a class (a key that is_epoch) replaces no other's: they are there side by side, each for its own seconds, and
        while there is one readers are told LOCKED and nothing is kept of the class.
        """
        ...

    def publish(self, locked: Sequence[tuple[Lock, Record | Alias | None]]) -> None:
        """After a commit: own lock -> the value, None removes it; contended or foreign lock -> leave; else remove.

        Of a class the own lock is taken away, but for a contended one, and others' are left; when none is there nothing
        is left of what was kept before.
        """
        ...

    def unlock(self, locks: Sequence[Lock]) -> None:
        """After a definite rollback: own lock -> remove (contended: leave); all else, others' locks too -> leave."""
        ...


@runtime_checkable
class Revised(Protocol):
    """What a Tier can do besides, so that what was read from it can be kept elsewhere and be known to be up to date.

    A revision is a few bytes that no other writing of the key has, neither an earlier nor a later one, whatever became
    of the tier in between. Whoever has kept a record, and is told its revision again, would be handed the very same
    record by a read.
    """

    def read_revised(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """As Tier.read; the records have their revisions."""
        ...

    def revisions(self, keys: Sequence[Key], expected: Sequence[bytes] = ()) -> Sequence[bytes | None]:
        """Return which revision each key has now, in one round trip.

        Where a read would hand out no record it is None, or one that no record has. expected are those that the caller
        has, one for each key: a tier may know a faster way to tell that nothing has changed.
        """
        ...


@runtime_checkable
class Listening(Protocol):
    """What a tier in process memory has besides, so that a backplane can tell it what other processes have changed.

    A listener is who tells it: the backplane of a chain. As long as one of its listeners hears nothing, such a tier
    keeps nothing, whoever fills it. It does not keep its listeners alive. After a fork they all are deaf in the child.
    """

    def heard(self, idents: Collection[Ident], spaces: Collection[str]) -> None:
        """Forget these keys, what they lead to, and whole classes by the names of their spaces.

        Who has a lease on them from before fills nothing, and who has a lock publishes nothing, so that no value
        comes back that was read before.
        """
        ...

    def deafen(self, listener: object) -> None:
        """Forget everything, and keep nothing from now on."""
        ...

    def hears(self, listener: object) -> None:
        """Keep again what is read from now on."""
        ...

    def clear(self) -> None:
        """Forget everything, under the same rules as single keys."""
        ...


class Outcome(Enum):
    """How a write ended."""

    OPEN = "not yet"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    UNKNOWN = "the commit was sent, and the answer lost"


@dataclass(slots=True)
class Change:
    """One object that a transaction writes: its keys before and after. No identity after means deleted.

    A key of a class whose row is spread over tables, or that the database does not hold unique, is protected
    by no row lock; such keys are in `unprotected` as well. reload is False for one of so many that they are not
    loaded again to be published: only removed.
    """

    spec: KeySpec
    before: tuple[Key, ...]
    after: tuple[Key, ...]
    unprotected: tuple[Key, ...] = ()
    obj: Any = None
    reload: bool = True

    @property
    def identity(self) -> Key | None:
        """The identity that the object has after the write, if it then still exists."""
        return self.after[0] if self.after else None

    @property
    def identities(self) -> tuple[Key, ...]:
        """Those that it had before and has after the write; one and the same may be there twice."""
        return self.after[:1] if self.before is self.after else (*self.before[:1], *self.after[:1])

    @property
    def keys(self) -> tuple[Key, ...]:
        """All that it had before and has after the write; one and the same may be there twice."""
        return self.after if self.before is self.after else (*self.before, *self.after)


@dataclass(slots=True)
class Pending:
    """A source's write between flush and commit: everything it touches is known, nothing is durable yet.

    epochs are the classes of which it may have changed objects that nobody can name; unchanged are the identities of
    objects that were put as the source has them already, so that nothing of them is written. connection is the
    SQLAlchemy Connection that the transaction is on, if it is.
    """

    changes: list[Change] = field(default_factory=list)
    epochs: list[Key] = field(default_factory=list)
    unchanged: list[Key] = field(default_factory=list)
    outcome: Outcome = Outcome.OPEN
    connection: Any = None


@runtime_checkable
class Source(Protocol):
    """A chain's authoritative store for the classes it accepts."""

    def accepts(self, klass: type) -> bool:
        """True if objects of this class can be kept here."""
        ...

    def load(self, klass: type, keys: Sequence[Key]) -> list[Record]:
        """Read each key from a snapshot that begins inside the call.

        Where there is no object the record is ABSENT, and fillable only if the source would find nothing
        under any other spelling of the key either.
        """
        ...

    def write(self, puts: Sequence[Any], deletes: Sequence[Any]) -> AbstractContextManager[Pending]:
        """Write in one transaction: entering flushes it, leaving commits it, an exception inside rolls it back."""
        ...


@runtime_checkable
class PubSub(Protocol):
    """What ``store.pubsub()`` returns: messages to everybody who listens at the moment. Every method is thread-safe.

    A message that nobody hears is gone, and so is one sent while a connection is lost: ``on_lost()`` and
    ``on_restored()``, which ``store.pubsub()`` takes, say when that was. They and the callbacks are called in one
    thread of the pub/sub, one after another, with no lock held: they may call every method here, and a slow one delays
    all that follows. One that raises is logged, and stops no other.

    StoreUnavailable, or StoreTimeout, is raised where the server cannot be used; the next call connects anew.
    """

    @property
    def connected(self) -> bool:
        """True while all that is subscribed is heard. Cheap to read."""
        ...

    @property
    def max_size(self) -> int | None:
        """How many bytes of data a message may have; None: as many as the server takes."""
        ...

    def publish(self, channel: str, data: bytes | str) -> int | None:
        """Send a message, and return how many subscriptions it was handed to; None where the server does not tell.

        Raises MessageTooLarge, a ValueError, for more than `max_size` bytes. A str is sent as UTF-8.
        """
        ...

    def publish_in(self, connection: Any, channel: str, data: bytes | str) -> None:
        """Send a message when the transaction of this SQLAlchemy Connection commits; on PostgreSQL only.

        Elsewhere it raises UnsupportedOperation. What the database raises is raised as it is.
        """
        ...

    def subscribe(self, channel: str, callback: Callback, *, wait: bool = True) -> None:
        """Call ``callback(channel, data)`` with every message of a channel that is sent from now on.

        It returns when the server has confirmed it; if the server does not, the callback is not subscribed, and
        StoreUnavailable or StoreTimeout is raised. wait=False returns at once, tries for as long as it takes, and
        raises nothing: `connected` says when it is heard. If the callback has a method ``dropped()``, that is called
        when it is unsubscribed, by whomever, or the pub/sub closed.
        """
        ...

    def psubscribe(self, pattern: str, callback: Callback, *, wait: bool = True) -> None:
        """Subscribe to all channels that fit a pattern: ``*``, ``?`` and ``[a-z]`` as in Redis. See subscribe."""
        ...

    def unsubscribe(self, channel: str | None = None, callback: Callback | None = None) -> None:
        """Drop the callbacks of a channel (None: of all channels), or only one of them. A running one is not stopped.

        What was not subscribed is no error.
        """
        ...

    def punsubscribe(self, pattern: str | None = None, callback: Callback | None = None) -> None:
        """Drop the callbacks of a pattern (None: of all patterns), or only one of them. See unsubscribe."""
        ...

    def watch(
        self, on_lost: Callable[[], object] | None = None, on_restored: Callable[[], object] | None = None
    ) -> None:
        """Have these called, too, for as long as it lives: see above."""
        ...

    def close(self) -> None:
        """End it: drop all callbacks and connections."""
        ...

    def __enter__(self) -> PubSub: ...

    def __exit__(self, *exc_info: object) -> None: ...
