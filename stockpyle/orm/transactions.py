"""What one database transaction has written through units of work: which objects, under which keys, old and new.

SQLAlchemy's mapper events name every object that a flush writes, and the Connection it is written on. The objects are
read when the flush is over and their history is still there; from then on only values are kept, since the objects may
be gone by the commit. A savepoint has a frame of its own, which goes when the savepoint is rolled back.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Collection, Iterable, Set
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.orm.interfaces import EXT_CONTINUE

from stockpyle.keys import Ident, Key
from stockpyle.orm.registries import start_counting
from stockpyle.orm.relatives import table_names
from stockpyle.orm.writing import WritePlan, is_expression, plan_for
from stockpyle.protocols import Change


class _Frame:
    """What was written since the transaction, or a savepoint, began."""

    def __init__(self, savepoint: str | None = None) -> None:
        self.savepoint = savepoint
        self.changes: list[Change] = []
        self.epochs: dict[Ident, Key] = {}


class WrittenObjects:
    """The objects that one transaction on one Connection has written so far."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = weakref.ref(connection)
        self._dialect = connection.dialect.name
        self._frames = [_Frame()]
        self._durable = _Frame()
        self._flushed: list[tuple[str, Any]] = []
        self._expressions: dict[Any, set[str]] = {}
        self._listened: set[Any] = set()
        self._plans: dict[type, WritePlan] = {}
        """Those of the flush that ends now."""

    @property
    def schemas(self) -> Any:
        """The schemas that the connection calls by other names now: it may be told so at any time."""
        connection = self._connection()
        return None if connection is None else connection.get_execution_options().get("schema_translate_map")

    # during a flush

    def about_to_write(self, state: Any, *, listened: bool) -> None:
        """Note attributes that are set to SQL expressions: after the flush their values are not known.

        listened: somebody else listens, who may still set some.
        """
        if listened:
            self._listened.add(state)
        values = state.dict
        names = {name for name in state.committed_state if name in values and is_expression(values[name])}
        if names:
            self._expressions[state] = names

    def flushed(self, kind: str, target: Any) -> None:
        """Note that a flush inserted, updated or deleted an object."""
        self._flushed.append((kind, target))

    def flush_failed(self) -> None:
        """Forget what an unfinished flush has noted."""
        self._flushed.clear()
        self._expressions.clear()
        self._listened.clear()
        self._plans.clear()

    def end_flush(self) -> set[str]:
        """Read the flushed objects, while their history is there; return the tables that this accounts for."""
        tables: set[str] = set()
        for kind, target in self._flushed:
            tables.update(self._add(kind, target))
        self.flush_failed()
        return tables

    def updated_besides(self, objs: Iterable[Any], tables: Set[str]) -> set[str]:
        """Note those of `objs` which the flush that ends now has updated without an event: by a post_update."""
        accounted: set[str] = set()
        known = {id(target) for _, target in self._flushed}
        for target in objs:
            if id(target) not in known and not tables.isdisjoint(table_names(sa.inspect(type(target)))):
                accounted.update(self._add("update", target))
        return accounted

    def _add(self, kind: str, target: Any) -> list[str]:
        plan = self._plans.get(type(target)) or self._plan_for(type(target))
        state = instance_state(target)
        expressions: Collection[str] = self._expressions.get(state, ())
        changed: Collection[str] = () if kind == "insert" else plan.changed(state)
        if state in self._listened:
            # what was set after we were asked has been expired by now, as all of which the database has the value
            expressions = {*expressions, *plan.of_columns(state.expired_attributes)}
        elif kind == "update" and not expressions and not changed:
            return plan.tables
        self._frames[-1].changes.append(plan.change(kind, state, changed))
        epochs = plan.epochs(kind, state, changed, expressions)
        if epochs:
            self.add_epochs(epochs)
        return plan.tables

    def _plan_for(self, klass: type) -> WritePlan:
        plan = self._plans[klass] = plan_for(klass, self.schemas, self._dialect)
        return plan

    def add(self, changes: Iterable[Change]) -> None:
        """Note what a statement past the unit of work has changed."""
        self._frames[-1].changes += changes

    def add_epochs(self, epochs: Iterable[Key]) -> None:
        """Note that objects of these classes were written which nobody can name."""
        for epoch in epochs:
            self._frames[-1].epochs[epoch.ident] = epoch

    # the transaction

    def savepoint(self, name: str) -> None:
        """A savepoint was set."""
        self._frames.append(_Frame(name))

    def release(self, name: str) -> None:
        """A savepoint was released: what it holds is the outer part's now."""
        while len(self._frames) > 1:
            frame = self._frames.pop()
            self._frames[-1].changes += frame.changes
            self._frames[-1].epochs.update(frame.epochs)
            if frame.savepoint == name:
                return

    def roll_back_to(self, name: str) -> None:
        """A savepoint was rolled back: what came after it is gone."""
        while len(self._frames) > 1:
            if self._frames.pop().savepoint == name:
                return

    def committed_already(self) -> None:
        """What was written so far is durable, and none of its rows is locked, whatever becomes of the transaction."""
        for frame in self._frames:
            self._durable.changes += [
                replace(change, unprotected=(*change.before, *change.after)) for change in frame.changes
            ]
            self._durable.epochs.update(frame.epochs)
            frame.changes, frame.epochs = [], {}

    def forget_committed(self) -> None:
        """What was durable already has been settled; the transaction, or a flush, goes on."""
        self._durable = _Frame()

    @property
    def is_empty(self) -> bool:
        """True if nothing was written, and no flush is on its way."""
        if self._flushed or self._expressions or len(self._frames) > 1:
            return False
        return not any(each.changes or each.epochs for each in (self._durable, *self._frames))

    def rolled_back(self) -> None:
        """The transaction was rolled back; what was durable before that still is."""
        self._frames = [_Frame()]
        self.flush_failed()

    @property
    def changes(self) -> list[Change]:
        """Every object written, in order."""
        return [change for frame in (self._durable, *self._frames) for change in frame.changes]

    @property
    def epochs(self) -> list[Key]:
        """Every class written in a way that does not tell which objects."""
        return [epoch for frame in (self._durable, *self._frames) for epoch in frame.epochs.values()]

    def clear(self) -> None:
        """Forget everything: the transaction has ended."""
        self._durable = _Frame()
        self.rolled_back()


_WRITTEN = "_stockpyle_written"
"""The attribute of a Connection that is its WrittenObjects, once it is watched: a look at it costs next to nothing."""


def watch(connection: sa.Connection) -> WrittenObjects:
    """Collect from now on what units of work write on this Connection."""
    written: WrittenObjects | None = getattr(connection, _WRITTEN, None)
    if written is None:
        written = WrittenObjects(connection)
        setattr(connection, _WRITTEN, written)
    return written


_mutex = threading.Lock()
_listening = False


def start_watching() -> None:
    """Listen to all mappers; once, and before several threads flush, whom SQLAlchemy does not let change its lists."""
    global _listening
    start_counting()
    with _mutex:
        if not _listening:
            _listen_to_mappers()
            _listening = True


def _listen_to_mappers() -> None:
    # raw and with a value to return, which means nothing: so SQLAlchemy puts no function of its own around these
    for kind in ("insert", "update"):

        def before(mapper: Mapper[Any], connection: sa.Connection, state: Any, name: str = f"before_{kind}") -> Any:
            written: WrittenObjects | None = getattr(connection, _WRITTEN, None)
            if written is not None:
                # ours is one of them, and is asked before those of a single class
                written.about_to_write(state, listened=len(getattr(mapper.dispatch, name)) > 1)
            return EXT_CONTINUE

        event.listen(Mapper, f"before_{kind}", before, raw=True, retval=True)

    for kind in ("insert", "update", "delete"):

        def after(mapper: Mapper[Any], connection: sa.Connection, state: Any, kind: str = kind) -> Any:
            written: WrittenObjects | None = getattr(connection, _WRITTEN, None)
            if written is not None:
                written.flushed(kind, state.obj())
            return EXT_CONTINUE

        event.listen(Mapper, f"after_{kind}", after, raw=True, retval=True)
