"""Collections and counters in the memory of one process."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping

from stockpyle.forks import renew_after_fork
from stockpyle.views.counter import LEAST, MOST


class LocalEntries:
    """See Entries."""

    def __init__(self) -> None:
        self._collections: dict[str, dict[str, bytes]] = {}
        self._mutex = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a child process: another thread of the parent's may hold the lock."""
        self._mutex = threading.Lock()

    def read(self, collection: str, name: str) -> bytes | None:
        """See Entries.read."""
        with self._mutex:
            return self._collections.get(collection, {}).get(name)

    def read_all(self, collection: str) -> dict[str, bytes]:
        """See Entries.read_all."""
        with self._mutex:
            return dict(self._collections.get(collection, {}))

    def names(self, collection: str, prefix: str) -> list[str]:
        """See Entries.names."""
        with self._mutex:
            return [name for name in self._collections.get(collection, {}) if name.startswith(prefix)]

    def write(self, collection: str, puts: Mapping[str, bytes], deletes: Collection[str]) -> None:
        """See Entries.write."""
        with self._mutex:
            own = self._collections.setdefault(collection, {})
            own.update(puts)
            for name in deletes:
                own.pop(name, None)

    def drop(self, collection: str) -> None:
        """See Entries.drop."""
        with self._mutex:
            self._collections.pop(collection, None)


class LocalNumbers:
    """See Numbers."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._mutex = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a child process: another thread of the parent's may hold the lock."""
        self._mutex = threading.Lock()

    def read(self, name: str) -> int:
        """See Numbers.read."""
        with self._mutex:
            return self._numbers.get(name, 0)

    def add(self, name: str, by: int) -> int | None:
        """See Numbers.add."""
        with self._mutex:
            new = self._numbers.get(name, 0) + by
            if not LEAST <= new <= MOST:
                return None
            self._numbers[name] = new
            return new

    def swap(self, name: str, to: int) -> int:
        """See Numbers.swap."""
        with self._mutex:
            old, self._numbers[name] = self._numbers.get(name, 0), to
            return old
