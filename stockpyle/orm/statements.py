"""What a statement is, and which tables it writes: a compiled one tells, the text of any other is searched."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import ReleaseSavepointClause, SavepointClause
from sqlalchemy.sql.visitors import iterate

from stockpyle.orm.mapping import MappedSpec, spec_of_mapped
from stockpyle.orm.registries import known_registries, meet_those_of

EVERY_TABLE = "*"
"""Stands among the names of tables for all of them: nobody can tell which a statement writes."""

_PART = r"(?:\"[^\"]+\"|`[^`]+`|\[[^\]]+\]|[\w$]+)"
_NAME = rf"{_PART}(?:\s*\.\s*{_PART})*"
_WRITES = re.compile(
    r"\b(?:insert\s+(?:or\s+\w+\s+)?into|replace\s+into|(?<!for\s)(?<!on\s)(?<!do\s)update(?:\s+or\s+\w+)?"
    rf"|delete\s+from|merge\s+into|copy(?=\s+{_NAME}\s*(?:\([^)]*\)\s*)?from\b)"
    r"|truncate(?:\s+table)?|(?:alter|drop)\s+table(?:\s+if\s+exists)?)\s+(?:only\s+)?"
    rf"({_NAME}(?:\s*,\s*(?:only\s+)?{_NAME})*)",
    re.IGNORECASE,
)
_TRUNCATES_MORE = re.compile(r"\btruncate\b.*\bcascade\b", re.IGNORECASE | re.DOTALL)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_FIRST_WORD = re.compile(r"[\s(]*([a-z]+)", re.IGNORECASE)
_WRITE_NOTHING = frozenset(
    re.findall(
        r"\w+",
        "select values table with show pragma explain set reset begin start commit end rollback abort savepoint "
        "release listen unlisten notify analyze vacuum reindex create alter drop rename comment grant revoke lock "
        "unlock discard deallocate close fetch move declare checkpoint cluster copy describe desc use kill flush "
        "optimize attach detach refresh security reassign import",
    )
)
"""How statements begin that write no row of a table, unless they also name one as _WRITES knows it."""


def tables_written(context: Any, statement: str) -> set[str]:
    """Return the names of the tables that a statement writes, without their schema; EVERY_TABLE if nobody knows.

    A compiled statement tells, data-modifying CTEs included; the text of any other, DDL too, is searched.
    """
    construct = construct_of(context)
    if construct is None:
        return _tables_in_text(statement)
    known = _written.get(context.compiled)
    if known is None:
        known = _written[context.compiled] = frozenset(_tables_in_construct(construct, context.compiled))
    return set(known)


_written: weakref.WeakKeyDictionary[Any, frozenset[str]] = weakref.WeakKeyDictionary()


def _tables_in_construct(construct: Any, compiled: Any) -> set[str]:
    if not (compiled.isinsert or compiled.isupdate or compiled.isdelete or compiled.ctes):
        return set()
    elements = [construct, *(compiled.ctes or {})]
    written = [each for element in elements for each in iterate(element) if isinstance(each, UpdateBase)]
    tables = [table_of(compiled, each) for each in written if hasattr(each.table, "name")]
    for table in tables:
        meet_those_of(getattr(table, "metadata", None))
    return {name_of(table) for table in tables}


def table_of(compiled: Any, construct: UpdateBase) -> Any:
    """Return the table that an INSERT, UPDATE or DELETE is compiled for.

    An ORM statement on a joined class becomes one for each of its tables, and names in all of them the last one.
    """
    own = getattr(getattr(compiled, "compile_state", None), "dml_table", None)
    return own if own is not None and construct is compiled.statement else construct.table


def construct_of(context: Any) -> Any | None:
    """Return the construct that a statement was compiled from; None for text and for DDL."""
    compiled: Any = context.compiled
    construct = None if compiled is None else compiled.statement
    textual = construct is None or isinstance(construct, sa.TextClause) or not isinstance(compiled, SQLCompiler)
    return None if textual else construct


def _tables_in_text(statement: str) -> set[str]:
    # a comment may stand in the midst of what is looked for, and a literal may look like a comment
    bare = _COMMENT.sub(" ", statement)
    lists = [*_WRITES.findall(statement), *_WRITES.findall(bare)]
    if _TRUNCATES_MORE.search(bare):
        return {EVERY_TABLE}
    if lists:
        names = [name for found in lists for name in re.findall(_NAME, found)]
        return {re.sub(r'["`\[\]\s]', "", name).rpartition(".")[2].lower() for name in names}
    first = _FIRST_WORD.match(bare)
    return set() if first is None or first[1].lower() in _WRITE_NOTHING else {EVERY_TABLE}


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


def specs_of_tables(tables: Iterable[str], schemas: Any) -> list[MappedSpec]:
    """Return a spec for each hierarchy that maps one of these tables, of the classes met so far in this process."""
    wanted = set(tables)
    if not known_registries():
        meet_those_of(None)
    found: dict[Any, MappedSpec] = {}
    for each in known_registries():
        for mapper in each.mappers:
            if EVERY_TABLE in wanted or not wanted.isdisjoint(map(name_of, mapper.tables)):
                spec = spec_of_mapped(mapper.class_).translated(schemas)
                found[spec.base] = spec
    return list(found.values())


def name_of(table: Any) -> str:
    """Return the name that a table is known by here: without its schema, in lower case."""
    return str(getattr(table, "name", "")).lower()
