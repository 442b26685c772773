"""What SQLAlchemy tells of Connections: their own events say what really happens, whoever drives them.

The ``commit`` event fires after the last flush and right before the COMMIT, not for savepoints, and at the true commit
of a transaction that a session has only joined. That it is over is told by the Session, when its connection is back in
the pool; and where there is none, by the connection's next ``begin`` or its return to the pool.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from stockpyle.orm.commits import INFO, FollowedConnection
from stockpyle.orm.connections import roll_back_what_was_left
from stockpyle.orm.listeners import listen_to_engines
from stockpyle.orm.sessions import listen_to_sessions, tables_written_on
from stockpyle.orm.transactions import start_watching
from stockpyle.orm.works import Target
from stockpyle.protocols import Outcome

_FOLLOWED = "_stockpyle_followed"
"""The attribute of a Connection that is its FollowedConnection, once it is followed."""

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
            listen_to_engines(name, listener, insert=name == "begin", **retval)
        event.listen(sa.Pool, "reset", _on_reset)
        event.listen(sa.Pool, "invalidate", _on_invalidate)
        _listening = True


def follow(connection: sa.Connection, target: Target) -> FollowedConnection:
    """Tell `target` from now on of what is committed on this Connection."""
    followed: FollowedConnection | None = getattr(connection, _FOLLOWED, None)
    if followed is None:
        followed = FollowedConnection(connection)
        setattr(connection, _FOLLOWED, followed)
        before = tables_written_on(connection)
        if before:
            followed.statements.joined(before)
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
    followed: FollowedConnection | None = getattr(connection, _FOLLOWED, None)
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
    followed: FollowedConnection | None = getattr(connection, _FOLLOWED, None)
    if followed is None:
        return
    try:
        followed.lock()
    except BaseException:
        connection.rollback()
        raise


def _on_commit_twophase(connection: sa.Connection, xid: Any, is_prepared: bool) -> None:
    followed: FollowedConnection | None = getattr(connection, _FOLLOWED, None)
    if not is_prepared:
        _lock_or_roll_back(connection, lambda: connection.dialect.do_rollback_twophase(connection, xid, False))
    elif followed is not None:
        followed.sent()


def _on_rollback(connection: sa.Connection, *_: Any) -> None:
    followed: FollowedConnection | None = getattr(connection, _FOLLOWED, None)
    if followed is not None:
        followed.rolled_back()


def _on_begin(connection: sa.Connection, *_: Any) -> None:
    followed: FollowedConnection | None = getattr(connection, _FOLLOWED, None)
    if followed is not None and followed.outcome is not Outcome.OPEN:
        try:
            roll_back_what_was_left(connection)
        finally:
            followed.settle(_ended(followed), load=False)


def _on_release(connection: sa.Connection, name: str, context: Any) -> None:
    followed: FollowedConnection | None = getattr(connection, _FOLLOWED, None)
    if followed is not None:
        followed.written.release(name)


def _on_rollback_to(connection: sa.Connection, name: str, context: Any) -> None:
    followed: FollowedConnection | None = getattr(connection, _FOLLOWED, None)
    if followed is not None:
        followed.statements.flush_failed()
        followed.written.roll_back_to(name)


def _on_execute(
    connection: sa.Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> tuple[str, Any]:
    followed: FollowedConnection | None = getattr(connection, _FOLLOWED, None)
    return (statement if followed is None else followed.statements.about_to_execute(context, statement)), parameters


def _on_executed(
    connection: sa.Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> None:
    followed: FollowedConnection | None = getattr(connection, _FOLLOWED, None)
    if followed is not None and followed.statements.executed(context, statement):
        followed.invalidate_committed()


def _on_executed_whole(
    connection: sa.Connection, clause: Any, multiparams: Any, params: Any, options: Any, result: Any
) -> None:
    followed: FollowedConnection | None = getattr(connection, _FOLLOWED, None)
    if followed is not None:
        followed.statements.executed_many(result.context)


def _on_error(context: Any) -> None:
    followed: FollowedConnection | None = getattr(context.connection, _FOLLOWED, None)
    if followed is None:
        return
    if context.statement is None:
        followed.failed(context.sqlalchemy_exception or context.original_exception)
    else:
        followed.statements.statement_failed(context.execution_context)


def _on_reset(dbapi_connection: Any, record: Any, state: Any = None) -> None:
    if record is None:
        # it was detached from its pool: nothing tells any more whose it was, and the locks run out
        return
    # whoever has the connection next must not find this there
    followed: FollowedConnection | None = record.info.pop(INFO, None)
    if followed is not None and not followed.in_session:
        followed.settle(_ended(followed), load=False)


def _on_invalidate(dbapi_connection: Any, record: Any, exception: BaseException | None) -> None:
    followed: FollowedConnection | None = record.info.pop(INFO, None)
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
