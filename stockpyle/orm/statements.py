"""What a statement is, and which tables it writes: a compiled one tells, the text of any other is searched."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import Update, UpdateBase
from sqlalchemy.sql.elements import ColumnClause, ReleaseSavepointClause, SavepointClause
from sqlalchemy.sql.selectable import CompoundSelect, Select
from sqlalchemy.sql.visitors import iterate

from stockpyle.exceptions import InvalidKeysDeclaration
from stockpyle.orm.mapping import MappedSpec, spec_of_mapped
from stockpyle.orm.registries import known_registries, mappers_of, meet_all, meet_those_who_map, name_of

EVERY_TABLE = "*"
"""Stands among the names of tables for all of them: nobody can tell which a statement writes."""

_PART = r"(?:\"(?:[^\"]|\"\")+\"|`(?:[^`]|``)+`|\[[^\[\]]+\]|[\w$]+)"
_NAME = rf"{_PART}(?:\s*\.\s*{_PART})*"
_WRITES = re.compile(
    r"\b(?:insert\s+(?:or\s+\w+\s+)?into|replace\s+into|(?<!for\s)(?<!on\s)(?<!do\s)update(?:\s+or\s+\w+)?"
    rf"|delete\s+from|merge\s+into|copy(?=\s+{_NAME}\s*(?:\([^()]*\)\s*)?from\b)"
    r"|truncate(?:\s+table)?|(?:alter|drop)\s+table(?:\s+if\s+exists)?"
    r"|refresh\s+materialized\s+view(?:\s+concurrently)?)\s+(?:only\s+)?"
    rf"({_NAME}(?:\s*,\s*(?:only\s+)?{_NAME})*)",
    re.IGNORECASE,
)
_NAMES = re.compile(_NAME)
_PARTS = re.compile(_PART)
_CHANGES = re.compile(r"(?<!for\s)(?<!on\s)\b(?:update|delete)\b", re.IGNORECASE)
_NAME_WHAT_THEY_WRITE = ("postgresql", "sqlite")
"""The databases in whose UPDATE and DELETE the table that is written stands first, under its own name."""

_TRUNCATE = re.compile(r"\btruncate\b", re.IGNORECASE)
_CASCADE = re.compile(r"\bcascade\b", re.IGNORECASE)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_LINE_COMMENT = re.compile(r"--[^\n]*")
_LITERAL = re.compile(r"'(?:[^']|'')*'")
_DOLLAR_QUOTE = re.compile(r"\$\w*\$")
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

_NAMED = frozenset({"insert", "update", "delete", "merge", "truncate", "replace", "prepare"})


def tables_written(context: Any, statement: str) -> frozenset[str]:
    """Return the names of the tables that a statement writes, without their schema; EVERY_TABLE if nobody knows.

    A compiled statement tells, data-modifying CTEs included; the text of any other, DDL too, is searched.
    """
    compiled = context.compiled
    known: frozenset[str] | None = getattr(compiled, _TABLES, None)
    if known is None or is_for_a_default(context):
        construct = construct_of(context)
        if construct is None or is_for_a_default(context):
            return _tables_in_text(statement, context.dialect.name)
        known = frozenset(_tables_in_construct(construct, compiled, statement))
        setattr(compiled, _TABLES, known)
    return known


_TABLES = "_stockpyle_tables"
"""The attribute of what SQLAlchemy has compiled, and keeps, that is the names of the tables which it writes."""


def _tables_in_construct(construct: Any, compiled: Any, statement: str) -> set[str]:
    writes = compiled.isinsert or compiled.isupdate or compiled.isdelete
    if isinstance(construct, Select | CompoundSelect) and not compiled.ctes and not writes:
        return set()
    elements = [each for element in (construct, *(compiled.ctes or {})) for each in iterate(element)]
    found = {name for each in elements if isinstance(each, UpdateBase) for name in _tables_in(each.table)}
    if writes:
        found |= _tables_in(table_written(compiled))
    if compiled.dialect.name not in _NAME_WHAT_THEY_WRITE and isinstance(construct, Update):
        # MySQL's UPDATE of several tables: each may be set
        found |= {name_of(each.table) for each in elements if isinstance(each, ColumnClause)}
        found |= {name_of(key.table) for key in set_by(compiled) if isinstance(key, ColumnClause)}
    own = isinstance(construct, UpdateBase | Select | CompoundSelect)
    if not own or any(isinstance(each, sa.TextualSelect) for each in elements):
        # an application's own text, or construct: nobody but the database reads what it is compiled to
        found |= _tables_in_text(statement, compiled.dialect.name)
    return found - {""}


def _tables_in(target: Any) -> set[str]:
    # an alias, or MySQL's join, stands for its tables
    return {name_of(each) for each in iterate(target) if isinstance(each, sa.TableClause)}


def table_written(compiled: Any) -> Any:
    """Return the table that an INSERT, UPDATE or DELETE writes: the ORM inserts into several for one statement."""
    return compiled.compile_state.dml_table


def set_by(compiled: Any) -> list[Any]:
    """Return the columns, or their keys, to which an INSERT or UPDATE gives values; other elements may be among them.

    AttributeError: this SQLAlchemy does not tell.
    """
    return [*(compiled.compile_state._dict_parameters or ()), *(compiled.column_keys or ())]


def is_for_a_default(context: Any) -> bool:
    """True for a SELECT of a column's default, which SQLAlchemy runs on its own before the statement that needs it."""
    return getattr(context, "statement", None) is None


def construct_of(context: Any) -> Any | None:
    """Return the construct that a statement was compiled from; None for text and for DDL."""
    compiled: Any = context.compiled
    construct = None if compiled is None else compiled.statement
    textual = construct is None or isinstance(construct, sa.TextClause) or not isinstance(compiled, SQLCompiler)
    return None if textual else construct


def _tables_in_text(statement: str, dialect: str) -> frozenset[str]:
    # every text of the process comes here; those of loads of data come once, and are not kept alive
    return _known_text(statement, dialect) if len(statement) <= _SHORT else frozenset(_search(statement, dialect))


_SHORT = 2000


@lru_cache(maxsize=512)
def _known_text(statement: str, dialect: str) -> frozenset[str]:
    return frozenset(_search(statement, dialect))


def _search(statement: str, dialect: str) -> set[str]:
    # a comment may stand in the midst of what is looked for, and a literal may look like a comment
    bare = _without_comments(statement)
    truncates = _TRUNCATE.search(bare)
    if truncates and _CASCADE.search(bare, truncates.end()):
        return {EVERY_TABLE}
    texts = [statement] if bare == statement else [statement, bare]
    if dialect not in _NAME_WHAT_THEY_WRITE and any(map(_CHANGES.search, texts)):
        # elsewhere the table may stand behind words and aliases in many ways: each name may be its
        return {_bare_name(name) for text in texts for name in _PARTS.findall(text)} | _unless_known(bare, True)
    names = {_bare_name(name) for text in texts for found in _WRITES.findall(text) for name in _NAMES.findall(found)}
    return names if names and ";" not in bare else names | _unless_known(bare, bool(names))


def _unless_known(bare: str, named: bool) -> set[str]:
    """EVERY_TABLE, if one of the statements begins as none that is known; named: what those write is told already."""
    known = _WRITE_NOTHING | _NAMED if named else _WRITE_NOTHING
    words = [first[1].lower() for first in map(_FIRST_WORD.match, _parts_of(bare)) if first is not None]
    return set() if known.issuperset(words) else {EVERY_TABLE}


def _without_comments(statement: str) -> str:
    # what is behind the last end of a comment has no comment of the kind that could be sought in vain
    end = statement.rfind("*/") + 2
    if end == 1:
        return statement if "--" not in statement else _LINE_COMMENT.sub(" ", statement)
    return _COMMENT.sub(" ", statement[:end]) + _LINE_COMMENT.sub(" ", statement[end:])


def _parts_of(bare: str) -> list[str]:
    """The statements of a text of several; a text with a dollar-quoted body is left whole."""
    if ";" not in bare or _DOLLAR_QUOTE.search(bare):
        return [bare]
    return _LITERAL.sub("''", bare).split(";")


def _bare_name(name: str) -> str:
    last = _PARTS.findall(name)[-1]
    if last[0] in '"`[':
        return str(last[1:-1].replace(last[0] * 2, last[0]).lower())
    return str(last.lower())


def savepoint_set(context: Any) -> str | None:
    """Return the name of the savepoint that a statement has set, if it was that; the event for it comes too early."""
    construct = getattr(context.compiled, "statement", None)
    return str(construct.ident) if isinstance(construct, SavepointClause) else None


def releases_savepoint(context: Any) -> bool:
    """True if the statement has released a savepoint; the event for that comes before it."""
    return isinstance(getattr(context.compiled, "statement", None), ReleaseSavepointClause)


def is_of_unit_of_work(context: Any) -> bool:
    """True if SQLAlchemy's own persistence code has issued the statement: it brings its mapper's statement cache."""
    own = context.execution_options.get("compiled_cache")
    # an application may have given its connection another cache, or none
    return own is not None and own is not context.root_connection.get_execution_options().get("compiled_cache")


def specs_of_tables(tables: Iterable[str], schemas: Any) -> list[MappedSpec]:
    """Return a spec for each hierarchy that maps one of these tables."""
    wanted = set(tables)
    if EVERY_TABLE in wanted:
        meet_all()
    else:
        meet_those_who_map(wanted)
    found: dict[Any, MappedSpec] = {}
    for each in known_registries():
        for mapper in mappers_of(each):
            if EVERY_TABLE in wanted or not wanted.isdisjoint(map(name_of, mapper.tables)):
                try:
                    spec = spec_of_mapped(mapper.class_).translated(schemas)
                except InvalidKeysDeclaration:
                    # nothing can be read by such a class, so that nothing of it is cached; who uses it is told
                    continue
                found[spec.base] = spec
    return list(found.values())
