"""One Redis, or what stands for one: its client, its failures as stockpyle's errors, and in which run its keys are.

A Redis that is started anew may bring back what it had saved some time before, and one that takes another's place has
a copy of it that may lack the last commands. Values from there can be older than what was cached since. So the first
connection to each reign of a server puts a new epoch over everything: Redis gives a random name to each run of a server
and to each time that it becomes the master. That is done before the connection is used for anything else; in a cluster,
where the node need not be the one that has the epoch, right after the first use, which is then repeated.

Behind a Sentinel a connection may lead to a server that is the master no more, and still answers. So it is asked with
every read. In a cluster such a server sends its clients away by itself.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeVar

from stockpyle.exceptions import ImproperlyConfigured, StockpyleError, StoreTimeout, StoreUnavailable
from stockpyle.forks import renew_after_fork
from stockpyle.redis.failures import failure_of
from stockpyle.redis.forks import abandon
from stockpyle.redis.pipes import CHUNK_KEYS, Pipe, packer
from stockpyle.redis.scripts import ARRIVE, new_epoch

T = TypeVar("T")
U = TypeVar("U")
Kind = Literal["server", "sentinel", "cluster"]

MOST_SPARE = 16

_STRINGS = frozenset({bytes, type(None)})

OLDEST = (6, 0)
"""The version that has RESP3, and with it all that is used here."""


class RedisServer:
    """What RedisTier sends its commands to.

    new_client takes a function that is to be called with every connection that it makes, and returns a client of
    redis-py that keeps bytes as they are. kind is "server", "sentinel" or "cluster".
    """

    def __init__(
        self, name: str, new_client: Callable[[Callable[[Any], None]], Any], prefix: str, store: str, kind: Kind
    ) -> None:
        import redis

        self.name = name
        # in braces, so that both are on one node of a cluster
        self.everything = f"{{{prefix}::}}".encode("ascii")
        self._run_key = f"{{{prefix}::}}run".encode("ascii")
        self._errors = redis.exceptions
        # an older redis-py has no name for it
        self._exhausted = getattr(redis.exceptions, "MaxConnectionsError", ())
        self._new_client = new_client
        self._store = store
        self._is_cluster = kind == "cluster"
        self._asks_role = kind == "sentinel"
        self._client: Any = None
        self._mutex = threading.Lock()
        self._arrived: list[tuple[bytes, bytes]] = []
        """Reigns of a cluster's nodes that may be new; _arrivals counts all that ever came."""
        self._arrivals = 0
        self._known: set[tuple[bytes, bytes]] = set()
        self._most_spare = MOST_SPARE
        self._packed = packer()
        self._spare: deque[Pipe] = deque()
        """Connections of the pool's that nobody uses, for what is asked most: a few of those that it may have."""
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a child process: the parent's connections are left to the parent."""
        self._mutex = threading.Lock()
        self._spare = deque()
        client, self._client = self._client, None
        abandon(client)

    # calls

    def call(self, operation: str, work: Callable[[], T]) -> T:
        """Run `work`; StoreUnavailable, or StoreTimeout, if the server cannot be used. It may happen twice."""

        def run() -> T:
            self._connect()
            while True:
                before = self._arrivals
                result = self._with_spares(work)
                if self._arrivals == before and not self._arrived:
                    return result
                self._register(self._client)

        return self._run(operation, run)

    def _run(self, operation: str, work: Callable[[], T]) -> T:
        try:
            return work()
        except StockpyleError as error:
            if isinstance(error, StoreUnavailable) and not isinstance(error, StoreTimeout):
                self.close()
            raise
        except Exception as error:
            failure = failure_of(error, self.name, self._store, operation)
            if not isinstance(failure, StoreTimeout):
                # whatever it was, replies to what was sent may still come
                self.close()
            if failure is None:
                raise
            raise failure from error
        except BaseException:
            # an interrupt between a command and its answer: redis-py takes the connection for one that is free
            self.close()
            raise

    def once(self, operation: str, work: Callable[[Any], T]) -> T:
        """Run `work` with the client, for what must not happen twice. It may have happened if it raises."""

        def run() -> T:
            self._connect()
            try:
                return self._with_spares(lambda: work(self._client))
            finally:
                self._register(self._client)

        return self._run(operation, run)

    def _with_spares(self, work: Callable[[], T]) -> T:
        """Run `work`; once more, if the pool has no connection left for it, with those that are kept at hand.

        From then on none are: there are about as many threads as there may be connections.
        """
        try:
            return work()
        except self._exhausted:
            self._most_spare = 0
            with suppress(IndexError):
                while True:
                    pipe = self._spare.pop()
                    self._client.connection_pool.release(pipe.connection)
            return work()

    def get(self, texts: Sequence[bytes]) -> list[bytes | None]:
        """Return the strings under these keys, None for others."""
        if not self._is_cluster:
            commands = _gets(texts)
            if self._asks_role:
                commands.append((b"ROLE",))
            replies = self._replies(commands)
            if self._asks_role:
                self._expect_master(replies.pop())
            found: list[bytes | None] = []
            for (_, *asked), reply in zip(commands, replies, strict=False):
                found += self.strings(reply, len(asked))
            return found
        pipeline = self._client.pipeline(transaction=False)
        for text in texts:
            pipeline.get(text)
        return [None if isinstance(reply, Exception) else reply for reply in self._execute(pipeline)]

    def heads(
        self, texts: Sequence[bytes], size: int, others: Sequence[bytes], expected: bytes = b""
    ) -> tuple[list[bytes], list[Any]] | None:
        """Return the first `size` bytes of the strings under the one keys, and the whole ones under the others.

        If a server's answer is what is expected, as a whole, nothing is read out of it, and None returned.
        """
        if self._is_cluster:
            pipeline = self._client.pipeline(transaction=False)
            for text in texts:
                pipeline.getrange(text, 0, size - 1)
            for text in others:
                pipeline.get(text)
            replies = self._execute(pipeline)
            whole = replies[len(texts) :]
        else:
            last = b"%d" % (size - 1)
            commands: list[tuple[bytes, ...]] = [(b"GETRANGE", text, b"0", last) for text in texts]
            if self._asks_role:
                commands.append((b"ROLE",))
                expected = b""
            told = self._exchange([*commands, (b"MGET", *others)], expected)
            if told is None:
                return None
            replies = told
            whole = replies.pop()
            if isinstance(whole, Exception):
                raise whole
            if self._asks_role:
                self._expect_master(replies.pop())
        heads = [b"" if isinstance(reply, Exception) else reply for reply in replies[: len(texts)]]
        return heads, [None if isinstance(reply, Exception) else reply for reply in whole]

    def _replies(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands and return their replies, of which one may be an error."""
        return self._exchange(commands, b"") or []

    def _exchange(self, commands: Sequence[tuple[Any, ...]], expected: bytes) -> list[Any] | None:
        """Send commands and return their replies: a pipeline, without what redis-py's takes longer for than Redis.

        None if the replies are what is expected.
        """
        pipe = self._take()
        try:
            replies = pipe.exchange([self._packed(command) for command in commands], expected)
        except BaseException:
            # replies to what was sent may still come
            self._give_back(pipe.connection)
            raise
        self._keep(pipe)
        return None if replies is None else self._checked(replies)

    def strings(self, reply: Any, count: int) -> list[bytes | None]:
        """Return a reply that is so many strings, or nothing in place of some; raise an error, and what is neither."""
        if isinstance(reply, Exception):
            raise reply
        if type(reply) is not list or len(reply) != count or not _STRINGS.issuperset(map(type, reply)):
            raise self._errors.InvalidResponse(f"it answered {str(reply)[:80]} where {count} strings belong")
        return reply

    def ask(self, rest: Callable[[Pipe], U], method: Callable[..., T | None], *args: Any) -> T | U | None:
        """Call a method of a Pipe's at hand that asks one thing, without what a call does besides.

        None if there is no such connection, so that it is to be asked in a call. If the method returns None the answer
        is another than expected, and `rest` reads it.
        """
        try:
            pipe = self._spare.pop()
        except IndexError:
            return None
        if not pipe.is_direct:
            self._keep(pipe)
            return None
        if not pipe.is_quiet:
            self._give_back(pipe.connection)
            return None

        def work() -> T | U:
            try:
                found = method(pipe, *args)
                told: T | U = rest(pipe) if found is None else found
            except BaseException:
                # replies to what was sent may still come
                self._give_back(pipe.connection)
                raise
            self._keep(pipe)
            return told

        return self._run("read", work)

    @property
    def can_be_asked(self) -> bool:
        """True if ask() is of use: nothing else is to be asked with each read."""
        return not self._is_cluster and not self._asks_role

    def _take(self) -> Pipe:
        """Return a connection that is ready to be used, as redis-py's pool does, which takes longer over it."""
        with suppress(IndexError):
            pipe = self._spare.pop()
            if pipe.is_quiet:
                return pipe
            self._give_back(pipe.connection)
        return Pipe(self._client.connection_pool.get_connection(), self._errors)

    def _keep(self, pipe: Pipe) -> None:
        if len(self._spare) < min(self._most_spare, self._client.connection_pool.max_connections // 4):
            self._spare.append(pipe)
        else:
            self._client.connection_pool.release(pipe.connection)

    def _give_back(self, connection: Any) -> None:
        connection.disconnect()
        self._client.connection_pool.release(connection)

    def run(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Run scripts, each with a key and arguments, in one round trip; an error that is one key's is its reply."""
        if not commands:
            return []
        return self._all([(b"EVAL", script, b"1", text, *arguments) for script, text, *arguments in commands])

    def set(self, values: Sequence[tuple[bytes, bytes, bytes]]) -> list[Any]:
        """Put keys' values, each for so many milliseconds (0: for ever), over whatever is there; remove empty ones."""
        commands: list[tuple[Any, ...]] = []
        for text, value, lasts in values:
            if not value:
                commands.append((b"DEL", text))
            else:
                commands.append((b"SET", text, value, b"PX", lasts) if int(lasts) else (b"SET", text, value))
        return self._all(commands)

    def _all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands, each of one key, in one round trip; a reply may be an error."""
        if not self._is_cluster:
            return self._replies(commands)
        pipeline = self._client.pipeline(transaction=False)
        for name, *arguments in commands:
            pipeline.execute_command(name.decode("ascii"), *arguments)
        return self._execute(pipeline)

    def _execute(self, pipeline: Any) -> list[Any]:
        return self._checked(pipeline.execute(raise_on_error=False))

    def _expect_master(self, role: Any) -> None:
        if isinstance(role, Exception) or role[0] not in (b"master", "master"):
            raise self._errors.ConnectionError("it is the master no more")

    def _checked(self, replies: list[Any]) -> list[Any]:
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
                    client = self._new_client(self._arrives)
                    if self._is_cluster:
                        # what is done twice is done at its worst: a lock is contended by itself
                        client.ping(target_nodes=client.PRIMARIES)
                        self._register(client)
                    self._client = client

    def _arrives(self, connection: Any) -> None:
        """See which reign of the server a new connection belongs to."""
        if not self._is_cluster:
            connection.on_connect()
        told = b""
        for section in ("server", "replication"):
            connection.send_command("INFO", section)
            told += _bytes(connection.read_response())
        self._check_version(told)
        reign = b":".join(re.findall(rb"^(?:run_id|master_replid):(\w+)", told, re.MULTILINE))
        if not self._is_cluster:
            connection.send_command("EVAL", ARRIVE, 2, self._run_key, self.everything, reign, new_epoch())
            connection.read_response()
            return
        arrival = f"{connection.host}:{connection.port}".encode(), reign
        if arrival not in self._known:
            self._arrived.append(arrival)
            self._arrivals += 1

    def _register(self, client: Any) -> None:
        while self._arrived:
            node, reign = arrival = self._arrived[0]
            client.eval(ARRIVE, 2, self._run_key + b":" + node, self.everything, reign, new_epoch())
            self._known.add(arrival)
            with suppress(ValueError):
                self._arrived.remove(arrival)

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
        with suppress(IndexError):
            while True:
                self._give_back(self._spare.pop().connection)
        with suppress(self._errors.RedisError, OSError):
            if self._is_cluster:
                client.disconnect_connection_pools()
            else:
                client.connection_pool.disconnect(inuse_connections=False)


def _gets(texts: Sequence[bytes]) -> list[tuple[Any, ...]]:
    return [(b"MGET", *texts[i : i + CHUNK_KEYS]) for i in range(0, len(texts), CHUNK_KEYS)]


def _bytes(told: Any) -> bytes:
    return told if isinstance(told, bytes) else str(told).encode("utf-8")
