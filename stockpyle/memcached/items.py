"""A record as an item of memcached: its bytes, its client flags, its time to live."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

MONTH = 30 * 86400
"""More seconds than this memcached takes for a date."""

LAST_DATE = 2**31 - 1

SHORTEST = 2
"""memcached counts whole seconds: an item of one second may be gone at once."""

OVERHEAD = 80
"""More bytes than memcached itself adds to an item of this size."""


@dataclass(slots=True)
class Item:
    """What stands under a key; a time to live of 0 is without end."""

    kind: int
    data: bytes
    time_to_live: int

    def command(self, text: bytes, cas: int | None = None) -> bytes:
        """Return the command that puts the item under a key; with `cas` only if that is unchanged."""
        condition = b"" if cas is None else b" C%d" % cas
        return b"ms %b %d F%d T%d%b\r\n%b\r\n" % (
            text,
            len(self.data),
            self.kind,
            self.time_to_live,
            condition,
            self.data,
        )


def item_size(text: bytes, data: bytes) -> int:
    """Return about how many bytes an item takes under this key, rather more than less."""
    return len(data) + len(text) + OVERHEAD


def time_to_live(deadline: float | None, now: float) -> int:
    """Return what memcached is told of a deadline: not less than is left, which the record itself knows exactly."""
    if deadline is None:
        return 0
    left = min(deadline - now, LAST_DATE)
    seconds = math.ceil(left) + 1
    return seconds if seconds <= MONTH else min(math.ceil(time.time()) + seconds, LAST_DATE)


def whole_seconds(seconds: float) -> int:
    """Return how long a lock or a lease lives, which is never shorter than asked for, and at most 30 days."""
    return max(SHORTEST, math.ceil(min(seconds + 1, MONTH)))
