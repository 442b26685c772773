"""One lookup of one column as SQL, where the database means by it exactly what Python does.

Every value is a bind parameter of a type without a length or a scale, to which a driver could cut it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, timezone
from typing import Any

import sqlalchemy as sa

from stockpyle.orm.coercion import can_hold
from stockpyle.orm.mapping import MappedSpec
from stockpyle.views.conditions import Test
from stockpyle.views.sql_columns import UNORDERED, Columns, Kind

Clause = sa.ColumnElement[bool]

_BOUND: dict[Kind, Any] = {
    Kind.INTEGER: sa.BigInteger(),
    Kind.TEXT: sa.Text(),
    Kind.FLOAT: sa.Double(),
    Kind.DECIMAL: sa.Numeric(),
}


class ColumnLookups:
    """The lookups of one column. A clause may be NULL where the column is, and only there."""

    def __init__(self, columns: Columns, spec: MappedSpec, name: str, column: Any) -> None:
        self._columns = columns
        self._dialect: str = columns.dialect.name
        self._type = spec.columns_by_attribute[name].type
        self._spec = spec
        self._name = name
        self._column = column
        self._kind = columns.kind(spec, name)

    @property
    def sortable(self) -> Any | None:
        """The column as it is sorted as Python sorts its values; None if the database cannot."""
        if self._kind is None or self._kind in UNORDERED:
            return None
        return self._columns.by_code_points(self._column) if self._kind is Kind.TEXT else self._column

    def clause(self, test: Test) -> Clause | None:
        """Return the test as SQL; None if the database would not mean the same."""
        name, operand = test.lookup.name, test.operand
        if self._kind is None:
            return None
        if name == "exists":
            return self._is_there() if operand else sa.not_(self._is_there())
        if name == "equals":
            return sa.not_(self._is_there()) if operand is None else self._one_of([operand])
        if name == "in":
            return self._in(operand.values)
        if name in _COMPARE:
            return self._compare(name, operand)
        if name == "between":
            least, greatest = self._compare("gte", operand[0]), self._compare("lte", operand[1])
            return None if least is None or greatest is None else sa.and_(least, greatest)
        if name in ("year", "month", "day"):
            return self._date_part(name, operand)
        return self._text(name, operand)

    # equality

    def _in(self, values: tuple[Any, ...]) -> Clause | None:
        asked = [value for value in values if value is not None]
        most = getattr(self._columns.dialect, "insertmanyvalues_max_parameters", None) or 900
        if len(asked) > most // 2:
            return None
        found = self._one_of(asked)
        if found is None or len(asked) == len(values):
            return found
        return sa.or_(self._column.is_(None), found)

    def _one_of(self, values: list[Any]) -> Clause | None:
        if any(self._is_of_other_group(value) for value in values):
            return None
        asked = [self._bound(value) for value in values if can_hold(self._type, self._dialect, value)]
        if not asked:
            return sa.false()
        column = self._column
        equal = column == asked[0] if len(asked) == 1 else column.in_(asked)
        if self._kind is Kind.TEXT and not self._columns.is_exact(self._spec, self._name):
            exact = self._columns.by_code_points(column)
            equal = exact == asked[0] if len(asked) == 1 else exact.in_(asked)
        return self._but_not_nan(equal)

    def _is_of_other_group(self, value: Any) -> bool:
        """True of a datetime that has a time zone where the column has none, or the other way round."""
        if self._kind in (Kind.NAIVE, Kind.AWARE):
            return (value.utcoffset() is not None) is not (self._kind is Kind.AWARE)
        return False

    def _bound(self, value: Any) -> Any:
        kind = _BOUND.get(self._kind, self._type) if self._kind is not None else self._type
        return sa.literal(value, kind)

    # order

    def _compare(self, name: str, value: Any) -> Clause | None:
        if self._kind is None or self._kind in UNORDERED or self._is_of_other_group(value):
            return None
        if self._kind is Kind.INTEGER:
            if not isinstance(value, int):
                # of the whole numbers, those above 2.5 are those above 2
                value = math.floor(value) if name in ("gt", "lte") else math.ceil(value)
            if not can_hold(self._type, self._dialect, value):
                holds = name in ("lt", "lte") if value > 0 else name in ("gt", "gte")
                return self._is_there() if holds else sa.false()
        elif not can_hold(self._type, self._dialect, value):
            return None
        return self._but_not_nan(_COMPARE[name](self.sortable, self._bound(value)))

    def _but_not_nan(self, clause: Clause) -> Clause:
        if self._dialect == "postgresql" and self._kind in (Kind.FLOAT, Kind.DECIMAL):
            # to PostgreSQL it equals itself, and is greater than all else
            return sa.and_(clause, self._column != self._bound(math.nan))
        return clause

    # dates

    def _date_part(self, name: str, operand: int) -> Clause | None:
        if self._kind not in (Kind.DATE, Kind.NAIVE, Kind.AWARE):
            return None
        column = self._column
        if name == "year":
            if not date.min.year <= operand <= date.max.year:
                return sa.false()
            zone = timezone.utc if self._kind is Kind.AWARE else None
            if self._kind is Kind.DATE:
                first: Any = date(operand, 1, 1)
                last: Any = date(operand, 12, 31)
            else:
                first = datetime(operand, 1, 1, tzinfo=zone)
                last = datetime(operand, 12, 31, 23, 59, 59, 999999, tzinfo=zone)
            return sa.and_(column >= self._bound(first), column <= self._bound(last))
        if not 1 <= operand <= 31:
            return sa.false()
        if self._kind is Kind.AWARE:
            column = sa.func.timezone("UTC", column)
        return sa.extract(name, column) == sa.literal(operand, sa.Integer())

    # texts

    def _text(self, name: str, operand: Any) -> Clause | None:
        if self._kind is not Kind.TEXT:
            return None
        affix = {"contains": self._contains, "startswith": self._starts, "endswith": self._ends}.get(name)
        if name == "contains_any" and all(isinstance(each, str) for each in operand):
            return sa.or_(sa.false(), *[self._contains(each) for each in operand])
        return affix(operand) if affix is not None and isinstance(operand, str) else None

    def _always_or_never(self, operand: str) -> Clause | None:
        if not operand:
            return self._is_there()
        return None if can_hold(self._type, self._dialect, operand) else sa.false()

    def _is_there(self) -> Clause:
        there: Clause = self._column.is_not(None)
        return there

    def _contains(self, operand: str) -> Clause:
        # neither function knows wildcards, nor another casing, nor an end at a NUL
        find = sa.func.instr if self._dialect == "sqlite" else sa.func.strpos
        found = find(self._column, self._bound(operand)) > sa.literal(0, sa.Integer())
        clause = self._always_or_never(operand)
        return found if clause is None else clause

    def _starts(self, operand: str) -> Clause:
        clause = self._always_or_never(operand)
        if clause is not None:
            return clause
        # all texts with one beginning stand together, so that an index can find them
        column = self.sortable
        after = _after_all_with(operand)
        begun: Clause = column >= self._bound(operand)
        return begun if after is None else sa.and_(begun, column < self._bound(after))

    def _ends(self, operand: str) -> Clause:
        clause = self._always_or_never(operand)
        if clause is not None:
            return clause
        if self._dialect == "sqlite":
            # as bytes, because substr() of a text ends at a NUL
            wanted = operand.encode()
            size = sa.literal(len(wanted), sa.Integer())
            own = sa.cast(self._column, sa.LargeBinary)
            # the end of no bytes at all is NULL, and would be under a NOT
            return sa.and_(sa.func.length(own) >= size, sa.func.substr(own, -size) == sa.literal(wanted))
        right = sa.func.right(self._column, sa.literal(len(operand), sa.Integer()))
        found: Clause = self._columns.by_code_points(right) == self._bound(operand)
        return found


def _after_all_with(beginning: str) -> str | None:
    """Return the first text after all that have this beginning; None if nothing comes after them."""
    kept = beginning.rstrip("\U0010ffff")
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    # what lies between is no character, and no text in a database has it
    return kept[:-1] + chr(0xE000 if 0xD800 <= following <= 0xDFFF else following)


_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
}
