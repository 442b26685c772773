"""Records <-> the bytes that a store outside this process keeps.

The class that was asked for chooses how bytes are read, never the bytes themselves: rows of mapped classes are read as
msgpack typed by their columns, and objects of plain classes by the store's codec, which is pickle unless another was
given. What bytes can lead to is a record that has the asked-for identity, an ordinary miss (None), or a DecodeError.

The layout, in network byte order; the checksum, seeded with the kind, is over everything that follows it::

    magic (2 bytes), format (1), kind (1), CRC-32 (4), variant (1), epoch (16), fingerprint (8),
    stored at (float64), deadline (float64, infinite for none), payload, signature (32, if the store signs)

The fingerprint is that of the class's columns and of the store's settings: where it is another, the bytes are from
another version of the program, and are an ordinary miss.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final
from zlib import crc32

from stockpyle.compression import checked_threshold, deflated, inflated
from stockpyle.exceptions import DecodeError, ImproperlyConfigured, InvalidKey
from stockpyle.keys import Key, KeySpec, checked_prefix
from stockpyle.objects import Codec, ObjectCodec, PickleCodec, checked_codec
from stockpyle.packing import load_msgspec
from stockpyle.records import ABSENT, Alias, Record
from stockpyle.signing import SIGNATURE_SIZE, Signer
from stockpyle.values import ALWAYS_NORMAL

__all__ = ["Codec", "Kind", "PickleCodec", "RecordCodec", "SignedCodec"]


class Kind(IntEnum):
    """What stored bytes are. A lease and a lock have none."""

    LEASE = 0
    RECORD = 1
    LOCK = 2
    ALIAS = 3
    ABSENT = 4


class SignedCodec(Signer):
    """Signs everything that a store keeps, with HMAC-SHA256, and verifies it before anything in it is read::

        MemcacheStore(codec=SignedCodec(new_key, old_key))

    The first key signs; bytes signed by any of them are read, so that keys can be changed while processes run. A key is
    at least 16 secret random bytes; ImproperlyConfigured if not. In a store it signs rows, aliases and known absences
    as well, each for the very key it is stored under. `codec` is what turns plain objects into bytes (pickle if none).
    """

    def __init__(self, *keys: bytes, codec: Codec | None = None) -> None:
        super().__init__(*keys)
        self.codec = checked_codec(codec)

    @property
    def name(self) -> str:
        """The name of the codec within, marked as signed."""
        return f"signed {self.codec.name}"

    def encode(self, obj: Any, /) -> bytes:
        """Return the object as bytes, with a signature."""
        data = self.codec.encode(obj)
        return data + self.sign(b"object", data)

    def decode(self, klass: type, data: bytes, /) -> Any:
        """Return the object; DecodeError if the signature is by none of the keys."""
        data, signature = data[:-SIGNATURE_SIZE], data[-SIGNATURE_SIZE:]
        self.verify(signature, b"object", data)
        return self.codec.decode(klass, data)


_MAGIC: Final = b"\xf5S"
_FORMAT: Final = 1
_HEADER: Final = struct.Struct("!2sBBIB16s8sdd")
_SIZE: Final = _HEADER.size
_READ: Final = struct.Struct("!4sIB16s8s8xd")
"""What of it is read: all that begins the bytes of a record as one, and not when they were stored."""
_USUAL: Final = struct.Struct("!4xI33xd")
"""What is left to be read of one that begins as expected: the checksum and the deadline."""
_LEAD: Final = _MAGIC + bytes((_FORMAT, Kind.RECORD))
_ENDLESS: Final = math.inf
_COMPRESSED: Final = 0x80
"""In the variant of a record whose payload is compressed."""
_CHECKED_FROM: Final = 8
"""Where that begins which the checksum is over, and the signature with it."""


class RecordCodec:
    """Records, absents and aliases of one store <-> bytes.

    codec: for plain objects; a SignedCodec signs everything. allow_pickle: pickle, and unpickle, those values in rows
    of mapped classes that are of no known type. prefix: that of the store's keys; a signature is good under it only.
    compress_over: compress the records that take more bytes; none if it is None. Such bytes are read in any case.
    """

    def __init__(
        self,
        codec: Codec | None = None,
        *,
        allow_pickle: bool = False,
        prefix: str = "stockpyle",
        compress_over: int | None = None,
    ) -> None:
        if not isinstance(allow_pickle, bool):
            # a setting that was read as text would allow what it forbids
            raise ImproperlyConfigured(f"allow_pickle is True or False, not {allow_pickle!r}")
        codec = checked_codec(codec)
        self._signer = codec if isinstance(codec, SignedCodec) else None
        self._codec = codec.codec if isinstance(codec, SignedCodec) else codec
        self._allow_pickle = allow_pickle
        self._prefix = checked_prefix(prefix)
        self._settings = f"{_FORMAT} {codec.name!r} {'pickles' if allow_pickle else 'safe'}"
        self._compress_over = checked_threshold(compress_over)
        self._rooms: dict[KeySpec, Any] = {}
        # what is missing is said at once, not with the first record
        load_msgspec()

    @property
    def signs(self) -> bool:
        """True if the same value has other bytes under every key."""
        return self._signer is not None

    def encode(self, key: Key, value: Record | Alias, epoch: bytes, now: float) -> tuple[Kind, bytes]:
        """Return what is to be stored under a key: its kind, and its bytes.

        epoch is 16 bytes, now in seconds since the epoch. Raises EncodeError if a value cannot be turned into bytes,
        naming the class and what can be done.
        """
        room = self._rooms.get(key.spec) or self._room(key.spec)
        variant, payload = 0, b""
        if isinstance(value, Alias):
            kind, fingerprint = Kind.ALIAS, room.fingerprint
            variant, payload = room.encode_alias(value.identity)
        elif value.value is ABSENT:
            kind, fingerprint = Kind.ABSENT, room.fingerprint
        else:
            kind = Kind.RECORD
            fingerprint, variant, payload = room.encode(value.spec, value.value)
            if self._compress_over is not None and len(payload) > self._compress_over:
                smaller = deflated(payload)
                if smaller is not None:
                    variant, payload = variant | _COMPRESSED, smaller
        deadline = _ENDLESS if value.deadline is None else value.deadline
        head = _HEADER.pack(_MAGIC, _FORMAT, kind, 0, variant, epoch, fingerprint, now, deadline)
        checked = head[_CHECKED_FROM:] + payload
        if self._signer is not None:
            checked += self._signer.sign(*self._signed(key.text(self._prefix), kind, checked))
        return kind, head[:4] + crc32(checked, kind).to_bytes(4, "big") + checked

    def decode(self, key: Key, data: bytes, epoch: bytes) -> Record | Alias | None:
        """Return what was stored under a key; None if it is of another epoch, schema, codec or format.

        Raises DecodeError for everything that encode() has not written for this key: corrupt, truncated, foreign or
        forged bytes. A deadline that has passed is left to the caller.
        """
        return self._decode(key.spec, key, data, epoch)

    def live(self, key: Key, data: bytes, epoch: bytes, now: float) -> Record | Alias | None:
        """Return what decode() does if that lives; of everything else None."""
        try:
            found = self.decode(key, data, epoch)
        except DecodeError:
            return None
        return None if found is None or (found.deadline is not None and found.deadline <= now) else found

    def reader(self, spec: KeySpec, epoch: bytes) -> Callable[[Key, bytes, float], Record | None] | None:
        """Return what does the same as live() for rows under identities of a class, sooner, if there is such a thing.

        It is called with the key, the bytes and the time. Where it returns None, it is for decode() to say why.
        """
        room = self._rooms.get(spec) or self._room(spec)
        usual = room.usual(spec) if spec.mapped and self._signer is None else None
        if usual is None:
            return None
        fingerprint, row_of, place = usual
        expected = b"\0" + epoch + fingerprint
        unpack, identity, normal = _USUAL.unpack_from, spec.identity, ALWAYS_NORMAL

        def read(key: Key, data: bytes, now: float) -> Record | None:
            if not data.startswith(expected, _CHECKED_FROM) or not data.startswith(_LEAD) or len(data) < _SIZE:
                return None
            checksum, deadline = unpack(data)
            if not deadline > now or crc32(data[_CHECKED_FROM:], 1) != checksum:
                return None
            try:
                row = row_of(data[_SIZE:])
            except Exception:  # noqa: BLE001 - decode() says what it is
                return None
            own, asked = row[place], key.values[0]
            if (
                key.definition is not identity
                or type(own) is not type(asked)
                or type(own) not in normal
                or own != asked
            ):
                return None
            return Record(spec, row, None if deadline == _ENDLESS else deadline)

        return read

    def decode_stored(self, spec: KeySpec, text: str, data: bytes, epoch: bytes) -> Record | None:
        """Return the object of the class of `spec` that was stored under the text of its identity; see decode.

        For stores that have found it by something else, and know the text.
        """
        record = self._decode(spec, text, data, epoch)
        if not isinstance(record, Record):
            return None
        try:
            own = record.key(record.spec.identity)
        except InvalidKey as error:
            raise DecodeError(str(error)) from error
        if own is None or own.text(self._prefix) != text:
            raise DecodeError(f"this {spec.klass.__name__} is stored under an identity that is not its own")
        return record

    def _decode(self, spec: KeySpec, under: Key | str, data: bytes, epoch: bytes) -> Record | Alias | None:
        try:
            lead, checksum, variant, own_epoch, fingerprint, deadline = _READ.unpack_from(data)
        except struct.error:
            raise DecodeError(f"{len(data)} bytes are too few to be a record") from None
        kind = 1
        if lead != _LEAD:
            if lead[:2] != _MAGIC:
                raise DecodeError("these bytes were not written by stockpyle")
            if lead[2] != _FORMAT:
                return None
            kind = lead[3]
        if own_epoch != epoch:
            return None
        checked = data[_CHECKED_FROM:]
        if crc32(checked, kind) != checksum:
            raise DecodeError("the checksum is wrong: these bytes are corrupt")
        payload = data[_SIZE:]
        if self._signer is not None:
            if len(payload) < SIGNATURE_SIZE:
                raise DecodeError("these bytes are not signed")
            payload, signature = payload[:-SIGNATURE_SIZE], payload[-SIGNATURE_SIZE:]
            text = under if isinstance(under, str) else under.text(self._prefix)
            self._signer.verify(signature, *self._signed(text, kind, checked[:-SIGNATURE_SIZE]))
        if not deadline > -_ENDLESS:
            raise DecodeError(f"{deadline} is no deadline")
        try:
            room = self._rooms.get(spec) or self._room(spec)
            key = None if isinstance(under, str) else under
            if kind == 1:
                if variant & _COMPRESSED:
                    variant, payload = variant ^ _COMPRESSED, inflated(payload)
                found = room.decode(key, fingerprint, variant, payload)
                if found is None:
                    return None
                return Record(found[0], found[1], None if deadline == _ENDLESS else deadline)
            if key is None:
                raise DecodeError("what is stored is no object")
            return self._decode_other(room, key, kind, fingerprint, variant, payload, deadline)
        except DecodeError:
            raise
        except Exception as error:
            # hostile bytes may break any step, and each is one and the same miss
            raise DecodeError(f"what is stored is no {spec.klass.__name__}: {error!r}") from error

    def _decode_other(
        self, room: Any, key: Key, kind: int, fingerprint: bytes, variant: int, payload: bytes, deadline: float
    ) -> Record | Alias | None:
        if kind not in (Kind.ALIAS, Kind.ABSENT):
            raise DecodeError(f"{kind} is no kind of record")
        if fingerprint != room.fingerprint:
            return None
        ends = None if deadline == _ENDLESS else deadline
        if kind == Kind.ABSENT:
            if payload or variant:
                raise DecodeError("a known absence has no payload")
            return Record(key.spec, ABSENT, ends)
        if key.is_identity:
            raise DecodeError("an alias is stored under an identity")
        identity = room.decode_alias(variant, payload)
        if identity is None:
            raise DecodeError("an alias leads to None")
        return Alias(identity, ends)

    @staticmethod
    def _signed(text: str, kind: int, checked: bytes) -> tuple[bytes, ...]:
        return b"record", text.encode("ascii"), bytes((_FORMAT, kind)), checked

    def _room(self, spec: KeySpec) -> Any:
        if spec.mapped:
            from stockpyle.orm.packing import RowCodec

            room: Any = RowCodec(spec, self._settings, allow_pickle=self._allow_pickle)
        else:
            room = ObjectCodec(spec, self._settings, self._codec)
        return self._rooms.setdefault(spec, room)
