"""Who is called with which messages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

from stockpyle.coherence.logs import Seldom
from stockpyle.protocols import Callback
from stockpyle.pubsub.patterns import encoded, matcher


class Name(NamedTuple):
    """What can be subscribed to: a channel, or a pattern of channels."""

    text: str
    is_pattern: bool = False


class Message(NamedTuple):
    """What arrives. name: the subscription that it arrives for; None: all that it fits."""

    channel: str
    data: bytes
    name: Name | None = None


def fitting(names: Collection[Name], channel: str) -> list[Name]:
    """Return those of the names that stand for this channel, itself before patterns."""
    itself, text = Name(channel), encoded(channel)
    fits = [name for name in names if name.is_pattern and matcher(name.text).fullmatch(text)]
    return [itself, *fits] if itself in names else fits


class Callbacks:
    """The callbacks of one pub/sub. Whoever changes them holds a lock of its own; they may be called meanwhile."""

    def __init__(self) -> None:
        self._of: dict[Name, tuple[Callback, ...]] = {}
        self._seldom = Seldom()

    def __bool__(self) -> bool:
        """True if anything is subscribed."""
        return bool(self._of)

    @property
    def names(self) -> frozenset[Name]:
        """All that somebody has subscribed to."""
        return frozenset(self._of)

    def add(self, name: Name, callback: Callback) -> bool:
        """Have it called; True if it was not already."""
        own = self._of.get(name, ())
        if callback in own:
            return False
        self._of = {**self._of, name: (*own, callback)}
        return True

    def remove(self, name: Name, callback: Callback | None = None) -> list[Callback]:
        """Drop one callback of a name, or all; return those that were there."""
        own = self._of.get(name, ())
        gone = [each for each in own if callback is None or each == callback]
        left = tuple(each for each in own if each not in gone)
        rest = {other: those for other, those in self._of.items() if other != name}
        self._of = {**rest, name: left} if left else rest
        return gone

    def call(self, message: Message) -> None:
        """Call all whom a message concerns, and log what they raise."""
        of = self._of
        names = fitting(of, message.channel) if message.name is None else [message.name]
        for name in names:
            for callback in of.get(name, ()):
                # one of those before it may have unsubscribed it
                if callback in self._of.get(name, ()):
                    self.run(callback, message.channel, message.data)

    def tell_dropped(self, gone: Iterable[Callback]) -> None:
        """Tell those that have a way to be told that they are called no more."""
        for callback in gone:
            dropped = getattr(callback, "dropped", None)
            if callable(dropped):
                self.run(dropped)

    def run(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call what the application has given; what it raises is logged, once a minute for each."""
        try:
            function(*arguments)
        except BaseException as error:  # noqa: BLE001 - nobody is above: not even an exit() stops the others
            name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', function)}"
            self._seldom.log(logging.ERROR, name, "%s, a callback of a pub/sub, raised %r", name, error, exc_info=True)
