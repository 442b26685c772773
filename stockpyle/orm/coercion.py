"""Key values as callers write them -> values of the type that the column's attribute holds.

The database finds row 5 for '5'; Python does not think them equal. So what is asked is turned into the column's
own type first, where that loses nothing, and refused where it cannot be one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from fractions import Fraction
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator, TypeEngine

from stockpyle.values import UnusableValue

_SURROGATE = re.compile("[\ud800-\udfff]")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,100})\Z", re.ASCII)


def coercion_for(column_type: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """Return what turns a caller's value into the type of the column, or None if any value is as good."""
    if isinstance(column_type, TypeDecorator):
        return None
    if isinstance(column_type, sa.Enum):
        return _enum(column_type.enum_class) if column_type.enum_class else _text
    if isinstance(column_type, sa.Numeric | sa.Float):
        return _decimal if column_type.asdecimal else _float
    for kind, coerce in _BY_TYPE:
        if isinstance(column_type, kind):
            return coerce
    if isinstance(column_type, sa.Uuid):
        return _uuid if column_type.as_uuid else _uuid_text
    return None


def natural_type(coerce: Callable[[Any], Any] | None) -> type | None:
    """Return the type whose values a coercion leaves as they are, and keys hold so; None if it is no one type."""
    return None if coerce is None else _NATURAL.get(coerce)


def compares_as_python_does(column_type: TypeEngine[Any]) -> bool:
    """True if every database compares values of this type exactly. Of text, only the database itself knows."""
    return isinstance(column_type, sa.Integer | sa.Uuid | sa.LargeBinary)


def type_on(column_type: TypeEngine[Any], dialect: str) -> TypeEngine[Any]:
    """Return the variant of a type for a dialect of this name; the type itself if it has none."""
    return column_type._variant_mapping.get(dialect, column_type)


def can_hold(column_type: TypeEngine[Any], dialect: str, value: Any) -> bool:
    """False if no column of this type can have the value, for which drivers and databases raise errors."""
    if isinstance(value, str):
        return not (_SURROGATE.search(value) or (dialect == "postgresql" and "\0" in value))
    own = type_on(column_type, dialect)
    if isinstance(value, int) and isinstance(own, sa.Integer):
        bits = 63 if dialect == "sqlite" or isinstance(own, sa.BigInteger) else 31
        bits = 15 if isinstance(own, sa.SmallInteger) and dialect != "sqlite" else bits
        return bool(-(2**bits) <= value < 2**bits)
    return True


def can_hold_all(column_type: TypeEngine[Any], dialect: str, values: Sequence[Any]) -> bool:
    """True if can_hold() is of each of these values; asked of all at once where they are of one type."""
    kinds = set(map(type, values))
    if kinds == {str}:
        return can_hold(column_type, dialect, "".join(values))
    if kinds == {int}:
        return can_hold(column_type, dialect, min(values)) and can_hold(column_type, dialect, max(values))
    return all(can_hold(column_type, dialect, value) for value in values)


def _refuse(value: Any, wanted: str) -> UnusableValue:
    return UnusableValue(f"takes {wanted}, not {value!r} ({type(value).__name__})")


def _integer(value: Any) -> Any:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float | Decimal | Fraction) and math.isfinite(value) and value == int(value):
        return int(value)
    if isinstance(value, str) and _INTEGER.match(value):
        return int(value)
    raise _refuse(value, "an int")


def _boolean(value: Any) -> Any:
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise _refuse(value, "a bool")


def _float(value: Any) -> Any:
    return float(_number(value))


def _decimal(value: Any) -> Any:
    number = _number(value)
    return Decimal(repr(number)) if isinstance(number, float) else Decimal(number)


def _number(value: Any) -> Any:
    if isinstance(value, int | float | Decimal):
        return value
    if isinstance(value, str):
        try:
            return Decimal(value)
        except InvalidOperation:
            pass
    raise _refuse(value, "a number")


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _refuse(value, "a str")


def _binary(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise _refuse(value, "bytes")


def _uuid(value: Any) -> Any:
    if isinstance(value, UUID):
        return value
    if isinstance(value, str):
        try:
            return UUID(value)
        except ValueError:
            pass
    raise _refuse(value, "a UUID")


def _uuid_text(value: Any) -> Any:
    return str(_uuid(value))


def _datetime(value: Any) -> Any:
    if isinstance(value, datetime):
        return value
    raise _refuse(value, "a datetime")


def _date(value: Any) -> Any:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise _refuse(value, "a date")


def _enum(enum_class: type[Enum]) -> Callable[[Any], Any]:
    equals_its_value = issubclass(enum_class, str | int)

    def coerce(value: Any) -> Any:
        if isinstance(value, enum_class):
            return value
        if equals_its_value and type(value) in (str, int) and any(value == member for member in enum_class):
            return enum_class(value)
        if isinstance(value, str) and value in enum_class.__members__:
            return enum_class[value]
        raise _refuse(value, f"a {enum_class.__name__}")

    return coerce


_BY_TYPE: list[tuple[type[TypeEngine[Any]], Callable[[Any], Any]]] = [
    (sa.Integer, _integer),
    (sa.Boolean, _boolean),
    (sa.String, _text),
    (sa.LargeBinary, _binary),
    (sa.DateTime, _datetime),
    (sa.Date, _date),
]

_NATURAL: dict[Callable[[Any], Any], type] = {_integer: int, _text: str, _binary: bytes, _boolean: bool, _uuid: UUID}
