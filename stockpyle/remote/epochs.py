"""The epochs of the classes that one call to one server is about, and the epoch of everything under the prefix.

An epoch is a random value under a key of its own. Every record carries the epoch of its class, and that of the whole
prefix, as read no later than its lease or lock was taken; a record of another epoch is as good as none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

EPOCH_BYTES = 8

NO_EPOCH = bytes(2 * EPOCH_BYTES)
"""What is encoded with it is never found."""


class _Closed:
    """Somebody is changing this epoch: what it covers is bypassed."""


CLOSED: Final = _Closed()
Epoch = bytes | _Closed | None
"""As read; None if it is not there."""


class Epochs:
    """What one call learns of epochs. A class's has its part and that of everything, so that either can change it."""

    def __init__(self, everything: bytes, texts: Mapping[str, bytes]) -> None:
        """texts are the classes' epoch keys by the classes' spaces; without a class nothing is asked."""
        self._everything = everything
        self._texts = texts
        self._known: dict[bytes, Epoch] = {}

    @property
    def keys(self) -> list[bytes]:
        """The keys to ask for."""
        return [self._everything, *self._texts.values()] if self._texts else []

    def know(self, text: bytes, epoch: Epoch) -> None:
        """Take what stands under one of the keys."""
        self._known[text] = epoch

    def missing(self) -> list[bytes]:
        """Return the keys under which no epoch stands, as far as is known."""
        return [text for text in self.keys if self._known.get(text) is None]

    def of(self, space: str) -> Epoch:
        """Return the epoch of the class that lives in `space`."""
        first, second = self._known.get(self._everything), self._known.get(self._texts[space])
        if first is CLOSED or second is CLOSED:
            return CLOSED
        return first + second if isinstance(first, bytes) and isinstance(second, bytes) else None

    def by_space(self) -> dict[str, Epoch]:
        """Return the epochs of all these classes."""
        return {space: self.of(space) for space in self._texts}

    def usable(self, space: str) -> bytes | None:
        """Return the epoch of a class if records can be put under it."""
        epoch = self.of(space)
        return epoch if isinstance(epoch, bytes) else None

    @property
    def are_open(self) -> bool:
        """True if the epochs of all these classes are known and nobody changes one."""
        return all(self.usable(space) is not None for space in self._texts)
