"""Objects of plain classes <-> bytes, by pickle or by a codec of the user's own."""

from __future__ import annotations

import pickle
from typing import Any, Protocol, runtime_checkable

from stockpyle.classes import spec_of
from stockpyle.exceptions import DecodeError, EncodeError, ImproperlyConfigured
from stockpyle.keys import Key, KeySpec
from stockpyle.packing import Packer, Unpackable, fingerprint_of


@runtime_checkable
class Codec(Protocol):
    """Objects of plain classes <-> bytes.

    A codec with another `name` writes other bytes: what is stored under another name is not read. Whatever encode()
    and decode() raise is an EncodeError or a DecodeError of the store.
    """

    @property
    def name(self) -> str:
        """What distinguishes the codec, and each version of it that reads other bytes."""
        ...

    def encode(self, obj: Any, /) -> bytes:
        """Return the object as bytes."""
        ...

    def decode(self, klass: type, data: bytes, /) -> Any:
        """Return the object, which is one of `klass`."""
        ...


class PickleCodec:
    """Plain objects as pickles. Whoever can write to the store can run code in every process that reads from it."""

    name = "pickle"

    def encode(self, obj: Any, /) -> bytes:
        """Return the object's pickle."""
        return pickle.dumps(obj, protocol=5)

    def decode(self, klass: type, data: bytes, /) -> Any:
        """Return what was pickled."""
        return pickle.loads(data)


def checked_codec(codec: Codec | None) -> Codec:
    """Return the codec, PickleCodec for None; ImproperlyConfigured if it is none."""
    if codec is None:
        return PickleCodec()
    if isinstance(codec, type) or not isinstance(codec, Codec) or not isinstance(codec.name, str):
        raise ImproperlyConfigured(
            f"codec is an object with a name, encode(obj) and decode(klass, data), such as PickleCodec(), not {codec!r}"
        )
    return codec


_SAFE, _BY_CODEC = 0, 1
"""Variants of aliases: values that packing knows, and others."""


class ObjectCodec:
    """Objects of one plain class, its subclasses included, and the values of its identity."""

    def __init__(self, spec: KeySpec, settings: str, codec: Codec) -> None:
        self._spec = spec
        self._codec = codec
        self._packer = Packer()
        self.fingerprint = fingerprint_of(settings, "object", spec.klass.__name__, *spec.identity.attributes)

    def encode(self, spec: KeySpec, obj: Any) -> tuple[bytes, int, bytes]:
        """Return an object's fingerprint, variant and bytes; EncodeError if it has none."""
        return self.fingerprint, 0, self._encoded(obj)

    def decode(self, key: Key | None, fingerprint: bytes, variant: int, payload: bytes) -> tuple[KeySpec, Any] | None:
        """Return an object and the spec of its class; None if it was written with other settings. No key is any."""
        if fingerprint != self.fingerprint:
            return None
        klass = self._spec.klass
        obj = self._codec.decode(klass, payload)
        if variant or not isinstance(obj, klass):
            raise DecodeError(f"a {type(obj).__name__} is stored where a {klass.__name__} is expected")
        if key is not None and not self._spec.has(obj, key):
            raise DecodeError(f"this {klass.__name__} is stored under a key that is not its own")
        return (self._spec if type(obj) is klass else spec_of(type(obj))), obj

    def encode_alias(self, identity: Key) -> tuple[int, bytes]:
        """Return the values of an identity as bytes."""
        try:
            return _SAFE, self._packer.pack(identity.values)
        except Unpackable:
            return _BY_CODEC, self._encoded(identity.values)

    def decode_alias(self, variant: int, payload: bytes) -> Key | None:
        """Return the identity that encode_alias was given, or None if there is a None in it."""
        if variant == _SAFE:
            values: Any = self._packer.unpack(payload)
        else:
            values = self._codec.decode(tuple, payload)
            if variant != _BY_CODEC or type(values) is not tuple:
                raise DecodeError("this is no alias")
        return self._spec.key(dict(zip(self._spec.identity.attributes, values, strict=True)))

    def _encoded(self, value: Any) -> bytes:
        name = self._spec.klass.__qualname__
        try:
            data = self._codec.encode(value)
        except Exception as error:
            # encoding calls the methods of the user's own classes
            raise EncodeError(
                f"the codec {self._codec.name!r} cannot encode this {name}: {error}; leave out of it what cannot be "
                "stored (__getstate__), or give the store a codec of your own"
            ) from error
        if type(data) is not bytes:
            raise EncodeError(
                f"the codec {self._codec.name!r} returned a {type(data).__name__} for a {name}, not bytes"
            )
        return data
