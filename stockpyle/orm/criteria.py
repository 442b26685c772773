"""The conditions that a row has one of these keys: by equality, by a list, by arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from stockpyle.keys import Key, KeyDefinition
from stockpyle.orm.coercion import type_on
from stockpyle.orm.mapping import MappedSpec

MANY_ROWS = 500
"""More composite keys than these are joined as VALUES: PostgreSQL nests a list of rows too deep for its stack."""


def criterion(spec: MappedSpec, definition: KeyDefinition, keys: Sequence[Key], dialect: str) -> sa.ColumnElement[bool]:
    """Return the condition that a row has one of these keys, all of the same definition."""
    columns = columns_of(spec, definition)
    rows = [tuple(bindable(column, value) for column, value in zip(columns, key.values, strict=True)) for key in keys]
    if len(columns) > 1 and has_expressions(columns, dialect):
        # SQLAlchemy puts none into a list of rows
        return sa.or_(*[_equal(columns, row) for row in rows])
    if len(columns) > 1 and len(rows) > MANY_ROWS and dialect == "postgresql":
        wanted = sa.values(*[sa.column(f"k{i}", column.type) for i, column in enumerate(columns)]).data(rows)
        return sa.tuple_(*columns).in_(sa.select(*wanted.alias("wanted").c))
    if len(columns) == 1:
        found: sa.ColumnElement[bool] = columns[0].in_([row[0] for row in rows])
        return found
    return sa.tuple_(*columns).in_(rows)


def _equal(columns: Sequence[Any], row: Sequence[Any]) -> sa.ColumnElement[bool]:
    return sa.and_(*[column == sa.literal(value, column.type) for column, value in zip(columns, row, strict=True)])


def has_expressions(columns: Sequence[Any], dialect: str) -> bool:
    """True if the type of one of these columns puts an SQL expression around each parameter."""
    return any(type_on(column.type, dialect)._has_bind_expression for column in columns)


def by_one(columns: Sequence[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that a row has one key, whose values are the parameters key_0, key_1 and so on."""
    equal = [column == sa.bindparam(f"key_{i}", type_=column.type) for i, column in enumerate(columns)]
    return sa.and_(*equal)


def by_arrays(columns: Sequence[Any]) -> sa.ColumnElement[bool] | None:
    """Return the condition that a row has one of many keys; the parameters key_0, key_1 and so on are lists of values.

    For PostgreSQL, and columns that compare as Python does. None if the arrays of these types may not compare as single
    values do.
    """
    types = [_array_type(type_on(column.type, "postgresql")) for column in columns]
    arrays = [
        # psycopg2 sends text without its type
        sa.cast(sa.bindparam(f"key_{i}", type_=own), own)
        for i, own in enumerate(types)
        if own is not None
    ]
    if len(arrays) < len(columns):
        return None
    if len(columns) == 1:
        found: sa.ColumnElement[bool] = columns[0] == sa.any_(arrays[0])
        return found
    names = [f"key_{i}" for i in range(len(columns))]
    given = [sa.column(name, column.type) for name, column in zip(names, columns, strict=True)]
    wanted = sa.func.unnest(*arrays).table_valued(*given).render_derived(name="stockpyle_wanted")
    return sa.and_(*[column == wanted.c[name] for name, column in zip(names, columns, strict=True)])


_NUMBERS = (sa.Integer, sa.INTEGER, sa.BigInteger, sa.BIGINT, sa.SmallInteger, sa.SMALLINT)
_TEXTS = (sa.String, sa.VARCHAR, sa.Text, sa.TEXT, sa.Unicode, sa.UnicodeText)


def _array_type(column_type: TypeEngine[Any]) -> sa.ARRAY[Any] | None:
    kind = type(column_type)
    if kind in _NUMBERS:
        return sa.ARRAY(kind())
    if isinstance(column_type, sa.String) and kind in _TEXTS and column_type.collation is None:
        # not VARCHAR(n), as which PostgreSQL would cut the values
        return sa.ARRAY(sa.Text())
    if isinstance(column_type, sa.Uuid) and column_type.as_uuid and column_type.native_uuid:
        return sa.ARRAY(sa.Uuid())
    return None


def columns_of(spec: MappedSpec, definition: KeyDefinition) -> list[Any]:
    """Return the columns of a key, as the class is selected."""
    return [in_union(spec.columns_by_attribute[name], spec.union) for name in definition.attributes]


def in_union(column: Any, union: Any | None) -> Any:
    """Return the column of a UNION that stands for a table's column; without a UNION the column itself."""
    return column if union is None else union.corresponding_column(column)


def bindable(column: Any, value: Any) -> Any:
    """Return a key's value as the column's type wants it."""
    # keys hold the plain value of an Enum that is also a str or an int, but the column's type wants the member
    enum_class = column.type.enum_class if isinstance(column.type, sa.Enum) else None
    return value if enum_class is None or isinstance(value, enum_class) else enum_class(value)
