"""Messages as PostgreSQL carries them: in a short text, on one channel for all.

PostgreSQL knows no patterns, its channels' names are short, and of two equal notifications in a transaction it delivers
one. So all messages travel on one channel of PostgreSQL's, with their channel's name and a number before the data, in
base64, which is the same in every database's encoding and needs no quoting in SQL.
"""

from __future__ import annotations

import base64
import itertools
import secrets
import struct

from stockpyle.pubsub.callbacks import Message
from stockpyle.pubsub.patterns import decoded, encoded

CARRIER = "stockpyle_pubsub_1"
"""The channel on which all travels."""
_LARGEST = 7999
"""Characters that a notification may have."""
_HEAD = struct.Struct(">IH")
LONGEST_CHANNEL = 255
"""Bytes that a channel's name may have."""
MAX_SIZE = _LARGEST // 4 * 3 - _HEAD.size - LONGEST_CHANNEL

_numbers = itertools.count(secrets.randbits(32))


def sealed(channel: str, data: bytes) -> str:
    """Return the text that carries a message."""
    name = encoded(channel)
    head = _HEAD.pack(next(_numbers) & 0xFFFFFFFF, len(name))
    return base64.b64encode(head + name + data).decode("ascii")


def opened(text: str) -> Message:
    """Return the message that a text carries; ValueError if it is none."""
    try:
        raw = base64.b64decode(text, validate=True)
        _, length = _HEAD.unpack_from(raw)
    except struct.error as error:
        raise ValueError("too short") from error
    start = _HEAD.size + length
    if len(raw) < start:
        raise ValueError("too short")
    return Message(decoded(raw[_HEAD.size : start]), raw[start:])
