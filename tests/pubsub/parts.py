"""Who listens in the tests, and where."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from stockpyle.protocols import PubSub
from stockpyle.stores import RedisStore, SqlAlchemyStore
from tests.servers import PATIENCE, Postgres, Redis

Make = Callable[..., PubSub]


class Ear:
    """A callback that keeps what it is called with."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._changed = threading.Condition()

    def __call__(self, channel: str, data: bytes) -> None:
        with self._changed:
            self.heard.append((channel, data))
            self._changed.notify_all()

    def after(self, number: int) -> list[tuple[str, bytes]]:
        """Return what it has heard, once it is so many messages."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.heard) >= number, PATIENCE), self.heard
            return list(self.heard)


class Diary:
    """What on_lost and on_restored are to note, in the order in which they are called."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self._changed = threading.Condition()

    @property
    def options(self) -> dict[str, Any]:
        """What store.pubsub() is given."""
        return {"on_lost": lambda: self.note("lost"), "on_restored": lambda: self.note("restored")}

    def note(self, entry: str) -> None:
        with self._changed:
            self.entries.append(entry)
            self._changed.notify_all()

    def until(self, *entries: str) -> None:
        """Wait until these are the entries."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.entries) >= len(entries), PATIENCE), self.entries
            assert self.entries == list(entries)


def wait_for(what: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def listening_threads() -> list[str]:
    """Return the names of the threads that listen."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stockpyle-pubsub")]


def settle(pubsub: PubSub) -> None:
    """Return when all that was sent before has been delivered."""
    ear = Ear()
    pubsub.subscribe("settled", ear)
    pubsub.publish("settled", b"")
    ear.after(1)
    pubsub.unsubscribe("settled", ear)


class OnRedis:
    """A Redis of a test's own, and how it treats those who listen."""

    driver = "redis"

    def __init__(self) -> None:
        self.server = Redis()

    @property
    def url(self) -> str:
        return self.server.url

    def store(self, url: str | None = None) -> RedisStore:
        return RedisStore(url or self.url)

    def kill_connections(self) -> None:
        self.server.tell("CLIENT", "KILL", "TYPE", "pubsub")


class OnPostgres:
    """A PostgreSQL of a test's own, and how it treats those who listen."""

    def __init__(self, driver: str) -> None:
        self.server = Postgres()
        self.driver = driver

    @property
    def url(self) -> str:
        return self.server.url(self.driver)

    def store(self, url: str | None = None) -> SqlAlchemyStore:
        return SqlAlchemyStore(url or self.url)

    def kill_connections(self) -> None:
        self.server.terminate_backends()


Place = OnRedis | OnPostgres
