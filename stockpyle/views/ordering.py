"""The order and the equality of attribute values, the same in every store.

Numbers of all types are one group, and so are texts (by code points), bytes, dates, naive datetimes, aware datetimes
(by the instant), times, timedeltas, UUIDs and the members of an Enum (as they are defined). Where values of several
groups meet in ``order_by``, the groups come in this order. NaN equals nothing, and is sorted above all numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from typing import Any, TypeVar
from uuid import UUID

T = TypeVar("T")
Rank = tuple[int, Any, Any]
"""A group, and what sorts the values in it."""

_NUMBER, _TEXT, _BYTES, _DATE, _NAIVE, _AWARE, _TIME, _DELTA, _UUID, _ENUM, _OTHER = range(11)
_NAN: Rank = (_NUMBER, 1, 0)


class Incomparable(TypeError):
    """Two values, or a value and what is asked of it, do not fit together; the message says how."""


def rank(value: Any) -> Rank:
    """Return what sorts a value, which is not None, among all others."""
    if isinstance(value, int | float | Decimal | Fraction):
        return _NAN if is_nan(value) else (_NUMBER, 0, value)
    if isinstance(value, str):
        return (_TEXT, 0, value)
    if isinstance(value, datetime):
        offset = value.utcoffset()
        if offset is None:
            return (_NAIVE, 0, value.replace(tzinfo=None))
        # as a difference, because the first and the last day have no UTC equivalent everywhere
        return (_AWARE, 0, value.replace(tzinfo=None) - datetime.min - offset)
    if isinstance(value, Enum):
        kind = type(value)
        return (
            _ENUM,
            f"{kind.__module__}.{kind.__qualname__}",
            value.value if isinstance(value, Flag) else list(kind).index(value),
        )
    for kind, group in _GROUPS:
        if isinstance(value, kind) and not (group == _TIME and value.tzinfo is not None):
            return (group, 0, value)
    return (_OTHER, 0, value)


_GROUPS: tuple[tuple[Any, int], ...] = (
    (bytes | bytearray, _BYTES),
    (date, _DATE),
    (time, _TIME),
    (timedelta, _DELTA),
    (UUID, _UUID),
)


def is_nan(value: Any) -> bool:
    """True for the floats and Decimals that are no number."""
    return value.is_nan() if isinstance(value, Decimal) else isinstance(value, float) and value != value


def same(value: Any, other: Any) -> bool:
    """True if two values are equal; None equals None alone."""
    if value is None or other is None:
        return value is other
    mine, its = rank(value), rank(other)
    if mine[0] != its[0] or (mine[0] == _NUMBER and (mine[1] or its[1])):
        return False
    return bool(mine[1:] == its[1:])


def compare(value: Any, other: Any) -> int | None:
    """Return -1, 0 or 1, as `value` is less than, equal to or greater than `other`; None if one is NaN.

    Neither is None. Raises Incomparable if they have no order.
    """
    mine, its = rank(value), rank(other)
    if mine[0] != its[0] or (mine[0] == _ENUM and mine[1] != its[1]):
        raise Incomparable(f"{_told(value)} and {_told(other)} have no order")
    if mine[0] == _NUMBER and (mine[1] or its[1]):
        return None
    try:
        return -1 if mine[2] < its[2] else 1 if its[2] < mine[2] else 0
    except TypeError:
        raise Incomparable(f"{_told(value)} and {_told(other)} have no order") from None


def _told(value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, datetime):
        kind = f"{'naive' if value.utcoffset() is None else 'aware'} {kind}"
    return f"{value!r} ({kind})"


def sort(things: list[T], columns: Sequence[tuple[Callable[[T], Any], bool]]) -> None:
    """Sort by several values, the first of which counts most, each with True for descending. None comes last in both.

    Raises Incomparable if values have no order.
    """
    for value_of, descending in reversed(columns):

        def key(thing: T, value_of: Callable[[T], Any] = value_of, descending: bool = descending) -> Any:
            value = value_of(thing)
            return (not descending, 0) if value is None else (descending, rank(value))

        try:
            things.sort(key=key, reverse=descending)
        except TypeError as error:
            raise Incomparable(str(error)) from None
