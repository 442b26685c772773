"""What one database transaction has written through units of work: which objects, under which keys, old and new.

SQLAlchemy's mapper events name every object that a flush writes, and the Connection it is written on. The objects are
read when the flush is over and their history is still there; from then on only values are kept, since the objects may
be gone by the commit. A savepoint has a frame of its own, which goes when the savepoint is rolled back.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.sql import ClauseElement

from stockpyle.keys import Ident, Key
from stockpyle.orm.mapping import MappedSpec, spec_of_mapped
from stockpyle.protocols import Change


class _Frame:
    """What was written since the transaction, or a savepoint, began."""

    def __init__(self, savepoint: str | None = None) -> None:
        self.savepoint = savepoint
        self.changes: list[Change] = []
        self.epochs: dict[Ident, Key] = {}
        self.spaces: set[str] = set()


class WrittenObjects:
    """The objects that one transaction on one Connection has written so far."""

    def __init__(self, connection: sa.Connection) -> None:
        self.schemas = connection.get_execution_options().get("schema_translate_map")
        self._frames = [_Frame()]
        self._flushed: list[tuple[str, Any]] = []
        self._expressions: dict[Any, set[str]] = {}

    # during a flush

    def about_to_write(self, target: Any) -> None:
        """Note key attributes that are set to SQL expressions: after the flush their values are not known."""
        state = instance_state(target)
        names = {name for name, value in state.dict.items() if isinstance(value, ClauseElement)}
        if names:
            self._expressions[state] = names

    def flushed(self, kind: str, target: Any) -> None:
        """Note that a flush inserted, updated or deleted an object."""
        self._flushed.append((kind, target))

    def flush_failed(self) -> None:
        """Forget what an unfinished flush has noted."""
        self._flushed.clear()
        self._expressions.clear()

    def end_flush(self) -> set[sa.FromClause]:
        """Read the flushed objects, while their history is there; return the tables that this accounts for."""
        tables: set[sa.FromClause] = set()
        for kind, target in self._flushed:
            spec = spec_of_mapped(type(target)).translated(self.schemas)
            tables.update(spec.mapper.tables)
            self._add(kind, spec, target)
        self.flush_failed()
        return tables

    def _add(self, kind: str, spec: MappedSpec, target: Any) -> None:
        state = instance_state(target)
        expressions = self._expressions.get(state, set())
        if kind == "update" and not expressions and not _has_changed(spec, state):
            return
        frame = self._frames[-1]
        before, after = _values_before(spec, state, kind), _values_after(spec, state)
        change = Change(
            spec,
            () if kind == "insert" else _keys(spec, before),
            () if kind == "delete" else _keys(spec, after),
        )
        change.unprotected = tuple(key for key in (*change.before, *change.after) if not key.definition.row_locked)
        if state.identity_token is not None or not spec.cacheable:
            change.unprotected = (*change.before, *change.after)
        frame.changes.append(change)
        frame.spaces.add(spec.space)
        if kind != "delete" and _has_unknown_key(spec, after, expressions, kind):
            self.add_epochs([spec.epoch])
        if _type_changed(spec, state):
            self.add_epochs([spec.epoch])
        self.add_epochs(spec_epoch for spec_epoch in other_epochs(spec))

    def add_epochs(self, epochs: Iterable[Key]) -> None:
        """Note that objects of these classes were written which nobody can name."""
        for epoch in epochs:
            self._frames[-1].epochs[epoch.ident] = epoch
            self._frames[-1].spaces.add(epoch.ident[0])

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
            self._frames[-1].spaces |= frame.spaces
            if frame.savepoint == name:
                return

    def roll_back_to(self, name: str) -> None:
        """A savepoint was rolled back: what came after it is gone."""
        while len(self._frames) > 1:
            if self._frames.pop().savepoint == name:
                return

    @property
    def changes(self) -> list[Change]:
        """Every object written, in order."""
        return [change for frame in self._frames for change in frame.changes]

    @property
    def epochs(self) -> list[Key]:
        """Every class written in a way that does not tell which objects."""
        return [epoch for frame in self._frames for epoch in frame.epochs.values()]

    def has_written(self, spec: MappedSpec) -> bool:
        """True if objects of this class, or its hierarchy, were written."""
        return any(spec.space in frame.spaces for frame in self._frames)

    def clear(self) -> None:
        """Forget everything: the transaction has ended."""
        self._frames = [_Frame()]
        self.flush_failed()


def _has_changed(spec: MappedSpec, state: Any) -> bool:
    return any(name in state.committed_state and state.attrs[name].history.has_changes() for name in spec.attributes)


def _values_before(spec: MappedSpec, state: Any, kind: str) -> dict[str, Any]:
    if kind == "insert":
        return {}
    values = {}
    for name in {name for definition in spec.definitions for name in definition.attributes}:
        history = state.attrs[name].history
        if history.deleted:
            values[name] = history.deleted[0]
        elif history.unchanged:
            values[name] = history.unchanged[0]
    if state.key is not None:
        values.update(zip(spec.primary_key, state.key[1], strict=True))
    return values


def _values_after(spec: MappedSpec, state: Any) -> dict[str, Any]:
    names = {name for definition in spec.definitions for name in definition.attributes}
    values = {name: state.dict[name] for name in names if name in state.dict}
    values = {name: value for name, value in values.items() if not isinstance(value, ClauseElement)}
    if state.key is not None:
        for name, value in zip(spec.primary_key, state.key[1], strict=True):
            values.setdefault(name, value)
    return values


def _keys(spec: MappedSpec, values: dict[str, Any]) -> tuple[Key, ...]:
    keys = [spec.key_of_values(definition, values) for definition in spec.definitions]
    return tuple(key for key in keys if key is not None)


def _has_unknown_key(spec: MappedSpec, after: dict[str, Any], expressions: set[str], kind: str) -> bool:
    """True if the write may have given the object a key value that only the database knows."""
    for definition in spec.definitions:
        for name in definition.attributes:
            column = spec.columns_by_attribute[name]
            generated = column.server_default if kind == "insert" else column.server_onupdate
            if name not in after and (generated is not None or name in expressions):
                return True
    return False


def _type_changed(spec: MappedSpec, state: Any) -> bool:
    column = spec.mapper.polymorphic_on
    if column is None or not isinstance(column, sa.Column):
        return False
    name = next((name for name, own in spec.columns_by_attribute.items() if own is column), None)
    return name is not None and bool(state.attrs[name].history.deleted)


_other_epochs: dict[MappedSpec, tuple[int, list[Key]]] = {}


def other_epochs(spec: MappedSpec) -> list[Key]:
    """The epochs of classes outside the hierarchy that map the same tables: their keys are not among this one's."""
    mappers = spec.mapper.registry.mappers
    known = _other_epochs.get(spec)
    if known is None or known[0] != len(mappers):
        epochs = [
            other.epoch
            for mapper in mappers
            if (other := spec_of_mapped(mapper.class_)).base is not spec.base
            and not set(mapper.tables).isdisjoint(spec.mapper.tables)
        ]
        known = _other_epochs[spec] = (len(mappers), epochs)
    return known[1]


_watched: weakref.WeakKeyDictionary[sa.Connection, WrittenObjects] = weakref.WeakKeyDictionary()


def watch(connection: sa.Connection) -> WrittenObjects:
    """Collect from now on what units of work write on this Connection."""
    _listen_to_mappers()
    written = _watched.get(connection)
    if written is None:
        written = _watched[connection] = WrittenObjects(connection)
    return written


_listening = False


def _listen_to_mappers() -> None:
    global _listening
    if _listening:
        return
    _listening = True

    def before(mapper: Mapper[Any], connection: sa.Connection, target: Any) -> None:
        written = _watched.get(connection)
        if written is not None:
            written.about_to_write(target)

    event.listen(Mapper, "before_insert", before)
    event.listen(Mapper, "before_update", before)
    for kind in ("insert", "update", "delete"):

        def after(mapper: Mapper[Any], connection: sa.Connection, target: Any, kind: str = kind) -> None:
            written = _watched.get(connection)
            if written is not None:
                written.flushed(kind, target)

        event.listen(Mapper, f"after_{kind}", after)


_sessions: weakref.WeakKeyDictionary[Session, weakref.WeakSet[WrittenObjects]] = weakref.WeakKeyDictionary()


def belongs_to(session: Session, written: WrittenObjects) -> None:
    """Remember that `session` writes on the connection that `written` watches."""
    _sessions.setdefault(session, weakref.WeakSet()).add(written)


def written_in(session: Session) -> list[WrittenObjects]:
    """Return what the present transaction of `session` has written, one for each of its connections."""
    return list(_sessions.get(session, ()))
