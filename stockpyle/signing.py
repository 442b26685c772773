"""Signatures: bytes that only somebody who knows a secret key can have made."""

from __future__ import annotations

import hmac
from typing import Final

from stockpyle.exceptions import DecodeError, ImproperlyConfigured

SIGNATURE_SIZE: Final = 32
MIN_KEY_SIZE: Final = 16


class Signer:
    """Signs with the first key, and accepts what any of the keys has signed (HMAC-SHA256).

    Raises ImproperlyConfigured for a key that is not at least 16 bytes, and if there is none.
    """

    def __init__(self, *keys: bytes) -> None:
        # no message may show a key
        if not keys or not all(isinstance(key, bytes) and len(key) >= MIN_KEY_SIZE for key in keys):
            raise ImproperlyConfigured(
                f"a signing key is at least {MIN_KEY_SIZE} secret random bytes: os.urandom(32), stored like a password"
            )
        self._keys = tuple(keys)

    def sign(self, *parts: bytes) -> bytes:
        """Return the signature of these parts, which is good for no other way to divide the same bytes."""
        return hmac.digest(self._keys[0], _message(parts), "sha256")

    def verify(self, signature: bytes, *parts: bytes) -> None:
        """Raise DecodeError unless one of the keys has signed these parts."""
        message = _message(parts)
        for key in self._keys:
            if hmac.compare_digest(hmac.digest(key, message, "sha256"), signature):
                return
        raise DecodeError("the signature is by none of the keys: these bytes are forged, or not signed at all")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {len(self._keys)} keys>"


def _message(parts: tuple[bytes, ...]) -> bytes:
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
