"""Patterns of channels as Redis understands them, over bytes: ``*``, ``?``, ``[a-z]``, ``[^a]`` and backslashes."""

from __future__ import annotations

import re
from functools import lru_cache


def encoded(channel: str) -> bytes:
    """Return a channel's name as it travels."""
    return channel.encode("utf-8", "surrogateescape")


def decoded(channel: bytes) -> str:
    """Return a channel's name as callbacks see it; bytes of others that are no UTF-8 come back as they were."""
    return channel.decode("utf-8", "surrogateescape")


@lru_cache(1024)
def matcher(pattern: str) -> re.Pattern[bytes]:
    """Return what fully matches the names that fit a pattern."""
    glob = encoded(pattern)
    parts: list[list[bytes]] = [[]]
    """What stands between the stars, each of one byte."""
    i = 0
    while i < len(glob):
        char = glob[i : i + 1]
        i += 1
        if char == b"*":
            parts.append([])
        elif char == b"?":
            parts[-1].append(b".")
        elif char == b"[":
            one, i = _one_of(glob, i)
            parts[-1].append(one)
        else:
            if char == b"\\" and i < len(glob):
                char = glob[i : i + 1]
                i += 1
            parts[-1].append(re.escape(char))
    first, *between = [b"".join(part) for part in parts]
    last = b".*" + between.pop() if between else b""
    # where a part fits first it is left to fit: to try all other places, too, takes for ever with a few stars
    firmly = [b"(?=(?P<_%d>.*?%b))(?P=_%d)" % (i, part, i) for i, part in enumerate(filter(None, between))]
    return re.compile(first + b"".join(firmly) + last, re.DOTALL)


def _one_of(glob: bytes, i: int) -> tuple[bytes, int]:
    """Return the expression for what follows a bracket, which need not be closed, and where it ends."""
    wanted = set(range(256))
    negated = glob[i : i + 1] == b"^"
    i += negated
    chosen: set[int] = set()
    while i < len(glob) and glob[i] != ord("]"):
        if glob[i] == ord("\\") and i + 1 < len(glob):
            chosen.add(glob[i + 1])
            i += 2
        elif glob[i + 1 : i + 2] == b"-" and i + 2 < len(glob):
            first, last = sorted((glob[i], glob[i + 2]))
            chosen.update(range(first, last + 1))
            i += 3
        else:
            chosen.add(glob[i])
            i += 1
    if negated:
        chosen = wanted - chosen
    members = b"".join(b"\\x%02x" % each for each in sorted(chosen))
    return (b"[" + members + b"]" if members else rb"(?!)"), i + 1
