"""Epochs in memcached: how they are made and read, in the same round trips as what they cover."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from stockpyle.memcached.closing import is_closed
from stockpyle.memcached.wire import Reply
from stockpyle.remote import epochs
from stockpyle.remote.epochs import CLOSED, EPOCH_BYTES, Epoch

EPOCH: Final = 5
"""The client flags of an epoch."""


class Epochs(epochs.Epochs):
    """What one call learns of epochs from memcached."""

    def __init__(self, everything: bytes, texts: Mapping[str, bytes]) -> None:
        super().__init__(everything, texts)
        self._useless: dict[bytes, int] = {}

    def learn(self, held: Mapping[bytes, tuple[int, bytes]]) -> None:
        """Take what a ``get`` found."""
        for text in self.keys:
            self.know(text, _epoch(*held[text]) if text in held else None)

    def commands(self) -> list[bytes]:
        """Return the commands that make, and read, those that are not known; learn_replies takes the replies."""
        commands = []
        for text in self.missing():
            commands.append(
                b"ms %b %d ME F%d T0\r\n%b\r\n" % (text, EPOCH_BYTES, EPOCH, secrets.token_bytes(EPOCH_BYTES))
            )
            commands.append(b"mg %b v f c\r\n" % text)
        return commands

    def learn_replies(self, replies: Sequence[Reply]) -> None:
        """Take the replies to `commands`."""
        for text, reply in zip(self.missing(), replies[1::2], strict=True):
            if reply.status != b"VA":
                continue
            epoch = _epoch(reply.number(b"f"), reply.data)
            self.know(text, epoch)
            if epoch is None:
                self._useless[text] = reply.number(b"c")

    def repairs(self) -> list[bytes]:
        """Return the commands that remove what stands under an epoch's key and is none."""
        return [b"md %b C%d\r\n" % each for each in self._useless.items()]


def _epoch(flags: int, data: bytes) -> Epoch:
    if is_closed(flags, len(data)):
        return CLOSED
    return data if flags == EPOCH and len(data) == EPOCH_BYTES else None
