"""Collections and counters in the collection of a MongoStore: documents beside those of its objects.

One for each name, and one for each counter. Objects, their indexes and clear() know nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any

from stockpyle.exceptions import DecodeError, StoreError
from stockpyle.stores._durable import check_size
from stockpyle.stores._mongo_writes import ATTEMPTS, LARGEST, write_all
from stockpyle.views.counter import LEAST, MOST
from stockpyle.views.places import AFTER, Places, counter_text

Errors = Callable[[str], AbstractContextManager[None]]
"""Given an operation, raises pymongo's errors as ours."""


class MongoEntries:
    """See stockpyle.views.collection.Entries. documents: a collection of pymongo."""

    def __init__(self, documents: Any, errors: Errors, prefix: str, store: str) -> None:
        self._documents = documents
        self._errors = errors
        self._prefix = prefix
        self._store = store

    def read(self, collection: str, name: str) -> bytes | None:
        """See Entries.read."""
        with self._errors("collection"):
            found = self._documents.find_one({"_id": Places(self._prefix, collection).of(name)})
        return None if found is None else _value(found)

    def read_all(self, collection: str) -> dict[str, bytes]:
        """See Entries.read_all."""
        places = Places(self._prefix, collection)
        with self._errors("collection"):
            found = list(self._documents.find(_beginning(places, "")))
        return {str(places.name(each["_id"])): _value(each) for each in found}

    def names(self, collection: str, prefix: str) -> list[str]:
        """See Entries.names."""
        places = Places(self._prefix, collection)
        with self._errors("collection"):
            found = list(self._documents.find(_beginning(places, prefix), {"_id": 1}))
        return [str(places.name(each["_id"])) for each in found]

    def write(self, collection: str, puts: Mapping[str, bytes], deletes: Collection[str]) -> None:
        """See Entries.write. Others may see a part of it before the rest."""
        from pymongo import DeleteMany, UpdateMany

        places = Places(self._prefix, collection)
        values = {places.of(name): data for name, data in puts.items()}
        for text, data in values.items():
            check_size(self._store, text, data, LARGEST - len(text))
        operations: list[Any] = []
        if deletes:
            operations.append(DeleteMany({"_id": {"$in": [places.of(name) for name in deletes]}}))
        operations += [
            UpdateMany({"_id": text}, {"$set": {"value": data}}, upsert=True) for text, data in values.items()
        ]
        with self._errors("collection"):
            write_all(self._documents, operations)

    def drop(self, collection: str) -> None:
        """See Entries.drop."""
        with self._errors("collection"):
            self._documents.delete_many(_beginning(Places(self._prefix, collection), ""))


def _beginning(places: Places, prefix: str) -> dict[str, Any]:
    first = places.beginning(prefix)
    return {"_id": {"$gte": first, "$lt": first + AFTER}}


def _value(document: Mapping[str, Any]) -> bytes:
    value = document.get("value")
    if not isinstance(value, bytes):
        raise DecodeError(f"what stands under {document['_id']!r} is no value of a collection")
    return value


class MongoNumbers:
    """See stockpyle.views.counter.Numbers. documents: a collection of pymongo."""

    def __init__(self, documents: Any, errors: Errors, prefix: str, store: str) -> None:
        self._documents = documents
        self._errors = errors
        self._prefix = prefix
        self._store = store

    def read(self, name: str) -> int:
        """See Numbers.read."""
        with self._errors("counter"):
            found = self._documents.find_one({"_id": counter_text(self._prefix, name)})
        return 0 if found is None else _number(found)

    def add(self, name: str, by: int) -> int | None:
        """See Numbers.add: one command, unless the counter is new."""
        from pymongo.errors import DuplicateKeyError

        own = counter_text(self._prefix, name)
        least, most = max(LEAST, LEAST - by), min(MOST, MOST - by)
        fitting = {"_id": own, "number": {"$gte": least, "$lte": most}}
        with self._errors("counter"):
            for _ in range(ATTEMPTS):
                try:
                    return self._changed(fitting, {"$inc": {"number": by}}, after=True)
                except DuplicateKeyError:
                    # it is there, and has no room; or somebody else has just made it
                    found = self._documents.find_one({"_id": own})
                    if found is not None and not least <= _number(found) <= most:
                        return None
        raise StoreError(f"others make the counter {name!r} and drop it all the time", self._store, "counter")

    def swap(self, name: str, to: int) -> int:
        """See Numbers.swap."""
        own = counter_text(self._prefix, name)
        with self._errors("counter"):
            return self._changed({"_id": own}, {"$set": {"number": to}}, after=False)

    def _changed(self, which: dict[str, Any], change: dict[str, Any], *, after: bool) -> int:
        found = self._documents.find_one_and_update(which, change, upsert=True, return_document=after)
        return 0 if found is None else _number(found)


def _number(document: Mapping[str, Any]) -> int:
    number = document.get("number")
    if not isinstance(number, int):
        raise DecodeError(f"what stands under {document['_id']!r} is no counter")
    return int(number)
