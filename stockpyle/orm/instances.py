"""Rows as detached instances, in about the time that a dict takes to fill.

SQLAlchemy's public way (set_committed_value for each column, make_transient_to_detached) costs several times what the
rest of a cache hit does. So the state of a new instance is written directly, through the documented attributes of
InstanceState; but only for classes where that has once been seen to give the very same instance as the public way does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapper, Session, make_transient_to_detached
from sqlalchemy.orm.attributes import instance_state, set_committed_value

Row = tuple[Any, ...]


class _Unknown(Enum):
    UNKNOWN = "this column's value was not loaded"


UNKNOWN = _Unknown.UNKNOWN
"""Stands in a row for a value that the dehydrated instance did not have."""


class CarefulRow(tuple[Any, ...]):
    """A row that is taken value by value: one is UNKNOWN, or of another type than its column promises."""

    __slots__ = ()


_IMMUTABLE = frozenset({type(None), int, str, bytes, bool, float, Decimal, UUID, datetime, date, time, timedelta})

_IMMUTABLE_COLUMNS: tuple[type[Any], ...] = (
    sa.Boolean,
    sa.Date,
    sa.DateTime,
    sa.Integer,
    sa.Interval,
    sa.LargeBinary,
    sa.Float,
    sa.Numeric,
    sa.String,
    sa.Time,
    sa.Uuid,
)
"""SQLAlchemy's column types whose values cannot be changed in place; an Enum is a String."""


def has_immutable_values(column: sa.Column[Any]) -> bool:
    """True if nobody can change a value of this column in place. A type of an application's own may give anything."""
    kind = type(column.type)
    own = kind.__module__.partition(".")[0] == "sqlalchemy"
    # MySQL's SET is a String, too, and its values are sets
    return own and issubclass(kind, _IMMUTABLE_COLUMNS) and kind.__name__ != "SET"


def own_copy(value: Any) -> Any:
    """Return a value that nobody else can change."""
    return value if is_immutable(value) else copy.deepcopy(value)


def is_immutable(value: Any) -> bool:
    """True if nobody can change this value in place."""
    return type(value) in _IMMUTABLE or isinstance(value, Enum)


def row_of(values: Sequence[Any], columns: Sequence[sa.Column[Any]]) -> Row:
    """Return a row of an instance's values: copies of those that can be changed in place."""
    return row_as_is([own_copy(value) for value in values], columns)


def row_as_is(values: Sequence[Any], columns: Sequence[sa.Column[Any]]) -> Row:
    """Return a row of values that nobody else has."""
    for value, column in zip(values, columns, strict=True):
        if value is UNKNOWN or (not is_immutable(value) and has_immutable_values(column)):
            return CarefulRow(values)
    return tuple(values)


class Reviver:
    """Makes detached instances of one mapped class from rows. Only `loaded` tells the listeners to ``load``."""

    def __init__(self, mapper: Mapper[Any], attributes: Sequence[str], columns: Sequence[sa.Column[Any]]) -> None:
        self._attributes = tuple(attributes)
        self._new: Callable[[], Any] = mapper.class_manager.new_instance
        self.identity_of: Callable[[Row], Any] = _identity(mapper, self._attributes)
        """Returns the identity key of a row, as SQLAlchemy makes it."""
        self._directly = _generated(mapper, self._attributes, columns, self.identity_of)
        self._directly_loaded = _generated(mapper, self._attributes, columns, self.identity_of, tells=True)
        self._tried = False
        self.quick: Callable[[Row], Any] | None = None
        """What makes instances directly of rows that are plain tuples, as soon as it is known to do it well."""

    def __call__(self, row: Row) -> Any:
        """Return a new detached instance that has the row's values; everything else is expired."""
        if self.quick is not None and type(row) is tuple:
            return self.quick(row)
        instance = self._publicly(row)
        if not self._tried and type(row) is tuple:
            self._tried = True
            if self._is_the_same(row, instance):
                self.quick = self._directly
        return instance

    def loaded(self, row: Row) -> Any:
        """Return a new detached instance, as a call does; ``load`` events have run."""
        if self.quick is not None and type(row) is tuple:
            return self._directly_loaded(row)
        instance = self(row)
        tell_of_load(instance)
        return instance

    def each_loaded(self, rows: Sequence[Row]) -> list[Any]:
        """Return what loaded() does of each row."""
        if self.quick is None or set(map(type, rows)) != {tuple}:
            return list(map(self.loaded, rows))
        return list(map(self._directly_loaded, rows))

    def _publicly(self, row: Row) -> Any:
        instance = self._new()
        for name, value in zip(self._attributes, row, strict=True):
            if value is not UNKNOWN:
                set_committed_value(instance, name, own_copy(value))
        make_transient_to_detached(instance)
        return instance

    def _is_the_same(self, row: Row, expected: Any) -> bool:
        try:
            mine = self._directly(row)
        except AttributeError:
            return False
        return _traits(mine) == _traits(expected)


def _generated(
    mapper: Mapper[Any],
    attributes: tuple[str, ...],
    columns: Sequence[sa.Column[Any]],
    identity_of: Callable[[Row], Any],
    *,
    tells: bool = False,
) -> Callable[[Row], Any]:
    """Return a function that makes instances directly: as long as the row, so that it has no loop to run.

    With tells it does what tell_of_load does, too.
    """
    expired = [prop.key for prop in mapper.column_attrs if prop.key not in attributes]
    copied = [i for i, column in enumerate(columns) if not has_immutable_values(column)]
    lines = [
        "def revive(row):",
        "    instance = new()",
        "    values = instance.__dict__",
        f"    {''.join(f'values[{name!r}], ' for name in attributes)} = row",
        *(f"    values[{attributes[i]!r}] = own_copy(row[{i}])" for i in copied),
        "    state = state_of(instance)",
        "    state.key = identity_of(row)",
        *(["    state.expired_attributes.update(expired)"] if expired else []),
        *(["    if dispatch.load:", "        dispatch.load(state, None)"] if tells else []),
        "    return instance",
    ]
    namespace: dict[str, Any] = {
        "new": mapper.class_manager.new_instance,
        "state_of": instance_state,
        "dispatch": mapper.class_manager.dispatch,
        "own_copy": own_copy,
        "identity_of": identity_of,
        "expired": expired,
    }
    exec("\n".join(lines), namespace)  # of names that are attributes, which are written as strings
    revive: Callable[[Row], Any] = namespace["revive"]
    return revive


def _identity(mapper: Mapper[Any], attributes: tuple[str, ...]) -> Callable[[Row], Any]:
    places = [attributes.index(mapper.get_property_by_column(column).key) for column in mapper.primary_key]
    klass, _, *rest = mapper.identity_key_from_primary_key((None,) * len(places))
    own = "".join(f"row[{i}], " for i in places)
    made: Callable[[Row], Any] = eval(f"lambda row: (klass, ({own}), *rest)", {"klass": klass, "rest": tuple(rest)})
    return made


def tell_of_load(instance: Any) -> None:
    """Run the ``load`` events of an instance, as after a query."""
    state = instance_state(instance)
    listeners = state.manager.dispatch.load
    if listeners:
        listeners(state, None)


def attach(session: Session, instance: Any) -> None:
    """Make a detached instance that was just revived one of the session's, as Session.add does.

    Nothing is loaded that cascades would go on to, so they are not gone through; Session.merge(load=False) does the
    same.
    """
    update: Callable[[Any], None] | None = getattr(session, "_update_impl", None)
    if update is None:
        session.add(instance)
    else:
        update(instance_state(instance))


def _traits(instance: Any) -> list[Any]:
    state = instance_state(instance)
    return [
        state.key,
        {name: type(value) for name, value in state.dict.items()},
        state.expired_attributes,
        state.unloaded,
        state.committed_state,
        state.modified,
        state.detached,
    ]
