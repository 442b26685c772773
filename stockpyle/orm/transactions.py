"""What one database transaction has written through units of work: which objects, under which keys, old and new.

SQLAlchemy's mapper events name every object that a flush writes, and the Connection it is written on. The objects are
read when the flush is over and their history is still there; from then on only values are kept, since the objects may
be gone by the commit. A savepoint has a frame of its own, which goes when the savepoint is rolled back.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.sql import ClauseElement

from stockpyle.keys import Ident, Key, KeyDefinition
from stockpyle.orm.cascades import referring, replaces_rows
from stockpyle.orm.coercion import coercion_for
from stockpyle.orm.mapping import MappedSpec, spec_of_mapped
from stockpyle.orm.registries import generation, known_registries, mappers_of, name_of, start_counting
from stockpyle.orm.statements import specs_of_tables
from stockpyle.protocols import Change
from stockpyle.values import UnusableValue


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

    @property
    def schemas(self) -> Any:
        """The schemas that the connection calls by other names now: it may be told so at any time."""
        connection = self._connection()
        return None if connection is None else connection.get_execution_options().get("schema_translate_map")

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

    def end_flush(self) -> set[str]:
        """Read the flushed objects, while their history is there; return the tables that this accounts for."""
        tables: set[str] = set()
        for kind, target in self._flushed:
            tables.update(self._add(kind, target))
        self.flush_failed()
        return tables

    def updated_besides(self, objs: Iterable[Any], tables: set[str]) -> set[str]:
        """Note those of `objs` which the flush that ends now has updated without an event: by a post_update."""
        accounted: set[str] = set()
        known = {id(target) for _, target in self._flushed}
        for target in objs:
            if id(target) not in known and not tables.isdisjoint(_table_names(sa.inspect(type(target)))):
                accounted.update(self._add("update", target))
        return accounted

    def _add(self, kind: str, target: Any) -> list[str]:
        spec = spec_of_mapped(type(target)).translated(self.schemas)
        tables = _table_names(spec.mapper)
        state = instance_state(target)
        expressions = self._expressions.get(state, set())
        if kind == "update" and not expressions and not _has_changed(spec, state):
            return tables
        frame = self._frames[-1]
        before, after = _values_before(spec, state, kind), _values_after(spec, state)
        change = Change(
            spec,
            () if kind == "insert" else _keys(spec, before),
            () if kind == "delete" else _keys(spec, after),
        )
        change.unprotected = tuple(key for key in (*change.before, *change.after) if not key.definition.row_locked)
        # a DELETE that matches no row, since another transaction was faster, locks none
        if kind == "delete" or state.identity_token is not None or not spec.cacheable or len(tables) > 1:
            change.unprotected = (*change.before, *change.after)
        frame.changes.append(change)
        if kind != "delete":
            self.add_epochs(_epochs_of_unknown_keys(spec, state, after, expressions, kind))
        if _type_changed(spec, state):
            self.add_epochs([spec.epoch])
        self.add_epochs(related(spec).epochs)
        self.add_epochs(each.epoch for each in self._reached(spec, state, kind, tables))
        if kind != "delete" and any(replaces_rows(table, self._dialect) for table in spec.mapper.tables):
            gone = [*tables, *referring(tables, deleted=True)]
            self.add_epochs(each.epoch for each in specs_of_tables(gone, self.schemas))
        return tables

    def _reached(self, spec: MappedSpec, state: Any, kind: str, tables: list[str]) -> list[MappedSpec]:
        """The classes of rows that refer to the one written, and that the database itself changes for that."""
        if kind == "insert":
            return []
        columns = (
            None
            if kind == "delete"
            else {
                column.name
                for name, column in spec.columns_by_attribute.items()
                if state.attrs[name].history.has_changes()
            }
        )
        # the other tables of a joined inheritance refer by their primary keys: their rows are the object's own
        own = {(name_of(table), column.name) for table in spec.mapper.tables for column in table.primary_key}
        reached = referring(tables, deleted=kind == "delete", columns=columns, same_row=own)
        return specs_of_tables(reached, self.schemas) if reached else []

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


def _has_changed(spec: MappedSpec, state: Any) -> bool:
    return any(name in state.committed_state and state.attrs[name].history.has_changes() for name in spec.attributes)


def _values_before(spec: MappedSpec, state: Any, kind: str) -> dict[str, Any]:
    if kind == "insert":
        return {}
    values = {}
    for name in _key_attributes(spec):
        history = state.attrs[name].history
        if history.deleted:
            values[name] = history.deleted[0]
        elif history.unchanged:
            values[name] = history.unchanged[0]
    if state.key is not None:
        values.update(zip(spec.primary_key, state.key[1], strict=True))
    return values


def _values_after(spec: MappedSpec, state: Any) -> dict[str, Any]:
    names = _key_attributes(spec)
    values = {name: state.dict[name] for name in names if name in state.dict}
    values = {name: value for name, value in values.items() if not isinstance(value, ClauseElement)}
    if state.key is not None:
        for name, value in zip(spec.primary_key, state.key[1], strict=True):
            values.setdefault(name, value)
    return values


def _key_attributes(spec: MappedSpec) -> set[str]:
    names = {name for definition in spec.definitions for name in definition.attributes}
    return names.union(*(each.attributes for each in related(spec).definitions))


def _keys(spec: MappedSpec, values: dict[str, Any]) -> tuple[Key, ...]:
    keys = [spec.key_of_values(definition, values) for definition in spec.definitions]
    keys += [each.key(values) for each in related(spec).definitions]
    return tuple(key for key in keys if key is not None)


def _epochs_of_unknown_keys(
    spec: MappedSpec, state: Any, after: dict[str, Any], expressions: set[str], kind: str
) -> Iterator[Key]:
    """The epochs of classes in which the write may have given the object a key that only the database knows."""

    def written(name: str) -> bool:
        column = spec.columns_by_attribute[name]
        if name in expressions:
            return True
        if kind == "insert":
            return name not in after and (column.server_default is not None or column.default is not None)
        by_default = column.server_onupdate is not None or column.onupdate is not None
        return (by_default and name not in after) or state.attrs[name].history.has_changes()

    found = [(spec, definition.attributes) for definition in spec.definitions]
    found += [(each.spec, each.attributes) for each in related(spec).definitions]
    for owner, names in found:
        if any(name not in after for name in names):
            unknown = any(written(name) for name in names)
        else:
            changed = kind == "insert" or any(state.attrs[name].history.has_changes() for name in names)
            unknown = changed and _is_converted(spec, names, after)
        if unknown:
            yield owner.epoch
    if kind == "insert":
        yield from related(spec).epochs_on_insert


def _is_converted(spec: MappedSpec, names: Sequence[str], values: dict[str, Any]) -> bool:
    """True if these are no values of their columns' types: what the database has made of them, only it knows."""
    own = [values[name] for name in names]
    coercions = [coercion_for(spec.columns_by_attribute[name].type) for name in names]
    try:
        for value, coerce in zip(own, coercions, strict=True):
            if value is not None and coerce is not None:
                coerce(value)
    except UnusableValue:
        return True
    return False


def _type_changed(spec: MappedSpec, state: Any) -> bool:
    column = spec.mapper.polymorphic_on
    if column is None or not isinstance(column, sa.Column):
        return False
    name = next((name for name, own in spec.columns_by_attribute.items() if own is column), None)
    return name is not None and bool(state.attrs[name].history.deleted)


@dataclass(frozen=True)
class _RelatedDefinition:
    """A key of another class, and what the class that is written calls its attributes."""

    spec: MappedSpec
    definition: KeyDefinition
    attributes: tuple[str, ...]

    def key(self, values: dict[str, Any]) -> Key | None:
        if any(name not in values for name in self.attributes):
            return None
        own = {theirs: values[ours] for theirs, ours in zip(self.definition.attributes, self.attributes, strict=True)}
        return self.spec.key_of_values(self.definition, own)


@dataclass(frozen=True)
class _Related:
    """What else finds the rows of a class: the keys that its bases declare, and classes mapped to the same tables.

    definitions are those that an object's own attributes tell. Of other classes only the epoch is left: after every
    write if it is their identity that is not told, else after an insert, which may give the row such a key.
    """

    definitions: list[_RelatedDefinition]
    epochs: list[Key]
    epochs_on_insert: list[Key]


_related: dict[MappedSpec, tuple[tuple[int, int], _Related]] = {}


def related(spec: MappedSpec) -> _Related:
    """Return what else finds the rows of a class, in all registries of which stockpyle has met a class."""
    now = generation()
    known = _related.get(spec)
    if known is None or known[0] != now:
        known = _related[spec] = (now, _find_related(spec))
    return known[1]


def _find_related(spec: MappedSpec) -> _Related:
    attribute_of = {
        (name_of(column.table), column.key): prop.key
        for prop in spec.mapper.column_attrs
        for column in prop.columns
        if isinstance(column, sa.Column) and prop.key in spec.columns_by_attribute
    }
    definitions: dict[tuple[str, tuple[str, ...]], _RelatedDefinition] = {}
    epochs: dict[Ident, Key] = {}
    epochs_on_insert: dict[Ident, Key] = {}
    own = {(definition.space, definition.names) for definition in spec.definitions}
    tables = set(_table_names(spec.mapper))
    for mapper in [mapper for registry in known_registries() for mapper in mappers_of(registry)]:
        if tables.isdisjoint(_table_names(mapper)):
            continue
        other = spec_of_mapped(mapper.class_).translated(spec.schemas)
        if other.base is spec.base and not spec.mapper.isa(mapper):
            continue
        for definition in other.definitions:
            if (definition.space, definition.names) in own:
                continue
            columns = [other.columns_by_attribute[name] for name in definition.attributes]
            names = [attribute_of.get((name_of(column.table), column.key)) for column in columns]
            told = [name for name in names if name is not None]
            if len(told) == len(names):
                definitions[definition.space, definition.names] = _RelatedDefinition(other, definition, tuple(told))
            elif definition is other.identity:
                epochs[other.epoch.ident] = other.epoch
            else:
                epochs_on_insert[other.epoch.ident] = other.epoch
    return _Related(list(definitions.values()), list(epochs.values()), list(epochs_on_insert.values()))


def _table_names(mapper: Mapper[Any]) -> list[str]:
    return [name_of(table) for table in mapper.tables]


_watched: weakref.WeakKeyDictionary[sa.Connection, WrittenObjects] = weakref.WeakKeyDictionary()


def watch(connection: sa.Connection) -> WrittenObjects:
    """Collect from now on what units of work write on this Connection."""
    written = _watched.get(connection)
    if written is None:
        written = _watched[connection] = WrittenObjects(connection)
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
