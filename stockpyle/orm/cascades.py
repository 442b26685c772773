"""What the database itself does to rows that refer to others: ``ON DELETE`` and ``ON UPDATE``, as the metadata say."""

from __future__ import annotations

import weakref
from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from stockpyle.orm.registries import known_registries, mappers_of, meet_those_who_map, metadata_generation, name_of

_ACTIONS = ("CASCADE", "SET NULL", "SET DEFAULT")
"""How actions begin that write rows; PostgreSQL's may go on with a list of columns."""


@dataclass(frozen=True)
class _Reference:
    """A foreign key with an action: a column of `table` that refers to another table's, `target` (None: any)."""

    table: str
    column: str
    target: str | None
    on_delete: str
    on_update: str


def referring(
    tables: Iterable[str],
    *,
    deleted: bool,
    columns: Iterable[str] | None = None,
    same_row: Container[tuple[str, str]] = (),
) -> set[str]:
    """Return the tables whose rows the database changes when rows of `tables` are deleted, or else updated.

    Followed from table to table. columns are those that are updated; None if that is not known. same_row: columns, with
    their tables, by which rows are one object with the row that they refer to.
    """
    written = set(tables)
    meet_those_who_map(written)
    references = _references()
    if not references:
        return set()
    updated = None if columns is None else frozenset(columns)
    left = [(table, deleted, updated) for table in written]
    seen = set(left)
    found: set[str] = set()
    while left:
        table, gone, changed = left.pop()
        for each in references.get(table, ()):
            action = each.on_delete if gone else each.on_update
            if (
                (each.table, each.column) in same_row
                or not action.startswith(_ACTIONS)
                or not (gone or changed is None or each.target in {None, *changed})
            ):
                continue
            found.add(each.table)
            deletes = gone and action == "CASCADE"
            then = (each.table, deletes, None if deletes else frozenset({each.column}))
            if then not in seen:
                seen.add(then)
                left.append(then)
    return found


def referring_at_all(tables: Iterable[str]) -> set[str]:
    """Return the tables whose rows the database changes whatever is done to rows of `tables`."""
    written = set(tables)
    return referring(written, deleted=True) | referring(written, deleted=False)


_known: tuple[tuple[int, int, int], dict[str, list[_Reference]]] | None = None


def _references() -> dict[str, list[_Reference]]:
    """Every foreign key with an action, by the name of the table that it refers to."""
    global _known
    registries = known_registries()
    now = metadata_generation()
    known = _known
    if known is None or known[0] != now:
        found: dict[str, list[_Reference]] = {}
        tables: dict[Any, None] = {}
        for registry in registries:
            tables.update(dict.fromkeys(registry.metadata.tables.values()))
            tables.update(dict.fromkeys(table for mapper in mappers_of(registry) for table in mapper.tables))
        for table in tables:
            for key in getattr(table, "foreign_keys", ()):
                on_delete, on_update = (key.ondelete or "").upper(), (key.onupdate or "").upper()
                if not (on_delete.startswith(_ACTIONS) or on_update.startswith(_ACTIONS)):
                    continue
                target_table, target = _target_of(key)
                reference = _Reference(name_of(table), key.parent.name, target, on_delete, on_update)
                found.setdefault(target_table, []).append(reference)
        known = _known = (now, found)
    return known[1]


def _target_of(key: sa.ForeignKey) -> tuple[str, str | None]:
    """The name of the table that a foreign key refers to, and of the column; None if that cannot be told."""
    try:
        return name_of(key.column.table), key.column.name
    except SQLAlchemyError:
        # its table is declared in other metadata, or nowhere
        tokens: Any = getattr(key, "target_tokens", None)
        table = tokens.table_name if tokens is not None else str(key.target_fullname).split(".")[-2]
        return str(table).lower(), None


def replaces_rows(table: Any, dialect: str) -> bool:
    """True if the database deletes other rows to make place for one that is written: SQLite, if the table says so."""
    if dialect != "sqlite" or not isinstance(table, sa.Table):
        return False
    now = len(table.constraints), len(table.columns)
    known = _replacing.get(table)
    if known is None or known[0] != now:
        known = _replacing[table] = now, _says_replace(table)
    return known[1]


_replacing: weakref.WeakKeyDictionary[sa.Table, tuple[tuple[int, int], bool]] = weakref.WeakKeyDictionary()
"""What is known of tables that have so many constraints and columns."""


def _says_replace(table: sa.Table) -> bool:
    options = [value for each in table.constraints for value in each.dialect_options["sqlite"].values()]
    options += [value for each in table.columns for value in each.dialect_options["sqlite"].values()]
    return any(isinstance(value, str) and value.upper() == "REPLACE" for value in options)
