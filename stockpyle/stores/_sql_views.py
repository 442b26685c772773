"""Collections and counters in the table of a SqlTableStore, beside its objects.

A row for each name of a collection, which the collection's text owns, and a row for each counter, whose value is its
number in digits. Rows of objects, their sweep, and clear() know nothing of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from stockpyle.exceptions import DecodeError
from stockpyle.stores._sql_entries import MARIA, Entries, chunks
from stockpyle.views.counter import LEAST, MOST
from stockpyle.views.places import AFTER, Places, counter_text

T = TypeVar("T")

KEY = 250
"""How many characters a key of the table has at most."""

OUT_OF_RANGE = 1690
"""MariaDB's number of the error that a sum has more than 64 bits."""

_LENGTH = struct.Struct("!I")


Reading = Callable[[], AbstractContextManager[tuple[sa.Connection, Callable[[], bool]]]]
"""Yields a connection to read by, and what tells if that is the latest state."""


class Writing(Protocol):
    """How a store writes."""

    def __call__(self, work: Callable[[sa.Connection], T], /) -> T:
        """Commit what `work` does in a transaction, begun anew if others' is in its way, and return its answer."""
        ...


class SqlCollections:
    """See stockpyle.views.collection.Entries."""

    def __init__(self, entries: Entries, reading: Reading, writing: Writing, prefix: str, store: str) -> None:
        self._entries = entries
        self._reading = reading
        self._writing = writing
        self._prefix = prefix
        self._store = store
        row = entries.table.c
        mine = row.owner == sa.bindparam("whole")
        is_long = sa.and_(row.key >= sa.bindparam("long"), row.key < sa.bindparam("after_long"))
        begins = sa.and_(row.key >= sa.bindparam("first"), row.key < sa.bindparam("last"))
        self._read = sa.select(row.value).where(row.key == sa.bindparam("key"))
        self._read_all = sa.select(row.key, row.value).where(mine)
        # what is too long for a key stands in the value
        long_value = sa.case((is_long, row.value), else_=None)
        self._names = sa.select(row.key, long_value).where(mine, sa.or_(begins, is_long))
        self._delete = sa.delete(entries.table).where(row.key.in_(sa.bindparam("keys", expanding=True)))
        self._drop = sa.delete(entries.table).where(mine)

    def _places(self, collection: str) -> Places:
        return Places(self._prefix, collection, KEY)

    def read(self, collection: str, name: str) -> bytes | None:
        """See Entries.read."""
        places = self._places(collection)
        text = places.of(name)
        with self._reading() as (connection, _):
            value = connection.execute(self._read, {"key": text}).scalar_one_or_none()
        return None if value is None else _opened(places, text, bytes(value))[1]

    def read_all(self, collection: str) -> dict[str, bytes]:
        """See Entries.read_all."""
        places = self._places(collection)
        with self._reading() as (connection, _):
            found = connection.execute(self._read_all, {"whole": places.whole}).all()
        return dict(_opened(places, text, bytes(value)) for text, value in found)

    def names(self, collection: str, prefix: str) -> list[str]:
        """See Entries.names."""
        places = self._places(collection)
        first = places.beginning(prefix)
        asked = {"first": first, "last": first + AFTER, "long": places.long, "after_long": places.long + AFTER}
        with self._reading() as (connection, _):
            found = connection.execute(self._names, {"whole": places.whole, **asked}).all()
        names = [places.name(text) or _opened(places, text, bytes(value))[0] for text, value in found]
        return [name for name in names if name.startswith(prefix)]

    def write(self, collection: str, puts: Mapping[str, bytes], deletes: Collection[str]) -> None:
        """See Entries.write. Others see all of it at once."""
        places = self._places(collection)
        values = {places.of(name): _closed(places, name, data) for name, data in puts.items()}
        # in one order, so that two writers do not wait for each other
        rows = [
            {"key": text, "owner": places.whole, "kind": self._kind, "value": value, "expires": None}
            for text, value in sorted(values.items())
        ]
        gone = sorted(places.of(name) for name in deletes)

        def work(connection: sa.Connection) -> None:
            for text, value in values.items():
                self._entries.check_size(connection, self._store, text, value)
            self._entries.prepare(connection)
            for some in chunks(gone):
                connection.execute(self._delete, {"keys": some})
            for chunk in chunks(rows):
                connection.execute(self._entries.upsert, chunk)

        self._writing(work)

    @property
    def _kind(self) -> str:
        return f"{self._prefix};collection"

    def drop(self, collection: str) -> None:
        """See Entries.drop."""
        whole = self._places(collection).whole
        self._writing(lambda connection: connection.execute(self._drop, {"whole": whole}))


def _closed(places: Places, name: str, data: bytes) -> bytes:
    if places.name(places.of(name)) is not None:
        return data
    written = name.encode("utf-8")
    return _LENGTH.pack(len(written)) + written + data


def _opened(places: Places, text: str, value: bytes) -> tuple[str, bytes]:
    name = places.name(text)
    if name is not None:
        return name, value
    end = _LENGTH.size + int.from_bytes(value[: _LENGTH.size], "big")
    name = value[_LENGTH.size : end].decode("utf-8", "replace")
    if places.of(name) != text:
        raise DecodeError(f"what stands under {text!r} is no value of a collection")
    return name, value[end:]


class SqlNumbers:
    """See stockpyle.views.counter.Numbers."""

    def __init__(self, entries: Entries, reading: Reading, writing: Writing, prefix: str) -> None:
        self._entries = entries
        self._reading = reading
        self._writing = writing
        self._prefix = prefix
        value = entries.table.c.value
        self._number = _number(entries.dialect, value)
        is_asked = entries.table.c.key == sa.bindparam("asked")
        self._read = sa.select(self._number).where(is_asked)
        by = sa.cast(sa.bindparam("by", type_=sa.BigInteger()), sa.BigInteger())
        least, most = (sa.cast(sa.bindparam(name), sa.BigInteger()) for name in ("least", "most"))
        fits = self._number.between(least, most)
        changed = {"value": _digits(entries.dialect, self._number + by)}
        # where a sum of more than 64 bits is an error, there is no need to ask before
        self._add = entries.upserting(lambda _: changed, None if entries.dialect in MARIA else fits)
        self._set = sa.update(entries.table).where(is_asked).values(value=sa.bindparam("to"))

    def read(self, name: str) -> int:
        """See Numbers.read."""
        with self._reading() as (connection, _):
            found = connection.execute(self._read, {"asked": counter_text(self._prefix, name)}).scalar_one_or_none()
        return int(found or 0)

    def add(self, name: str, by: int) -> int | None:
        """See Numbers.add: one statement, where the database tells what it has written."""
        return self._writing(lambda connection: self._added(connection, name, by))

    def _added(self, connection: sa.Connection, name: str, by: int) -> int | None:
        text = counter_text(self._prefix, name)
        row = {"key": text, "owner": text, "kind": f"{self._prefix};counter", "value": b"%d" % by, "expires": None}
        asked: dict[str, Any] = {**row, "by": by}
        if self._entries.dialect not in MARIA:
            asked |= {"least": max(LEAST, LEAST - by), "most": min(MOST, MOST - by)}
        self._entries.prepare(connection)
        tells = connection.dialect.insert_returning
        try:
            done = connection.execute(self._add.returning(self._number) if tells else self._add, asked)
        except DBAPIError as error:
            if getattr(error.orig, "args", (0,))[0] == OUT_OF_RANGE:
                return None
            raise
        if tells:
            new = done.scalar_one_or_none()
        elif self._entries.dialect == "sqlite" and done.rowcount == 0:
            new = None
        else:
            # it is the transaction's own until the commit
            new = connection.execute(self._read, {"asked": text}).scalar_one()
        return None if new is None else int(new)

    def swap(self, name: str, to: int) -> int:
        """See Numbers.swap."""

        def work(connection: sa.Connection) -> int:
            # nobody else changes it from here on
            old = self._added(connection, name, 0)
            connection.execute(self._set, {"asked": counter_text(self._prefix, name), "to": b"%d" % to})
            assert old is not None, "adding nothing leaves no range"
            return old

        return self._writing(work)


def _number(dialect: str, value: sa.ColumnElement[bytes]) -> sa.ColumnElement[int]:
    """Bytes of digits as a number."""
    if dialect == "sqlite":
        return sa.cast(sa.cast(value, sa.Text()), sa.BigInteger())
    if dialect == "postgresql":
        return sa.cast(sa.func.convert_from(value, "UTF8"), sa.BigInteger())
    return sa.cast(value, sa.BigInteger())


def _digits(dialect: str, number: sa.ColumnElement[int]) -> sa.ColumnElement[bytes]:
    """A number as bytes of digits."""
    if dialect == "postgresql":
        return sa.func.convert_to(sa.cast(number, sa.Text()), "UTF8", type_=sa.LargeBinary())
    return sa.cast(sa.cast(number, sa.Text()), sa.LargeBinary())
