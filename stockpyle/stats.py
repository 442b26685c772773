"""The counters that every store keeps about itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Stats:
    """Plain integers, counted in objects; under many threads an increment may be lost, never invented.

    hits and misses are about what callers asked for; fills are records copied in after a miss; refused
    are fills that came too late, because the key was written or locked meanwhile; locked are reads that
    had to bypass the store for a commit in progress; errors are failures that were survived; owed are keys that
    were changed while the store could not be told, and delivered those of which it was told later; oversize are
    values that a server would not take for their size; corrupt are bytes that were no record.
    """

    hits: int = 0
    misses: int = 0
    fills: int = 0
    refused: int = 0
    locked: int = 0
    errors: int = 0
    owed: int = 0
    delivered: int = 0
    oversize: int = 0
    corrupt: int = 0

    @staticmethod
    def of(store: object) -> Stats:
        """Return a store's own counters, or new ones for a store without."""
        own = getattr(store, "stats", None)
        return own if isinstance(own, Stats) else Stats()

    def as_dict(self) -> dict[str, int]:
        """Return the counters by name."""
        return asdict(self)

    def reset(self) -> None:
        """Set every counter to zero."""
        for name in asdict(self):
            setattr(self, name, 0)
