"""Rows of mapped classes <-> bytes.

A row whose values have the types that its columns promise is msgpack without any tags, which msgspec reads typed by the
columns: nothing is guessed, and nothing of Python's runs for one value alone. Any other row (SQLite lets a str stand in
an Integer column; JSON of a TypeDecorator's own may hold Decimals) travels as packing's tagged values, which give back
the very types as well, only slower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final, TypeGuard
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator, TypeEngine

from stockpyle.exceptions import DecodeError, EncodeError
from stockpyle.keys import Key, KeySpec
from stockpyle.orm.instances import UNKNOWN, Row, row_as_is
from stockpyle.orm.mapping import MappedSpec, spec_of_mapped
from stockpyle.packing import Packer, Unpackable, fingerprint_of, is_plain, load_msgspec
from stockpyle.values import ALWAYS_NORMAL

_TYPED, _TAGGED = 0, 1
_MAX_SHAPES: Final = 1024
"""How many combinations of value types are remembered to fit the columns of one class."""


class RowCodec:
    """Rows that answer keys of one mapped class, and the values of its identity.

    A row may be of any class of the hierarchy, whatever class was asked for: an identity means one object in all.
    """

    def __init__(self, spec: KeySpec, settings: str, *, allow_pickle: bool) -> None:
        assert isinstance(spec, MappedSpec)
        self._spec = spec
        self._settings = settings
        self._allow_pickle = allow_pickle
        self._base = spec_of_mapped(spec.base.class_).translated(spec.schemas)
        columns = [self._base.columns_by_attribute[name] for name in self._base.identity.attributes]
        self._identity = Packer(_enums_of(columns), pickles=allow_pickle)
        normal = tuple(_python_type(column.type) for column in columns)
        # values of these types stand in keys as they are
        self._identity_types = normal if ALWAYS_NORMAL.issuperset(normal) else None
        types = [part for column in columns for part in (column.key, _token(column.type))]
        self.fingerprint = fingerprint_of(settings, "identity", self._base.klass.__name__, *types)
        self._learn_plans()

    def _learn_plans(self) -> None:
        hierarchy = self._base.hierarchy
        specs = hierarchy if self._spec in hierarchy else [*hierarchy, self._spec]
        plans = [_Plan(each, self._settings, allow_pickle=self._allow_pickle) for each in specs]
        self._by_spec = {plan.spec: plan for plan in plans}
        self._by_fingerprint = {plan.fingerprint: plan for plan in plans}
        self._mappers = len(self._base.mapper.self_and_descendants)

    @property
    def _is_outgrown(self) -> bool:
        return len(self._base.mapper.self_and_descendants) != self._mappers

    def encode(self, spec: MappedSpec, row: Row) -> tuple[bytes, int, bytes]:
        """Return a row's fingerprint, variant and bytes; EncodeError if one of its values has none."""
        if spec not in self._by_spec and self._is_outgrown:
            self._learn_plans()
        plan = self._by_spec.get(spec)
        if plan is None:
            raise EncodeError(
                f"a {spec.klass.__qualname__} has no place under a key of {self._spec.klass.__qualname__}"
            )
        return plan.encode(row)

    def decode(
        self, key: Key | None, fingerprint: bytes, variant: int, payload: bytes
    ) -> tuple[MappedSpec, Row] | None:
        """Return a row and the spec of its class, or None if its schema is not this program's. No key is any."""
        plan = self._by_fingerprint.get(fingerprint)
        if plan is None:
            if self._is_outgrown:
                self._learn_plans()
                plan = self._by_fingerprint.get(fingerprint)
            if plan is None:
                return None
        quick = plan.quick
        row = quick(payload) if quick is not None and variant == _TYPED else plan.decode(variant, payload)
        if key is not None and not plan.is_of(row, key):
            raise DecodeError(f"a row of {plan.spec.klass.__name__} is stored under a key that is not its own")
        return plan.spec, row

    def usual(self, spec: KeySpec) -> tuple[bytes, Callable[[bytes], Row], int] | None:
        """Return the fingerprint of the typed rows of a class, what reads them, and where its identity is in them.

        None if there is more to it than that.
        """
        plan = self._by_spec.get(spec)  # type: ignore[call-overload]
        return (
            None
            if plan is None or plan.quick is None or plan.place is None
            else (plan.fingerprint, plan.quick, plan.place)
        )

    def encode_alias(self, identity: Key) -> tuple[int, bytes]:
        """Return the values of an identity as bytes."""
        try:
            return _TAGGED, self._identity.pack(identity.values)
        except Unpackable as error:
            names = ", ".join(identity.definition.attributes)
            raise _cannot(f"{self._spec.klass.__qualname__}.{names}", error, self._allow_pickle) from error

    def decode_alias(self, variant: int, payload: bytes) -> Key | None:
        """Return the identity that encode_alias was given, or None if there is a None in it."""
        if variant != _TAGGED:
            raise DecodeError("this is no alias")
        values = self._identity.unpack(payload)
        definition = self._spec.identity
        if tuple(map(type, values)) == self._identity_types:
            return Key(self._spec, definition, tuple(values))
        return self._spec.key(dict(zip(definition.attributes, values, strict=True)))


class _Plan:
    """How the rows of one class are written and read."""

    def __init__(self, spec: MappedSpec, settings: str, *, allow_pickle: bool) -> None:
        self.spec = spec
        columns = spec.columns
        named = zip(spec.attributes, columns, strict=True)
        types = [part for name, column in named for part in (name, column.key, _token(column.type))]
        identity: Any = spec.mapper.polymorphic_identity
        identity = identity.name if isinstance(identity, Enum) else identity
        kind = repr(identity) if type(identity) in (str, int, bool, bytes) else ""
        self.fingerprint = fingerprint_of(settings, "row", spec.klass.__name__, kind, *types)
        self._allow_pickle = allow_pickle
        self._packer = Packer(_enums_of(columns), pickles=allow_pickle)
        self._types = [_python_type(column.type) for column in columns]
        self._checks = [(i, check) for i, kind in enumerate(self._types) if (check := _check_of(kind)) is not None]
        self._plain = [i for i, kind in enumerate(self._types) if kind is None]
        self._members = [(i, kind.__members__) for i, kind in enumerate(self._types) if _is_enum(kind)]
        self._shapes: set[tuple[type, ...]] = set()
        msgpack = load_msgspec()
        self._write: Callable[[Any], bytes] = msgpack.Encoder(uuid_format="bytes").encode
        self._read: Callable[[bytes], Any] = msgpack.Decoder(
            tuple[tuple(_annotation(kind) for kind in self._types)],  # type: ignore[misc]
            ext_hook=_no_extension,
        ).decode
        self.quick = None if self._plain or self._members else self._read
        """What reads typed rows of which nothing is left to check, or to turn into something else."""
        self._primary_key = [spec.attributes.index(name) for name in spec.identity.attributes]
        self.place = self._primary_key[0] if len(self._primary_key) == 1 else None

    def encode(self, row: Row) -> tuple[bytes, int, bytes]:
        shape = tuple(map(type, row))
        if shape in self._shapes or self._fits(shape):
            for i, check in self._checks:
                if row[i] is not None and not check(row[i]):
                    break
            else:
                try:
                    return self.fingerprint, _TYPED, self._write(self._named(row) if self._members else row)
                except (OverflowError, UnicodeEncodeError):
                    # an int of more than 64 bits, a str that has no UTF-8: what tags are for
                    pass
        return self.fingerprint, _TAGGED, self._tagged(row)

    def decode(self, variant: int, payload: bytes) -> Row:
        if variant == _TYPED:
            row: Row = self._read(payload)
            for i in self._plain:
                if not is_plain(row[i]):
                    raise DecodeError(f"{self._name(i)} has a value that is not stored like this")
            return row if not self._members else self._with_members(row)
        if variant != _TAGGED:
            raise DecodeError(f"{variant} is no variant of rows")
        return row_as_is(self._packer.unpack(payload), self.spec.columns)

    def is_of(self, row: Row, key: Key) -> bool:
        """True if a row belongs under a key."""
        spec = self.spec
        if key.definition is not spec.identity:
            if not key.is_identity:
                return key.spec.serves(spec, row) and spec.has(row, key)
            own = spec.key_in(row, spec.identity)
            return own is not None and own.ident == key.ident
        for i, asked in enumerate(key.values):
            own_value = row[self._primary_key[i]]
            if type(own_value) is not type(asked) or type(own_value) not in ALWAYS_NORMAL:
                return spec.has(row, key)
            if own_value != asked:
                return False
        return True

    def _fits(self, shape: tuple[type, ...]) -> bool:
        fits = all(
            each is type(None) or (each in _PLAIN if kind is None else each is kind)
            for each, kind in zip(shape, self._types, strict=True)
        )
        if fits and len(self._shapes) < _MAX_SHAPES:
            self._shapes.add(shape)
        return fits

    def _named(self, row: Row) -> list[Any]:
        named = list(row)
        for i, _ in self._members:
            if row[i] is not None:
                named[i] = row[i].name
        return named

    def _with_members(self, row: Row) -> Row:
        values = list(row)
        for i, members in self._members:
            if values[i] is not None:
                values[i] = members[values[i]]
        return tuple(values)

    def _tagged(self, row: Row) -> bytes:
        try:
            if not any(value is UNKNOWN for value in row):
                return self._packer.pack(row)
        except Unpackable:
            # which of the values it was is found out below
            pass
        for i, value in enumerate(row):
            if value is UNKNOWN:
                raise EncodeError(f"{self._name(i)} was not loaded: refresh the object before it is put")
            try:
                self._packer.pack([value])
            except Unpackable as error:
                raise _cannot(self._name(i), error, self._allow_pickle) from error
        raise AssertionError("every value can be packed alone")

    def _name(self, i: int) -> str:
        return f"{self.spec.klass.__qualname__}.{self.spec.attributes[i]}"


def _cannot(what: str, error: Unpackable, allow_pickle: bool) -> EncodeError:
    cure = (
        "; with allow_pickle=True the store pickles such values, and whoever can write to it can run code (SECURITY.md)"
    )
    return EncodeError(f"{what} cannot be turned into bytes: {error}{'' if allow_pickle else cure}")


def _no_extension(tag: int, data: memoryview) -> Any:
    raise DecodeError(f"a typed row has no extensions, such as {tag}")


def _is_datetime(value: datetime) -> bool:
    if value.tzinfo is None:
        return not value.fold
    # the first and the last days may have no date in UTC
    return 1 < value.year < 9999 and value.utcoffset() is not None


_CHECKS: dict[type, Callable[[Any], bool]] = {
    datetime: _is_datetime,
    time: lambda value: value.tzinfo is None and not value.fold,
    Decimal: lambda value: not value.is_snan(),
}


def _check_of(kind: Any) -> Callable[[Any], bool] | None:
    """What the values of a type must satisfy, besides being of it, so that msgpack gives them back."""
    if _is_enum(kind):
        members = kind.__members__
        # a combination of flags is none of them
        return lambda value: members.get(value.name) is value
    return is_plain if kind is None else _CHECKS.get(kind)


def _is_enum(kind: Any) -> TypeGuard[type[Enum]]:
    return kind is not None and issubclass(kind, Enum)


_PLAIN = frozenset({bool, int, float, str, bytes, list, dict})


def _annotation(kind: type | None) -> Any:
    if kind is None:
        return Any
    return (str if _is_enum(kind) else kind) | None


def _python_type(column_type: TypeEngine[Any]) -> type | None:
    """The type of the column's values; None if what msgpack knows by itself is all that can be said of them."""
    if isinstance(column_type, sa.Interval):
        return timedelta
    if isinstance(column_type, TypeDecorator):
        return None
    if isinstance(column_type, sa.Enum):
        return column_type.enum_class or str
    if isinstance(column_type, sa.Numeric | sa.Float):
        return Decimal if column_type.asdecimal else float
    if isinstance(column_type, sa.Uuid):
        return UUID if column_type.as_uuid else str
    for kind, python_type in _BY_TYPE:
        if isinstance(column_type, kind):
            return python_type
    return None


_BY_TYPE: list[tuple[type[TypeEngine[Any]], type]] = [
    (sa.Integer, int),
    (sa.Boolean, bool),
    (sa.String, str),
    (sa.LargeBinary, bytes),
    (sa.DateTime, datetime),
    (sa.Date, date),
    (sa.Time, time),
]

_TRAITS = ("length", "precision", "scale", "asdecimal", "timezone", "as_uuid")


def _token(column_type: Any) -> str:
    """The text of a column's type: the same in every process, and another where its values may be others."""
    # SQLAlchemy 2.1 makes a Double of what is a Float in 2.0; the values are the same
    parts = ["Float" if isinstance(column_type, sa.Float) else type(column_type).__name__]
    if isinstance(column_type, TypeDecorator) and not isinstance(column_type, sa.Interval):
        parts.append(_token(column_type.impl_instance))
    elif isinstance(column_type, sa.Enum):
        enum = column_type.enum_class
        parts += list(column_type.enums) if enum is None else [enum.__name__, *enum.__members__]
    elif isinstance(column_type, sa.ARRAY):
        parts += [_token(column_type.item_type), str(column_type.dimensions), str(column_type.as_tuple)]
    else:
        traits = [getattr(column_type, trait, None) for trait in _TRAITS]
        parts += [repr(trait) for trait in traits if type(trait) in (int, bool, type(None))]
    return repr(parts)


def _enums_of(columns: Any) -> list[type[Enum]]:
    return list(dict.fromkeys(enum for column in columns for enum in _enums_in(column.type)))


def _enums_in(column_type: Any) -> Iterator[type[Enum]]:
    if isinstance(column_type, TypeDecorator):
        yield from _enums_in(column_type.impl_instance)
    elif isinstance(column_type, sa.ARRAY):
        yield from _enums_in(column_type.item_type)
    elif isinstance(column_type, sa.Enum) and column_type.enum_class:
        yield column_type.enum_class
