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
from sqlalchemy.orm import Mapper, make_transient_to_detached
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
"""Column types whose values cannot be changed in place; an Enum is a String."""


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
        if value is UNKNOWN or (isinstance(column.type, _IMMUTABLE_COLUMNS) and not is_immutable(value)):
            return CarefulRow(values)
    return tuple(values)


class Reviver:
    """Makes detached instances of one mapped class from rows. No event tells of it."""

    def __init__(self, mapper: Mapper[Any], attributes: Sequence[str], columns: Sequence[sa.Column[Any]]) -> None:
        self._attributes = tuple(attributes)
        self._copied = [i for i, column in enumerate(columns) if not isinstance(column.type, _IMMUTABLE_COLUMNS)]
        self._new: Callable[[], Any] = mapper.class_manager.new_instance
        place = {name: i for i, name in enumerate(attributes)}
        self._primary_key = [place[mapper.get_property_by_column(column).key] for column in mapper.primary_key]
        identity = mapper.identity_key_from_primary_key((None,) * len(self._primary_key))
        self._identity_class, self._identity_rest = identity[0], identity[2:]
        loaded = set(attributes)
        self._expired = [prop.key for prop in mapper.column_attrs if prop.key not in loaded]
        self._quick: bool | None = None

    def __call__(self, row: Row) -> Any:
        """Return a new detached instance that has the row's values; everything else is expired."""
        if self._quick and type(row) is tuple:
            return self._directly(row)
        instance = self._publicly(row)
        if self._quick is None and type(row) is tuple:
            self._quick = self._is_the_same(row, instance)
        return instance

    def _publicly(self, row: Row) -> Any:
        instance = self._new()
        for name, value in zip(self._attributes, row, strict=True):
            if value is not UNKNOWN:
                set_committed_value(instance, name, own_copy(value))
        make_transient_to_detached(instance)
        return instance

    def _directly(self, row: Row) -> Any:
        instance = self._new()
        state = instance_state(instance)
        values = state.dict
        values.update(zip(self._attributes, row, strict=True))
        for i in self._copied:
            name = self._attributes[i]
            values[name] = own_copy(row[i])
        state.key = (self._identity_class, tuple([row[i] for i in self._primary_key]), *self._identity_rest)
        state.expired_attributes.update(self._expired)
        return instance

    def _is_the_same(self, row: Row, expected: Any) -> bool:
        try:
            mine = self._directly(row)
        except AttributeError:
            return False
        return _traits(mine) == _traits(expected)


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
