"""SQL of a user's own, on the engine of a SqlAlchemyStore, and the question if its database answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from stockpyle.exceptions import StoreError, StoreTimeout, StoreUnavailable
from stockpyle.forks import renew_after_fork
from stockpyle.orm.connections import SourceConnections, commits_at_once

Command = tuple[Any, ...]


class SqlCommands:
    """What runs statements: text, in which ``:name`` stands for a parameter, or whatever SQLAlchemy executes."""

    def __init__(self, engine: sa.Engine, connections: SourceConnections, store: str) -> None:
        self._engine = engine
        self._connections = connections
        self._store = store
        self._question = Question(self._ask)

    def ping(self, seconds: float) -> bool:
        """Return True if the database answers; StoreTimeout if it takes longer than so many seconds."""
        if self._engine.dialect.name == "sqlite":
            # it hangs with this process only, and a connection may be bound to this thread
            return self._ask()
        try:
            return self._question.ask(seconds)
        except TimeoutError:
            raise StoreTimeout(f"the database did not answer within {seconds:g} s", self._store, "ping") from None

    def _ask(self) -> bool:
        try:
            return self._ask_once()
        except StoreUnavailable as error:
            # a connection that has been in the pool since before the server was started anew
            if getattr(error.__cause__, "connection_invalidated", False):
                return self._ask_once()
            raise

    def _ask_once(self) -> bool:
        with self._connections.reading("ping") as (connection, _):
            return bool(connection.scalar(sa.select(sa.literal(1))) == 1)

    def connect(self) -> sa.Connection:
        """Return a new connection."""
        with self._connections.errors("connect"):
            return self._engine.connect()

    def execute(self, operation: str, commands: Sequence[Command]) -> list[Any]:
        """Run statements in one transaction, and commit it; return of each the rows, or how many it has changed."""
        prepared = [_prepared(command) for command in commands]
        if not prepared:
            return []
        with self._connections.errors(operation), self._connections.alone(operation), self._transaction() as connection:
            return [_answer(connection.execute(*each)) for each in prepared]

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with self._engine.connect() as connection:
            if commits_at_once(connection):
                level = "SERIALIZABLE" if connection.dialect.name == "sqlite" else "READ COMMITTED"
                connection = connection.execution_options(isolation_level=level)
            with connection.begin():
                yield connection


class Question:
    """A question that may never be answered, asked in a thread of its own.

    Who asks waits for so long, and no longer. As long as nobody has answered, nobody asks again: all wait for the
    same answer.
    """

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a child process: the thread that asked is not there."""
        self._mutex = threading.Lock()
        self._asked: _Asked | None = None

    def ask(self, seconds: float) -> bool:
        """Return the answer, or raise its error; TimeoutError if there is none in time."""
        with self._mutex:
            asked = self._asked
            if asked is None or asked.done.is_set():
                asked = self._asked = _Asked()
                threading.Thread(target=self._run, args=(asked,), name="stockpyle-ping", daemon=True).start()
        if not asked.done.wait(seconds):
            raise TimeoutError
        if isinstance(asked.error, StoreError):
            # each who waits has an error of its own, with a traceback of its own
            raise type(asked.error)(*asked.error.args) from asked.error.__cause__
        if asked.error is not None:
            raise asked.error
        return True

    def _run(self, asked: _Asked) -> None:
        try:
            self._ask()
        except BaseException as error:  # noqa: BLE001  # it belongs to those who wait
            asked.error = error
        finally:
            asked.done.set()


class _Asked:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: BaseException | None = None


def _prepared(command: Command) -> tuple[Any, ...]:
    statement, *parameters = command
    if len(parameters) > 1 or not all(isinstance(each, Mapping | list | tuple) for each in parameters):
        raise TypeError("a SQL command is a statement, and a mapping of its parameters, or a list of mappings")
    return (sa.text(statement) if isinstance(statement, str) else statement, *parameters)


def _answer(result: Any) -> Any:
    return result.all() if result.returns_rows else result.rowcount
