"""Publish/subscribe on a Redis, behind a Sentinel, or on a cluster, where every node passes messages on to all."""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

from stockpyle.exceptions import StoreUnavailable
from stockpyle.forks import renew_after_fork
from stockpyle.pubsub.callbacks import Message, Name
from stockpyle.pubsub.handle import Handle
from stockpyle.pubsub.patterns import decoded, encoded
from stockpyle.pubsub.wires import Inbox, Wire
from stockpyle.redis.failures import failures
from stockpyle.redis.forks import abandon
from stockpyle.redis.server import Kind

MOST_AT_ONCE = 1000
"""So many messages are read before the callbacks are called: more may come than can be read."""


class RedisWire:
    """A connection of redis-py's that listens, in RESP2: there a message is an array like any other.

    check raises if the server, which answers, is not the one to listen to any more. failing turns redis-py's errors
    into ours, for the operation that it is given.
    """

    def __init__(
        self,
        connection: Any,
        inbox: Inbox,
        check: Callable[[Any], None],
        failing: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._connection = connection
        self._check = check
        self._failing = failing
        self._inbox = inbox
        with failing("subscribe"):
            connection.connect()
            self._fileno: int = connection._sock.fileno()
            try:
                check(connection)
            except BaseException:
                connection.disconnect()
                raise

    def fileno(self) -> int:
        """See Wire.fileno."""
        return self._fileno

    def subscribe(self, names: Collection[Name]) -> None:
        """See Wire.subscribe."""
        self._ask("subscribe", names)

    def unsubscribe(self, names: Collection[Name]) -> None:
        """See Wire.unsubscribe."""
        self._ask("unsubscribe", names)

    def _ask(self, verb: str, names: Collection[Name]) -> None:
        with self._failing(verb):
            for command, is_pattern in ((verb, False), (f"p{verb}", True)):
                texts = [encoded(name.text) for name in names if name.is_pattern is is_pattern]
                if texts:
                    self._connection.send_command(command.upper(), *texts)
            confirmed = (verb.encode(), f"p{verb}".encode())
            for _ in names:
                self._await(lambda reply: isinstance(reply, list) and reply[0] in confirmed)

    def ping(self) -> None:
        """See Wire.ping."""
        with self._failing("ping"):
            self._connection.send_command("PING")
            self._await(lambda reply: reply == b"PONG" or (isinstance(reply, list) and reply[0] == b"pong"))
            self._check(self._connection)

    def _await(self, awaited: Callable[[Any], bool]) -> None:
        while not awaited(reply := self._connection.read_response(disable_decoding=True)):
            self._inbox.append(_message(reply))

    def receive(self) -> None:
        """See Wire.receive."""
        with self._failing("receive"):
            while len(self._inbox) < MOST_AT_ONCE and self._connection.can_read(0):
                self._inbox.append(_message(self._connection.read_response(disable_decoding=True)))

    def close(self) -> None:
        """See Wire.close."""
        self._connection.disconnect()

    def leave(self) -> None:
        """See Wire.leave."""
        # redis-py sees to it that the parent's connection is not shut down
        self._connection.disconnect()


def _message(reply: Any) -> Message:
    if isinstance(reply, list) and reply[:1] == [b"message"] and len(reply) == 3:
        channel = decoded(reply[1])
        return Message(channel, reply[2], Name(channel))
    if isinstance(reply, list) and reply[:1] == [b"pmessage"] and len(reply) == 4:
        return Message(decoded(reply[2]), reply[3], Name(decoded(reply[1]), True))
    raise ValueError(f"a Redis that is listened to has said {reply!r:.200}")


class RedisPubSub(Handle):
    """Messages over Redis, on its own connections.

    new_client is a RedisServer's: it takes what is to be called with every new connection. kind is "server", "sentinel"
    or "cluster".
    """

    def __init__(
        self, new_client: Callable[[Callable[[Any], None]], Any], kind: Kind, name: str, store: str, *options: Any
    ) -> None:
        super().__init__(f"Redis at {name}", store, *options)
        self._new_client = new_client
        self._kind = kind
        self._failing = partial(failures, name, store)
        self._home = secrets.token_bytes(4)
        """A key on the node of a cluster to which all is sent, and which is listened to if it can be."""
        self._client: Any = None
        self._mutex = threading.Lock()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a child process: the parent's connections are left to the parent."""
        self._mutex = threading.Lock()
        client, self._client = self._client, None
        abandon(client)

    def _publish(self, channel: str, data: bytes) -> int | None:
        command = ("PUBLISH", encoded(channel), data)
        with self._failing("publish"):
            client = self._connected("publish")
            if self._kind != "cluster":
                return int(client.execute_command(*command))
            try:
                # always to the same node, so that all arrives in its order; it counts its own clients only
                client.execute_command(*command, target_nodes=client.get_node_from_key(self._home))
            except Exception:
                self._forget(client)
                raise
            return None

    def _connected(self, operation: str) -> Any:
        with self._mutex:
            # after close() nobody would close it
            self._listener.check_open(operation)
            if self._client is None:
                # a cluster's client prepares connections itself
                self._client = self._new_client(_prepare if self._kind != "cluster" else _leave_alone)
            return self._client

    def _forget(self, client: Any) -> None:
        """Have the cluster's nodes found anew."""
        with self._mutex:
            if self._client is client:
                self._client = None

    def _connect(self, inbox: Inbox) -> Wire:
        with self._failing("subscribe"):
            client = self._connected("subscribe")
            if self._kind != "cluster":
                return self._wire(client.connection_pool, inbox, partial(self._check_master, client))
            nodes = client.get_nodes()
            home = client.get_node_from_key(self._home)
        # the same again: another node may still be told of what this one has passed on already
        nodes.sort(key=lambda node: (node is not home, random.random()))
        failure: Exception | None = None
        for node in nodes:
            try:
                pool = client.get_redis_connection(node).connection_pool
                return self._wire(pool, inbox, partial(self._check_node, client, node))
            except StoreUnavailable as error:
                failure = error
        self._forget(client)
        raise failure or StoreUnavailable("the cluster has no nodes", self._store, "subscribe")

    def _wire(self, pool: Any, inbox: Inbox, check: Callable[[Any], None]) -> RedisWire:
        options = {**pool.connection_kwargs, "protocol": 2}
        return RedisWire(pool.connection_class(**options), inbox, check, self._failing)

    def _check_master(self, client: Any, connection: Any) -> None:
        """Behind a Sentinel: raise if another server is the master, which this one may not know."""
        if self._kind != "sentinel":
            return
        import redis

        # if no Sentinel answers, there is no other master either
        with suppress(redis.sentinel.MasterNotFoundError):
            if client.connection_pool.get_master_address() != (connection.host, connection.port):
                raise StoreUnavailable(f"{connection.host}:{connection.port} is the master no more", self._store)

    def _check_node(self, client: Any, node: Any, connection: Any) -> None:
        """In a cluster: raise if this node does not hear the others."""
        if client.execute_command("CLUSTER INFO", target_nodes=node).get("cluster_state") != "ok":
            raise StoreUnavailable(f"{node.name} is cut off from its cluster", self._store)

    def close(self) -> None:
        """See PubSub.close."""
        super().close()
        with self._mutex:
            client, self._client = self._client, None
        if client is not None:
            nodes = [client] if self._kind != "cluster" else [node.redis_connection for node in client.get_nodes()]
            for node in nodes:
                if node is not None:
                    # what another thread is sending at the moment is sent
                    node.connection_pool.disconnect(inuse_connections=False)


def _prepare(connection: Any) -> None:
    connection.on_connect()


def _leave_alone(connection: Any) -> None:
    pass
