"""From a Connection's transactions to the tiers: lock right before the database commits, settle when it is over."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.orm import Session

from stockpyle.coherence.logs import logger
from stockpyle.coherence.publishing import publish_committed
from stockpyle.orm.connections import commit_failed_for_sure, has_committed_already
from stockpyle.orm.executions import Executions
from stockpyle.orm.transactions import WrittenObjects, watch
from stockpyle.orm.works import Target, Work, end_each
from stockpyle.protocols import Outcome

INFO = "stockpyle_commit"
"""Where a pooled connection has its FollowedConnection, from the commit until that is settled."""


class FollowedConnection:
    """One Connection, from transaction to transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = weakref.ref(connection)
        self.engine = connection.engine
        self.written: WrittenObjects = watch(connection)
        self.targets: list[Target] = []
        self.statements = Executions(self.engine, self.written, self.targets)
        self.session: weakref.ref[Session] | None = None
        self.outcome = Outcome.OPEN
        self.lost = False
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

    def lock(self, *, announces: bool = False) -> None:
        """The database commits, or prepares to: lock in all tiers what it will change.

        announces: a backplane may send its message inside the transaction. One that is prepared must have none in it.
        """
        if self.statements.in_flush:
            self.statements.end_flush()
        connection = self.connection()
        durable = connection is not None and has_committed_already(connection)
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
            connection.info[INFO] = self

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
        elif connection is not None and has_committed_already(connection):
            self._invalidate_late()
        else:
            self.forget()

    def forget(self) -> None:
        """Nothing was committed but what a savepoint of sqlite3's has committed before."""
        self.statements.flush_failed()
        self.written.rolled_back()
        self.settle(Outcome.ROLLED_BACK, load=False)
        self._invalidate_late()

    def settle(self, outcome: Outcome, *, load: bool) -> None:
        """End what lock() began. load: publish what was committed; else only invalidate."""
        self.outcome = Outcome.OPEN
        self.lost = False
        connection = self.connection()
        if connection is not None and not connection.closed and not connection.invalidated:
            connection.info.pop(INFO, None)
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
        if self.written.is_empty:
            return
        self.invalidate_committed(outcome)
        self.written.clear()

    def invalidate_committed(self, outcome: Outcome = Outcome.COMMITTED) -> None:
        """Drop what is durable already, whatever becomes of the transaction."""
        self.written.committed_already()
        works = self._works_for_written()
        self.written.forget_committed()
        end_each(works, lambda work: _invalidate(work, outcome))

    def _each(self, end: Callable[[Work], None]) -> None:
        works, self._works = self._works, []
        end_each(works, end)


def _invalidate(work: Work, outcome: Outcome) -> None:
    try:
        work.writer.lock(late=True)
    except Exception:  # a durable commit must not look like a failed one, whatever a tier does
        logger.exception("what was written in the last moment of a commit is invalidated later")
    else:
        if outcome is Outcome.UNKNOWN:
            work.writer.leave()
        else:
            work.writer.publish()
