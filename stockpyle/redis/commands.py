"""Commands of a user's own, sent to the Redis of a store: on connections of their own, each command once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from stockpyle.exceptions import StoreError, UnsupportedOperation
from stockpyle.forks import renew_after_fork
from stockpyle.redis.failures import failures
from stockpyle.redis.forks import abandon
from stockpyle.redis.server import Kind

Command = tuple[Any, ...]

_STATEFUL = frozenset(
    [
        *("SELECT", "AUTH", "HELLO", "RESET", "QUIT", "MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH", "ASKING"),
        *("SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE", "MONITOR"),
        *("SYNC", "PSYNC", "READONLY", "READWRITE"),
    ]
)
_STATEFUL_OF_CLIENT = frozenset(["REPLY", "TRACKING", "CACHING", "NO-EVICT", "NO-TOUCH", "SETNAME", "SETINFO"])


class RedisCommands:
    """What runs commands. new_client is a RedisServer's: it takes what is called with every new connection."""

    def __init__(self, name: str, new_client: Callable[[Callable[[Any], None]], Any], store: str, kind: Kind) -> None:
        self._name = name
        self._new_client = new_client
        self._store = store
        self._is_cluster = kind == "cluster"
        self._client: Any = None
        self._mutex = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a child process: the parent's connections are left to the parent."""
        self._mutex = threading.Lock()
        client, self._client = self._client, None
        abandon(client)

    def connect(self) -> Any:
        """Return a new client that has reached the server."""
        with self._failing("connect"):
            client = self._make()
            try:
                client.ping()
            except BaseException:
                client.close()
                raise
            return client

    def execute(self, command: Command) -> Any:
        """Run one command."""
        _refuse_stateful(command)
        with self._failing("execute"):
            return self._connected().execute_command(*command)

    def execute_transaction(self, commands: Sequence[Command]) -> list[Any]:
        """Run several commands between MULTI and EXEC."""
        for command in commands:
            _refuse_stateful(command)
        if not commands:
            return []
        with self._failing("execute_transaction"):
            pipeline = self._connected().pipeline(transaction=True)
            for command in commands:
                pipeline.execute_command(*command)
            return list(pipeline.execute())

    def close(self) -> None:
        """Close the connections."""
        with self._mutex:
            client, self._client = self._client, None
        if client is not None:
            # of one that is no more, nothing is left to be closed
            with suppress(OSError):
                client.close()

    def _connected(self) -> Any:
        with self._mutex:
            if self._client is None:
                self._client = self._make()
            return self._client

    def _make(self) -> Any:
        # a cluster's client prepares connections itself
        return self._new_client((lambda _: None) if self._is_cluster else lambda connection: connection.on_connect())

    @contextmanager
    def _failing(self, operation: str) -> Iterator[None]:
        from redis import exceptions

        with failures(self._name, self._store, operation):
            try:
                yield
            except (exceptions.ReadOnlyError, exceptions.ClusterDownError, exceptions.MasterDownError):
                raise
            except (exceptions.ResponseError, exceptions.DataError, exceptions.CrossSlotTransactionError) as error:
                raise StoreError(f"Redis at {self._name} refuses it: {error}", self._store, operation) from error
            except exceptions.RedisError:
                if self._is_cluster:
                    # its nodes are found anew
                    self.close()
                raise


def _refuse_stateful(command: Command) -> None:
    """The connection is the next command's too, which would meet what this one has changed in it."""
    words = " ".join(_text(word) for word in command[:2]).upper().split()
    if words and (words[0] in _STATEFUL or (words[0] == "CLIENT" and _STATEFUL_OF_CLIENT.intersection(words[1:2]))):
        raise UnsupportedOperation(
            f"{words[0]} changes its connection, which others use after it: run it on a connection of your own, which "
            "connect() returns; for MULTI there is execute_transaction(), for SUBSCRIBE pubsub()"
        )


def _text(word: Any) -> str:
    return word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)
