"""Collections: dictionaries of named values that a store keeps, for all who name the same collection."""

from __future__ import annotations

from collections.abc import Collection as AnyCollection
from collections.abc import Iterator, KeysView, Mapping, MutableMapping
from typing import Any, Final, Protocol

from stockpyle.codecs import SignedCodec
from stockpyle.exceptions import DecodeError, ImproperlyConfigured, InvalidKeyType
from stockpyle.objects import Codec, checked_codec
from stockpyle.signing import SIGNATURE_SIZE
from stockpyle.views.names import checked_name, checked_text


class Entries(Protocol):
    """Where a store keeps the collections: named bytes in named groups. Every method is thread-safe."""

    def read(self, collection: str, name: str) -> bytes | None:
        """Return what is kept under a name."""
        ...

    def read_all(self, collection: str) -> dict[str, bytes]:
        """Return all that is kept in a collection."""
        ...

    def names(self, collection: str, prefix: str) -> list[str]:
        """Return the names that begin with `prefix`."""
        ...

    def write(self, collection: str, puts: Mapping[str, bytes], deletes: AnyCollection[str]) -> None:
        """Put the one and delete the other; what is not there is no error. All of it is in one request."""
        ...

    def drop(self, collection: str) -> None:
        """Delete the whole collection."""
        ...


_BYTES: Final = b"b"
_OBJECT: Final = b"o"


class Values:
    """The values of collections <-> bytes. bytes stay as they are; anything else is turned into some by a codec.

    What a SignedCodec signs is good for one name in one collection only.
    """

    def __init__(self, codec: Codec | None = None) -> None:
        codec = checked_codec(codec)
        self._signer = codec if isinstance(codec, SignedCodec) else None
        self._codec = codec.codec if isinstance(codec, SignedCodec) else codec

    def encode(self, collection: str, name: str, value: Any) -> bytes:
        """Return a value as bytes; EncodeError if the codec cannot."""
        data = _BYTES + value if type(value) is bytes else _OBJECT + self._codec.encode(value)
        return data if self._signer is None else data + self._signer.sign(*_signed(collection, name, data))

    def decode(self, collection: str, name: str, data: bytes) -> Any:
        """Return the value; DecodeError if the bytes are none that encode() has made for this name."""
        if self._signer is not None:
            data, signature = data[:-SIGNATURE_SIZE], data[-SIGNATURE_SIZE:]
            self._signer.verify(signature, *_signed(collection, name, data))
        kind, rest = data[:1], data[1:]
        if kind == _BYTES:
            return rest
        if kind != _OBJECT:
            raise DecodeError(
                f"what stands under {name!r} of the collection {collection!r} is no value of a collection"
            )
        return self._codec.decode(object, rest)


def _signed(collection: str, name: str, data: bytes) -> tuple[bytes, ...]:
    return b"value", collection.encode("utf-8"), name.encode("utf-8"), data


class Collection(MutableMapping[str, Any]):
    """A dictionary that a store keeps: names to values of any type. ``store.collection(name)`` makes it.

    With `autosave` what is written is in the store at once. Without it, it is here alone until save(), and is then
    written in one request; other handles of the collection see nothing before. Either way each name is written by
    itself: who writes other names loses nothing, and of several who write the same one the last one's value stays.

    A value that is read is a copy: to change one in place, assign it again. One handle is for one thread.
    """

    def __init__(self, entries: Entries, name: str, values: Values, autosave: bool = True) -> None:
        if not isinstance(autosave, bool):
            raise ImproperlyConfigured(f"autosave is True or False, not {autosave!r}")
        self.name = checked_name(name, "a collection")
        self.autosave = autosave
        self._entries = entries
        self._values = values
        self._unsaved: dict[str, bytes | None] = {}
        """What is not in the store yet; None for what is to be deleted."""

    def __getitem__(self, name: str) -> Any:
        data = self._read(name)
        if data is None:
            raise KeyError(name)
        return self._values.decode(self.name, name, data)

    def __contains__(self, name: object) -> bool:
        return self._read(name) is not None

    def _read(self, name: Any) -> bytes | None:
        name = _checked(name)
        return self._unsaved[name] if name in self._unsaved else self._entries.read(self.name, name)

    def __setitem__(self, name: str, value: Any) -> None:
        name = _checked(name)
        self._write({name: self._values.encode(self.name, name, value)})

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._write({name: None})

    def update(self, *others: Any, **values: Any) -> None:
        """Put all of a mapping, of pairs, or of keyword arguments, in one request."""
        given = dict(*others, **values)
        self._write({_checked(name): self._values.encode(self.name, name, value) for name, value in given.items()})

    def clear(self) -> None:
        """Delete all names."""
        if self.autosave:
            self.drop()
        else:
            self._write(dict.fromkeys(self))

    def _write(self, changes: Mapping[str, bytes | None]) -> None:
        self._unsaved.update(changes)
        if self.autosave:
            try:
                self.save()
            except BaseException:
                # what could not be written is not to be read, nor written with what comes next
                self._unsaved.clear()
                raise

    def save(self) -> None:
        """Write what is not in the store yet. If that fails it is kept, to be tried again."""
        if self._unsaved:
            puts = {name: data for name, data in self._unsaved.items() if data is not None}
            self._entries.write(self.name, puts, self._unsaved.keys() - puts.keys())
            self._unsaved.clear()

    def drop(self) -> None:
        """Delete the collection from the store, at once, and what was not saved."""
        self._unsaved.clear()
        self._entries.drop(self.name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def keys(self, prefix: str = "") -> KeysView[str]:
        """Return the names that there are now and that begin with `prefix`, sorted."""
        if not isinstance(prefix, str):
            raise InvalidKeyType(f"the prefix is a str, not {prefix!r} ({type(prefix).__name__})")
        names = set(self._entries.names(self.name, checked_text(prefix, "a value")))
        for name, data in self._unsaved.items():
            if name.startswith(prefix):
                (names.discard if data is None else names.add)(name)
        return dict.fromkeys(sorted(names)).keys()

    def items(self) -> Any:
        """Return the names and values that there are now, sorted by name, read in one request."""
        return self._all().items()

    def values(self) -> Any:
        """Return the values that there are now, sorted by name, read in one request."""
        return self._all().values()

    def _all(self) -> dict[str, Any]:
        found: dict[str, bytes | None] = {**self._entries.read_all(self.name), **self._unsaved}
        return {
            name: self._values.decode(self.name, name, data) for name, data in sorted(found.items()) if data is not None
        }

    def __repr__(self) -> str:
        unsaved = f", {len(self._unsaved)} not saved" if self._unsaved else ""
        return f"<Collection {self.name!r}{unsaved}>"


def _checked(name: Any) -> str:
    return checked_name(name, "a value in a collection")
