"""Publish/subscribe by PostgreSQL's LISTEN and NOTIFY."""

from __future__ import annotations

import logging
import math
import os
import secrets
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import event

from stockpyle.coherence.logs import Seldom
from stockpyle.exceptions import StoreTimeout, StoreUnavailable, UnsupportedOperation
from stockpyle.forks import renew_after_fork
from stockpyle.pubsub.callbacks import Name
from stockpyle.pubsub.deadlines import deadlines
from stockpyle.pubsub.envelopes import CARRIER, LONGEST_CHANNEL, MAX_SIZE, opened, sealed
from stockpyle.pubsub.handle import Handle
from stockpyle.pubsub.waking import is_readable
from stockpyle.pubsub.wires import Inbox, Wire

DRIVERS = ("psycopg", "psycopg2")

_left_to_the_parent: list[Any] = []
"""Connections that must not be ended, and so are kept for ever."""
_connecting = threading.local()


def _connect_in_time(dialect: Any, record: Any, cargs: Any, cparams: Any) -> Any:
    """When an engine connects for us: do not wait for ever, unless the application has said for how long."""
    seconds = getattr(_connecting, "seconds", None)
    if seconds is None or "connect_timeout" in cparams:
        return None
    return dialect.connect(*cargs, **{**cparams, "connect_timeout": math.ceil(seconds)})


class PostgresConnection:
    """A connection of its own, in autocommit, made as the engine makes its connections, and in none of its pools."""

    def __init__(self, engine: sa.Engine, where: str, store: str, timeout: float, operation: str) -> None:
        self._where = where
        self._store = store
        self._timeout = timeout
        self._errors: Any = (engine.dialect.loaded_dbapi.Error, OSError, sa.exc.SQLAlchemyError)
        with self.failing(operation):
            _connecting.seconds = timeout
            try:
                # a new pool has room, and takes the engine's settings and listeners with it
                borrowed = engine.pool.recreate().connect()
            finally:
                _connecting.seconds = None
            self.raw = cast(Any, borrowed.driver_connection)
            borrowed.detach()
            try:
                self.raw.rollback()
                self.raw.autocommit = True
            except BaseException:
                self.close()
                raise

    @contextmanager
    def failing(self, operation: str) -> Iterator[None]:
        """Raise StoreTimeout or StoreUnavailable for the driver's errors."""
        try:
            yield
        except (TimeoutError, sa.exc.TimeoutError) as error:
            raise StoreTimeout(f"{self._where} did not answer in time", self._store, operation) from error
        except self._errors as error:
            kind = StoreTimeout if "timeout expired" in str(error) else StoreUnavailable
            raise kind(f"{self._where} cannot be used: {str(error).strip()}", self._store, operation) from error

    def execute(self, statement: str, operation: str) -> int:
        """Execute a statement, wait for the answer as long as it may take, and return how many rows it has."""
        with self.failing(operation), deadlines.within(self._timeout, self.raw.fileno()):
            cursor = self.raw.cursor()
            try:
                cursor.execute(statement)
                return int(cursor.rowcount)
            finally:
                cursor.close()

    @property
    def has_server_of_its_own(self) -> bool:
        """False if something is in between, such as a PgBouncer, that has other sessions with the server."""
        return self.execute(f"SELECT 1 WHERE pg_backend_pid() = {self.raw.info.backend_pid}", "subscribe") == 1

    @property
    def is_silent(self) -> bool:
        """False if the server has ended the session: to one that only sends, it says nothing else unasked."""
        try:
            return not is_readable(self.raw.fileno())
        except self._errors:
            return False

    def close(self) -> None:
        """End the connection, whatever state it is in."""
        with suppress(Exception):
            self.raw.close()

    def leave(self) -> None:
        """In a child process: keep the parent's session, which any other end would end at the server."""
        with suppress(Exception):
            os.close(self.raw.fileno())
        _left_to_the_parent.append(self.raw)


class PostgresWire:
    """A connection that listens to the one channel that carries all messages."""

    def __init__(self, connection: PostgresConnection, inbox: Inbox, seldom: Seldom) -> None:
        self._connection = connection
        self._inbox = inbox
        self._seldom = seldom
        self._raw = connection.raw
        self._echo = ""
        self._is_psycopg2 = hasattr(self._raw, "poll")
        if not self._is_psycopg2:
            # of those that come while a statement runs, psycopg tells in this way only
            self._raw.add_notify_handler(lambda notice: self._take(notice.channel, notice.payload))
        connection.execute(f"LISTEN {CARRIER}", "subscribe")

    def hears(self, sender: PostgresConnection, seconds: float) -> bool:
        """True if what another connection sends arrives here within this time, while nobody asks for anything."""
        own = self._echo = f"stockpyle_echo_{secrets.token_hex(8)}"
        self._connection.execute(f"LISTEN {own}", "subscribe")
        sender.execute(f"NOTIFY {own}", "subscribe")
        until = time.monotonic() + seconds
        while self._echo and (left := until - time.monotonic()) > 0:
            if is_readable(self.fileno(), left):
                self.receive()
        heard = not self._echo
        self._connection.execute(f"UNLISTEN {own}", "subscribe")
        return heard

    def fileno(self) -> int:
        """See Wire.fileno."""
        return int(self._raw.fileno())

    def subscribe(self, names: Collection[Name]) -> None:
        """See Wire.subscribe: all names have been listened to since the connection was made."""

    def unsubscribe(self, names: Collection[Name]) -> None:
        """See Wire.unsubscribe."""

    def receive(self) -> None:
        """See Wire.receive."""
        with self._connection.failing("receive"):
            if self._is_psycopg2:
                try:
                    self._raw.poll()
                finally:
                    notices, self._raw.notifies[:] = list(self._raw.notifies), []
                    for notice in notices:
                        self._take(notice.channel, notice.payload)
            else:
                pgconn = self._raw.pgconn
                try:
                    pgconn.consume_input()
                finally:
                    while (notice := pgconn.notifies()) is not None:
                        self._take(notice.relname.decode(), notice.extra.decode("ascii", "replace"))

    def _take(self, carrier: str, text: str) -> None:
        if carrier == self._echo:
            self._echo = ""
        if carrier != CARRIER:
            # the application's listeners may have made the connection listen to something
            return
        try:
            self._inbox.append(opened(text))
        except ValueError:
            self._seldom.log(logging.WARNING, "", "what came on %s is no message: %.100r", CARRIER, text)

    def ping(self) -> None:
        """See Wire.ping."""
        self._connection.execute("SELECT 1", "ping")

    def close(self) -> None:
        """See Wire.close."""
        self._connection.close()

    def leave(self) -> None:
        """See Wire.leave."""
        self._connection.leave()


class PostgresPubSub(Handle):
    """Messages over a PostgreSQL database, on two connections of its own: one listens, the other sends.

    One thread sends at a time: PostgreSQL, too, commits what has a NOTIFY one by one.
    """

    def __init__(self, engine: sa.Engine, store: str, *options: Any) -> None:
        url = engine.url
        if engine.dialect.name != "postgresql" or engine.dialect.driver not in DRIVERS or engine.dialect.is_async:
            raise UnsupportedOperation(
                f"{store} on {engine.dialect.name}+{engine.dialect.driver} carries no messages: PostgreSQL with the "
                f"drivers {' or '.join(DRIVERS)} does, and so do RedisStore and ProcessMemoryStore"
            )
        super().__init__(f"PostgreSQL at {url.host or 'localhost'}:{url.port or 5432}/{url.database}", store, *options)
        if not event.contains(engine, "do_connect", _connect_in_time):
            event.listen(engine, "do_connect", _connect_in_time)
        self.engine = engine
        self._seldom = Seldom()
        self._mutex = threading.Lock()
        self._sender: PostgresConnection | None = None
        renew_after_fork(self)

    longest_channel = LONGEST_CHANNEL

    def after_fork(self) -> None:
        """In a child process: a connection of its own is made with the next message."""
        self._mutex = threading.Lock()
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.leave()

    @property
    def max_size(self) -> int:
        """How many bytes of data a message may have, in whatever channel."""
        return MAX_SIZE

    def _open(self, operation: str) -> PostgresConnection:
        return PostgresConnection(self.engine, self.where, self._store, self.timeout, operation)

    def _connect(self, inbox: Inbox) -> Wire:
        connection = self._open("subscribe")
        try:
            has_own = connection.has_server_of_its_own
            wire = PostgresWire(connection, inbox, self._seldom)
            if not has_own:
                self._check_pooler(wire)
        except BaseException:
            connection.close()
            raise
        return wire

    def _check_pooler(self, wire: PostgresWire) -> None:
        sender = self._open("subscribe")
        try:
            # in time for whoever waits for the subscription
            hears = wire.hears(sender, self.timeout / 2)
        finally:
            sender.close()
        if not hears:
            raise StoreUnavailable(
                f"{self.where} is reached through a pooler that lets nobody listen, such as a PgBouncer with "
                "pool_mode=transaction: give the pub/sub a store on an engine with a direct connection",
                self._store,
                "subscribe",
            )

    def _publish(self, channel: str, data: bytes) -> None:
        statement = _notify(channel, data)
        if not self._mutex.acquire(timeout=self.timeout):
            raise StoreTimeout("other threads wait for the server as well", self._store, "publish")
        try:
            # it may have been closed while this thread waited
            self._listener.check_open("publish")
            sender, self._sender = self._sender, None
            if sender is not None and not sender.is_silent:
                sender.close()
                sender = None
            sender = sender or self._open("publish")
            try:
                sender.execute(statement, "publish")
            except BaseException:
                sender.close()
                raise
            self._sender = sender
        finally:
            self._mutex.release()

    def publish_in(self, connection: sa.Connection, channel: str, data: bytes | str) -> None:
        """See PubSub.publish_in. The connection may be of another driver; it must lead to the same database."""
        if not isinstance(connection, sa.Connection):
            raise TypeError(f"publish_in takes a SQLAlchemy Connection, not {connection!r}")
        if connection.dialect.name != "postgresql":
            raise UnsupportedOperation(f"{connection.dialect.name} has no NOTIFY: PostgreSQL has")
        statement = _notify(*self._checked(channel, data))
        self._listener.check_open("publish_in")
        if not connection.in_transaction():
            # as with any first statement; without it nobody would commit
            connection.begin()
        cursor = connection.connection.cursor()
        try:
            cursor.execute(statement)
        finally:
            cursor.close()

    def close(self) -> None:
        """See PubSub.close."""
        super().close()
        if self._mutex.acquire(timeout=self.timeout):
            sender, self._sender = self._sender, None
            self._mutex.release()
            if sender is not None:
                sender.close()


def _notify(channel: str, data: bytes) -> str:
    # base64 needs no quoting, and a statement without parameters is the same for every driver
    return f"NOTIFY {CARRIER}, '{sealed(channel, data)}'"
