"""What the listening thread listens to: a connection, and where it puts what comes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Protocol

from stockpyle.pubsub.callbacks import Message, Name

Notice = Callable[[], object]
"""What is called when a connection is lost, or restored."""
Inbox = deque[Message]


class Wire(Protocol):
    """A connection that listens, and puts all messages that come into the inbox that it was made with.

    All methods are called by one thread. Whatever one raises, the connection is given up. What has to wait for the
    server raises if it does not answer in time.
    """

    def fileno(self) -> int | None:
        """What is readable when something comes; None if the listener is woken instead."""
        ...

    def subscribe(self, names: Collection[Name]) -> None:
        """Return when the server has confirmed these names."""
        ...

    def unsubscribe(self, names: Collection[Name]) -> None:
        """Do not listen to these names any more."""
        ...

    def receive(self) -> None:
        """Put into the inbox what has come, without waiting."""
        ...

    def ping(self) -> None:
        """Return when the server has shown that it is there."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...

    def leave(self) -> None:
        """In a child process: let go of the parent's connection, and say nothing to the server."""
        ...
