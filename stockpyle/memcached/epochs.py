"""The epochs of the classes that one call to one server is about, and the epoch of everything under the prefix."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from stockpyle.codecs import Kind
from stockpyle.memcached.wire import Reply

EPOCH: Final = 5
"""The client flags of an epoch."""

EPOCH_BYTES = 8


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
        self._useless: dict[bytes, int] = {}

    @property
    def keys(self) -> list[bytes]:
        """The keys to ask for."""
        return [self._everything, *self._texts.values()] if self._texts else []

    def learn(self, held: Mapping[bytes, tuple[int, bytes]]) -> None:
        """Take what a ``get`` found."""
        for text in self.keys:
            self._known[text] = _epoch(*held[text]) if text in held else None

    def commands(self) -> list[bytes]:
        """Return the commands that make, and read, those that are not known; learn_replies takes the replies."""
        commands = []
        for text in self._missing():
            commands.append(
                b"ms %b %d ME F%d T0\r\n%b\r\n" % (text, EPOCH_BYTES, EPOCH, secrets.token_bytes(EPOCH_BYTES))
            )
            commands.append(b"mg %b v f c\r\n" % text)
        return commands

    def learn_replies(self, replies: Sequence[Reply]) -> None:
        """Take the replies to `commands`."""
        for text, reply in zip(self._missing(), replies[1::2], strict=True):
            if reply.status != b"VA":
                continue
            self._known[text] = epoch = _epoch(reply.number(b"f"), reply.data)
            if epoch is None:
                self._useless[text] = reply.number(b"c")

    def _missing(self) -> list[bytes]:
        return [text for text in self.keys if self._known.get(text) is None]

    def repairs(self) -> list[bytes]:
        """Return the commands that remove what stands under an epoch's key and is none."""
        return [b"md %b C%d\r\n" % each for each in self._useless.items()]

    def of(self, space: str) -> Epoch:
        """Return the epoch of the class that lives in `space`."""
        both = [self._known.get(self._everything), self._known.get(self._texts[space])]
        if CLOSED in both:
            return CLOSED
        first, second = both
        return first + second if isinstance(first, bytes) and isinstance(second, bytes) else None

    def open(self, spaces: Iterable[str]) -> bool:
        """True if the epochs of all these classes are known and nobody changes one."""
        return all(isinstance(self.of(space), bytes) for space in spaces)


def _epoch(flags: int, data: bytes) -> Epoch:
    if flags == Kind.LOCK and not data:
        return CLOSED
    return data if flags == EPOCH and len(data) == EPOCH_BYTES else None
