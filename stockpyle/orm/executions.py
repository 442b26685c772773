"""The statements of one Connection, while they run: which objects each of them changes, or which classes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import sqlalchemy as sa

from stockpyle.coherence.logs import logger
from stockpyle.exceptions import StockpyleWarning
from stockpyle.orm.cascades import referring, referring_at_all
from stockpyle.orm.connections import commits_at_once, has_committed_already
from stockpyle.orm.mapping import MappedSpec
from stockpyle.orm.options import OPTION, classes_told
from stockpyle.orm.rows import Rows, rows_of
from stockpyle.orm.sessions import note_written
from stockpyle.orm.statements import (
    EVERY_TABLE,
    is_of_unit_of_work,
    releases_savepoint,
    savepoint_set,
    specs_of_tables,
    tables_written,
)
from stockpyle.orm.transactions import WrittenObjects
from stockpyle.orm.works import Target, Work, end_each
from stockpyle.protocols import Change


@dataclass(slots=True)
class _Execution:
    """A statement that writes, while it runs: the tables that it names, and what else is known of it.

    at_once: what is locked for a statement that is its own commit.
    """

    tables: frozenset[str]
    told: list[MappedSpec] | None
    schemas: Any
    rows: Rows | None = None
    at_once: list[Work] | None = None


_EXECUTION = "_stockpyle_execution"
"""The attribute of a statement's context that is its _Execution: other statements may run before it has ended."""


class Executions:
    """What the statements on one Connection write is noted in `written`, for `targets`; see Target.

    flushing: a unit of work is writing, and accounts for its own statements when its flush ends.
    """

    def __init__(self, engine: sa.Engine, written: WrittenObjects, targets: list[Target]) -> None:
        self.flushing = False
        self._engine = engine
        self._written = written
        self._targets = targets
        self._flushed_tables: frozenset[str] = frozenset()

    @property
    def in_flush(self) -> bool:
        """True if a unit of work has written, and its flush has not ended."""
        return bool(self._flushed_tables)

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
                return now.rows.ask(statement, max(target.rows_by_key for target in self._targets))
        return statement

    def executed(self, context: Any, statement: str) -> bool:
        """A statement ran: it is either the unit of work's, accounted for when its flush ends, or nobody's.

        True if what it has written is durable already.
        """
        name = savepoint_set(context)
        if name is not None:
            self._written.savepoint(name)
            return False
        if releases_savepoint(context):
            if has_committed_already(context.root_connection):
                self._written.committed_already()
            return False
        now: _Execution | None = getattr(context, _EXECUTION, None)
        if now is None or (now.rows is not None and now.rows.come_later):
            return False
        setattr(context, _EXECUTION, None)
        self._executed(now, context, statement)
        # sqlite3 begins no transaction for what does not begin with INSERT, UPDATE, DELETE or REPLACE: for a WITH
        return now.at_once is None and has_committed_already(context.root_connection)

    def _executed(self, now: _Execution, context: Any, statement: str) -> None:
        if now.at_once is not None:
            end_each(now.at_once, _publish)
        elif now.told is not None:
            self._written.add_epochs(spec.epoch for spec in now.told)
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
            end_each(now.at_once, _publish)
        elif context.executemany and not self.flushing:
            self._written.add_epochs(spec.epoch for spec in self._specs(now))

    def _note(self, now: _Execution, changes: list[Change] | None, statement: str) -> None:
        if changes is None or now.rows is None:
            self._written_by_nobody(now, statement)
            return
        self._written.add(changes)
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
        reached = referring_at_all(now.tables)
        return specs_of_tables(now.tables | reached, now.schemas)

    def _drop(self, specs: Sequence[MappedSpec], how: str) -> None:
        if specs:
            self._written.add_epochs(spec.epoch for spec in specs)
            names = ", ".join(sorted({spec.base.class_.__name__ for spec in specs}))
            logger.info("all cached objects of %s are dropped when this is committed: %s", names, shorten(how, 120))

    def joined(self, tables: set[str]) -> None:
        """Statements ran on the connection before anybody followed it."""
        reached = referring_at_all(tables)
        self._drop(
            specs_of_tables(tables | reached, self._written.schemas),
            "statements on a connection that a session joined later",
        )

    # without a transaction

    def _lock_at_once(self, now: _Execution) -> None:
        """What a statement writes is visible before anybody says commit: lock the classes while it runs."""
        epochs = [spec.epoch for spec in self._specs(now)]
        works = [work for target in self._targets for work in target.works(self._engine, (), epochs)]
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
        tables, self._flushed_tables = self._flushed_tables, frozenset()
        accounted = self._written.updated_besides(dirty, tables) if tables else set[str]()
        left = tables - accounted - self._written.end_flush()
        if left:
            self._drop(specs_of_tables(left, self._written.schemas), "a flush, without telling of an object")

    def flush_failed(self) -> None:
        """The flush was given up; what it has written is rolled back."""
        self.flushing = False
        self._flushed_tables = frozenset()
        self._written.flush_failed()


def _publish(work: Work) -> None:
    work.writer.publish()


def caller_level() -> int:
    """Return the stacklevel for warnings.warn, in the function that calls this, of the application's own line."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_library(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    return level


def _is_library(module: str) -> bool:
    return module.partition(".")[0] in ("stockpyle", "sqlalchemy", "contextlib")
