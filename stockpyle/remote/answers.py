"""How long an answer may take; and how a value is cut out of one that is, but for it and its size, known beforehand."""

from __future__ import annotations

from collections.abc import Callable

SLOWEST = 2**20
"""Bytes a second: an answer that comes no slower may take longer than the timeout."""

_MOST_DIGITS = 10


def cut_value(receive: Callable[[], bytes], head: bytes, tail: bytes, largest: float) -> tuple[bytes, bytes | None]:
    """Receive an answer; return what has come, and the value in it, if that is between head and size, and tail.

    Else the value is None, and there may be more to come: no more is waited for than a server has to say whose answer
    is as expected so far. largest: of more bytes a value is not waited for.
    """
    received = receive()
    if not received.startswith(head):
        return received, None
    begins = received.find(b"\r\n", len(head)) + 2
    size = received[len(head) : begins - 2]
    if begins < 2 or not size.isdigit() or len(size) > _MOST_DIGITS or int(size) > largest:
        return received, None
    ends = begins + int(size)
    whole = ends + len(tail)
    if len(received) < whole:
        received = _completed(receive, received, ends, tail)
    if len(received) != whole or not received.endswith(tail):
        return received, None
    return received, received[begins:ends]


def _completed(receive: Callable[[], bytes], begun: bytes, ends: int, tail: bytes) -> bytes:
    parts, length = [begun], len(begun)
    while length < ends + len(tail):
        if length > ends:
            parts = [b"".join(parts)]
            if not tail.startswith(parts[0][ends:]):
                break
        parts.append(receive())
        length += len(parts[-1])
    return b"".join(parts)
