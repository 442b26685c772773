"""One memcached server: a pool of connections to it, and its failures as stockpyle's errors."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import GeneratorType
from typing import Any, TypeVar, overload

from stockpyle.coherence.talks import Talk, finish
from stockpyle.exceptions import StockpyleError, StoreTimeout, StoreUnavailable
from stockpyle.forks import renew_after_fork
from stockpyle.memcached.wire import Connection

T = TypeVar("T")
Work = Callable[[Connection], Talk[T]]
"""What is done with a connection, step by step; where nothing is waited for it may be a plain function."""


class Server:
    """A server that is connected to when it is first used, and again after a fork or an error.

    new_client makes a pymemcache Client that is not yet connected. At most `pool_size` connections are kept open while
    nobody uses them; as many as there are threads may be in use.
    """

    def __init__(self, name: str, new_client: Callable[[], Any], run_key: bytes, pool_size: int, store: str) -> None:
        self.name = name
        self._new_client = new_client
        self._run_key = run_key
        self._store = store
        self._idle: deque[Connection] = deque()
        self._pool_size = pool_size
        self._newest_run = b""
        renew_after_fork(self)
        weakref.finalize(self, _close_all, self._idle).atexit = False

    @overload
    def call(self, operation: str, work: Work[T]) -> T: ...
    @overload
    def call(self, operation: str, work: Callable[[Connection], T]) -> T: ...
    def call(self, operation: str, work: Callable[[Connection], Any]) -> Any:
        """Run `work` with a connection; StoreUnavailable, or StoreTimeout, if the server cannot be used.

        A pooled connection that has turned out dead, as all do when the server restarts, is replaced once by a new one.
        Such a `work` may then have happened twice.
        """
        return finish(self.talk(operation, work))

    def talk(self, operation: str, work: Work[T]) -> Talk[T]:
        """Do what call does, step by step. A talk that is closed before its end closes its connection."""
        connection = self._idle_connection()
        if connection is not None:
            try:
                return (yield from self._work(connection, work))
            except TimeoutError as error:
                raise self._error(operation, error) from error
            except OSError:
                self.close()
        return (yield from self._run(operation, self._connect(operation), work))

    def once(self, operation: str, work: Work[T]) -> T:
        """Run `work` as call does, and never twice: a pooled connection is looked at before it is used."""
        connection = self._idle_connection()
        if connection is not None and not connection.is_quiet:
            connection.close()
            self.close()
            connection = None
        return finish(self._run(operation, connection or self._connect(operation), work))

    def ask(self, method: Callable[..., T | None], *args: Any) -> T | Connection | None:
        """Call a method of a pooled connection's that asks one thing, without what a call does besides.

        None if there is no such connection, or it has turned out dead, so that it is to be asked in a call; and the
        connection, which is the caller's then, if the method returns None: the answer is another than expected.
        """
        try:
            connection = self._idle.pop()
        except IndexError:
            return None
        if not connection.is_quiet:
            connection.close()
            self.close()
            return None
        try:
            found = method(connection, *args)
        except TimeoutError as error:
            connection.close()
            raise self._error("read", error) from error
        except OSError:
            connection.close()
            self.close()
            return None
        except BaseException:
            connection.close()
            raise
        if found is None:
            return connection
        if connection.run == self._newest_run and len(self._idle) < self._pool_size:
            self._idle.append(connection)
        else:
            self._keep(connection)
        return found

    @overload
    def go_on(self, connection: Connection, operation: str, work: Work[T]) -> T: ...
    @overload
    def go_on(self, connection: Connection, operation: str, work: Callable[[Connection], T]) -> T: ...
    def go_on(self, connection: Connection, operation: str, work: Callable[[Connection], Any]) -> Any:
        """Run `work` with the connection that ask() has returned."""
        return finish(self._run(operation, connection, work))

    def client(self, operation: str) -> Any:
        """Return a pymemcache Client of the caller's own, connected to a server that is fit for use."""
        return self._connect(operation).give_away()

    def _idle_connection(self) -> Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _run(self, operation: str, connection: Connection, work: Work[T]) -> Talk[T]:
        try:
            return (yield from self._work(connection, work))
        except OSError as error:
            raise self._error(operation, error) from error

    def _work(self, connection: Connection, work: Work[T]) -> Talk[T]:
        try:
            said: Any = work(connection)
            result: T = (yield from said) if type(said) is GeneratorType else said
        except BaseException:
            # whatever it was, replies to what was sent may still come
            connection.close()
            raise
        self._keep(connection)
        return result

    def _keep(self, connection: Connection) -> None:
        if connection.run != self._newest_run:
            connection.close()
            return
        self._idle.append(connection)
        if len(self._idle) > self._pool_size:
            with suppress(IndexError):
                self._idle.popleft().close()

    def _connect(self, operation: str) -> Connection:
        client = self._new_client()
        try:
            connection = Connection(client, self.name, self._run_key)
        except StockpyleError:
            client.close()
            raise
        except Exception as error:
            # pymemcache has errors of its own, and lets those of DNS, TLS and its parser through
            client.close()
            raise self._error(operation, error) from error
        if connection.run != self._newest_run:
            # the server began anew, or has evicted the name of its run and got another: what is locked under one name
            # cannot be published under the other
            self._newest_run = connection.run
            self.close()
        return connection

    def _error(self, operation: str, error: Exception) -> StoreUnavailable:
        if isinstance(error, TimeoutError):
            return StoreTimeout(f"memcached at {self.name} did not answer in time", self._store, operation)
        return StoreUnavailable(f"memcached at {self.name} cannot be used: {error!r}", self._store, operation)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        _close_all(self._idle)

    def after_fork(self) -> None:
        """In a child process: the connections are the parent's, which does not notice that the child closes them."""
        self.close()


def _close_all(connections: deque[Connection]) -> None:
    while True:
        try:
            connections.pop().close()
        except IndexError:
            return
