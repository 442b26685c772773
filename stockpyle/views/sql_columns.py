"""Which columns a database compares as Python does. All else is compared in Python, on the rows that are left.

Of PostgreSQL and SQLite it is known; another database answers with all rows of the class, and is not trusted with more.
What SQLite keeps as text of its own making (datetimes, times, Decimals as floats) compares otherwise than the values it
is read as.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from stockpyle.orm.collations import Collations
from stockpyle.orm.mapping import MappedSpec


class Kind(Enum):
    """What a column holds, if the database can be trusted with it."""

    INTEGER = "integer"
    BOOLEAN = "boolean"
    FLOAT = "float"
    DECIMAL = "decimal"
    TEXT = "text"
    BYTES = "bytes"
    DATE = "date"
    NAIVE = "naive datetime"
    AWARE = "aware datetime"
    UUID = "uuid"
    ENUM = "enum"


UNORDERED = (Kind.ENUM,)
"""Kinds of which only the equality is the same."""


class Columns:
    """What is known of the columns of one database, on one connection."""

    def __init__(self, connection: sa.Connection, collations: Collations) -> None:
        self.dialect = connection.dialect
        self._connection = connection
        self._collations = collations

    def kind(self, spec: MappedSpec, name: str) -> Kind | None:
        """Return what a column holds, None if it is to be compared in Python."""
        declared = spec.columns_by_attribute[name].type
        if isinstance(declared, TypeDecorator) or self.dialect.name not in ("postgresql", "sqlite"):
            return None
        actual = declared.dialect_impl(self.dialect)
        if isinstance(actual, sa.Enum):
            return Kind.ENUM
        if isinstance(actual, sa.String):
            return Kind.TEXT if self._is_trusted_text(spec, name, actual) else None
        if isinstance(actual, sa.Float):
            # PostgreSQL compares single precision with what is asked for, which has double
            single = self._is_postgresql and declared.compile(self.dialect) not in _DOUBLE
            return Kind.FLOAT if not single and not actual.asdecimal else None
        if isinstance(actual, sa.Numeric):
            return Kind.DECIMAL if actual.asdecimal and self._is_postgresql else None
        if isinstance(actual, sa.DateTime):
            if not self._is_postgresql:
                return None
            return Kind.AWARE if actual.timezone else Kind.NAIVE
        if isinstance(actual, sa.Uuid):
            return Kind.UUID if actual.native_uuid or not self._is_postgresql else None
        return next((kind for known, kind in _SIMPLE if isinstance(actual, known)), None)

    def _is_trusted_text(self, spec: MappedSpec, name: str, actual: sa.String) -> bool:
        # a CHAR is padded; and what is a citext, say, the catalog tells
        if isinstance(actual, sa.CHAR):
            return False
        return not self._is_postgresql or self._collations.is_exact(self._connection, spec, name)

    @property
    def _is_postgresql(self) -> bool:
        return self.dialect.name == "postgresql"

    def by_code_points(self, column: Any) -> Any:
        """Return a text column as it is compared by code points, which is the order of its UTF-8."""
        return sa.collate(column, "C" if self._is_postgresql else "BINARY")

    def is_exact(self, spec: MappedSpec, name: str) -> bool:
        """True if the column's own equality is that of its bytes, so that its index can be used."""
        return self._collations.is_exact(self._connection, spec, name)


_DOUBLE = ("FLOAT", "DOUBLE PRECISION", "FLOAT(53)")
_SIMPLE: tuple[tuple[Any, Kind], ...] = (
    (sa.Boolean, Kind.BOOLEAN),
    (sa.Integer, Kind.INTEGER),
    (sa.LargeBinary, Kind.BYTES),
    (sa.Date, Kind.DATE),
)
