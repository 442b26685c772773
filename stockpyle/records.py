"""What tiers hold and hand out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal

from stockpyle.keys import Key, KeyDefinition, KeySpec


class Sentinel(Enum):
    """Answers that are no record."""

    MISS = "nothing is known, and no lease could be had"
    LOCKED = "a writer is about to commit: load, and fill into nothing"
    ABSENT = "the source is known to have no such object"

    def __repr__(self) -> str:
        return self.name


MISS: Final = Sentinel.MISS
LOCKED: Final = Sentinel.LOCKED
ABSENT: Final = Sentinel.ABSENT


@dataclass(slots=True, eq=False)
class Record:
    """What is known of one object: its value as its class keeps it in tiers, or ABSENT.

    spec is that of the object's own class, which may be a subclass of the asked one. deadline is a time in
    seconds since the epoch, None without end. A record that is not fillable is the caller's to read and no
    tier's to keep. revision: which writing of its key this is, in the tier that it was read from, if that can tell and
    was asked: see stockpyle.protocols.Revised.
    """

    spec: KeySpec
    value: Any
    deadline: float | None = None
    fillable: bool = True
    revision: bytes | None = None

    @property
    def is_absent(self) -> bool:
        """True if the record says that there is no such object."""
        return self.value is ABSENT

    def key(self, definition: KeyDefinition) -> Key | None:
        """Return the record's own key of this definition, or None if it has None in it."""
        return self.spec.key_in(self.value, definition)

    def answers(self, key: Key) -> bool:
        """True if the record's own attributes have the values that `key` asks for."""
        if self.value is ABSENT or not key.spec.serves(self.spec, self.value):
            return False
        return self.spec.has(self.value, key)


def materialised(records: Sequence[Record | None]) -> list[Any]:
    """Return the objects of records, in their order, with None for None."""
    if records and None not in records:
        (spec, *others) = {record.spec for record in records if record is not None}
        if not others:
            return spec.materialise_all([record.value for record in records if record is not None])
    return [None if record is None else record.spec.materialise(record.value) for record in records]


@dataclass(slots=True, eq=False)
class Alias:
    """What a tier holds under an alternate key: the identity it points to, to be verified against the record."""

    identity: Key
    deadline: float | None = None


@dataclass(slots=True, eq=False)
class Lease:
    """The right of one reader to fill one key, for as long as nothing else happens to the key."""

    key: Key
    token: Any = None


@dataclass(slots=True, eq=False)
class Lock:
    """A writer's mark on a key, set before its commit.

    contended: the lock was taken without the row's lock in the database and replaced another writer's live
    one; so it is never removed, but left to run out. Locks of a class do not replace each other. owed: the tier could
    not be reached; if the commit happens it must be told of the key later.
    """

    key: Key
    token: Any = None
    contended: bool = False
    owed: bool = False


@dataclass(slots=True, eq=False)
class Busy:
    """Another reader is loading this key. wait() returns when it has finished, or after `seconds`."""

    done: threading.Event = field(default_factory=threading.Event)
    own_thread: bool = False

    def wait(self, seconds: float) -> None:
        """Wait, but never for oneself."""
        if not self.own_thread:
            self.done.wait(seconds)


Found = Record | Alias | Lease | Busy | Literal[Sentinel.LOCKED, Sentinel.MISS]
