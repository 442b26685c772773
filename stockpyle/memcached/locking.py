"""How keys are locked in memcached: all of a call's in the same round trips, two at most where nobody comes in between.

Keys whose rows are locked in the database are set. Others may have been locked by somebody else, which is to be known:
they are added, and what has kept that from happening is swapped, if unchanged. So are the marks on epochs (see
`closing`), which join those that are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stockpyle.codecs import Kind
from stockpyle.coherence.talks import Talk
from stockpyle.exceptions import StoreError
from stockpyle.memcached import closing
from stockpyle.memcached.closing import Seen
from stockpyle.memcached.epochs import Epochs
from stockpyle.memcached.items import OVERHEAD
from stockpyle.memcached.wire import Connection, Reply
from stockpyle.remote.tier import ATTEMPTS, gave_up, pause

Held = dict[bytes, tuple[int, bool]]
"""Of each key the CAS id of its lock, 0 for a mark among others', and whether it is contended."""


def take(
    connection: Connection,
    where: str,
    epochs: Epochs,
    firm: Sequence[bytes],
    loose: Sequence[bytes],
    marks: Mapping[bytes, bytes],
    lasts: int,
) -> Talk[Held]:
    """Lock keys for so many seconds: those with a row lock (firm), without (loose), and epochs with these marks.

    On the way `epochs` are asked for. If a key cannot be locked, none is, and StoreError raised.
    """
    held: Held = {}
    try:
        yield from _take_all(connection, where, epochs, firm, loose, marks, lasts, held)
    except StoreError:
        own = {text: cas for text, (cas, contended) in held.items() if not contended}
        yield from connection.meta([b"md %b C%d\r\n" % each for each in own.items() if each[0] not in marks])
        yield from closing.take_out(connection, {text: marks[text] for text in own if text in marks}, committed=False)
        raise
    return held


def _take_all(
    connection: Connection,
    where: str,
    epochs: Epochs,
    firm: Sequence[bytes],
    loose: Sequence[bytes],
    marks: Mapping[bytes, bytes],
    lasts: int,
    held: Held,
) -> Talk[None]:
    preamble = [*epochs.commands(), *(_lock(text, lasts) for text in firm)]
    again = [*loose, *marks]
    longest = dict.fromkeys(marks, lasts)
    for attempt in range(ATTEMPTS):
        if attempt >= closing.AT_ONCE:
            pause()
        # an add, and a look at what has kept it from happening
        tries = [command for text in again for command in _try(text, lasts, marks.get(text))]
        replies = yield from connection.meta([*preamble, *tries])
        refused: list[tuple[bytes, Reply]] = []
        if preamble:
            epochs.learn_replies(replies[: len(preamble) - len(firm)])
            for text, reply in zip(firm, replies[len(preamble) - len(firm) : len(preamble)], strict=True):
                if reply.status == b"HD":
                    held[text] = reply.number(b"c"), False
                else:
                    refused.append((text, reply))
        added, looks = replies[len(preamble) :: 2], replies[len(preamble) + 1 :: 2]
        swaps: dict[bytes, tuple[bytes, bool, bool]] = {}
        for text, reply, look in zip(again, added, looks, strict=True):
            if reply.status == b"HD":
                held[text] = reply.number(b"c"), False
            elif reply.status != b"NS":
                refused.append((text, reply))
            elif text in marks and (there := closing.seen(look)) is not None:
                swaps[text] = _close(connection, text, there, marks[text], lasts)
                longest[text] = max([lasts, *(there.marks or {}).values()])
            elif look.status == b"HD":
                swaps[text] = _lock(text, lasts, b" C%d" % look.number(b"c")), is_lock(look), False
        replies = yield from connection.meta([command for command, _, _ in swaps.values()])
        for (text, (_, contended, shared)), reply in zip(swaps.items(), replies, strict=True):
            if reply.status == b"HD":
                held[text] = 0 if shared else reply.number(b"c"), contended
            elif reply.status not in (b"EX", b"NF"):
                refused.append((text, reply))
        if refused:
            raise _refused(where, *refused[0])
        again = [text for text in again if text not in held]
        preamble = []
        if not again:
            return
    yield from _close_alone(connection, where, {text: longest.get(text, 0) for text in again}, marks, held)


def _close_alone(
    connection: Connection, where: str, lasts: Mapping[bytes, int], marks: Mapping[bytes, bytes], held: Held
) -> Talk[None]:
    """Where others come in between all the time: put one mark in the place of theirs, which is left to run out.

    It lives as long as the longest that was seen; of one that came since, and that is to live longer, the rest is lost
    as by an eviction.
    """
    for text in lasts:
        if text not in marks:
            raise gave_up(where, text)
    replies = yield from connection.meta([closing.put(text, {marks[text]: each}) for text, each in lasts.items()])
    for text, reply in zip(lasts, replies, strict=True):
        if reply.status != b"HD":
            raise _refused(where, text, reply)
        held[text] = 0, True


def is_lock(look: Reply) -> bool:
    """True if that is a lock, or marks on an epoch, by the reply to a look at flags and size."""
    # other clients use the same flags, but not for values without bytes
    flags, size = look.number(b"f"), look.number(b"s")
    return (flags == Kind.LOCK and size == 0) or closing.is_closed(flags, size)


def _refused(where: str, text: bytes, reply: Reply) -> StoreError:
    return StoreError(f"{where} did not lock {text.decode('ascii')}: {reply.said}")


def _lock(text: bytes, lasts: int, condition: bytes = b"") -> bytes:
    return b"ms %b 0 F%d T%d c%b\r\n\r\n" % (text, Kind.LOCK, lasts, condition)


def _try(text: bytes, lasts: int, mark: bytes | None) -> tuple[bytes, bytes]:
    """The command that locks a key if nothing is there, and the one that looks what is."""
    if mark is None:
        return _lock(text, lasts, b" ME"), b"mg %b f s c\r\n" % text
    return closing.put(text, {mark: lasts}, b" ME"), closing.look(text)


def _close(connection: Connection, text: bytes, there: Seen, mark: bytes, lasts: int) -> tuple[bytes, bool, bool]:
    """The command that adds a mark to what is there; whether it takes the others' place, and whether it joins them."""
    marks, unless_changed = there.with_mark(mark, lasts), b" C%d" % there.cas
    joined = closing.put(text, marks, unless_changed)
    if len(joined) + OVERHEAD > connection.largest:
        return closing.put(text, {mark: max(marks.values())}, unless_changed), True, False
    return joined, False, len(marks) > 1
