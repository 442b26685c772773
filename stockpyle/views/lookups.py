"""The lookups, ``age__gte=18``: what each takes, and what it means, in Python.

This is what a query means in every store; where a database answers, it has to answer the same. Each lookup is true or
false of a value, never unknown: of None all are false, but those that ask for None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone
from typing import Any

from stockpyle.values import ALWAYS_NORMAL, UnusableValue
from stockpyle.views.ordering import Incomparable, compare, is_nan, same

Coerce = Callable[[Any], Any]
"""What turns an operand into the type that the attribute holds; raises UnusableValue."""

MANY = 8
"""A list of more values is looked up in a set."""


@dataclass(frozen=True)
class Lookup:
    """One lookup. prepare turns what a caller gave into the operand, a value that nobody can change; it raises
    UnusableValue. holds(value, operand) is asked of values that are not None and raises Incomparable; of_none(operand)
    says what is true of None.

    ordered: its operands are compared with, so that a number which no value can equal is a good one.
    """

    name: str
    prepare: Callable[[Any, Coerce], Any]
    holds: Callable[[Any, Any], bool]
    of_none: Callable[[Any], bool] = lambda operand: False
    ordered: bool = False


class Choice:
    """The values of ``in``: a tuple, and a set of them where all can be in one."""

    def __init__(self, values: tuple[Any, ...]) -> None:
        self.values = values
        quick = len(values) > MANY and all(value is None or type(value) in ALWAYS_NORMAL for value in values)
        self._set = frozenset(values) if quick else None

    def __contains__(self, value: Any) -> bool:
        if self._set is not None and type(value) in ALWAYS_NORMAL:
            return value in self._set
        return any(same(value, each) for each in self.values)

    def __repr__(self) -> str:
        return repr(list(self.values))


def _one(given: Any, coerce: Coerce) -> Any:
    value = None if given is None else coerce(given)
    if is_nan(value):
        raise UnusableValue("nan equals nothing, not even itself, and cannot be asked for")
    return value


def _some(given: Any, coerce: Coerce) -> Any:
    if given is None:
        raise UnusableValue("None has no order: None is asked for by exists=False")
    return _one(given, coerce)


def _choice(given: Any, coerce: Coerce) -> Choice:
    return Choice(tuple(_one(value, coerce) for value in _several(given)))


def _several(given: Any) -> tuple[Any, ...]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise UnusableValue(f"takes several values, such as a list, not {given!r}")
    return tuple(given)


def _two(given: Any, coerce: Coerce) -> tuple[Any, Any]:
    values = _several(given)
    if len(values) != 2:
        raise UnusableValue(f"takes two values, the least and the greatest, not {given!r}")
    return _some(values[0], coerce), _some(values[1], coerce)


def _item(given: Any, coerce: Coerce) -> Any:
    if given is None or isinstance(given, list | set | dict):
        raise UnusableValue(f"takes one text or one element, not {given!r}")
    return given


def _items(given: Any, coerce: Coerce) -> tuple[Any, ...]:
    return tuple(_item(value, coerce) for value in _several(given))


def _affix(given: Any, coerce: Coerce) -> Any:
    if not isinstance(given, str | bytes):
        raise UnusableValue(f"takes a str, not {given!r}")
    return given


def _pattern(given: Any, coerce: Coerce) -> re.Pattern[Any]:
    if isinstance(given, re.Pattern):
        return given
    try:
        return re.compile(_affix(given, coerce))
    except re.error as error:
        raise UnusableValue(f"takes a regular expression, and {given!r} is none: {error}") from None


def _truth(given: Any, coerce: Coerce) -> bool:
    if not isinstance(given, bool):
        raise UnusableValue(f"takes True or False, not {given!r}")
    return given


def _part(given: Any, coerce: Coerce) -> int:
    if isinstance(given, bool) or not isinstance(given, int):
        raise UnusableValue(f"takes an int, not {given!r}")
    return int(given)


def _in_order(*signs: int) -> Callable[[Any, Any], bool]:
    return lambda value, operand: compare(value, operand) in signs


def _between(value: Any, operand: tuple[Any, Any]) -> bool:
    return compare(value, operand[0]) in (0, 1) and compare(value, operand[1]) in (-1, 0)


def _contains(value: Any, operand: Any) -> bool:
    if isinstance(value, str | bytes):
        kind: Any = str if isinstance(value, str) else bytes
        if not isinstance(operand, kind):
            raise Incomparable(f"{value!r} is a {kind.__name__} and cannot contain {operand!r}")
        return operand in value
    if isinstance(value, Collection):
        return any(same(each, operand) for each in value)
    raise Incomparable(f"{value!r} ({type(value).__name__}) contains nothing")


def _contains_any(value: Any, operand: tuple[Any, ...]) -> bool:
    return any(_contains(value, each) for each in operand)


def _text_like(value: Any, operand: Any) -> Any:
    kind = str if isinstance(operand, str) else bytes
    if not isinstance(value, kind):
        raise Incomparable(f"{value!r} is no {kind.__name__}, as {operand!r} is")
    return value


def _matches(value: Any, operand: re.Pattern[Any]) -> bool:
    return operand.search(_text_like(value, operand.pattern)) is not None


def _date_part(name: str) -> Callable[[Any, Any], bool]:
    def holds(value: Any, operand: int) -> bool:
        if not isinstance(value, date):
            raise Incomparable(f"{value!r} ({type(value).__name__}) is neither a date nor a datetime")
        return bool(getattr(_in_utc(value), name) == operand)

    return holds


def _in_utc(value: date) -> date:
    offset = value.utcoffset() if isinstance(value, datetime) else None
    if not isinstance(value, datetime) or offset is None:
        return value
    try:
        return value.astimezone(timezone.utc)
    except OverflowError:
        # it is the first or the last day there is, and has no UTC equivalent
        return value


_ALL = (
    Lookup("equals", _one, same, lambda operand: operand is None),
    Lookup("in", _choice, lambda value, operand: value in operand, lambda operand: None in operand.values),
    Lookup("gt", _some, _in_order(1), ordered=True),
    Lookup("gte", _some, _in_order(0, 1), ordered=True),
    Lookup("lt", _some, _in_order(-1), ordered=True),
    Lookup("lte", _some, _in_order(-1, 0), ordered=True),
    Lookup("between", _two, _between, ordered=True),
    Lookup("contains", _item, _contains),
    Lookup("contains_any", _items, _contains_any),
    Lookup("startswith", _affix, lambda value, operand: bool(_text_like(value, operand).startswith(operand))),
    Lookup("endswith", _affix, lambda value, operand: bool(_text_like(value, operand).endswith(operand))),
    Lookup("matches", _pattern, _matches),
    Lookup("exists", _truth, lambda value, operand: operand, lambda operand: not operand),
    Lookup("year", _part, _date_part("year")),
    Lookup("month", _part, _date_part("month")),
    Lookup("day", _part, _date_part("day")),
)
LOOKUPS: dict[str, Lookup] = {lookup.name: lookup for lookup in _ALL}
"""All lookups by their names."""
