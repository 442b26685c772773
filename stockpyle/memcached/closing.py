"""How an epoch is closed in memcached: by a set of its writers' marks, which the last of them opens.

A writer puts its mark into the set before its commit and takes it out afterwards, by compare-and-swap. As long as any
mark is there what the epoch covers is bypassed; when the last one goes nothing is left, and the next who asks makes a
new epoch. A writer that dies leaves its mark, which must run out in spite of those who come and go: not sooner than any
lock would, or a reader might fill what was there before that writer's commit; nor may others keep it alive.

No clock but the server's own counts, by which each lock runs out; what a client's says decides nothing. The server
tells how many seconds an item has left (``t``); a mark carries how many seconds before its item it runs out, and the
item lives as long as its last mark. Who writes the set down again takes what is left of each mark from what it was told
of the item. It is written a moment later, so that by the server's clock no mark's end is ever moved to before where its
writer has put it. It is put off by that moment, the time from a look to its swap, and by no more. So a dead writer's
mark lives longer by as much time as others' swaps were under way, taken together: nothing to speak of, unless others
write all the time, when the class is closed by themselves; and when they rest it has no more left than it was given.

What the server evicts, or loses when it begins anew, is lost with all marks in it. A writer that finds its mark gone
when it has committed changes the epoch.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from stockpyle.coherence.talks import Talk
from stockpyle.memcached.wire import Connection, Reply
from stockpyle.remote.tier import ATTEMPTS, pause

AT_ONCE: Final = 4
"""After so many attempts each waits a moment, for others to be gone."""

CLOSED_BY: Final = 6
"""The client flags of such a set."""

MARK_BYTES: Final = 8
_MARK = struct.Struct(f">{MARK_BYTES}sI")

Marks = Mapping[bytes, int]
"""How many seconds each mark has left."""


@dataclass(slots=True)
class Seen:
    """What a look has found under an epoch's key. marks is None if that is no set."""

    cas: int
    marks: Marks | None

    def with_mark(self, mark: bytes, lasts: int) -> Marks:
        """Return the set with a writer's mark in it."""
        return {**(self.marks or {}), mark: lasts}

    def without(self, mark: bytes) -> Marks:
        """Return what is left of the set when a writer ends."""
        return {each: left for each, left in (self.marks or {}).items() if each != mark}


def look(text: bytes) -> bytes:
    """Return the command whose reply is for `seen`."""
    return b"mg %b v f s t c\r\n" % text


def seen(reply: Reply) -> Seen | None:
    """Return what was found, None for nothing; marks that have run out are none."""
    if reply.status != b"VA":
        return None
    if not is_closed(reply.number(b"f"), len(reply.data)) or reply.has(b"t-1"):
        # a set that never runs out is none of ours
        return Seen(reply.number(b"c"), None)
    left = reply.number(b"t")
    marks = {mark: left - sooner for mark, sooner in _MARK.iter_unpack(reply.data) if left > sooner}
    return Seen(reply.number(b"c"), marks)


def is_closed(flags: int, size: int) -> bool:
    """True if that is such a set, by its client flags and its number of bytes."""
    return flags == CLOSED_BY and size > 0 and size % _MARK.size == 0


def put(text: bytes, marks: Marks, condition: bytes = b"") -> bytes:
    """Return the command that puts these marks under an epoch's key."""
    last = max(marks.values())
    data = b"".join([_MARK.pack(mark, last - left) for mark, left in sorted(marks.items())])
    return b"ms %b %d F%d T%d c%b\r\n%b\r\n" % (text, len(data), CLOSED_BY, last, condition, data)


def new_mark() -> bytes:
    """Return a mark that nobody else has."""
    return secrets.token_bytes(MARK_BYTES)


def take_out(connection: Connection, own: Mapping[bytes, bytes], *, committed: bool) -> Talk[list[bytes]]:
    """Take one's own marks out of the sets under these keys; return the keys where others came in between each time.

    After a commit what stands there instead of a set goes: it was made too early. A set without one's mark is left to
    those whose marks are in it, of whom the last will change the epoch, as will the lapse of the set.
    """
    left = dict(own)
    in_sets: dict[bytes, bool] = {}
    for attempt in range(ATTEMPTS):
        if attempt >= AT_ONCE:
            pause()
        commands: dict[bytes, bytes] = {}
        looks = yield from connection.meta([look(text) for text in left])
        for text, reply in zip(left, looks, strict=True):
            there = seen(reply)
            if there is not None and (committed if there.marks is None else left[text] in there.marks):
                others = there.without(left[text])
                swap = b" C%d" % there.cas
                commands[text] = put(text, others, swap) if others else b"md %b%b\r\n" % (text, swap)
                in_sets[text] = there.marks is not None
        replies = yield from connection.meta(list(commands.values()))
        left = {text: own[text] for text, reply in zip(commands, replies, strict=True) if reply.status == b"EX"}
        if not left:
            return []
    # what is in a set runs out
    return [text for text in left if not in_sets[text]]
