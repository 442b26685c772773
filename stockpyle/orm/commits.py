"""From a Connection's transactions to the tiers: lock right before the database commits, settle when it is over.

The Connection's own events tell what really happens, whoever drives it. Its ``commit`` event fires after the last
flush and right before the COMMIT, not for savepoints, and at the true commit of a transaction that a session has
only joined. That it is over is told by the Session, when its connection is back in the pool; and where there is none,
by the connection's next ``begin`` or its return to the pool.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy import event

from stockpyle.coherence.publishing import publish_committed
from stockpyle.coherence.writer import Writer
from stockpyle.exceptions import StockpyleWarning
from stockpyle.keys import Key
from stockpyle.orm.connections import commit_failed_for_sure
from stockpyle.orm.statements import is_of_unit_of_work, specs_of_tables, tables_written
from stockpyle.orm.transactions import WrittenObjects, watch
from stockpyle.protocols import Change, Outcome, Source

_INFO = "stockpyle_commit"


@dataclass(slots=True)
class Work:
    """A writer for some of a commit's changes, and where what it publishes is loaded from."""

    writer: Writer
    source: Source
    on_write: str


class Target(Protocol):
    """What keeps copies of what is committed: an extension, for the session that it listens to."""

    def works(self, engine: sa.Engine, changes: Sequence[Change], epochs: Sequence[Key]) -> list[Work]:
        """Return the writers for these changes, not yet locked."""
        ...


class FollowedConnection:
    """One Connection, from transaction to transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = weakref.ref(connection)
        self.engine = connection.engine
        self.written: WrittenObjects = watch(connection)
        self.targets: list[Target] = []
        self.in_session = False
        self.flushing = False
        self.outcome = Outcome.OPEN
        self._flushed_tables: set[str] = set()
        self._works: list[Work] = []

    @property
    def is_back_in_pool(self) -> bool:
        """True if nobody holds the connection any more."""
        connection = self.connection()
        return connection is None or connection.closed

    # while the transaction is open

    def executed(self, context: Any, statement: str) -> None:
        """A statement ran: it is either the unit of work's, accounted for when its flush ends, or nobody's."""
        tables = tables_written(context, statement)
        if not tables:
            return
        if self.flushing and is_of_unit_of_work(context):
            self._flushed_tables |= tables
        else:
            self._written_by_nobody(tables)

    def end_flush(self) -> None:
        """The unit of work has written all that it will in this flush."""
        accounted = {str(getattr(table, "name", "")).lower() for table in self.written.end_flush()}
        left, self._flushed_tables = self._flushed_tables - accounted, set()
        if left:
            self._written_by_nobody(left)

    def _written_by_nobody(self, tables: set[str]) -> None:
        specs = specs_of_tables(tables, self.written.schemas)
        if not specs:
            return
        self.written.add_epochs(spec.epoch for spec in specs)
        names = ", ".join(sorted(spec.klass.__name__ for spec in specs))
        warnings.warn(
            f"a statement has written {', '.join(sorted(tables))} past the unit of work: "
            f"all cached objects of {names} are dropped when it is committed",
            StockpyleWarning,
            stacklevel=2,
        )

    # its end

    def lock(self) -> None:
        """The database commits next: lock in all tiers what it will change."""
        if self.outcome is not Outcome.OPEN:
            return
        if self._flushed_tables:
            self.end_flush()
        changes, epochs = self.written.changes, self.written.epochs
        self.written.clear()
        if not changes and not epochs:
            return
        connection = self.connection()
        if connection is not None and _commits_at_once(connection):
            changes = [replace(change, unprotected=(*change.before, *change.after)) for change in changes]
        self._works = [work for target in self.targets for work in target.works(self.engine, changes, epochs)]
        try:
            for work in self._works:
                work.writer.lock()
        except BaseException:
            self._each(lambda work: work.writer.unlock())
            raise
        self.outcome = Outcome.UNKNOWN
        if connection is not None:
            connection.info[_INFO] = self

    def failed(self, error: BaseException) -> None:
        """The database, or what leads to it, has raised while it committed."""
        if self.outcome is Outcome.UNKNOWN and commit_failed_for_sure(error):
            self.outcome = Outcome.ROLLED_BACK

    def rolled_back(self) -> None:
        """The transaction is rolled back, perhaps after a commit that has failed, or that seemed to."""
        connection = self.connection()
        if self.outcome is Outcome.OPEN and connection is not None and _commits_at_once(connection):
            self.lock()
            self.settle(Outcome.COMMITTED, load=False)
        elif self.outcome is Outcome.OPEN:
            self.forget()
        else:
            self.settle(self.outcome, load=False)

    def forget(self) -> None:
        """Nothing was committed, and nothing locked."""
        self._flushed_tables = set()
        self.written.clear()

    def settle(self, outcome: Outcome, *, load: bool) -> None:
        """End what lock() began. load: publish what was committed; else only invalidate."""
        self.outcome = Outcome.OPEN
        connection = self.connection()
        if connection is not None and not connection.closed and not connection.invalidated:
            connection.info.pop(_INFO, None)
        if outcome is Outcome.COMMITTED:
            self._each(
                lambda work: publish_committed(work.writer, work.source, work.on_write if load else "invalidate")
            )
        elif outcome is Outcome.ROLLED_BACK:
            self._each(lambda work: work.writer.unlock())
        else:
            self._each(lambda work: work.writer.leave())

    def _each(self, end: Callable[[Work], None]) -> None:
        works, self._works = self._works, []
        for work in works:
            end(work)


def _commits_at_once(connection: sa.Connection) -> bool:
    """True if the connection is in autocommit: what it wrote is visible already, and no row is locked any more."""
    if connection.closed or connection.invalidated:
        return False
    raw: Any = connection.connection.driver_connection
    if getattr(raw, "autocommit", None) is True:
        return True
    return getattr(raw, "isolation_level", "") is None and getattr(raw, "in_transaction", None) is False


_followed: weakref.WeakKeyDictionary[sa.Connection, FollowedConnection] = weakref.WeakKeyDictionary()
_engines: weakref.WeakSet[sa.Engine] = weakref.WeakSet()
_mutex = threading.Lock()


def follow(connection: sa.Connection, target: Target) -> FollowedConnection:
    """Tell `target` from now on of what is committed on this Connection."""
    _listen_to_engine(connection.engine)
    followed = _followed.get(connection)
    if followed is None:
        followed = _followed[connection] = FollowedConnection(connection)
    if target not in followed.targets:
        followed.targets.append(target)
    return followed


def _listen_to_engine(engine: sa.Engine) -> None:
    with _mutex:
        if engine in _engines:
            return
        _engines.add(engine)
    for name, listener in _CONNECTION_EVENTS.items():
        event.listen(engine, name, listener)
    event.listen(engine, "reset", _on_reset)
    event.listen(engine, "invalidate", _on_invalidate)


def _on_commit(connection: sa.Connection, *_: Any) -> None:
    followed = _followed.get(connection)
    if followed is None:
        return
    try:
        followed.lock()
    except BaseException:
        # an open transaction must not go back to the pool with the error
        connection.rollback()
        raise


def _on_rollback(connection: sa.Connection, *_: Any) -> None:
    followed = _followed.get(connection)
    if followed is not None:
        followed.rolled_back()


def _on_begin(connection: sa.Connection, *_: Any) -> None:
    followed = _followed.get(connection)
    if followed is not None and followed.outcome is not Outcome.OPEN:
        followed.settle(_ended(followed), load=False)


def _on_savepoint(connection: sa.Connection, name: str) -> None:
    followed = _followed.get(connection)
    if followed is not None:
        followed.written.savepoint(name)


def _on_release(connection: sa.Connection, name: str, context: Any) -> None:
    followed = _followed.get(connection)
    if followed is not None:
        followed.written.release(name)


def _on_rollback_to(connection: sa.Connection, name: str, context: Any) -> None:
    followed = _followed.get(connection)
    if followed is not None:
        followed.written.roll_back_to(name)


def _on_executed(
    connection: sa.Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> None:
    followed = _followed.get(connection)
    if followed is not None:
        followed.executed(context, statement)


def _on_error(context: Any) -> None:
    followed = _followed.get(context.connection) if context.connection is not None else None
    error = context.sqlalchemy_exception or context.original_exception
    if followed is not None and not context.is_disconnect:
        followed.failed(error)


def _on_reset(dbapi_connection: Any, record: Any, state: Any = None) -> None:
    followed: FollowedConnection | None = record.info.get(_INFO)
    if followed is not None and not followed.in_session:
        del record.info[_INFO]
        followed.settle(_ended(followed), load=False)


def _on_invalidate(dbapi_connection: Any, record: Any, exception: BaseException | None) -> None:
    followed: FollowedConnection | None = record.info.get(_INFO)
    if followed is not None and not followed.in_session:
        del record.info[_INFO]
        followed.settle(Outcome.UNKNOWN, load=False)


def _ended(followed: FollowedConnection) -> Outcome:
    # the commit raised nothing, or a rollback would have come first
    return Outcome.COMMITTED if followed.outcome is Outcome.UNKNOWN else followed.outcome


_CONNECTION_EVENTS: dict[str, Callable[..., None]] = {
    "begin": _on_begin,
    "commit": _on_commit,
    "prepare_twophase": _on_commit,
    "rollback": _on_rollback,
    "rollback_twophase": _on_rollback,
    "savepoint": _on_savepoint,
    "release_savepoint": _on_release,
    "rollback_savepoint": _on_rollback_to,
    "after_cursor_execute": _on_executed,
    "handle_error": _on_error,
}
