"""Statements as their drivers take them: the text made once, with what turns values into parameters and back.

The text and the processors are SQLAlchemy's own, so that what is read is what a Connection would read; what is saved is
all that it does anew for each execution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

Process = Callable[[Any], Any]
Description = Sequence[Sequence[Any]]


class Prepared:
    """A SELECT of columns, by parameters that are named in order."""

    def __init__(self, statement: sa.Select[Any], names: Sequence[str], dialect: sa.Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self.text = str(compiled)
        self.is_complete = set(compiled.params) == set(names)
        """False if the statement has other parameters."""
        self._names = names
        self._positions: list[int] | None = None
        types: list[Any] = []
        if self.is_complete:
            types = [compiled.binds[name].type for name in names]
            if compiled.positional:
                self._positions = [list(names).index(name) for name in compiled.positiontup]
        self._binds = binds_of(types, dialect)
        self._as_they_are = self._positions == list(range(len(names))) and not any(self._binds)

    def parameters(self, values: Sequence[Any]) -> Any:
        """Return what the driver takes for the values of the parameters, in the order of their names."""
        if self._as_they_are:
            return values
        own = [value if bind is None else bind(value) for bind, value in zip(self._binds, values, strict=True)]
        if self._positions is not None:
            return [own[place] for place in self._positions]
        return dict(zip(self._names, own, strict=True))


def binds_of(types: Sequence[Any], dialect: sa.Dialect) -> list[Process | None]:
    """Return what turns values of these types into the driver's."""
    return [each.dialect_impl(dialect).bind_processor(dialect) for each in types]


def results_of(types: Sequence[Any], dialect: sa.Dialect, description: Description) -> list[Process | None]:
    """Return what turns a driver's values into those of these types; description is the cursor's."""
    return [
        each.dialect_impl(dialect).result_processor(dialect, told[1])
        for each, told in zip(types, description, strict=True)
    ]


MARK = "/*stockpyle_keys*/"
"""Stands in a text for a list of parameters, as long as there are keys."""


def by_marked_list(columns: Sequence[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that a row has one of many keys; MARK stands for the keys. SQLite writes lists so."""
    asked: Any = columns[0] if len(columns) == 1 else sa.tuple_(*columns)
    given = f"({MARK})" if len(columns) == 1 else f"(VALUES {MARK})"
    return asked.op("IN", is_comparison=True)(sa.literal_column(given))  # type: ignore[no-any-return]


def expanded(text: str, width: int, count: int) -> str:
    """Return a text with so many keys of so many values in the place of MARK."""
    one = "?" if width == 1 else f"({', '.join('?' * width)})"
    return text.replace(MARK, ", ".join([one] * count))


def maker(places: Sequence[int], processors: Sequence[Process | None]) -> Process | None:
    """Return what makes a class's row of what a driver has fetched: the columns at these places, processed.

    None if that is the fetched row itself.
    """
    if list(places) == list(range(len(processors))) and not any(processors):
        return None
    parts = [f"p{i}(row[{i}])" if processors[i] else f"row[{i}]" for i in places]
    names = {f"p{i}": processor for i, processor in enumerate(processors)}
    made: Process = eval(f"lambda row: ({', '.join(parts)},)", names)  # of numbers alone
    return made
