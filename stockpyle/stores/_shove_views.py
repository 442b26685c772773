"""Collections in the mapping of a ShoveStore."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager

from stockpyle.stores._kept import Kept
from stockpyle.views.places import Places

Using = Callable[[], AbstractContextManager[Kept]]


class ShoveEntries:
    """See stockpyle.views.collection.Entries: each value is an entry of its own, beside those of the objects.

    reading and writing yield the mapping to one thread at a time.
    """

    def __init__(self, prefix: str, reading: Using, writing: Using) -> None:
        self._prefix = prefix
        self._reading = reading
        self._writing = writing

    def _places(self, collection: str) -> Places:
        return Places(self._prefix, collection)

    def read(self, collection: str, name: str) -> bytes | None:
        """See Entries.read."""
        with self._reading() as kept:
            return kept.bytes_at(self._places(collection).of(name))

    def read_all(self, collection: str) -> dict[str, bytes]:
        """See Entries.read_all."""
        places = self._places(collection)
        with self._reading() as kept:
            found = {places.name(text): kept.bytes_at(text) for text in kept.texts(places.beginning(""))}
        return {str(name): data for name, data in found.items() if data is not None}

    def names(self, collection: str, prefix: str) -> list[str]:
        """See Entries.names."""
        places = self._places(collection)
        with self._reading() as kept:
            return [str(places.name(text)) for text in kept.texts(places.beginning(prefix))]

    def write(self, collection: str, puts: Mapping[str, bytes], deletes: Collection[str]) -> None:
        """See Entries.write. Others may see a part of it before the rest."""
        places = self._places(collection)
        with self._writing() as kept:
            for name, data in puts.items():
                kept[places.of(name)] = (data, None)
            for name in deletes:
                del kept[places.of(name)]

    def drop(self, collection: str) -> None:
        """See Entries.drop."""
        with self._writing() as kept:
            for text in kept.texts(self._places(collection).beginning("")):
                del kept[text]
