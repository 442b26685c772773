"""A tier that is made of several, such as the servers of one cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TypeVar

from stockpyle.keys import Key
from stockpyle.protocols import Tier
from stockpyle.records import Alias, Found, Lease, Lock, Record

T = TypeVar("T")


class Parts:
    """Each key is kept by one of the parts, which `place` names by its number; a class's epoch is kept by all.

    One part's failure keeps no other from doing its share, except that a lock is taken everywhere or nowhere.
    """

    def __init__(self, parts: Sequence[Tier], place: Callable[[Key], int]) -> None:
        self.parts = tuple(parts)
        self._place = place

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """See Tier.read."""
        found: dict[int, Found] = {}
        for part, own in self._split(enumerate(keys), lambda each: each[1]).items():
            answers = self.parts[part].read([key for _, key in own], lease=lease)
            found.update(zip([i for i, _ in own], answers, strict=True))
        return [found[i] for i in range(len(keys))]

    def fill(self, leased: Sequence[tuple[Lease, Record | Alias | None]]) -> int:
        """See Tier.fill."""
        filled: list[int] = []

        def fill(part: int, own: Sequence[tuple[Lease, Record | Alias | None]]) -> None:
            filled.append(self.parts[part].fill(own))

        with ExitStack() as stack:
            for part, own in self._split(leased, lambda each: each[0].key).items():
                stack.callback(fill, part, own)
        return sum(filled)

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> list[Lock]:
        """See Tier.lock. The lock of an epoch holds those of all the parts; it is contended if one of them is."""
        loose = {key.ident for key in without_row_lock}
        taken: dict[int, list[Lock]] = {}
        shares: dict[int, list[int]] = {}
        for i, key in enumerate(keys):
            for part in range(len(self.parts)) if key.is_epoch else [self._place(key)]:
                shares.setdefault(part, []).append(i)
        try:
            for part, share in shares.items():
                own = [keys[i] for i in share]
                taken[part] = self.parts[part].lock(
                    own, seconds, without_row_lock=[key for key in own if key.ident in loose]
                )
        except BaseException:
            with ExitStack() as stack:
                for part, locks in taken.items():
                    stack.callback(self.parts[part].unlock, locks)
            raise
        held: dict[int, dict[int, Lock]] = {i: {} for i in range(len(keys))}
        for part, share in shares.items():
            for i, lock in zip(share, taken[part], strict=True):
                held[i][part] = lock
        return [
            Lock(key, held[i], any(lock.contended for lock in held[i].values()))
            if key.is_epoch
            else next(iter(held[i].values()))
            for i, key in enumerate(keys)
        ]

    def publish(self, locked: Sequence[tuple[Lock, Record | Alias | None]]) -> None:
        """See Tier.publish."""
        with ExitStack() as stack:
            for part, own in self._shares(locked).items():
                stack.callback(self.parts[part].publish, own)

    def unlock(self, locks: Sequence[Lock]) -> None:
        """See Tier.unlock."""
        with ExitStack() as stack:
            for part, own in self._shares((lock, None) for lock in locks).items():
                stack.callback(self.parts[part].unlock, [lock for lock, _ in own])

    def _shares(
        self, locked: Iterable[tuple[Lock, Record | Alias | None]]
    ) -> dict[int, list[tuple[Lock, Record | Alias | None]]]:
        shares: dict[int, list[tuple[Lock, Record | Alias | None]]] = {}
        for lock, value in locked:
            own = lock.token if lock.key.is_epoch else {self._place(lock.key): lock}
            for part, each in own.items():
                contended = lock.contended or each.contended
                shares.setdefault(part, []).append((replace(each, contended=contended), value))
        return shares

    def _split(self, things: Iterable[T], key_of: Callable[[T], Key]) -> dict[int, list[T]]:
        shares: dict[int, list[T]] = {}
        for thing in things:
            shares.setdefault(self._place(key_of(thing)), []).append(thing)
        return shares
