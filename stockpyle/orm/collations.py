"""Whether the database compares a text column byte by byte, asked of the database itself and remembered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from stockpyle.keys import Key
from stockpyle.orm.coercion import compares_as_python_does
from stockpyle.orm.mapping import MappedSpec

_POSTGRESQL = (
    "SELECT a.attname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
    "JOIN pg_collation c ON c.oid = a.attcollation "
    "WHERE a.attrelid = to_regclass(%s) AND t.typname IN ('text', 'varchar') AND c.collisdeterministic"
)


class Collations:
    """What is known of the text columns of one database."""

    def __init__(self) -> None:
        self._exact: dict[tuple[str | None, str], frozenset[str]] = {}

    def absence_is_certain(self, connection: sa.Connection, spec: MappedSpec, key: Key) -> bool:
        """True if, `spec` having nothing under `key`, nothing is under any key that equals it, in any class."""
        if key.definition.space != spec.own_space:
            return False
        return all(
            self._compares_exactly(connection, spec, name, value)
            for name, value in zip(key.definition.attributes, key.values, strict=True)
        )

    def _compares_exactly(self, connection: sa.Connection, spec: MappedSpec, name: str, value: object) -> bool:
        column = spec.columns_by_attribute[name]
        if isinstance(column.type, TypeDecorator | sa.Enum) or not isinstance(column.table, sa.Table):
            return False
        if compares_as_python_does(column.type):
            return True
        if not isinstance(column.type, sa.String) or column.type.collation is not None or not isinstance(value, str):
            return False
        return column.name in self._exact_columns(connection, column.table, spec.schemas)

    def _exact_columns(
        self, connection: sa.Connection, table: sa.Table, schemas: Mapping[str | None, str | None] | None
    ) -> frozenset[str]:
        schema = (schemas or {}).get(table.schema, table.schema)
        known = self._exact.get((schema, table.name))
        if known is None:
            known = self._exact[(schema, table.name)] = _ask(connection, schema, table)
        return known


def _ask(connection: sa.Connection, schema: str | None, table: sa.Table) -> frozenset[str]:
    quote = connection.dialect.identifier_preparer.quote
    cursor: Any = connection.connection.cursor()
    try:
        if connection.dialect.name == "postgresql":
            cursor.execute(_POSTGRESQL, (f"{quote(schema)}.{quote(table.name)}" if schema else quote(table.name),))
            return frozenset(row[0] for row in cursor.fetchall())
        if connection.dialect.name == "sqlite":
            master = f"{quote(schema)}.sqlite_master" if schema else "sqlite_master"
            cursor.execute(f"SELECT sql FROM {master} WHERE type = 'table' AND name = ?", (table.name,))
            found = cursor.fetchone()
            # SQLite compares text byte by byte unless a COLLATE clause says otherwise
            if found and "collate" not in found[0].lower():
                return frozenset(column.name for column in table.columns)
        return frozenset()
    finally:
        cursor.close()
