"""The SELECT that reads rows of a mapped class by one of its keys, and its result as records.

It is Core, not ORM: no instance is made, so no ``load`` event runs for one that nobody gets, and nothing an
application hangs on its sessions (criteria, listeners) changes what is cached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper

from stockpyle.exceptions import NonUniqueKeyError, StoreError
from stockpyle.keys import Ident, Key, KeyDefinition, KeySpec
from stockpyle.orm.coercion import can_hold, can_hold_all
from stockpyle.orm.collations import Collations
from stockpyle.orm.criteria import (
    MANY_ROWS,
    bindable,
    by_arrays,
    by_one,
    columns_of,
    criterion,
    has_expressions,
    in_union,
)
from stockpyle.orm.instances import Row
from stockpyle.orm.mapping import MappedSpec
from stockpyle.records import Record

FEW_PARAMETERS = 900
"""What every SQLite allows in one statement, for drivers that do not say what they allow."""


class Loader:
    """Reads objects of one mapped class, subclasses included."""

    def __init__(self, spec: MappedSpec, collations: Collations) -> None:
        self.spec = spec
        self._collations = collations
        self._union = spec.union
        self._specs: dict[Mapper[Any], MappedSpec] = {each.mapper: each for each in spec.hierarchy}
        self._mappers = len(spec.mapper.self_and_descendants)
        self._columns: list[Any] = []
        self.places = {each: [self._place(column) for column in each.columns] for each in self._specs.values()}
        """Which of the columns are in the row of each class."""
        self.discriminator: int | None = None
        """Which of the columns tells the class."""
        self._for_one: dict[KeyDefinition, sa.Select[Any]] = {}
        self._for_many: dict[KeyDefinition, sa.Select[Any] | None] = {}
        polymorphic_on = spec.mapper.polymorphic_on
        if len(self._specs) > 1 and polymorphic_on is not None:
            self.discriminator = self._place(polymorphic_on)
        self._takes = {each: _taker(places) for each, places in self.places.items()}
        self._select = self.restrict(sa.select(*self._columns))

    @property
    def columns(self) -> Sequence[Any]:
        """The columns that record() makes records of."""
        return self._columns

    def restrict(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        """Return a statement as one of the rows of the class, and of its subclasses."""
        polymorphic_on = self.spec.mapper.polymorphic_on
        statement = statement.select_from(self._tables())
        if self.spec.mapper.single and polymorphic_on is not None:
            identities = [mapper.polymorphic_identity for mapper in self._specs]
            known = [identity for identity in identities if identity is not None]
            statement = statement.where(polymorphic_on.in_(known))
        return statement

    @property
    def is_outgrown(self) -> bool:
        """True if subclasses were defined since."""
        return len(self.spec.mapper.self_and_descendants) != self._mappers

    def _place(self, column: Any) -> int:
        column = in_union(column, self._union)
        for place, known in enumerate(self._columns):
            if known is column:
                return place
        self._columns.append(column)
        return len(self._columns) - 1

    def _tables(self) -> Any:
        if self._union is not None:
            return self._union
        selectable: Any = self.spec.mapper.persist_selectable
        joined: set[Any] = set(self.spec.mapper.tables)
        for mapper in self._specs:
            if mapper.local_table not in joined and mapper.inherit_condition is not None:
                selectable = selectable.outerjoin(mapper.local_table, mapper.inherit_condition)
                joined.add(mapper.local_table)
        return selectable

    def load(self, connection: sa.Connection, keys: Sequence[Key]) -> dict[Ident, Record]:
        """Read `keys`, one SELECT a declared key and chunk, and return the records found by the ident asked for.

        The database may find a row under a key that Python thinks another (other casing, say); then the record's
        own key differs from the ident it is returned under. Two rows for one key raise NonUniqueKeyError.
        """
        found: dict[Ident, Record] = {}
        # a row is found once for each time that its key stands in an array
        keys = list({key.ident: key for key in keys}.values())
        for definition in dict.fromkeys(key.definition for key in keys):
            columns = [self.spec.columns_by_attribute[name] for name in definition.attributes]
            own = _askable([key for key in keys if key.definition is definition], columns, connection.dialect.name)
            size = chunk_size(connection.dialect, len(columns))
            if len(columns) > 1 and has_expressions(columns, connection.dialect.name):
                # SQLite takes no more than a thousand conditions
                size = min(size, MANY_ROWS)
            for chunk in _chunks(own, size):
                found.update(self._load_chunk(connection, definition, chunk))
        return found

    def _load_chunk(self, connection: sa.Connection, definition: KeyDefinition, keys: list[Key]) -> dict[Ident, Record]:
        found: dict[Ident, Record] = {}
        others: list[Record] = []
        # what a getter returns, which equals what is in a key or is another one
        asked = {key.values if len(key.values) > 1 else key.values[0]: key for key in keys}
        getters: dict[KeySpec, Callable[[Any], Any]] = {
            spec: spec.getter(definition.attributes) for spec in self.places
        }
        for row in self._rows(connection, definition, keys).all():
            record = self.record(row)
            try:
                key = asked.get(getters[record.spec](record.value))
            except TypeError:
                # a list, say, in a column that is unique
                key = None
            if key is None:
                others.append(record)
            elif key.ident in found:
                raise NonUniqueKeyError(self.spec.klass, key.as_dict())
            else:
                found[key.ident] = record
        unanswered = [key for key in keys if key.ident not in found]
        if len(keys) == 1 and others:
            if found or len(others) > 1:
                raise NonUniqueKeyError(self.spec.klass, keys[0].as_dict())
            return {keys[0].ident: others[0]}
        if others:
            # which of several keys the database took for these rows, only the database can tell
            for key in unanswered:
                found.update(self._load_chunk(connection, definition, [key]))
        elif found and unanswered and not self._collations.compare_exactly(connection, self.spec, definition):
            # a row that was found under its own key may be what the database finds under another one, too
            found.update(self._load_chunk(connection, definition, unanswered))
        return found

    def _rows(self, connection: sa.Connection, definition: KeyDefinition, keys: list[Key]) -> sa.CursorResult[Any]:
        columns = columns_of(self.spec, definition)
        if len(keys) > 1:
            statement = self.by_many(definition) if self._compares_arrays(connection, definition) else None
            if statement is None:
                condition = criterion(self.spec, definition, keys, connection.dialect.name)
                return connection.execute(self._select.where(condition))
            lists: Any = zip(*[key.values for key in keys], strict=True)
            return connection.execute(statement, {f"key_{i}": list(own) for i, own in enumerate(lists)})
        values = zip(columns, keys[0].values, strict=True)
        parameters = {f"key_{i}": bindable(column, value) for i, (column, value) in enumerate(values)}
        return connection.execute(self.by_one(definition), parameters)

    def _compares_arrays(self, connection: sa.Connection, definition: KeyDefinition) -> bool:
        return connection.dialect.name == "postgresql" and self._collations.compare_exactly(
            connection, self.spec, definition
        )

    def where(self, condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
        """Return the statement that reads `columns` of the rows of the class that satisfy a condition."""
        return self._select.where(condition)

    def by_one(self, definition: KeyDefinition) -> sa.Select[Any]:
        """Return the statement that reads one key, of parameters as criteria.by_one has them."""
        statement = self._for_one.get(definition)
        if statement is None:
            # built once: it takes longer than SQLite takes to answer it
            condition = by_one(columns_of(self.spec, definition))
            statement = self._for_one[definition] = self._select.where(condition)
        return statement

    def by_many(self, definition: KeyDefinition) -> sa.Select[Any] | None:
        """Return the statement that reads many keys, of parameters as criteria.by_arrays has them; None for no such."""
        if definition not in self._for_many:
            condition = by_arrays(columns_of(self.spec, definition))
            self._for_many[definition] = None if condition is None else self._select.where(condition)
        return self._for_many[definition]

    def record(self, row: Any) -> Record:
        """Return the record of a row that begins with `columns`."""
        spec = self.spec if self.discriminator is None else self.spec_of(row[self.discriminator])
        return Record(spec, self._takes[spec](row))

    def spec_of(self, identity: Any) -> MappedSpec:
        """Return the spec of the class that a value of the discriminator stands for."""
        mapper = self.spec.mapper.polymorphic_map.get(identity)
        if mapper is not None and mapper in self._specs:
            return self._specs[mapper]
        if identity is not None:
            raise StoreError(f"{self.spec.klass.__name__} has no subclass with polymorphic identity {identity!r}")
        return self.spec


def _taker(places: list[int]) -> Callable[[Any], Row]:
    """Return what makes a class's row of what was selected: the columns at these places."""
    return itemgetter(*places) if len(places) > 1 else lambda row: (row[places[0]],)


def _askable(keys: list[Key], columns: Sequence[sa.Column[Any]], dialect: str) -> list[Key]:
    """Return those of the keys that these columns can have; the database would refuse the others."""
    for place, column in enumerate(columns):
        if not can_hold_all(column.type, dialect, [key.values[place] for key in keys]):
            keys = [key for key in keys if can_hold(column.type, dialect, key.values[place])]
    return keys


def chunk_size(dialect: sa.Dialect, width: int) -> int:
    """Return how many keys of so many values one statement asks for."""
    limit = getattr(dialect, "insertmanyvalues_max_parameters", None) or FEW_PARAMETERS
    return max(1, (limit - 100) // width)


def _chunks(keys: list[Key], size: int) -> Iterator[list[Key]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]
