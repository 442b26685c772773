"""Which rows a statement past the unit of work writes: its parameters tell, or ``RETURNING`` does.

RETURNING is added to the text that is sent, and what it brings is taken off again before SQLAlchemy looks at the
cursor: the caller's result and rowcount are what they would have been. A SELECT of the keys beforehand would not do:
under READ COMMITTED the statement may find other rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import cursor as sqlalchemy_cursor
from sqlalchemy.sql import operators
from sqlalchemy.sql.dml import Delete, Insert, Update, UpdateBase
from sqlalchemy.sql.elements import BindParameter, BooleanClauseList, Grouping
from sqlalchemy.sql.visitors import iterate

from stockpyle.coherence.logs import logger
from stockpyle.orm.cascades import replaces_rows
from stockpyle.orm.coercion import coercion_for, compares_as_python_does
from stockpyle.orm.registries import name_of
from stockpyle.orm.statements import construct_of, set_by, table_written
from stockpyle.orm.table_keys import Hierarchy, KeyColumns, Values, hierarchies_of
from stockpyle.protocols import Change
from stockpyle.values import UnusableValue

LOADED_AGAIN = 100
"""Of a statement that writes more rows, none is loaded again and published; the next readers load them."""

_CHUNK = 1000


class Rows:
    """The rows that one execution of an INSERT, UPDATE or DELETE writes.

    kind is "insert", "update" or "delete"; table the table's name; touched the names of the columns that an UPDATE, or
    the one in an INSERT's ON CONFLICT, sets, None if that cannot be told.
    """

    def __init__(self, context: Any, construct: UpdateBase, kind: str, schemas: Any) -> None:
        self._context = context
        self._compiled = context.compiled
        self._construct: Any = construct
        self._table = table_written(self._compiled)
        columns: Any = self._table.columns
        self._columns: dict[str, sa.Column[Any]] = {column.name: column for column in columns}
        self._schemas = schemas
        self.kind = kind
        self.table = name_of(self._table)
        self.touched = self._columns_set()
        self.hierarchies = hierarchies_of(self.table, schemas)
        self._asked: list[sa.Column[Any]] = []
        self._most = 0
        self._told = self._from_parameters() if self._can_be_told else None

    # before the statement is sent

    def ask(self, statement: str, most: int) -> str:
        """Return the text to send: with RETURNING, if that is needed and the database has it.

        most: of more rows than that nobody wants to know.
        """
        self._most = most
        if self._told is not None or not self._can_be_told or not most or not self._can_return:
            return statement
        self._asked = [column for name, column in self._columns.items() if name in self._names_asked]
        quote = self._compiled.preparer.quote
        table = quote(self._table.name)
        asked = ", ".join(
            f"{table}.{quote(column.name)} AS {label}" for column, label in zip(self._asked, self._labels, strict=True)
        )
        return f"{statement}, {asked}" if self._entries else f"{statement}\nRETURNING {asked}"

    @property
    def _labels(self) -> list[str]:
        """What tells our columns from the caller's own, however many those are."""
        return [f"stockpyle_{i}" for i in range(len(self._asked))]

    @cached_property
    def _names_asked(self) -> set[str]:
        return {name for each in self.hierarchies for key in each.keys(self.kind) for name in key.names}

    @cached_property
    def _can_be_told(self) -> bool:
        """False where the values after the write do not say which objects it has changed."""
        if not self._names_asked <= self._columns.keys():
            return False
        if any(each.identity is None for each in self.hierarchies):
            return False
        if self.kind == "delete":
            return True
        if any(each.discriminator and self._sets({each.discriminator}) for each in self.hierarchies):
            return False
        if any(each.partial and self._touches(each.partial) for each in self.hierarchies):
            return False
        if self._construct._prefixes or replaces_rows(self._table, self._context.dialect.name):
            # INSERT OR REPLACE, and UPDATE OR REPLACE, delete other rows
            return False
        # of an identity that is moved nobody knows the old place
        return not any(each.identity is not None and self._sets(each.identity.names) for each in self.hierarchies)

    @property
    def _can_return(self) -> bool:
        context, dialect = self._context, self._context.dialect
        return (
            dialect.name in ("postgresql", "sqlite")
            and bool(getattr(dialect, f"{self.kind}_returning", False))
            and not context.executemany
            and not self._has_namesake
            and not getattr(context, "_is_server_side", False)
        )

    @property
    def _has_namesake(self) -> bool:
        """True if the statement reads a table of the same name in another schema: the name alone is ambiguous."""
        tables = (getattr(each, "table", each) for each in iterate(self._construct))
        return any(name_of(each) == self.table and not self._is_own(each) for each in tables)

    def _is_own(self, table: Any) -> bool:
        # what the ORM has annotated is another object, with the same hash
        return hash(table) == hash(self._table)

    @property
    def _on_conflict(self) -> Any:
        return getattr(self._construct, "_post_values_clause", None)

    def _columns_set(self) -> frozenset[str] | None:
        """The names of the columns that are given values, in an UPDATE or on a conflict."""
        if self.kind == "delete":
            return frozenset()
        if self.kind == "update":
            keys = set_by(self._compiled)
        elif self._on_conflict is None:
            return frozenset()
        else:
            found = getattr(self._on_conflict, "update_values_to_set", None)
            if found is None:
                # ON CONFLICT DO NOTHING sets none; of another clause nothing is known
                return frozenset() if "Nothing" in type(self._on_conflict).__name__ else None
            keys = [key for key, _ in found] if isinstance(found, list) else list(found)
        names: set[str] = set()
        for key in keys:
            if isinstance(key, str):
                names.update(column.name for column in self._columns.values() if column.key == key)
                continue
            # a tuple of columns may be set at once, or a part of one
            columns = [each.name for each in iterate(key) if isinstance(each, sa.ColumnClause)]
            if not columns:
                return None
            names.update(columns)
        return frozenset(names)

    def _sets(self, names: frozenset[str] | set[str]) -> bool:
        return self.touched is None or not self.touched.isdisjoint(names)

    def _touches(self, names: frozenset[str] | set[str]) -> bool:
        """True if the write may give one of these columns a new value."""
        if self.kind == "insert" or self._sets(names):
            return True
        # an application may have reflected the table, without what the mapping says of its columns, or the other way
        mapped = [column for each in self.hierarchies for key in each.keys(self.kind) for column in key.columns]
        return any(_changes_by_itself(column) for column in (*mapped, *self._columns.values()) if column.name in names)

    # what the parameters tell

    def _from_parameters(self) -> list[Values] | None:
        if self._on_conflict is not None:
            return None
        rows: list[Values] = []
        pinned = {} if self.kind == "insert" else self._pinned()
        for parameters in self._context.compiled_parameters:
            row: dict[str, Any] = {}
            for each in self.hierarchies:
                for key in each.keys(self.kind):
                    own = self._key_told(key, key is each.identity, pinned, parameters)
                    if own is None:
                        return None
                    row.update(own)
            rows.append(row)
        return rows

    def _key_told(
        self, key: KeyColumns, is_identity: bool, pinned: dict[str, str], parameters: dict[str, Any]
    ) -> Values | None:
        """The values of a key's columns; nothing if they stay as they are, None if they are not told."""
        if is_identity and self.kind != "insert":
            if not key.names <= pinned.keys():
                return None
            row = {name: parameters[pinned[name]] for name in key.names}
        elif self._touches(key.names):
            row = {}
            for mapped in key.columns:
                column = self._columns[mapped.name]
                if self._is_value_of(column, parameters):
                    row[column.name] = parameters[column.key]
                elif self.kind == "insert" and not is_identity and self._is_null(column, mapped):
                    row[column.name] = None
                else:
                    return None
        else:
            return {}
        return row if all(_is_of_type(column, row[column.name]) for column in key.columns) else None

    def _is_value_of(self, column: sa.Column[Any], parameters: dict[str, Any]) -> bool:
        # a parameter of an application's own may have the column's name, and stand in an expression
        bind = self._compiled.binds.get(column.key)
        return column.key in parameters and getattr(bind, "_is_crud", False) is True

    def _is_null(self, *columns: sa.Column[Any]) -> bool:
        """True if an INSERT leaves out the column, of which there may be two objects, and nothing else fills it."""
        given = {getattr(key, "key", key) for key in set_by(self._compiled)}
        return given.isdisjoint(column.key for column in columns) and not any(map(_has_default, columns))

    def _pinned(self) -> dict[str, str]:
        """The parameters to which the statement's criterion pins columns that compare as Python does."""
        found = {}
        for each in _conjuncts(self._construct.whereclause):
            if getattr(each, "operator", None) is not operators.eq:
                continue
            for one, other in ((each.left, each.right), (each.right, each.left)):
                name = self._compiled.bind_names.get(other) if isinstance(other, BindParameter) else None
                is_own = isinstance(one, sa.Column) and self._is_own(one.table)
                if name is not None and is_own and compares_as_python_does(one.type):
                    found[one.name] = name
        return found

    # after it

    @property
    def come_later(self) -> bool:
        """True if SQLAlchemy sends a part of the statement at a time."""
        return self._context.executemany and bool(self._entries)

    def changes(self) -> list[Change] | None:
        """Return what the statement has changed, or None if nobody can name it."""
        rows = self._taken() if self._asked else self._told
        if rows is None or len(rows) > self._most:
            return None
        return self._changes_of(rows, locked=bool(self._asked) or self._found_all(len(rows)))

    def changes_of_all(self) -> list[Change] | None:
        """Return what a statement has changed that was sent in several parts, or None if nobody can name it."""
        return self._returned() if self._told is None else self.changes()

    def _returned(self) -> list[Change] | None:
        """What the caller's own RETURNING tells."""
        names = [next((o.name for o in entry[2] if isinstance(o, sa.Column)), None) for entry in self._entries]
        raw = getattr(self._context, "_insertmanyvalues_rows", None)
        wanted = {
            column.name: column for each in self.hierarchies for key in each.keys("insert") for column in key.columns
        }
        if raw is None or not self._can_be_told or not wanted.keys() <= set(names) or len(raw) > self._most:
            return None
        places = [names.index(name) for name in wanted]
        rows = self._processed([[row[i] for i in places] for row in raw], list(wanted.values()), [None] * len(places))
        return None if rows is None else self._changes_of(rows, locked=True)

    @property
    def _entries(self) -> Sequence[Any]:
        return self._compiled._result_columns or ()

    def _found_all(self, number: int) -> bool:
        # a criterion on the primary key that has found no row has locked none
        return self.kind == "insert" or self._context.cursor.rowcount == number

    def _changes_of(self, rows: Sequence[Values], *, locked: bool) -> list[Change] | None:
        changes = []
        for each in self.hierarchies:
            for row in rows:
                change = each.change(self.kind, row)
                if change is None:
                    return None
                in_place = self._is_in_place(each)
                change.reload = in_place and not each.shared and len(rows) <= LOADED_AGAIN
                if not (locked and in_place):
                    change.unprotected = (*change.before, *change.after)
                changes.append(change)
        return changes

    def _is_in_place(self, hierarchy: Hierarchy) -> bool:
        """False if the table written may be a namesake of the mapped one, so that no row of this one is locked."""
        own = self._table.schema
        mapped = {table.schema for table in hierarchy.spec.mapper.tables if name_of(table) == self.table}
        names = self._schemas or {}
        return {names.get(own, own)} == {names.get(schema, schema) for schema in mapped}

    def _taken(self) -> list[Values] | None:
        """Take what was asked for off the cursor, and leave SQLAlchemy what it has asked for."""
        context, cursor = self._context, self._context.cursor
        description = cursor.description
        own = len(description or ()) - len(self._asked)
        if description is None or [each[0] for each in description[own:]] != self._labels:
            # somebody has changed the text
            return None
        if own:
            raw: list[Any] = cursor.fetchall()
            count = len(raw)
            context.cursor_fetch_strategy = sqlalchemy_cursor.FullyBufferedCursorFetchStrategy(
                cursor, description[:own], [tuple(row[:own]) for row in raw]
            )
        else:
            raw, count = [], 0
            while chunk := cursor.fetchmany(_CHUNK):
                count += len(chunk)
                raw += chunk if count <= self._most else []
            context.cursor_fetch_strategy = sqlalchemy_cursor._NO_CURSOR_DML
            if self.kind != "insert" or context.execution_options.get("preserve_rowcount"):
                context._rowcount = count
        if count > self._most:
            return None
        return self._processed([row[own:] for row in raw], self._asked, [each[1] for each in description[own:]])

    def _processed(
        self, raw: Sequence[Sequence[Any]], columns: Sequence[sa.Column[Any]], types: Sequence[Any]
    ) -> list[Values] | None:
        dialect = self._context.dialect
        ways = [
            column.type.dialect_impl(dialect).result_processor(dialect, own)
            for column, own in zip(columns, types, strict=True)
        ]
        try:
            return [
                {
                    column.name: value if way is None else way(value)
                    for column, way, value in zip(columns, ways, row, strict=True)
                }
                for row in raw
            ]
        except Exception:  # an application's own type may raise whatever it likes
            logger.exception(
                "the keys that a statement on %s returned cannot be read; its classes are dropped", self.table
            )
            return None


def rows_of(context: Any, schemas: Any) -> Rows | None:
    """Return the rows that a statement is about to write, if it is an INSERT, UPDATE or DELETE of a mapped table."""
    construct = construct_of(context)
    if construct is None or any(
        isinstance(each, UpdateBase) for cte in context.compiled.ctes or () for each in iterate(cte)
    ):
        # what a CTE writes, its outer statement does not return
        return None
    try:
        for kind, known in (("insert", Insert), ("update", Update), ("delete", Delete)):
            if isinstance(construct, known) and isinstance(table_written(context.compiled), sa.Table):
                rows = Rows(context, construct, kind, schemas)
                return rows if rows.hierarchies else None
    except (AttributeError, TypeError):
        logger.exception("this SQLAlchemy does not tell which rows a statement on %s writes", construct.table)
    return None


def _conjuncts(clause: Any) -> Iterator[Any]:
    if isinstance(clause, Grouping):
        yield from _conjuncts(clause.element)
    elif isinstance(clause, BooleanClauseList) and clause.operator is operators.and_:
        for each in clause.clauses:
            yield from _conjuncts(each)
    elif clause is not None:
        yield clause


def _changes_by_itself(column: sa.Column[Any]) -> bool:
    return column.onupdate is not None or column.server_onupdate is not None or column.computed is not None


def _has_default(column: sa.Column[Any]) -> bool:
    return not (column.default is None and column.server_default is None and column.identity is None)


def _is_of_type(column: sa.Column[Any], value: Any) -> bool:
    """False for what the database has first to make a value of the column's type: which one, only it knows."""
    if getattr(column.type, "_has_bind_expression", True):
        return False
    coerce = coercion_for(column.type)
    try:
        if value is not None and coerce is not None:
            coerce(value)
    except UnusableValue:
        return False
    return True
