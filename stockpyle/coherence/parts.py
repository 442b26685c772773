"""Tiers that are made of several, such as the servers of one cache.

Such a tier has `parts`, which are Tiers themselves, and `place(key)`, the number of the part that keeps a key. The
epoch of a class is kept by all parts, each for its own records; its lock holds those of the parts, by their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from stockpyle.coherence.talks import begin, hold
from stockpyle.keys import Ident, Key
from stockpyle.protocols import Tier
from stockpyle.records import Alias, Found, Lease, Lock, Record

T = TypeVar("T")
Value = Record | Alias | None


class Places:
    """Which part keeps what."""

    def __init__(self, number: int, place: Callable[[Key], int] | None = None) -> None:
        self._all = range(number)
        self._is_one = number == 1
        self._place = place

    def of(self, key: Key) -> Sequence[int]:
        """Return the numbers of the parts that keep this key."""
        if self._place is None or len(self._all) == 1:
            return self._all
        return self._all if key.is_epoch else (self._place(key),)

    def split(self, things: Iterable[T], key_of: Callable[[T], Key]) -> dict[int, list[T]]:
        """Return each part's share of a batch."""
        if self._is_one:
            own = list(things)
            return {0: own} if own else {}
        shares: dict[int, list[T]] = {}
        for thing in things:
            for part in self.of(key_of(thing)):
                shares.setdefault(part, []).append(thing)
        return shares

    def join(self, keys: Sequence[Key], taken: Mapping[int, Sequence[Lock]]) -> list[Lock]:
        """Return the locks of these keys, made of those that the parts have taken."""
        if self._is_one:
            return list(taken.get(0, ()))
        held: dict[Ident, dict[int, Lock]] = {}
        for part, locks in taken.items():
            for lock in locks:
                held.setdefault(lock.key.ident, {})[part] = lock
        return [self._joined(key, held[key.ident]) for key in keys]

    def _joined(self, key: Key, held: dict[int, Lock]) -> Lock:
        if not self._is_joint(key):
            return next(iter(held.values()))
        locks = held.values()
        return Lock(key, held, any(lock.contended for lock in locks), any(lock.owed for lock in locks))

    def _is_joint(self, key: Key) -> bool:
        return key.is_epoch and len(self._all) > 1

    def shares(self, locked: Iterable[tuple[Lock, Value]]) -> dict[int, list[tuple[Lock, Value]]]:
        """Return each part's share of what is to be published or removed."""
        if self._is_one:
            whole = list(locked)
            return {0: whole} if whole else {}
        shares: dict[int, list[tuple[Lock, Value]]] = {}
        for lock, value in locked:
            if not self._is_joint(lock.key):
                shares.setdefault(self.of(lock.key)[0], []).append((lock, value))
                continue
            for part in self._all:
                # a key that was never locked here is still to be removed
                own: Any = (lock.token or {}).get(part) or Lock(lock.key)
                shares.setdefault(part, []).append((replace(own, contended=lock.contended or own.contended), value))
        return shares


class Parts:
    """Several tiers as one.

    One part's failure keeps no other from doing its share, except that locks are taken in all parts or in none.
    """

    def __init__(self, parts: Sequence[Tier], place: Callable[[Key], int]) -> None:
        self.parts = tuple(parts)
        self._places = Places(len(self.parts), place)

    def _have(self, operation: str, asked: Mapping[int, tuple[Any, ...]], done: dict[int, Any] | None = None) -> Any:
        """Have these parts do what is asked of them, and return what each has done; raise what the first has raised."""
        done = {} if done is None else done
        talks = {
            part: begin(self.parts[part], (operation, tuple(args), kwargs)) for part, (*args, kwargs) in asked.items()
        }
        for error in hold(talks, done).values():
            raise error
        return done

    def _each(self, keys: Sequence[Key], operation: str, asked: Mapping[int, tuple[Any, ...]]) -> list[Any]:
        found: dict[Ident, Any] = {}
        for part, answers in self._have(operation, asked).items():
            found.update(zip([key.ident for key in asked[part][0]], answers, strict=True))
        return [found[key.ident] for key in keys]

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """See Tier.read."""
        shares = self._places.split(keys, _itself)
        return self._each(keys, "read", {part: (own, {"lease": lease}) for part, own in shares.items()})

    def read_one(self, key: Key, *, lease: bool = True) -> Found:
        """Return what read() does of one key."""
        tier: Any = self.parts[self._places.of(key)[0]]
        found: Found = tier.read_one(key, lease=lease)
        return found

    def read_revised(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """See Revised.read_revised."""
        shares = self._places.split(keys, _itself)
        return self._each(keys, "read_revised", {part: (own, {"lease": lease}) for part, own in shares.items()})

    def revisions(self, keys: Sequence[Key], expected: Sequence[bytes] = ()) -> Sequence[bytes | None]:
        """See Revised.revisions."""
        shares = self._places.split(keys, _itself)
        return self._each(keys, "revisions", {part: (own, (), {}) for part, own in shares.items()})

    def fill(self, leased: Sequence[tuple[Lease, Value]]) -> int:
        """See Tier.fill."""
        shares = self._places.split(leased, lambda each: each[0].key)
        return sum(self._have("fill", {part: (own, {}) for part, own in shares.items()}).values())

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> list[Lock]:
        """See Tier.lock."""
        loose = {key.ident for key in without_row_lock}
        asked = {
            part: (own, seconds, {"without_row_lock": [key for key in own if key.ident in loose]})
            for part, own in self._places.split(keys, _itself).items()
        }
        taken: dict[int, list[Lock]] = {}
        try:
            self._have("lock", asked, taken)
        except BaseException:
            self._have("unlock", {part: (locks, {}) for part, locks in taken.items()})
            raise
        return self._places.join(keys, taken)

    def publish(self, locked: Sequence[tuple[Lock, Value]]) -> None:
        """See Tier.publish."""
        self._have("publish", {part: (own, {}) for part, own in self._places.shares(locked).items()})

    def unlock(self, locks: Sequence[Lock]) -> None:
        """See Tier.unlock."""
        shares = self._places.shares((lock, None) for lock in locks)
        self._have("unlock", {part: ([lock for lock, _ in own], {}) for part, own in shares.items()})


def _itself(key: Key) -> Key:
    return key
