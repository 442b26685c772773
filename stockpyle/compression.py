"""Payloads made smaller before they are stored: zlib at its fastest, for those that are worth it.

Text shrinks to a half or less, at a few microseconds a kilobyte; so it is for large records, or a slow network.
What is read says itself whether it was compressed: processes may be told otherwise, and still read each other's.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from stockpyle.exceptions import DecodeError, ImproperlyConfigured

LARGEST: Final = 2**26
"""More bytes than this are neither compressed nor inflated: a few bytes of somebody's could else fill the memory."""

_LENGTH: Final = struct.Struct("!I")
_FASTEST: Final = 1


def checked_threshold(compress_over: int | None) -> int | None:
    """Return it if it is a number of bytes, or None; ImproperlyConfigured if not."""
    if compress_over is None or (type(compress_over) is int and compress_over >= 0):
        return compress_over
    raise ImproperlyConfigured(f"compress_over is a number of bytes, or None for never, not {compress_over!r}")


def deflated(payload: bytes) -> bytes | None:
    """Return the payload compressed, with its length before it; None if that makes it no smaller."""
    if len(payload) > LARGEST:
        return None
    made = _LENGTH.pack(len(payload)) + zlib.compress(payload, _FASTEST)
    return made if len(made) < len(payload) else None


def inflated(data: bytes) -> bytes:
    """Return the payload that deflated() was given; DecodeError for any other bytes, however much is in them."""
    try:
        (length,) = _LENGTH.unpack_from(data)
        stream = zlib.decompressobj()
        payload = stream.decompress(memoryview(data)[_LENGTH.size :], min(length, LARGEST) + 1)
    except (struct.error, zlib.error) as error:
        raise DecodeError(f"these bytes are not compressed: {error}") from error
    if len(payload) != length or not stream.eof or stream.unused_data:
        raise DecodeError("what was compressed is not as long as it says")
    return payload
