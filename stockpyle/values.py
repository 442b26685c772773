"""Key values: which are allowed, when two are the same, and how they are written down.

Two values are the same exactly when Python's ``==`` and ``hash`` say so (1, 1.0 and True are; 123 and "123"
are not), so that a dict, a remote tier and another process agree. What has no such equality is refused.
Aware datetimes are the one departure: they are compared as UTC instants.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from typing import Any
from urllib.parse import quote
from uuid import UUID

ALWAYS_NORMAL: frozenset[type] = frozenset({int, str, bytes, bool, UUID, date, timedelta, Fraction})
"""Types whose values are keys as they are."""

_EXPONENT_LIMIT = 1000
"""Decimals beyond 10 ** +-this are refused: as exact integers they would fill the memory."""

_DECIMAL_DIGITS_LIMIT = 512
"""Integers of more bits are written in hexadecimal, which takes linear time and knows no digit limit."""


class UnusableValue(ValueError):
    """The value cannot be part of a key; the message says why, for the caller who knows the attribute's name."""


def normalise(value: Any) -> Any:
    """Return `value` as it stands in keys: equal results, and only they, are the same key value."""
    normal = _NORMALISERS.get(type(value))
    if normal is not None:
        return normal(value)
    if isinstance(value, Enum):
        return _normal_enum(value)
    raise UnusableValue(
        f"a {type(value).__module__}.{type(value).__qualname__} cannot be a key value; these can: "
        "int, str, bytes, UUID, Enum, bool, float, Decimal, Fraction, date, datetime, time, timedelta"
    )


def write(value: Any) -> str:
    """Return the text of a normalised value, another for every other: ASCII without blanks or any of ``: , = #``.

    Raises UnusableValue for a member of an Enum defined inside a function, whose name does not identify it.
    """
    writer = _WRITERS.get(type(value))
    return _write_enum(value) if writer is None else writer(value)


def write_name(name: str) -> str:
    """Return a class's, table's or attribute's name, escaped in the same way."""
    return quote(name, safe=".", errors="surrogatepass")


def _as_is(value: Any) -> Any:
    return value


def _normal_float(value: float) -> float:
    if math.isnan(value):
        raise UnusableValue("nan equals nothing, not even itself, and cannot be a key value")
    return value


def _normal_decimal(value: Decimal) -> Decimal:
    if value.is_nan():
        raise UnusableValue("NaN equals nothing, not even itself, and cannot be a key value")
    if value.is_finite() and value and abs(value.adjusted()) > _EXPONENT_LIMIT:
        raise UnusableValue(f"the exponent of {value!r} is too large for a key value")
    if value.is_finite() and len(value.as_tuple().digits) > _EXPONENT_LIMIT:
        raise UnusableValue("a Decimal of so many digits is too long for a key value")
    return value


def _normal_datetime(value: datetime) -> datetime:
    if value.tzinfo is None or value.utcoffset() is None:
        return value.replace(tzinfo=None, fold=0)
    try:
        return value.astimezone(timezone.utc)
    except OverflowError:
        raise UnusableValue(f"{value!r} has no UTC equivalent and cannot be a key value") from None


def _normal_time(value: time) -> time:
    if value.tzinfo is not None:
        raise UnusableValue("a time with a time zone cannot be a key value: give a naive time or a datetime")
    return value.replace(fold=0)


def _normal_enum(value: Enum) -> Any:
    equality: Any = type(value).__eq__, type(value).__hash__
    if equality == (object.__eq__, Enum.__hash__):
        return value
    # an Enum that is also an int or a str equals, and hashes like, that int or str
    if isinstance(value, int) and equality == (int.__eq__, int.__hash__):
        return int.__add__(value, 0)
    if isinstance(value, str) and equality == (str.__eq__, str.__hash__):
        return str.__str__(value)
    raise UnusableValue(f"{type(value).__qualname__} defines an equality of its own and cannot be a key value")


_NORMALISERS: dict[type, Callable[[Any], Any]] = {
    **dict.fromkeys(ALWAYS_NORMAL, _as_is),
    float: _normal_float,
    Decimal: _normal_decimal,
    datetime: _normal_datetime,
    time: _normal_time,
}


def _write_integer(value: int) -> str:
    return hex(value) if value.bit_length() > _DECIMAL_DIGITS_LIMIT else str(int(value))


def _write_number(value: float | Decimal | Fraction) -> str:
    # numbers of different types may be equal, so all of them are written as exact ratios
    if value in (math.inf, -math.inf):
        return "inf" if value > 0 else "-inf"
    numerator, denominator = value.as_integer_ratio()
    text = _write_integer(numerator)
    return text if denominator == 1 else f"{text}/{_write_integer(denominator)}"


_SAFE = "@+*!$()/?[]{}~^|<>"
_ALL_SAFE = re.compile(rf"[A-Za-z0-9_.\-{re.escape(_SAFE)}]*\Z")


def _quoted(tag: str, text: str) -> str:
    if _ALL_SAFE.match(text):
        return f"{tag}'{text}'"
    return f"{tag}'{quote(text, safe=_SAFE, errors='surrogatepass')}'"


def _write_enum(value: Enum) -> str:
    if "<locals>" in type(value).__qualname__:
        raise UnusableValue(f"{type(value).__qualname__} is defined inside a function and means nothing elsewhere")
    name = value.value if isinstance(value, Flag) else value.name
    return _quoted("enum", f"{type(value).__module__}.{type(value).__qualname__}.{name}")


_WRITERS: dict[type, Callable[[Any], str]] = {
    int: _write_integer,
    bool: _write_integer,
    float: _write_number,
    Decimal: _write_number,
    Fraction: _write_number,
    str: lambda value: _quoted("", value),
    bytes: lambda value: f"bytes'{value.hex()}'",
    UUID: lambda value: f"uuid'{value.hex}'",
    datetime: lambda value: _quoted("datetime", value.isoformat()),
    date: lambda value: f"date'{value.isoformat()}'",
    time: lambda value: _quoted("time", value.isoformat()),
    timedelta: lambda value: f"timedelta'{value.days}d{value.seconds}s{value.microseconds}'",
}
