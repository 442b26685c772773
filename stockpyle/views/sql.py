"""Queries of a database: one SELECT, in which Python decides only what the database would decide otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import sqlalchemy as sa

from stockpyle.exceptions import InvalidQuery
from stockpyle.keys import Key
from stockpyle.orm.collations import Collations
from stockpyle.orm.loading import Loader
from stockpyle.orm.mapping import MappedSpec
from stockpyle.views.attributes import Attribute
from stockpyle.views.ordering import Incomparable, sort
from stockpyle.views.selection import Selection
from stockpyle.views.sql_columns import Columns
from stockpyle.views.sql_conditions import Conditions

Reading = Callable[[], AbstractContextManager[tuple[sa.Connection, Any]]]
_LARGEST = 2**62
"""No table has more rows; larger bounds of slices overflow in a database."""


class SqlSearch:
    """A Search of one mapped class in a database. `reading` yields the source's own connections."""

    follows = True

    def __init__(self, loader: Callable[[], Loader], reading: Reading, collations: Collations) -> None:
        self._loader = loader
        self._reading = reading
        self._collations = collations
        self.spec: MappedSpec = loader().spec

    def identities(self, selection: Selection) -> list[Key]:
        """See Search.identities."""
        names = self.spec.identity.attributes
        rows = self._rows(selection, lambda conditions: sa.select(*self._named(conditions, names)))
        keys = [self.spec.key(dict(zip(names, row, strict=False))) for row in rows]
        return [key for key in keys if key is not None]

    def objects(self, selection: Selection) -> Sequence[Any]:
        """See Search.objects."""
        loader = self._loader()
        records = [loader.record(row) for row in self._rows(selection, lambda _: sa.select(*loader.columns))]
        return [record.spec.materialise(record.value) for record in records]

    def count(self, selection: Selection) -> int:
        """See Search.count."""
        with self._reading() as (connection, _):
            conditions = self._conditions(connection)
            where = conditions.where(selection.condition)
            if where.decide is None:
                names = self.spec.identity.attributes
                columns = [each.label(f"key_{i}") for i, each in enumerate(self._named(conditions, names))]
                chosen = _sliced(self._of_class(sa.select(*columns)).where(where.clause), selection)
                counted = connection.execute(sa.select(sa.func.count()).select_from(chosen.subquery()))
                return int(counted.scalar_one())
            statement = self._of_class(sa.select(*conditions.extras)).where(where.clause)
            decide = where.decide
            found = (row for row in connection.execute(statement) if decide(row))
            return sum(1 for _ in islice(found, selection.start, selection.stop))

    def values(self, selection: Selection, attributes: Sequence[Attribute]) -> list[tuple[Any, ...]]:
        """See Search.values."""
        rows = self._rows(selection, lambda conditions: sa.select(*[conditions.value(each) for each in attributes]))
        return [tuple(row[: len(attributes)]) for row in rows]

    def _conditions(self, connection: sa.Connection) -> Conditions:
        return Conditions(self.spec, Columns(connection, self._collations))

    def _named(self, conditions: Conditions, names: Sequence[str]) -> list[Any]:
        return [conditions.value(Attribute(self.spec.klass, (name,), self.spec.klass)) for name in names]

    def _of_class(self, statement: sa.Select[Any]) -> sa.Select[Any]:
        """The statement, of the rows of this class and its subclasses."""
        return self._loader().restrict(statement)

    def _rows(self, selection: Selection, select: Callable[[Conditions], sa.Select[Any]]) -> list[Sequence[Any]]:
        """Return the rows of the objects selected; what `select` selects stands at the beginning of each."""
        with self._reading() as (connection, _):
            conditions = self._conditions(connection)
            base = select(conditions)
            width = len(base.selected_columns)
            where = conditions.where(selection.condition)
            identity = [Attribute(self.spec.klass, (name,), self.spec.klass) for name in self.spec.identity.attributes]
            by = [(order.attribute, order.descending) for order in selection.orders] + [
                (each, False) for each in identity
            ]
            sortable: list[Any] = [conditions.sortable(attribute) for attribute, _ in by]
            in_sql = all(each is not None for each in sortable)
            places = [] if in_sql else [conditions.place(conditions.value(attribute)) for attribute, _ in by]
            statement = self._of_class(base.add_columns(*conditions.extras)).where(where.clause)
            if in_sql:
                pairs = zip(sortable, by, strict=True)
                statement = statement.order_by(
                    *[(each.desc() if descending else each.asc()).nulls_last() for each, (_, descending) in pairs]
                )
                if where.decide is None:
                    statement = _sliced(statement, selection)
            rows: list[Any] = list(connection.execute(statement))
        if where.decide is not None:
            decide = where.decide
            rows = [row for row in rows if decide(row[width:])]
        if not in_sql:
            self._sort(rows, [(width + place, descending) for place, (_, descending) in zip(places, by, strict=True)])
        if where.decide is None and in_sql:
            return rows
        return rows[selection.start : selection.stop]

    def _sort(self, rows: list[Any], by: Sequence[tuple[int, bool]]) -> None:
        columns = [((lambda row, place=place: row[place]), descending) for place, descending in by]
        try:
            sort(rows, columns)
        except Incomparable as error:
            raise InvalidQuery(f"{self.spec.klass.__qualname__} cannot be sorted so: {error}") from None


def _sliced(statement: sa.Select[Any], selection: Selection) -> sa.Select[Any]:
    if selection.start:
        statement = statement.offset(min(selection.start, _LARGEST))
    if selection.stop is not None:
        statement = statement.limit(min(selection.stop - selection.start, _LARGEST))
    return statement
