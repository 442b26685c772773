"""What the database itself does to rows that refer to others: ``ON DELETE`` and ``ON UPDATE``, as the metadata say."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any

from stockpyle.orm.registries import generation, known_registries
from stockpyle.orm.statements import name_of

_ACTIONS = frozenset({"CASCADE", "SET NULL", "SET DEFAULT"})


@dataclass(frozen=True)
class _Reference:
    """A foreign key with an action: columns of `table` that refer to another table's."""

    table: str
    column: str
    target: str
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
    references = _references()
    if not references:
        return set()
    updated = None if columns is None else frozenset(columns)
    left = [(table, deleted, updated) for table in tables]
    seen = set(left)
    found: set[str] = set()
    while left:
        table, gone, changed = left.pop()
        for each in references.get(table, ()):
            action = each.on_delete if gone else each.on_update
            if (
                (each.table, each.column) in same_row
                or action not in _ACTIONS
                or not (gone or changed is None or each.target in changed)
            ):
                continue
            found.add(each.table)
            deletes = gone and action == "CASCADE"
            then = (each.table, deletes, None if deletes else frozenset({each.column}))
            if then not in seen:
                seen.add(then)
                left.append(then)
    return found


_known: tuple[tuple[int, int, int], dict[str, list[_Reference]]] | None = None


def _references() -> dict[str, list[_Reference]]:
    """Every foreign key with an action, by the name of the table that it refers to."""
    global _known
    registries = known_registries()
    now = (*generation(), sum(len(each.metadata.tables) for each in registries))
    known = _known
    if known is None or known[0] != now:
        found: dict[str, list[_Reference]] = {}
        tables: dict[Any, None] = {}
        for registry in registries:
            tables.update(dict.fromkeys(registry.metadata.tables.values()))
            tables.update(dict.fromkeys(table for mapper in registry.mappers for table in mapper.tables))
        for table in tables:
            for key in getattr(table, "foreign_keys", ()):
                on_delete, on_update = (key.ondelete or "").upper(), (key.onupdate or "").upper()
                if _ACTIONS.isdisjoint({on_delete, on_update}):
                    continue
                target_table, _, target = str(key.target_fullname).rpartition(".")
                target_table = target_table.rpartition(".")[2]
                reference = _Reference(name_of(table), key.parent.name, target, on_delete, on_update)
                found.setdefault(target_table.lower(), []).append(reference)
        known = _known = (now, found)
    return known[1]
