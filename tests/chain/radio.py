"""A pub/sub in the hands of a test: it delivers when it is told to, can be cut off, and has no thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stockpyle.coherence.backplane import Backplane
from stockpyle.exceptions import StoreUnavailable
from stockpyle.stores import ChainedStore
from stockpyle.testing import Clock
from tests.chain.parts import Source, Tier

Callback = Callable[[str, bytes], object]


class Air:
    """Where all radios meet. held: messages wait until deliver()."""

    def __init__(self, max_size: int | None = None) -> None:
        self.radios: list[Radio] = []
        self.max_size = max_size
        self.held = False
        self.sent: list[tuple[str, bytes]] = []
        self._waiting: list[tuple[str, bytes]] = []

    def send(self, channel: str, data: bytes) -> None:
        """Take a message."""
        self.sent.append((channel, data))
        self._waiting.append((channel, data))
        if not self.held:
            self.deliver()

    def deliver(self) -> None:
        """Hand what waits to all that are connected."""
        waiting, self._waiting = self._waiting, []
        for channel, data in waiting:
            for radio in self.radios:
                radio.hear(channel, data)


class Radio:
    """One pub/sub."""

    def __init__(self, air: Air) -> None:
        air.radios.append(self)
        self.air = air
        self.max_size = air.max_size
        self.connected = True
        self.closed = False
        self.error: Exception | None = None
        """What publish and subscribe raise."""
        self.on_subscribe: Callable[[], None] = lambda: None
        self.callbacks: list[tuple[str, Callback]] = []
        self._watchers: list[tuple[Any, Any]] = []

    def watch(self, on_lost: Any = None, on_restored: Any = None) -> None:
        """See PubSub.watch."""
        self._watchers.append((on_lost, on_restored))

    def publish(self, channel: str, data: bytes) -> int | None:
        """See PubSub.publish."""
        if self.error is not None:
            raise self.error
        self.air.send(channel, data)
        return None

    def publish_in(self, connection: Any, channel: str, data: bytes) -> None:
        """See PubSub.publish_in; the connection is none."""
        self.publish(channel, data)

    def subscribe(self, channel: str, callback: Callback, *, wait: bool = True) -> None:
        """See PubSub.subscribe."""
        if self.error is not None:
            raise self.error
        if (channel, callback) not in self.callbacks:
            self.callbacks.append((channel, callback))
        self.on_subscribe()

    def unsubscribe(self, channel: str | None = None, callback: Callback | None = None) -> None:
        """See PubSub.unsubscribe."""
        self.callbacks = [each for each in self.callbacks if each != (channel, callback)]

    def close(self) -> None:
        """See PubSub.close."""
        self.closed = True
        self.callbacks = []

    def hear(self, channel: str, data: bytes) -> None:
        """Call whom it concerns."""
        for own, callback in list(self.callbacks):
            if self.connected and own == channel:
                callback(channel, data)

    def cut(self) -> None:
        """Lose the connection."""
        self.connected = False
        for lost, _ in self._watchers:
            lost()

    def mend(self) -> None:
        """Connect again."""
        self.connected = True
        for _, restored in self._watchers:
            restored()


def unavailable() -> StoreUnavailable:
    """Return what a pub/sub raises that cannot be reached."""
    return StoreUnavailable("cut off", "radio", "publish")


class Shared(Tier):
    """A tier that stands for one on a server: the same object in several chains."""

    shared = True


class Process:
    """What one process has: a chain of its own memory, and a radio."""

    def __init__(self, air: Air, source: Source, *shared: Tier, clock: Clock | None = None, **options: Any) -> None:
        self.clock = clock or Clock()
        self.memory = Tier(clock=self.clock)
        self.radio = Radio(air)
        self.chain = ChainedStore([self.memory, *shared, source], backplane=self.radio, **options)
        self.source = source
        assert self.chain.backplane is not None
        self.backplane: Backplane = self.chain.backplane
        # nobody comes by in the background: the tests do
        self.backplane._courier = self.backplane._outbox._courier = self.backplane._announced._courier = None
