"""MongoStore: objects in a collection of MongoDB."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

from stockpyle.addresses import ConnectionString
from stockpyle.codecs import Codec
from stockpyle.exceptions import (
    ImproperlyConfigured,
    MissingDependency,
    StockpyleError,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
)
from stockpyle.lifetimes import Lifetime, LifetimeCallback
from stockpyle.masking import masked
from stockpyle.parameters import parameters_of, text_of
from stockpyle.stores._durable import Batch, DurableStore, Entry, Held, check_size
from stockpyle.stores._mongo_views import MongoEntries, MongoNumbers
from stockpyle.stores._mongo_writes import LARGEST, write_all
from stockpyle.views.collection import Entries
from stockpyle.views.counter import Numbers

_FIELDS: dict[str, Any] = {
    "_id": str,
    "keys": list,
    "kind": str,
    "value": bytes,
    "expires": (datetime, type(None)),
    "written": datetime,
}

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LAST = datetime.max.replace(tzinfo=timezone.utc)


class MongoStore(DurableStore):
    """Any objects with keys in a collection of MongoDB.

    db: a Database of pymongo, already authenticated; its timeouts and write concern are used. collection: a name.

    An object is one document: its identity's key as ``_id``, all its keys in ``keys``, the object in ``value``; so no
    key leads to where its object is no more. In a chain the store is the source of plain classes; used alone it
    keeps instances of mapped classes, too. Plain objects are pickled, unless `codec` says otherwise. What has expired
    is found no more, and MongoDB removes it. Other users of the collection are told apart by `prefix` (or namespace).
    """

    schemes = ("mongodb",)
    supports = frozenset({"plain", "mapped", "shared", "expiry", "polymorphic"})

    @classmethod
    def from_url(cls, url: ConnectionString) -> dict[str, Any]:
        """See BaseStore.from_url: "mongodb://host/database?collection=name"; the rest is pymongo's."""
        own, rest = url.take(parameters_of(cls))
        if "db" in own:
            return {**own, **rest.params}
        try:
            import pymongo
            from pymongo.errors import ConfigurationError, InvalidURI
            from pymongo.uri_parser import parse_uri
        except ImportError as error:
            raise MissingDependency("MongoStore needs pymongo: pip install 'stockpyle[mongo]'") from error
        name = rest.path.strip("/")
        if not name or "/" in name:
            raise url.wrong("it names no database: write mongodb://host/database?collection=name")
        try:
            uri = rest.written(text_of)
            if url.scheme == "mongodb":
                # the client itself only warns of an unknown option; of another scheme it asks a name server
                parse_uri(uri, warn=False)
            client: Any = pymongo.MongoClient(uri, connect=False)
            return {"db": client[name], "collection": "stockpyle", **own}
        except (ConfigurationError, InvalidURI, ValueError, TypeError) as error:
            raise url.wrong(masked(str(error))) from None

    def close(self) -> None:
        """End the store, and the client with it if the store was made by a connection string."""
        super().close()
        if self._url is not None and "db" not in self._url.params:
            self._db.client.close()

    def __init__(
        self,
        db: Any,
        collection: str,
        polymorphic: bool = False,
        lifetime_cb: LifetimeCallback | None = None,
        *,
        lifetime: Lifetime = None,
        prefix: str | None = None,
        namespace: str | None = None,
        codec: Codec | None = None,
        allow_pickle: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            import pymongo
        except ImportError as error:
            raise MissingDependency("MongoStore needs pymongo: pip install 'stockpyle[mongo]'") from error
        super().__init__(polymorphic, lifetime_cb, lifetime, prefix, namespace, codec, allow_pickle, clock)
        if not callable(getattr(db, "get_collection", None)) or not hasattr(db, "client"):
            raise ImproperlyConfigured(
                f"db is a Database of pymongo, such as MongoClient(uri)['app'], not {type(db).__name__}"
            )
        if type(db).__name__.startswith("Async"):
            raise ImproperlyConfigured("db is of pymongo's asynchronous client: give one of MongoClient")
        if not isinstance(collection, str) or not collection:
            raise ImproperlyConfigured(f"collection is a name, not {collection!r}")
        self._pymongo = pymongo
        self._db = db
        self.documents: Any = db.get_collection(collection)
        """The collection of pymongo in which everything is kept."""
        self._is_indexed = False

    def _find(self, texts: Sequence[str], *, identities: bool) -> tuple[dict[str, Held], bool]:
        wanted: dict[str, Any] = {"_id" if identities else "keys": {"$in": list(texts)}}
        found: dict[str, tuple[Any, Held]] = {}
        with self._errors("get"):
            self._index()
            for document, held in self._alive(wanted):
                keys, written = document["keys"], document["written"]
                for text in keys:
                    # of two writers that gave one key to two objects at the same moment, the last
                    if text not in found or found[text][0] < written:
                        found[text] = written, held
        # a read may have gone to a secondary, which is behind
        return {text: found[text][1] for text in texts if text in found}, self._reads_primary

    def _alive(self, wanted: dict[str, Any]) -> Iterator[tuple[Any, Held]]:
        """Yield the documents that have not expired, and what they hold."""
        unexpired = [{"expires": None}, {"expires": {"$gt": _date(self.clock())}}]
        for document in self.documents.find({**wanted, "$or": unexpired}):
            own = document.get("_id")
            if all(isinstance(document.get(name), kind) for name, kind in _FIELDS.items()):
                yield document, Held(own, document["kind"], document["value"])
            else:
                self._spoilt_document(own)

    def _spoilt_document(self, own: object) -> None:
        self.stats.corrupt += 1
        self._seldom.log(logging.WARNING, "", "%s: the document %r lacks fields, or has others", self, own)

    def _list(self, kinds: Sequence[str]) -> Iterator[Held]:
        with self._errors("scan"):
            yield from (held for _, held in self._alive({"kind": {"$in": list(kinds)}}))

    @property
    def _reads_primary(self) -> bool:
        return getattr(self.documents.read_preference, "mode", 0) == 0

    @contextmanager
    def _writing(self, batch: Batch) -> Iterator[Callable[[], None]]:
        for entry in batch.puts.values():
            check_size(self.name, entry.keys[0], entry.value, LARGEST)
        yield lambda: self._write(batch)

    # what it offers besides objects

    def _collections(self) -> Entries:
        return MongoEntries(self.documents, self._errors, self.prefix, self.name)

    def _counters(self) -> Numbers:
        return MongoNumbers(self.documents, self._errors, self.prefix, self.name)

    def _write(self, batch: Batch) -> None:
        operations: list[Any] = []
        if batch.deletes:
            operations.append(self._pymongo.DeleteMany({"_id": {"$in": list(batch.deletes)}}))
        taken = [text for entry in batch.puts.values() for text in entry.keys[1:]]
        if self.polymorphic:
            # what was the key of an object of the base is that of none of its subclasses any more
            taken += batch.deletes
        if taken:
            # before the new owners have them, so that no key is found twice
            others = {"keys": {"$in": taken}, "_id": {"$nin": list(batch.puts)}}
            operations.append(self._pymongo.UpdateMany(others, {"$pull": {"keys": {"$in": taken}}}))
        written = _date(time.time())
        operations += [
            self._pymongo.UpdateMany({"_id": own}, {"$set": _fields(entry, written)}, upsert=True)
            for own, entry in batch.puts.items()
        ]
        with self._errors("write"):
            self._index()
            write_all(self.documents, operations)

    def _index(self) -> None:
        if not self._is_indexed:
            self.documents.create_index("keys")
            self.documents.create_index("kind")
            if self.clock is time.time:
                # by the server's clock; what another clock says is over is only not found
                self.documents.create_index("expires", expireAfterSeconds=0)
            self._is_indexed = True

    def _forget_kinds(self, kinds: Sequence[str]) -> None:
        with self._errors("invalidate"):
            self.documents.delete_many({"kind": {"$in": list(kinds)}})

    def clear(self) -> None:
        """Forget every object under this prefix. They are kept nowhere else."""
        with self._errors("clear"):
            self.documents.delete_many({"_id": {"$gte": f"{self.prefix}:", "$lt": f"{self.prefix};"}})

    @contextmanager
    def _errors(self, operation: str) -> Iterator[None]:
        from bson import errors as bson_errors

        errors = self._pymongo.errors
        try:
            yield
        except (errors.ExecutionTimeout, errors.NetworkTimeout, errors.WTimeoutError) as error:
            raise StoreTimeout(str(error), self.name, operation) from error
        except (errors.ConnectionFailure, errors.ProtocolError) as error:
            raise StoreUnavailable(str(error), self.name, operation) from error
        except errors.PyMongoError as error:
            raise StoreError(str(error), self.name, operation) from error
        except StockpyleError:
            raise
        except (bson_errors.InvalidBSON, LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
            # what pymongo makes of an answer that lacks what it looks for
            raise StoreUnavailable(f"the answer makes no sense: {error!r}", self.name, operation) from error

    @property
    def database(self) -> str | None:
        """The name of the database."""
        return str(self._db.name)

    def ping(self) -> bool:
        """Return True if MongoDB answers; StoreUnavailable, or StoreTimeout, if not, by its client's timeouts."""
        with self._errors("ping"):
            self._db.command("ping")
        return True

    def __repr__(self) -> str:
        return f"MongoStore({self.documents.full_name!r}, prefix={self.prefix!r})"


def _fields(entry: Entry, written: datetime) -> dict[str, Any]:
    """All fields of a document but its _id."""
    expires = None if entry.deadline is None else _date(entry.deadline)
    keys = list(entry.keys)
    return {"keys": keys, "kind": entry.kind, "value": entry.value, "expires": expires, "written": written}


def _date(seconds: float) -> datetime:
    """A time as MongoDB keeps it, to the millisecond; the last there is, for what is later."""
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return _LAST


__all__ = ["MongoStore"]
