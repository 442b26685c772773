"""Statements that no unit of work holds: which tables they write, and so which classes they may have changed."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import ReleaseSavepointClause, SavepointClause
from sqlalchemy.sql.visitors import iterate

from stockpyle.orm.mapping import MappedSpec, known_registries, spec_of_mapped

_WRITES = re.compile(
    r"\b(?:insert\s+(?:or\s+\w+\s+)?into|replace\s+into|update(?:\s+or\s+\w+)?|delete\s+from|merge\s+into|truncate(?:\s+table)?)"
    r"\s+(?:only\s+)?([\w.\"`\[\]]+)",
    re.IGNORECASE,
)


def tables_written(context: Any, statement: str) -> set[str]:
    """Return the names of the tables that an executed statement writes, without their schema.

    A compiled statement tells, data-modifying CTEs included; the text of any other, DDL too, is searched.
    """
    compiled: Any = context.compiled
    construct = None if compiled is None else compiled.statement
    if construct is None or isinstance(construct, sa.TextClause) or not isinstance(compiled, SQLCompiler):
        return {re.sub(r'["`\[\]]', "", name).rpartition(".")[2].lower() for name in _WRITES.findall(statement)}
    if not (compiled.isinsert or compiled.isupdate or compiled.isdelete or compiled.ctes):
        return set()
    elements = [construct, *(compiled.ctes or {})]
    written = [each for element in elements for each in iterate(element) if isinstance(each, UpdateBase)]
    return {str(each.table.name).lower() for each in written if hasattr(each.table, "name")}


def savepoint_set(context: Any) -> str | None:
    """Return the name of the savepoint that a statement has set, if it was that; the event for it comes too early."""
    construct = None if context.compiled is None else context.compiled.statement
    return str(construct.ident) if isinstance(construct, SavepointClause) else None


def releases_savepoint(context: Any) -> bool:
    """True if the statement has released a savepoint; the event for that comes before it."""
    return context.compiled is not None and isinstance(context.compiled.statement, ReleaseSavepointClause)


def is_of_unit_of_work(context: Any) -> bool:
    """True if SQLAlchemy's own persistence code has issued the statement: it brings its mapper's statement cache."""
    return "compiled_cache" in getattr(context, "execution_options", {})


def specs_of_tables(tables: set[str], schemas: Any) -> list[MappedSpec]:
    """Return a spec for each hierarchy that maps one of these tables, of the classes met so far in this process."""
    found: dict[Any, MappedSpec] = {}
    for each in known_registries():
        for mapper in each.mappers:
            names = {str(getattr(table, "name", "")).lower() for table in mapper.tables}
            if not names.isdisjoint(tables):
                spec = spec_of_mapped(mapper.class_).translated(schemas)
                found[spec.base] = spec
    return list(found.values())
