"""Whether the database compares a text column byte by byte, asked of the database itself and remembered."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from stockpyle.keys import Key, KeyDefinition
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
        return spec.owns(key.definition) and self.compare_exactly(connection, spec, key.definition)

    def compare_exactly(self, connection: sa.Connection, spec: MappedSpec, definition: KeyDefinition) -> bool:
        """True if the database finds under a key of this definition no row whose own key is another to Python."""
        return all(self.is_exact(connection, spec, name) for name in definition.attributes)

    def known(self, spec: MappedSpec, definition: KeyDefinition) -> bool | None:
        """What compare_exactly() says, without asking the database; None if it must be asked."""
        answers = [self._known(spec, name) for name in definition.attributes]
        return False if False in answers else None if None in answers else True

    def is_exact(self, connection: sa.Connection, spec: MappedSpec, name: str) -> bool:
        """True if the database compares the column of this attribute exactly as Python compares its values."""
        known = self._known(spec, name)
        if known is None:
            table: Any = spec.columns_by_attribute[name].table
            schema = _schema_of(table, spec)
            self._exact[(schema, table.name)] = _ask(connection, schema, table)
            known = self._known(spec, name)
        return known is True

    def _known(self, spec: MappedSpec, name: str) -> bool | None:
        column = spec.columns_by_attribute[name]
        if isinstance(column.type, TypeDecorator | sa.Enum) or not isinstance(column.table, sa.Table):
            return False
        if compares_as_python_does(column.type):
            return True
        if not isinstance(column.type, sa.String) or column.type.collation is not None:
            return False
        exact = self._exact.get((_schema_of(column.table, spec), column.table.name))
        return None if exact is None else column.name in exact


def _schema_of(table: sa.Table, spec: MappedSpec) -> str | None:
    return (spec.schemas or {}).get(table.schema, table.schema)


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
