"""Objects that callers hand to a store, copied into a session of the store's own: neither moved nor flushed.

A copy starts from the row that the database has, if it has one, and takes every value that the object has loaded;
relationships are followed where they cascade merges, as Session.merge does. Unlike there, rows are read by the
store's own SELECTs, one a class, so that no ``load`` event runs for copies, and each copy's origin is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import flag_modified, instance_state, set_committed_value
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.sql import ClauseElement

from stockpyle.exceptions import InvalidKey, PendingElsewhere
from stockpyle.keys import Ident, Key
from stockpyle.orm.loading import Loader
from stockpyle.orm.mapping import MappedSpec
from stockpyle.orm.sessions import has_flushed


class Copies:
    """The copies of one write, in its session."""

    def __init__(self, session: Session, loader: Callable[[type], Loader]) -> None:
        self._session = session
        self._loader = loader
        self._rows: dict[Ident, Any] = {}
        self._copies: dict[int, tuple[Any, Any]] = {}

    def preload(self, connection: sa.Connection, objs: Iterable[Any]) -> None:
        """Read the rows of `objs`, and of all that they refer to, in one SELECT a class."""
        by_class: dict[type, dict[Ident, Key]] = {}
        for obj in {id(each): each for root in objs for each in related(root)}.values():
            key = self._identity(obj)
            if key is not None:
                by_class.setdefault(type(obj), {})[key.ident] = key
        for klass, keys in by_class.items():
            for ident, record in self._loader(klass).load(connection, list(keys.values())).items():
                own = record.key(record.spec.identity)
                instance = self._rows.get(own.ident) if own is not None else None
                if instance is None:
                    target: Any = record.spec
                    instance = target.revive(record.value)
                    self._session.add(instance)
                self._rows[ident] = instance
                if own is not None:
                    self._rows[own.ident] = instance

    def copy(self, obj: Any) -> Any:
        """Return the session's instance with the present state of `obj`: a new one, or the row it has, changed."""
        if id(obj) in self._copies:
            return self._copies[id(obj)][0]
        state = instance_state(obj)
        key = self._identity(obj)
        mine = None if key is None else self._rows.get(key.ident)
        if mine is None:
            mine = state.mapper.class_manager.new_instance()
            _fill_new(mine, obj, self._spec(obj))
            if key is not None:
                self._rows[key.ident] = mine
            self._session.add(mine)
        else:
            _change(mine, obj, self._spec(obj))
        self._copies[id(obj)] = mine, obj
        for relationship in state.mapper.relationships:
            if relationship.key in state.dict and "merge" in relationship.cascade and not relationship.viewonly:
                setattr(mine, relationship.key, self._copy_related(state.dict[relationship.key]))
        return mine

    def _copy_related(self, value: Any) -> Any:
        if value is None or instance_state_of(value) is not None:
            return None if value is None else self.copy(value)
        if isinstance(value, Mapping):
            return {name: self.copy(each) for name, each in value.items()}
        copies = [self.copy(each) for each in value]
        return set(copies) if isinstance(value, Set) else copies

    def row_of(self, obj: Any) -> Any | None:
        """Return the session's instance of the row that `obj` stands for, or None if there is none."""
        key = self._identity(obj)
        if key is None:
            names = ", ".join(self._spec(obj).primary_key)
            raise InvalidKey(f"this {type(obj).__name__} has None in its primary key {{{names}}} and cannot be deleted")
        return self._rows.get(key.ident)

    def give_generated(self) -> None:
        """Set on the objects what the flush has generated: keys, defaults, versions."""
        for mine, obj in self._copies.values():
            mine_state, state = instance_state(mine), instance_state(obj)
            version = state.mapper.version_id_col
            for name, column in self._spec(obj).columns_by_attribute.items():
                missing = state.dict.get(name) is None or isinstance(state.dict[name], ClauseElement)
                expired = name not in state.dict and (state.persistent or state.detached)
                if (missing or column is version) and name in mine_state.dict and not expired:
                    set_committed_value(obj, name, mine_state.dict[name])

    def _spec(self, obj: Any) -> MappedSpec:
        return self._loader(type(obj)).spec

    def _identity(self, obj: Any) -> Key | None:
        """The key of the row that `obj` stands for, None if it has no complete primary key.

        Raises InvalidKeyType if the primary key has a value that no key can have.
        """
        state = instance_state(obj)
        values = state.key[1] if state.key is not None else state.mapper.primary_key_from_instance(obj)
        spec = self._spec(obj)
        if any(isinstance(value, ClauseElement) for value in values):
            return None
        return spec.key(dict(zip(spec.primary_key, values, strict=True)))


def related(obj: Any) -> list[Any]:
    """Return `obj` and every object that merges cascade to from it, as far as it is loaded."""
    state = instance_state(obj)
    return [obj, *(found[0] for found in state.mapper.cascade_iterator("merge", state))]


def instance_state_of(value: Any) -> Any | None:
    """Return the state of a mapped instance, None for anything else."""
    return sa.inspect(value, raiseerr=False) if hasattr(type(value), "__mapper__") else None


def refuse_pending(objs: Sequence[Any]) -> None:
    """Raise PendingElsewhere if a session is about to insert one of `objs`, or holds its row until it commits."""
    for obj in objs:
        for each in related(obj):
            state = instance_state(each)
            if state.pending:
                raise PendingElsewhere(
                    f"this {type(each).__name__} is pending in another session, which would insert it once more: "
                    "commit that session, or expunge the object first"
                )
            if state.session is not None and has_flushed(state.session, each):
                raise PendingElsewhere(
                    f"this {type(each).__name__} was flushed by another session whose transaction is still open, and "
                    "which holds its row: commit that session first"
                )


def _fill_new(mine: Any, obj: Any, spec: MappedSpec) -> None:
    # values are taken as they are: validators and other attribute events have seen them when they were set
    values = instance_state(obj).dict
    for name in spec.attributes:
        if isinstance(values.get(name), ClauseElement):
            setattr(mine, name, values[name])
        elif name in values:
            set_committed_value(mine, name, values[name])


def _change(mine: Any, obj: Any, spec: MappedSpec) -> None:
    state = instance_state(obj)
    values = state.dict
    version = state.mapper.version_id_col
    key_attributes = {name for definition in spec.definitions for name in definition.attributes}
    for name, column in spec.columns_by_attribute.items():
        if name not in values:
            continue
        value, old = values[name], getattr(mine, name)
        if isinstance(value, ClauseElement):
            setattr(mine, name, value)
        elif column is version:
            if value is not None and old is not None and value != old:
                raise StaleDataError(
                    f"this {type(obj).__name__} has version {value!r} in {name!r}, but the database has {old!r}: "
                    "somebody has changed it since"
                )
        elif column.type.compare_values(old, value):
            continue
        elif name in key_attributes:
            # a key's old value must be known: the row is found by it, and the caches have it
            setattr(mine, name, value)
        else:
            set_committed_value(mine, name, value)
            flag_modified(mine, name)
