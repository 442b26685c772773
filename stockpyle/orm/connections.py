"""The source's own connections: whose they are, what they may be trusted with, and how their commits end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from stockpyle.exceptions import ImproperlyConfigured, StoreError, StoreTimeout, StoreUnavailable
from stockpyle.forks import renew_after_fork
from stockpyle.orm.preparing import unprepared

OWN = "stockpyle_source"
"""The execution option that tells the extension's listeners to leave a connection alone."""

CHECKED = "stockpyle_primary"
"""Where a pooled connection has it noted, once it was looked at, whether it reaches the primary."""

ALONE = "stockpyle_alone"
"""Where it has True if each of its statements sees what is committed when it begins, in a transaction or not."""

AT_ONCE = "stockpyle_at_once"
"""Where it has True while a read has put it in autocommit, which must not outlast the read."""

_END_FAILED = "stockpyle_end_failed"


def note_failed_end(context: Any) -> None:
    """When a COMMIT, or another end of a transaction, fails: note it on the connection, for what comes next."""
    connection = context.connection
    if context.statement is not None or context.is_disconnect or connection is None:
        return
    if not (connection.closed or connection.invalidated):
        connection.info[_END_FAILED] = True


def restore(dbapi_connection: Any, record: Any, state: Any = None) -> None:
    """When a connection goes back to its pool, whoever has brought it there: let it be as it was.

    Autocommit is switched off that a read has switched on, and a transaction is ended that a failed commit has left.

    After a COMMIT that failed, SQLAlchemy takes a transaction that is closed for one that was rolled back. Whoever had
    the connection next, and a load first of all, would read what was never committed, or commit it.
    """
    if record is None:
        # it was detached from its pool, and nobody has it next
        return
    if record.info.pop(AT_ONCE, False) and dbapi_connection is not None:
        dbapi_connection.autocommit = False
    failed = record.info.pop(_END_FAILED, False)
    if getattr(state, "transaction_was_reset", False) and dbapi_connection is not None:
        _roll_back(dbapi_connection, failed)


def roll_back_what_was_left(connection: sa.Connection) -> None:
    """Before a transaction begins on a connection that nobody has given back since a commit failed on it.

    What was written before would be committed with it, by somebody who thinks that it was rolled back.
    """
    if not (connection.closed or connection.invalidated):
        dbapi_connection = connection.connection.dbapi_connection
        if dbapi_connection is not None:
            _roll_back(dbapi_connection, connection.info.pop(_END_FAILED, False))


def _roll_back(dbapi_connection: Any, failed: bool) -> None:
    is_open = _is_open(dbapi_connection)
    if failed if is_open is None else is_open:
        dbapi_connection.rollback()


def _is_open(dbapi_connection: Any) -> bool | None:
    """Tell if a transaction is open on a connection of sqlite3's, psycopg's or psycopg2's; None: others do not tell."""
    in_transaction = getattr(dbapi_connection, "in_transaction", None)
    if isinstance(in_transaction, bool):
        return in_transaction
    status = getattr(getattr(dbapi_connection, "info", None), "transaction_status", None)
    return status != 0 if isinstance(status, int) else None


def is_own(connection: sa.Connection) -> bool:
    """True for connections of a source, which takes care of the tiers itself."""
    return bool(connection.get_execution_options().get(OWN))


class SourceConnections:
    """Connections for loads, which tell if what they read may be cached, and for writes.

    Some pools give everybody the same connection (an SQLite database in memory). There a load might see somebody's
    uncommitted rows, and giving the connection back would roll them back; so one Connection is kept, a load while a
    transaction is open on it is not cached, and a write then is refused.
    """

    def __init__(self, engine: sa.Engine, store: str) -> None:
        self.engine = engine.execution_options(**{OWN: True})
        self._store = store
        self._one_for_all = isinstance(engine.pool, StaticPool)
        self._shared = isinstance(engine.pool, StaticPool | SingletonThreadPool)
        self._mutex = threading.RLock()
        self._kept = threading.local()
        self._single: sa.Connection | None = None
        self.have_checked = False
        """True as soon as one connection was looked at: until then SQLAlchemy's dialect knows nothing of the server."""
        renew_after_fork(self)

    def after_fork(self) -> None:
        """In a child process: leave the parent's connections to the parent."""
        self._mutex = threading.RLock()
        if not self._shared:
            self.engine.dispose(close=False)

    @contextmanager
    def reading(self, operation: str = "load") -> Iterator[tuple[sa.Connection, Callable[[], bool]]]:
        """Yield a connection whose next statement begins a snapshot, and what tells if the rows read may be cached.

        That is asked after they were read: on a shared connection, another thread may have begun to write meanwhile.
        """
        with self._errors(operation):
            if self._shared:
                with self._mutex:
                    connection = self._keep()
                    written = _rows_written(connection)
                    others = _in_transaction(connection)
                    mine = not others and not connection.in_transaction() and _begins(connection)
                    try:
                        clean = self._check(connection) and not others
                        with unprepared(connection):
                            yield connection, lambda: clean and _rows_written(connection) == written
                    finally:
                        if mine and connection.in_transaction():
                            connection.rollback()
            else:
                with self.engine.connect() as connection:
                    primary = self._check(connection)
                    with unprepared(connection):
                        yield connection, lambda: primary

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction that nobody else shares; who uses it commits it."""
        with self._errors("write"):
            if self._shared:
                with self._mutex:
                    connection = self._keep()
                    if _in_transaction(connection):
                        raise self._is_taken("write")
                    autocommit = commits_at_once(connection)
                    try:
                        with self._transaction(connection):
                            yield connection
                    finally:
                        if autocommit:
                            connection.execution_options(isolation_level="AUTOCOMMIT")
            else:
                with self.engine.connect() as connection, self._transaction(connection):
                    yield connection

    @contextmanager
    def _transaction(self, connection: sa.Connection) -> Iterator[None]:
        """Begin a transaction, also on a connection in autocommit; roll it back unless it is committed inside."""
        self._check(connection)
        if connection.in_transaction():
            connection.rollback()
        connection.begin()
        try:
            if commits_at_once(connection):
                connection.rollback()
                level = "SERIALIZABLE" if connection.dialect.name == "sqlite" else "READ COMMITTED"
                connection.execution_options(isolation_level=level)
                connection.begin()
            yield
        finally:
            connection.rollback()
            # that does nothing if its COMMIT has failed, and a connection that all share goes back to no pool
            roll_back_what_was_left(connection)

    def release(self) -> None:
        """Give back the connection kept for this thread."""
        connection: sa.Connection | None = getattr(self._kept, "connection", None)
        if connection is not None and not _in_transaction(connection):
            self._kept.connection = None
            connection.close()

    def close(self) -> None:
        """Give back every connection that is kept."""
        self.release()
        if self._single is not None:
            self._single.close()
            self._single = None

    def _keep(self) -> sa.Connection:
        if self._one_for_all:
            if self._single is None or self._single.closed or self._single.invalidated:
                self._single = self.engine.connect()
            return self._single
        connection: sa.Connection | None = getattr(self._kept, "connection", None)
        if connection is None or connection.closed or connection.invalidated:
            connection = self._kept.connection = self.engine.connect()
        return connection

    def _check(self, connection: sa.Connection) -> bool:
        """True if the connection reaches the primary; once for each DBAPI connection."""
        primary: bool | None = connection.info.get(CHECKED)
        if primary is None:
            level = connection.get_isolation_level()
            if level == "READ UNCOMMITTED":
                raise ImproperlyConfigured(
                    f"{self._store} reads at READ UNCOMMITTED: rows that are never committed would be cached; "
                    "give it an engine with another isolation_level"
                )
            connection.info[ALONE] = level == "READ COMMITTED"
            primary = connection.info[CHECKED] = not _in_recovery(connection)
        # another store may have looked at it, with the same dialect
        self.have_checked = True
        return primary

    @contextmanager
    def alone(self, operation: str) -> Iterator[None]:
        """Keep others from a connection that all share, on which a transaction of theirs must not be open."""
        if not self._shared:
            yield
            return
        with self._mutex:
            if _in_transaction(self._keep()):
                raise self._is_taken(operation)
            yield

    def _is_taken(self, operation: str) -> StoreError:
        return StoreError(
            "another transaction is open on the only connection of this engine's pool: end it first, or use a "
            "database file",
            self._store,
            operation,
        )

    def errors(self, operation: str) -> AbstractContextManager[None]:
        """Raise StoreUnavailable, StoreTimeout or StoreError for what the driver and SQLAlchemy raise."""
        return self._errors(operation)

    @contextmanager
    def _errors(self, operation: str) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, OverflowError, UnicodeError) as error:
            raise self.translated(error, operation) from error

    def translated(self, error: Exception, operation: str) -> StoreError:
        """Return the store's own error for one that the driver or SQLAlchemy has raised."""
        if isinstance(error, PoolTimeout):
            return StoreTimeout(f"no connection could be had: {error}", self._store, operation)
        if isinstance(error, DBAPIError):
            kind = StoreUnavailable if _is_unreachable(error) else StoreError
            return kind(str(error.orig), self._store, operation)
        # OverflowError and UnicodeError are drivers' own, of values that they cannot send
        return StoreError(str(error), self._store, operation)


def commit_failed_for_sure(error: BaseException | None) -> bool:
    """True if a failed COMMIT certainly did not commit: the server, or SQLite, has said so itself.

    PostgreSQL: an SQLSTATE that is not about the connection (class 08), a shutdown (57P) or an unknown completion
    (40003); see "PostgreSQL Error Codes" in its manual. SQLite: a busy, full or constraint error leaves the
    transaction open; an I/O error says nothing.
    """
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return False
    original: Any = error.orig
    state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    if state:
        return not (state.startswith(("08", "57P")) or state == "40003")
    if type(original).__module__.startswith("sqlite3"):
        return isinstance(error, IntegrityError) or "i/o" not in str(original).lower()
    return isinstance(error, IntegrityError)


def _is_unreachable(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None)
    text = str(error.orig).lower()
    unable = "unable to open" in text or "connection" in text or "locked" in text
    return isinstance(error, OperationalError) and (unable if not state else state.startswith(("08", "53", "57P")))


def commits_at_once(connection: sa.Connection) -> bool:
    """True if the connection is in autocommit: what it writes is visible at once, and no row stays locked."""
    if connection.closed or connection.invalidated:
        return False
    if driver_commits(connection):
        return True
    # sqlite3 without a BEGIN of its own, and where nobody has sent one
    raw: Any = connection.connection.driver_connection
    return getattr(raw, "isolation_level", "") is None and getattr(raw, "in_transaction", None) is False


def driver_commits(connection: sa.Connection) -> bool:
    """True if an open connection's driver says that it commits each statement."""
    pooled: Any = connection.connection
    raw = pooled.dbapi_connection
    # an asynchronous driver's own connection does not tell: what SQLAlchemy has put around it does
    if getattr(raw, "autocommit", None) is True or getattr(pooled.driver_connection, "autocommit", None) is True:
        return True
    detect = getattr(connection.dialect, "detect_autocommit_setting", None)
    if detect is None or connection.dialect.name == "sqlite":
        return False
    try:
        return bool(detect(raw))
    except NotImplementedError:
        return False


def has_committed_already(connection: sa.Connection) -> bool:
    """True if the connection, which has written, is in no transaction any more: no row is locked, all is visible.

    That is so in autocommit; and sqlite3 by default begins no transaction for a savepoint, whose release then is
    the commit.
    """
    if connection.closed or connection.invalidated:
        return False
    raw: Any = connection.connection.driver_connection
    return driver_commits(connection) or getattr(raw, "in_transaction", None) is False


def _begins(connection: sa.Connection) -> bool:
    """Begin, as the first statement would; True if the application's own listeners have made that a real BEGIN."""
    connection.begin()
    return _in_transaction(connection)


def _in_transaction(connection: sa.Connection) -> bool:
    return bool(getattr(connection.connection.dbapi_connection, "in_transaction", False))


def _rows_written(connection: sa.Connection) -> int:
    """How many rows sqlite3 has written on this connection, rolled back or not."""
    return int(getattr(connection.connection.dbapi_connection, "total_changes", 0))


def _in_recovery(connection: sa.Connection) -> bool:
    if connection.dialect.name != "postgresql":
        return False
    cursor = connection.connection.cursor()
    try:
        cursor.execute("SELECT pg_is_in_recovery()")
        return bool(cursor.fetchone()[0])  # type: ignore[index]
    finally:
        cursor.close()
