"""How rows of a mapped class are read by one of its keys: the text and the parameters of one statement, for one driver.

A plan is made once for a class and a key. It takes all values of key attributes column by column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import sqlalchemy as sa

from stockpyle.keys import Key, KeyDefinition
from stockpyle.orm.coercion import can_hold, can_hold_all
from stockpyle.orm.criteria import bindable, columns_of, has_expressions
from stockpyle.orm.instances import Row
from stockpyle.orm.loading import Loader, chunk_size
from stockpyle.orm.mapping import MappedSpec
from stockpyle.orm.prepared import Description, Prepared, Process, binds_of, by_marked_list, expanded, maker, results_of

Sent = tuple[str, Any]
"""A statement's text, and the parameters as the driver takes them."""


class Plan:
    """What is common to all: the columns of the key, and what becomes of the rows."""

    def __init__(self, loader: Loader, definition: KeyDefinition, dialect: sa.Dialect) -> None:
        self._loader = loader
        self._dialect = dialect
        self._columns = columns_of(loader.spec, definition)
        self._has_enums = any(isinstance(column.type, sa.Enum) for column in self._columns)
        self._names = [f"key_{i}" for i in range(len(self._columns))]
        self._makes: dict[MappedSpec, Process | None] = {}
        self.is_described = False
        """True if it is known how rows are made of what is fetched."""
        self._discriminate: Process | None = None
        self.getters: dict[MappedSpec, Callable[[Row], Any]] = {
            spec: spec.getter(definition.attributes) for spec in loader.places
        }
        """What reads the key of each class's row: a tuple, or of a single attribute its value."""

    def sent(self, keys: Sequence[Key]) -> Sent | None:
        """Return what to send for these keys; None if the columns cannot have one of them, or nothing can be sent."""
        raise NotImplementedError

    def _values(self, keys: Sequence[Key]) -> list[list[Any]] | None:
        """The values of all keys by column; None if a column cannot have one of them."""
        values = [[key.values[i] for key in keys] for i in range(len(self._columns))]
        for i, column in enumerate(self._columns):
            if not can_hold_all(column.type, self._dialect.name, values[i]):
                return None
            if self._has_enums:
                values[i] = [bindable(column, value) for value in values[i]]
        return values

    def describe(self, description: Description) -> None:
        """Learn from a cursor how rows are made of what it fetches."""
        loader = self._loader
        processors = results_of([column.type for column in loader.columns], self._dialect, description)
        if loader.discriminator is not None:
            self._discriminate = processors[loader.discriminator]
        self._makes = {spec: maker(places, processors) for spec, places in loader.places.items()}
        self.is_described = True

    def forget(self) -> None:
        """Have it learnt anew how rows are made: the columns may be of other types than they were."""
        # another thread may be making some just now
        self.is_described = False

    def rows(self, fetched: list[Any]) -> list[Row]:
        """Return the rows of the only class that there is."""
        make = self._makes[self._loader.spec]
        return fetched if make is None else list(map(make, fetched))

    def row(self, fetched: Any) -> tuple[MappedSpec, Row]:
        """Return the class and the row of an object of one of several classes."""
        spec = self._loader.spec
        if self._loader.discriminator is not None:
            identity = fetched[self._loader.discriminator]
            spec = self._loader.spec_of(identity if self._discriminate is None else self._discriminate(identity))
        make = self._makes[spec]
        return spec, fetched if make is None else make(fetched)


class OneKey(Plan):
    """A row by equality."""

    def __init__(self, loader: Loader, definition: KeyDefinition, dialect: sa.Dialect) -> None:
        super().__init__(loader, definition, dialect)
        self._prepared = Prepared(loader.by_one(definition), self._names, dialect)

    def sent(self, keys: Sequence[Key]) -> Sent | None:
        """See Plan.sent."""
        values: Sequence[Any] = keys[0].values
        if not self._prepared.is_complete or not all(map(self._can_hold, self._columns, values)):
            return None
        if self._has_enums:
            values = [bindable(column, value) for column, value in zip(self._columns, values, strict=True)]
        return self._prepared.text, self._prepared.parameters(values)

    def _can_hold(self, column: Any, value: Any) -> bool:
        return can_hold(column.type, self._dialect.name, value)


class KeysInArrays(Plan):
    """Rows by one array a column, on PostgreSQL; see by_arrays."""

    def __init__(self, loader: Loader, definition: KeyDefinition, dialect: sa.Dialect) -> None:
        super().__init__(loader, definition, dialect)
        statement = loader.by_many(definition)
        self._prepared = None if statement is None else Prepared(statement, self._names, dialect)

    def sent(self, keys: Sequence[Key]) -> Sent | None:
        """See Plan.sent."""
        if self._prepared is None or not self._prepared.is_complete:
            return None
        values = self._values(keys)
        return None if values is None else (self._prepared.text, self._prepared.parameters(values))


class KeysInList(Plan):
    """Rows by a list of all values, on SQLite."""

    def __init__(self, loader: Loader, definition: KeyDefinition, dialect: sa.Dialect) -> None:
        super().__init__(loader, definition, dialect)
        self._prepared = Prepared(loader.where(by_marked_list(self._columns)), [], dialect)
        self._binds = binds_of([column.type for column in self._columns], dialect)
        self._most = chunk_size(dialect, len(self._columns))
        self._plain = not has_expressions(self._columns, dialect.name)

    def sent(self, keys: Sequence[Key]) -> Sent | None:
        """See Plan.sent."""
        if not (self._prepared.is_complete and self._plain and len(keys) <= self._most):
            return None
        values = self._values(keys)
        if values is None:
            return None
        bound = [own if bind is None else list(map(bind, own)) for own, bind in zip(values, self._binds, strict=True)]
        flat = bound[0] if len(bound) == 1 else list(chain.from_iterable(zip(*bound, strict=True)))
        return expanded(self._prepared.text, len(bound), len(keys)), flat
