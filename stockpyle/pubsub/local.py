"""Publish/subscribe within one process."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any

from stockpyle.forks import renew_after_fork
from stockpyle.pubsub.callbacks import Message, Name, fitting
from stockpyle.pubsub.handle import Handle
from stockpyle.pubsub.wires import Inbox, Wire


class Hub:
    """Where the handles of one store meet."""

    def __init__(self) -> None:
        self.wires: tuple[LocalWire, ...] = ()
        self._mutex = threading.Lock()
        renew_after_fork(self)

    def add(self, wire: LocalWire) -> None:
        """Hand messages to it from now on."""
        with self._mutex:
            self.wires = (*self.wires, wire)

    def remove(self, wire: LocalWire) -> None:
        """Hand it no more messages."""
        with self._mutex:
            self.wires = tuple(each for each in self.wires if each is not wire)

    def after_fork(self) -> None:
        """In a child process: the parent's listening threads are not here."""
        self._mutex = threading.Lock()
        self.wires = ()


class LocalWire:
    """What stands for the connection of a handle to its hub."""

    def __init__(self, handle: LocalPubSub, hub: Hub, inbox: Inbox) -> None:
        self._handle = handle
        self._hub = hub
        self._inbox = inbox
        self._names: frozenset[Name] = frozenset()
        hub.add(self)

    def hand_over(self, channel: str, data: bytes) -> int:
        """Leave a message to be listened to; return how many subscriptions it is for."""
        names = fitting(self._names & self._handle.names, channel)
        self._inbox.extend(Message(channel, data, name) for name in names)
        if names:
            self._handle.wake()
        return len(names)

    def fileno(self) -> None:
        """See Wire.fileno."""

    def subscribe(self, names: Collection[Name]) -> None:
        """See Wire.subscribe."""
        self._names = self._names.union(names)

    def unsubscribe(self, names: Collection[Name]) -> None:
        """See Wire.unsubscribe."""
        self._names = self._names.difference(names)

    def receive(self) -> None:
        """See Wire.receive."""

    def ping(self) -> None:
        """See Wire.ping."""

    def close(self) -> None:
        """See Wire.close."""
        self._hub.remove(self)

    def leave(self) -> None:
        """See Wire.leave."""


class LocalPubSub(Handle):
    """Messages between all who have a handle of the same store object. It is never lost, except in a child process."""

    def __init__(self, hub: Hub, store: str, *options: Any) -> None:
        super().__init__(f"the memory of {store}", store, *options)
        self._hub = hub

    def _connect(self, inbox: Inbox) -> Wire:
        return LocalWire(self, self._hub, inbox)

    @property
    def names(self) -> frozenset[Name]:
        """What its callbacks are for."""
        return self._listener.callbacks.names

    def wake(self) -> None:
        """Have the listening thread look for messages."""
        self._listener.wake()

    def _publish(self, channel: str, data: bytes) -> int:
        return sum(wire.hand_over(channel, data) for wire in self._hub.wires)
