"""From a Connection's transactions to the tiers: lock right before the database commits, settle when it is over.

The Connection's own events tell what really happens, whoever drives it. Its ``commit`` event fires after the last
flush and right before the COMMIT, not for savepoints, and at the true commit of a transaction that a session has
only joined. That it is over is told by the Session, when its connection is back in the pool; and where there is none,
by the connection's next ``begin`` or its return to the pool.
"""

from __future__ import annotations

import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from stockpyle.coherence.logs import logger
from stockpyle.coherence.publishing import OnWrite, publish_committed
from stockpyle.coherence.writer import Writer
from stockpyle.exceptions import StockpyleWarning
from stockpyle.keys import Key
from stockpyle.orm.cascades import referring
from stockpyle.orm.connections import (
    commit_failed_for_sure,
    commits_at_once,
    driver_commits,
    roll_back_what_was_left,
)
from stockpyle.orm.mapping import MappedSpec
from stockpyle.orm.options import OPTION, classes_told
from stockpyle.orm.rows import Rows, rows_of
from stockpyle.orm.sessions import listen_to_sessions, note_written, tables_written_on
from stockpyle.orm.statements import (
    EVERY_TABLE,
    is_of_unit_of_work,
    releases_savepoint,
    savepoint_set,
    specs_of_tables,
    tables_written,
)
from stockpyle.orm.transactions import WrittenObjects, start_watching, watch
from stockpyle.protocols import Change, Outcome, Source

_INFO = "stockpyle_commit"


@dataclass(slots=True)
class Work:
    """A writer for some of a commit's changes, and where what it publishes is loaded from."""

    writer: Writer
    source: Source
    on_write: OnWrite


class Target(Protocol):
    """What keeps copies of what is committed: an extension, for the session that it listens to.

    rows_by_key: how many rows of one statement past the unit of work it wants to have named.
    """

    rows_by_key: int

    def works(self, engine: sa.Engine, changes: Sequence[Change], epochs: Sequence[Key]) -> list[Work]:
        """Return the writers for these changes, not yet locked."""
        ...


@dataclass(slots=True)
class _Execution:
    """A statement that writes, while it runs: the tables that it names, and what else is known of it.

    at_once: what is locked for a statement that is its own commit.
    """

    tables: set[str]
    told: list[MappedSpec] | None
    schemas: Any
    rows: Rows | None = None
    at_once: list[Work] | None = None


_EXECUTION = "_stockpyle_execution"
"""The attribute of a statement's context that is its _Execution: other statements may run before it has ended."""


class FollowedConnection:
    """One Connection, from transaction to transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = weakref.ref(connection)
        self.engine = connection.engine
        self.written: WrittenObjects = watch(connection)
        self.targets: list[Target] = []
        self.session: weakref.ref[Session] | None = None
        self.flushing = False
        self.outcome = Outcome.OPEN
        self.lost = False
        self._flushed_tables: set[str] = set()
        self._works: list[Work] = []

    @property
    def in_session(self) -> bool:
        """True if a session has joined the transaction, and will tell of its end: one that was not abandoned."""
        return self.session is not None and self.session() is not None

    @property
    def _session_commits(self) -> bool:
        session = None if self.session is None else self.session()
        transaction = None if session is None else session.get_transaction()
        return transaction is not None and not transaction.is_active

    @property
    def is_back_in_pool(self) -> bool:
        """True if nobody holds the connection any more."""
        connection = self.connection()
        return connection is None or connection.closed

    # while the transaction is open

    def about_to_execute(self, context: Any, statement: str) -> str:
        """A statement is about to run; return the text to send in its place."""
        if getattr(context, _EXECUTION, None) is not None:
            # the next part of one that is sent in several
            return statement
        schemas = context.execution_options.get("schema_translate_map")
        tables, told = tables_written(context, statement), classes_told(context, schemas)
        if not tables and not told:
            return statement
        now = _Execution(tables, told, schemas)
        setattr(context, _EXECUTION, now)
        if commits_at_once(context.root_connection):
            self._lock_at_once(now)
        elif told is None and not (self.flushing and is_of_unit_of_work(context)):
            now.rows = rows_of(context, schemas)
            if now.rows is not None:
                return now.rows.ask(statement, max(target.rows_by_key for target in self.targets))
        return statement

    def executed(self, context: Any, statement: str) -> None:
        """A statement ran: it is either the unit of work's, accounted for when its flush ends, or nobody's."""
        name = savepoint_set(context)
        if name is not None:
            self.written.savepoint(name)
            return
        if releases_savepoint(context):
            if _has_committed_already(context.root_connection):
                self.written.committed_already()
            return
        now: _Execution | None = getattr(context, _EXECUTION, None)
        if now is None or (now.rows is not None and now.rows.come_later):
            return
        setattr(context, _EXECUTION, None)
        self._executed(now, context, statement)
        if now.at_once is None and _has_committed_already(context.root_connection):
            # sqlite3 begins no transaction for what does not begin with INSERT, UPDATE, DELETE or REPLACE: for a WITH
            self._invalidate_committed(Outcome.COMMITTED)

    def _executed(self, now: _Execution, context: Any, statement: str) -> None:
        if now.at_once is not None:
            _settle_at_once(now.at_once)
        elif now.told is not None:
            self.written.add_epochs(spec.epoch for spec in now.told)
            note_written(context.root_connection, now.told)
        elif self.flushing and is_of_unit_of_work(context):
            self._flushed_tables |= now.tables
        elif now.rows is None:
            self._written_by_nobody(now, statement)
        else:
            self._note(now, now.rows.changes(), statement)

    def executed_many(self, context: Any) -> None:
        """All of a statement ran that was sent in several parts."""
        now: _Execution | None = getattr(context, _EXECUTION, None)
        if now is not None and now.rows is not None:
            setattr(context, _EXECUTION, None)
            self._note(now, now.rows.changes_of_all(), "an INSERT of many rows")

    def statement_failed(self, context: Any) -> None:
        """The database refused a statement, of which it may have done a part."""
        now: _Execution | None = getattr(context, _EXECUTION, None)
        if now is None:
            return
        setattr(context, _EXECUTION, None)
        if now.at_once is not None:
            _settle_at_once(now.at_once)
        elif context.executemany and not self.flushing:
            self.written.add_epochs(spec.epoch for spec in self._specs(now))

    def _note(self, now: _Execution, changes: list[Change] | None, statement: str) -> None:
        if changes is None or now.rows is None:
            self._written_by_nobody(now, statement)
            return
        self.written.add(changes)
        rows = now.rows
        if changes:
            reached = referring([rows.table], deleted=rows.kind == "delete", columns=rows.touched)
            self._drop(specs_of_tables((now.tables - {rows.table}) | reached, now.schemas), statement)

    def _written_by_nobody(self, now: _Execution, statement: str) -> None:
        self._drop(self._specs(now), statement)
        if EVERY_TABLE in now.tables:
            warnings.warn(
                "nobody can tell what this statement changes, so all cached objects of all mapped classes are dropped "
                f'when it is committed. Say it with execution_options({OPTION}=[...]): "{shorten(statement, 120)}"',
                StockpyleWarning,
                stacklevel=caller_level(),
            )

    def _specs(self, now: _Execution) -> list[MappedSpec]:
        """The classes that a statement may change, the database's own doing included."""
        if now.told is not None:
            return now.told
        reached = referring(now.tables, deleted=True) | referring(now.tables, deleted=False)
        return specs_of_tables(now.tables | reached, now.schemas)

    def _drop(self, specs: Sequence[MappedSpec], how: str) -> None:
        if specs:
            self.written.add_epochs(spec.epoch for spec in specs)
            names = ", ".join(sorted({spec.base.class_.__name__ for spec in specs}))
            logger.info("all cached objects of %s are dropped when this is committed: %s", names, shorten(how, 120))

    def joined(self, tables: set[str]) -> None:
        """Statements ran on the connection before anybody followed it."""
        reached = referring(tables, deleted=True) | referring(tables, deleted=False)
        self._drop(
            specs_of_tables(tables | reached, self.written.schemas),
            "statements on a connection that a session joined later",
        )

    # without a transaction

    def _lock_at_once(self, now: _Execution) -> None:
        """What a statement writes is visible before anybody says commit: lock the classes while it runs."""
        epochs = [spec.epoch for spec in self._specs(now)]
        works = [work for target in self.targets for work in target.works(self.engine, (), epochs)]
        try:
            for work in works:
                work.writer.lock()
        except BaseException:
            for work in works:
                work.writer.unlock()
            raise
        now.at_once = works

    def end_flush(self, dirty: Iterable[Any] = ()) -> None:
        """The unit of work has written all that it will in this flush; dirty is what the session thinks changed."""
        self.flushing = False
        tables, self._flushed_tables = self._flushed_tables, set()
        accounted = self.written.updated_besides(dirty, tables) if tables else set()
        left = tables - accounted - self.written.end_flush()
        if left:
            self._drop(specs_of_tables(left, self.written.schemas), "a flush, without telling of an object")

    def flush_failed(self) -> None:
        """The flush was given up; what it has written is rolled back."""
        self.flushing = False
        self._flushed_tables = set()
        self.written.flush_failed()

    # its end

    def lock(self, *, announces: bool = False) -> None:
        """The database commits, or prepares to: lock in all tiers what it will change.

        announces: a backplane may send its message inside the transaction. One that is prepared must have none in it.
        """
        if self._flushed_tables:
            self.end_flush()
        connection = self.connection()
        durable = connection is not None and _has_committed_already(connection)
        if durable:
            self.written.committed_already()
        works = self._works_for_written()
        self._works += works
        try:
            for work in works:
                work.writer.lock(late=durable)
            if announces and connection is not None and not durable:
                for work in works:
                    work.writer.announce(connection)
        except BaseException:
            self._each(lambda work: work.writer.unlock())
            raise
        # not before: what is durable whatever happens must still be known then
        self.written.clear()
        if self._works and connection is not None:
            connection.info[_INFO] = self

    def sent(self) -> None:
        """From here on the commit may have happened."""
        if self._works:
            self.outcome = Outcome.UNKNOWN
        if not self._session_commits:
            # who has committed may keep the connection for long before anybody tells that it is over
            for work in self._works:
                work.writer.owe_beforehand()

    def _works_for_written(self) -> list[Work]:
        changes, epochs = self.written.changes, self.written.epochs
        if not changes and not epochs:
            return []
        return [work for target in self.targets for work in target.works(self.engine, changes, epochs)]

    def failed(self, error: BaseException) -> None:
        """The database, or what leads to it, has raised while it committed: the outcome is known, or is lost."""
        if self.outcome is Outcome.UNKNOWN:
            self.lost = not commit_failed_for_sure(error)
            self.outcome = Outcome.UNKNOWN if self.lost else Outcome.ROLLED_BACK

    def rolled_back(self) -> None:
        """The transaction is rolled back; perhaps by a listener that has kept the commit from being sent."""
        connection = self.connection()
        if self.lost:
            self.settle(Outcome.UNKNOWN, load=False)
        elif connection is not None and _has_committed_already(connection):
            self._invalidate_late()
        else:
            self.forget()

    def forget(self) -> None:
        """Nothing was committed but what a savepoint of sqlite3's has committed before."""
        self.flush_failed()
        self.written.rolled_back()
        self.settle(Outcome.ROLLED_BACK, load=False)
        self._invalidate_late()

    def settle(self, outcome: Outcome, *, load: bool) -> None:
        """End what lock() began. load: publish what was committed; else only invalidate."""
        self.outcome = Outcome.OPEN
        self.lost = False
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
        if outcome is not Outcome.ROLLED_BACK:
            self._invalidate_late(outcome)

    def abandoned(self) -> None:
        """Nobody is left to tell how the commit has ended."""
        if self.outcome is not Outcome.OPEN:
            self.settle(Outcome.UNKNOWN, load=False)

    def _invalidate_late(self, outcome: Outcome = Outcome.COMMITTED) -> None:
        """Drop what was written when nobody could lock it any more, by somebody's own listener to the commit."""
        self._invalidate_committed(outcome)
        self.written.clear()

    def _invalidate_committed(self, outcome: Outcome) -> None:
        self.written.committed_already()
        works = self._works_for_written()
        self.written.forget_committed()
        with ExitStack() as stack:
            for work in reversed(works):
                stack.callback(_invalidate, work.writer, outcome)

    def _each(self, end: Callable[[Work], None]) -> None:
        works, self._works = self._works, []
        with ExitStack() as stack:
            # an interrupt in one must not let another be forgotten
            for work in reversed(works):
                stack.callback(end, work)


def _invalidate(writer: Writer, outcome: Outcome) -> None:
    try:
        writer.lock(late=True)
    except Exception:  # a durable commit must not look like a failed one, whatever a tier does
        logger.exception("what was written in the last moment of a commit is invalidated later")
    else:
        if outcome is Outcome.UNKNOWN:
            writer.leave()
        else:
            writer.publish()


def _settle_at_once(works: Sequence[Work]) -> None:
    with ExitStack() as stack:
        for work in reversed(works):
            stack.callback(work.writer.publish)


def _has_committed_already(connection: sa.Connection) -> bool:
    """True if the connection, which has written, is in no transaction any more: no row is locked, all is visible.

    That is so in autocommit; and sqlite3 by default begins no transaction for a savepoint, whose release then is
    the commit.
    """
    if connection.closed or connection.invalidated:
        return False
    raw: Any = connection.connection.driver_connection
    return driver_commits(connection) or getattr(raw, "in_transaction", None) is False


def caller_level() -> int:
    """Return the stacklevel for warnings.warn, in the function that calls this, of the application's own line."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_library(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    return level


def _is_library(module: str) -> bool:
    return module.partition(".")[0] in ("stockpyle", "sqlalchemy", "contextlib")


_followed: weakref.WeakKeyDictionary[sa.Connection, FollowedConnection] = weakref.WeakKeyDictionary()
_mutex = threading.Lock()
_listening = False


def start_following() -> None:
    """Listen to all engines; connections that nobody follows cost a look into a dict.

    SQLAlchemy's lists of listeners must not change while other threads use them. So this is not done for each engine
    when it is first seen, by a thread of many, but once, when an application sets up its extension.
    """
    global _listening
    start_watching()
    listen_to_sessions()
    with _mutex:
        if _listening:
            return
        for name, listener in _CONNECTION_EVENTS.items():
            # an application's own listener may send the BEGIN
            retval = {"retval": True} if name == "before_cursor_execute" else {}
            event.listen(sa.Engine, name, listener, insert=name == "begin", **retval)
        event.listen(sa.Pool, "reset", _on_reset)
        event.listen(sa.Pool, "invalidate", _on_invalidate)
        _listening = True


def follow(connection: sa.Connection, target: Target) -> FollowedConnection:
    """Tell `target` from now on of what is committed on this Connection."""
    followed = _followed.get(connection)
    if followed is None:
        followed = _followed[connection] = FollowedConnection(connection)
        before = tables_written_on(connection)
        if before:
            followed.joined(before)
        nested = connection.get_nested_transaction()
        if nested is not None:
            # its savepoint was set before anybody looked
            followed.written.savepoint(nested._savepoint)
    if target not in followed.targets:
        followed.targets.append(target)
    return followed


def _on_commit(connection: sa.Connection) -> None:
    _lock_or_roll_back(connection, lambda: connection.dialect.do_rollback(connection.connection), announces=True)


def _lock_or_roll_back(connection: sa.Connection, roll_back: Callable[[], None], *, announces: bool = False) -> None:
    followed = _followed.get(connection)
    if followed is None or followed.outcome is not Outcome.OPEN:
        return
    try:
        followed.lock(announces=announces)
    except BaseException:
        try:
            # an open transaction must not go back to the pool with the error
            roll_back()
        finally:
            # SQLAlchemy, for which it is no transaction any more, will not tell
            followed.forget()
        raise
    followed.sent()


def _on_prepare(connection: sa.Connection, xid: Any) -> None:
    followed = _followed.get(connection)
    if followed is None:
        return
    try:
        followed.lock()
    except BaseException:
        connection.rollback()
        raise


def _on_commit_twophase(connection: sa.Connection, xid: Any, is_prepared: bool) -> None:
    followed = _followed.get(connection)
    if not is_prepared:
        _lock_or_roll_back(connection, lambda: connection.dialect.do_rollback_twophase(connection, xid, False))
    elif followed is not None:
        followed.sent()


def _on_rollback(connection: sa.Connection, *_: Any) -> None:
    followed = _followed.get(connection)
    if followed is not None:
        followed.rolled_back()


def _on_begin(connection: sa.Connection, *_: Any) -> None:
    followed = _followed.get(connection)
    if followed is not None and followed.outcome is not Outcome.OPEN:
        try:
            roll_back_what_was_left(connection)
        finally:
            followed.settle(_ended(followed), load=False)


def _on_release(connection: sa.Connection, name: str, context: Any) -> None:
    followed = _followed.get(connection)
    if followed is not None:
        followed.written.release(name)


def _on_rollback_to(connection: sa.Connection, name: str, context: Any) -> None:
    followed = _followed.get(connection)
    if followed is not None:
        followed.flush_failed()
        followed.written.roll_back_to(name)


def _on_execute(
    connection: sa.Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> tuple[str, Any]:
    followed = _followed.get(connection)
    return (statement if followed is None else followed.about_to_execute(context, statement)), parameters


def _on_executed(
    connection: sa.Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> None:
    followed = _followed.get(connection)
    if followed is not None:
        followed.executed(context, statement)


def _on_executed_whole(
    connection: sa.Connection, clause: Any, multiparams: Any, params: Any, options: Any, result: Any
) -> None:
    followed = _followed.get(connection)
    if followed is not None:
        followed.executed_many(result.context)


def _on_error(context: Any) -> None:
    followed = _followed.get(context.connection) if context.connection is not None else None
    if followed is None:
        return
    if context.statement is None:
        followed.failed(context.sqlalchemy_exception or context.original_exception)
    else:
        followed.statement_failed(context.execution_context)


def _on_reset(dbapi_connection: Any, record: Any, state: Any = None) -> None:
    if record is None:
        # it was detached from its pool: nothing tells any more whose it was, and the locks run out
        return
    # whoever has the connection next must not find this there
    followed: FollowedConnection | None = record.info.pop(_INFO, None)
    if followed is not None and not followed.in_session:
        followed.settle(_ended(followed), load=False)


def _on_invalidate(dbapi_connection: Any, record: Any, exception: BaseException | None) -> None:
    followed: FollowedConnection | None = record.info.pop(_INFO, None)
    if followed is None:
        return
    session = followed.session and followed.session()
    if session is None:
        followed.settle(Outcome.UNKNOWN, load=False)
    else:
        # it may be abandoned instead of closed, and the tiers that could not be reached must be told all the same
        weakref.finalize(session, followed.abandoned)


def _ended(followed: FollowedConnection) -> Outcome:
    # a commit that has raised nothing has happened; the database need not be told to roll back one that has
    return Outcome.COMMITTED if followed.outcome is Outcome.UNKNOWN and not followed.lost else followed.outcome


_CONNECTION_EVENTS: dict[str, Callable[..., Any]] = {
    "begin": _on_begin,
    "begin_twophase": _on_begin,
    "commit": _on_commit,
    "prepare_twophase": _on_prepare,
    "commit_twophase": _on_commit_twophase,
    "rollback": _on_rollback,
    "rollback_twophase": _on_rollback,
    "release_savepoint": _on_release,
    "rollback_savepoint": _on_rollback_to,
    "before_cursor_execute": _on_execute,
    "after_cursor_execute": _on_executed,
    "after_execute": _on_executed_whole,
    "handle_error": _on_error,
}
