"""One Redis, or what stands for one: its client, its failures as stockpyle's errors, and in which run its keys are.

A Redis that is started anew may bring back what it had saved some time before, and one that takes another's place has
a copy of it that may lack the last commands. Values from there can be older than what was cached since. So the first
connection to each run of a server, which Redis gives a random name, puts a new epoch over everything. That is done
before the connection is used for anything else; in a cluster, where the node need not be the one that has the epoch,
right after the first use, which is then repeated.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from stockpyle.exceptions import ImproperlyConfigured, StockpyleError, StoreTimeout, StoreUnavailable
from stockpyle.forks import renew_after_fork
from stockpyle.redis.scripts import ARRIVE, EPOCH
from stockpyle.remote.epochs import EPOCH_BYTES

T = TypeVar("T")

OLDEST = (6, 0)
"""The version that has RESP3, and with it all that is used here."""


class RedisServer:
    """What RedisTier sends its commands to.

    new_client takes a function that is to be called with every connection that it makes, and returns a client of
    redis-py that keeps bytes as they are. is_cluster: the client is a RedisCluster.
    """

    def __init__(
        self, name: str, new_client: Callable[[Callable[[Any], None]], Any], prefix: str, store: str, is_cluster: bool
    ) -> None:
        import redis

        self.name = name
        # in braces, so that both are on one node of a cluster
        self.everything = f"{{{prefix}::}}".encode("ascii")
        self._run_key = f"{{{prefix}::}}run".encode("ascii")
        self._errors = redis.exceptions
        self._new_client = new_client
        self._store = store
        self._is_cluster = is_cluster
        self._client: Any = None
        self._mutex = threading.Lock()
        self._arrived: list[tuple[bytes, bytes]] = []
        """Runs of a cluster's nodes that may be new; _arrivals counts all that ever came."""
        self._arrivals = 0
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a child process: the parent's connections are left to the parent, which redis-py sees to."""
        self._mutex = threading.Lock()

    # calls

    def call(self, operation: str, work: Callable[[], T]) -> T:
        """Run `work`; StoreUnavailable, or StoreTimeout, if the server cannot be used. It may happen twice."""
        try:
            self._connect()
            while True:
                before = self._arrivals
                result = work()
                if self._arrivals == before and not self._arrived:
                    return result
                self._register()
        except StockpyleError:
            raise
        except (self._errors.TimeoutError, TimeoutError) as error:
            raise StoreTimeout(f"Redis at {self.name} did not answer in time", self._store, operation) from error
        except (self._errors.RedisError, OSError) as error:
            # whatever it was, replies to what was sent may still come
            self.close()
            raise StoreUnavailable(
                f"Redis at {self.name} cannot be used: {type(error).__name__}: {error}", self._store, operation
            ) from error

    def get(self, texts: Sequence[bytes]) -> list[bytes | None]:
        """Return the strings under these keys, None for others."""
        if not self._is_cluster:
            return list(self._client.mget(texts))
        pipeline = self._client.pipeline(transaction=False)
        for text in texts:
            pipeline.get(text)
        return [None if isinstance(reply, Exception) else reply for reply in self._execute(pipeline)]

    def run(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run scripts, each with a key and arguments, in one round trip; an error that is one key's is its reply."""
        if not commands:
            return []
        pipeline = self._client.pipeline(transaction=False)
        for script, text, *arguments in commands:
            pipeline.eval(script, 1, text, *arguments)
        return self._execute(pipeline)

    def set(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Put values, each with a key and for how many milliseconds (0: for ever), over whatever is there."""
        pipeline = self._client.pipeline(transaction=False)
        for _, text, value, lasts in commands:
            if not value:
                pipeline.delete(text)
            else:
                pipeline.set(text, value, px=int(lasts) or None)
        return self._execute(pipeline)

    def _execute(self, pipeline: Any) -> list[Any]:
        replies: list[Any] = pipeline.execute(raise_on_error=False)
        errors = self._errors
        for reply in replies:
            # what is wrong with the server is wrong with all of them
            if isinstance(reply, errors.ConnectionError | errors.TimeoutError | errors.ReadOnlyError):
                raise reply
        return replies

    # connections

    def _connect(self) -> None:
        if self._client is None:
            with self._mutex:
                if self._client is None:
                    self._client = self._new_client(self._arrives)

    def _arrives(self, connection: Any) -> None:
        """See which run of the server a new connection leads to."""
        if not self._is_cluster:
            connection.on_connect()
        connection.send_command("INFO", "server")
        told = _bytes(connection.read_response())
        self._check_version(told)
        found = re.search(rb"run_id:(\w+)", told)
        run = found[1] if found else secrets.token_hex().encode("ascii")
        if self._is_cluster:
            self._arrived.append((f"{connection.host}:{connection.port}".encode(), run))
            self._arrivals += 1
            return
        fresh = EPOCH + secrets.token_bytes(EPOCH_BYTES)
        connection.send_command("EVAL", ARRIVE, 2, self._run_key, self.everything, run, fresh)
        connection.read_response()

    def _register(self) -> None:
        while self._arrived:
            node, run = self._arrived[0]
            fresh = EPOCH + secrets.token_bytes(EPOCH_BYTES)
            self._client.eval(ARRIVE, 2, self._run_key + b":" + node, self.everything, run, fresh)
            with suppress(ValueError):
                self._arrived.remove((node, run))

    def _check_version(self, told: bytes) -> None:
        found = re.search(rb"redis_version:(\d+)\.(\d+)", told)
        if found is None or (int(found[1]), int(found[2])) < OLDEST:
            version = "one that does not tell its version" if found is None else found[0].decode("ascii")
            raise ImproperlyConfigured(
                f"Redis at {self.name} is too old ({version}): stockpyle needs {OLDEST[0]}.{OLDEST[1]} or newer"
            )

    def close(self) -> None:
        """Close the connections that nobody uses."""
        client = self._client
        if client is None:
            return
        with suppress(self._errors.RedisError, OSError):
            if self._is_cluster:
                client.disconnect_connection_pools()
            else:
                client.connection_pool.disconnect(inuse_connections=False)


def _bytes(told: Any) -> bytes:
    return told if isinstance(told, bytes) else str(told).encode("utf-8")
