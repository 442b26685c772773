"""Values as msgpack that gives back exactly what was packed: equal, and of the same types.

msgpack knows None, bool, int of 64 bits, float, str, bytes, lists and maps. Everything else on a fixed list of types is
packed as a tagged extension. Nothing is ever imported or called by the name that some bytes have in them: an Enum
member is packed as its class's number in a list that both sides know, and pickle is used only where the packer was
told to.

Equal means: an aware datetime is given back as the same instant in UTC. SQLAlchemy's MutableDict, MutableList and
MutableSet are given back as dict, list and set, which its own load event turns into them again.
"""

from __future__ import annotations

import ipaddress
import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from hashlib import blake2b
from typing import Any
from uuid import UUID

from stockpyle.exceptions import DecodeError, MissingDependency

MAX_DEPTH = 100
"""How deep lists and dicts may be nested. What is deeper cannot be copied within Python's limit of recursion."""

_MAX_FRACTION = 4096
"""Longer Fractions, in bytes, are neither packed nor unpacked: to shorten one takes quadratic time."""

_ATOMS = frozenset({type(None), bool, int, float, str, bytes})
_CONTAINERS = frozenset({list, dict})


def fingerprint_of(*parts: str) -> bytes:
    """Return 8 bytes that are the same for the same texts, in every process."""
    return blake2b(repr(parts).encode("utf-8", "backslashreplace"), digest_size=8).digest()


class Unpackable(Exception):
    """A value cannot be packed; the message says why, for the caller who knows whose value it is."""


def load_msgspec() -> Any:
    """Return the module msgspec.msgpack; MissingDependency if msgspec is not installed."""
    try:
        import msgspec.msgpack
    except ImportError as error:
        raise MissingDependency("stores of bytes need msgspec: pip install 'stockpyle[memcache]'") from error
    return msgspec.msgpack


def is_plain(value: Any) -> bool:
    """True if msgpack itself gives this value back as it is (ints of more than 64 bits and odd strings excepted)."""
    if type(value) in _ATOMS:
        return True
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for each in level:
            if type(each) is list:
                inside: Iterable[Any] = each
            elif type(each) is dict:
                if each and set(map(type, each)) != {str}:
                    return False
                inside = each.values()
            else:
                return False
            kinds = set(map(type, inside))
            if not kinds <= _ATOMS:
                if not kinds <= _ATOMS | _CONTAINERS:
                    return False
                below += [one for one in inside if type(one) in _CONTAINERS]
        if not below:
            return True
        level = below
    return False


class Packer:
    """Packs sequences of values, and unpacks them as lists.

    enums are the Enum classes whose members may occur. With `pickles`, values of types that are not on the list are
    pickled, and unpickled: whoever can write the bytes can then run code.
    """

    def __init__(self, enums: Sequence[type[Enum]] = (), *, pickles: bool = False) -> None:
        msgpack = load_msgspec()
        self._ext = msgpack.Ext
        self._encode: Callable[[Any], bytes] = msgpack.Encoder(uuid_format="bytes").encode
        self._decode: Callable[[Any], Any] = msgpack.Decoder(ext_hook=self._unpack_tagged).decode
        self._enums = tuple(enums)
        self._pickles = pickles

    def pack(self, values: Sequence[Any]) -> bytes:
        """Return the values as bytes; Unpackable if one of them is of no known type, or nested too deep."""
        return self._encode([self._packed(value, MAX_DEPTH) for value in values])

    def unpack(self, data: bytes) -> list[Any]:
        """Return the values that were packed. Bytes of any other origin may raise any error."""
        values = self._decode(data)
        if type(values) is not list or not (set(map(type, values)) <= _ATOMS or all(map(_is_shallow, values))):
            raise DecodeError("these bytes are no list of values")
        return values

    def _packed(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is int:
            return value if -(2**63) <= value < 2**64 else self._tagged(_INT, _bytes_of_int(value))
        if kind is str:
            return value if _is_utf8(value) else self._tagged(_TEXT, value.encode("utf-8", "surrogatepass"))
        if kind in _ATOMS:
            return value
        if depth == 0:
            raise Unpackable(f"it is nested more than {MAX_DEPTH} deep")
        kind = _mutable_types().get(kind, kind)
        if kind is list:
            return [self._packed(each, depth - 1) for each in value]
        if kind is dict and all(type(key) is str and _is_utf8(key) for key in value):
            return {key: self._packed(each, depth - 1) for key, each in value.items()}
        if kind in _SEQUENCES:
            inside = itemised(value) if kind is dict else value
            return self._tagged(_SEQUENCES[kind], self._encode([self._packed(each, depth - 1) for each in inside]))
        if kind in _WRITERS:
            tag, write = _WRITERS[kind]
            return self._tagged(tag, write(value))
        if isinstance(value, Enum) and kind in self._enums and kind.__members__.get(value.name) is value:
            return self._tagged(_ENUM, self._encode([self._enums.index(kind), value.name]))
        if self._pickles:
            return self._tagged(_PICKLE, _pickled(value))
        raise Unpackable(f"a {kind.__module__}.{kind.__qualname__} is of no type that can be told by its bytes alone")

    def _tagged(self, tag: int, data: bytes) -> Any:
        return self._ext(tag, data)

    def _unpack_tagged(self, tag: int, data: memoryview) -> Any:
        if tag in _READERS:
            return _READERS[tag](bytes(data))
        if tag in _BUILDERS:
            inside = self._decode(data)
            if type(inside) is not list:
                raise DecodeError("these bytes are no list of values")
            return _BUILDERS[tag](inside)
        if tag == _ENUM:
            number, name = self._decode(data)
            return self._enums[number][name]
        if tag == _PICKLE and self._pickles:
            return pickle.loads(data)
        raise DecodeError(f"these bytes have an extension {tag} in them, which nothing here writes")


def itemised(value: dict[Any, Any]) -> list[Any]:
    """Return the keys and values of a dict in one list."""
    return [each for item in value.items() for each in item]


def _is_shallow(value: Any) -> bool:
    # what msgpack or a tag nests, counted without recursion
    level = [value] if type(value) in _SEQUENCES else []
    for _ in range(MAX_DEPTH):
        if not level:
            return True
        level = [
            inside
            for each in level
            for inside in (itemised(each) if type(each) is dict else each)
            if type(inside) in _SEQUENCES
        ]
    return not level


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bytes_of_int(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _pickled(value: Any) -> bytes:
    try:
        return pickle.dumps(value, protocol=5)
    except Exception as error:
        # pickling calls the methods of the user's own classes
        raise Unpackable(f"it cannot be pickled: {error}") from error


_mutables: dict[type, type] = {}


def _mutable_types() -> dict[type, type]:
    # only who has imported SQLAlchemy's mutable types can have values of them
    if not _mutables and (mutable := sys.modules.get("sqlalchemy.ext.mutable")) is not None:
        _mutables.update({mutable.MutableDict: dict, mutable.MutableList: list, mutable.MutableSet: set})
    return _mutables


def _write_datetime(value: datetime) -> bytes:
    if value.tzinfo is None:
        return f"{value.fold}{value.isoformat()}".encode()
    if value.utcoffset() is None:
        raise Unpackable(f"{value!r} has a time zone that does not say its offset")
    try:
        value = value.astimezone(timezone.utc)
    except OverflowError:
        # an instant that UTC has no date for keeps its offset
        value = value.replace(tzinfo=timezone(value.utcoffset() or timedelta()))
    return f"0{value.isoformat()}".encode()


def _read_datetime(data: bytes) -> datetime:
    return datetime.fromisoformat(data[1:].decode()).replace(fold=int(data[:1]))


def _write_time(value: time) -> bytes:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise Unpackable(f"{value!r} has a time zone that does not say its offset")
    return f"{value.fold}{value.isoformat()}".encode()


def _read_time(data: bytes) -> time:
    return time.fromisoformat(data[1:].decode()).replace(fold=int(data[:1]))


def _write_timedelta(value: timedelta) -> bytes:
    return f"{value.days} {value.seconds} {value.microseconds}".encode()


def _read_timedelta(data: bytes) -> timedelta:
    return timedelta(*map(int, data.split(b" ")))


def _write_fraction(value: Fraction) -> bytes:
    data = f"{value.numerator:x}/{value.denominator:x}".encode()
    if len(data) > _MAX_FRACTION:
        raise Unpackable("the Fraction has too many digits")
    return data


def _read_fraction(data: bytes) -> Fraction:
    if len(data) > _MAX_FRACTION:
        raise DecodeError("a Fraction has too many digits")
    return Fraction(*(int(part, 16) for part in data.split(b"/")))


def _read_dict(inside: list[Any]) -> dict[Any, Any]:
    return dict(zip(inside[::2], inside[1::2], strict=True))


def _write_text(value: Any) -> bytes:
    return str(value).encode()


def _reader_of_text(kind: Callable[[str], Any]) -> Callable[[bytes], Any]:
    return lambda data: kind(data.decode())


# These numbers are in stored bytes: none may change its meaning.
_INT, _TEXT, _ENUM, _PICKLE = 1, 2, 3, 4
_SEQUENCES: dict[type, int] = {list: 15, tuple: 16, set: 17, frozenset: 18, dict: 19}
_BUILDERS: dict[int, Callable[[list[Any]], Any]] = {16: tuple, 17: set, 18: frozenset, 19: _read_dict}
_ADDRESSES: tuple[Any, ...] = (
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
)
_WRITERS: dict[type, tuple[int, Callable[[Any], bytes]]] = {
    Decimal: (32, _write_text),
    datetime: (33, _write_datetime),
    date: (34, _write_text),
    time: (35, _write_time),
    timedelta: (36, _write_timedelta),
    UUID: (37, lambda value: value.bytes),
    bytearray: (38, bytes),
    Fraction: (39, _write_fraction),
    **{kind: (48 + i, _write_text) for i, kind in enumerate(_ADDRESSES)},
}
_READERS: dict[int, Callable[[bytes], Any]] = {
    _INT: lambda data: int.from_bytes(data, "big", signed=True),
    _TEXT: lambda data: data.decode("utf-8", "surrogatepass"),
    32: _reader_of_text(Decimal),
    33: _read_datetime,
    34: _reader_of_text(date.fromisoformat),
    35: _read_time,
    36: _read_timedelta,
    37: lambda data: UUID(bytes=data),
    38: bytearray,
    39: _read_fraction,
    **{48 + i: _reader_of_text(kind) for i, kind in enumerate(_ADDRESSES)},
}
