"""The table of a SqlTableStore, and the statements on it.

A row for each key of each object. That of its identity has the bytes; those of its other keys name it as their owner.
Keys are compared byte for byte, whatever the collation of the database. A reader sees one state of all rows it asks
for, since it asks in one statement. Of two writers of one object the second waits for the first, for its row; so the
rows of its other keys, which come after, are those of the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DBAPIError

from stockpyle.exceptions import ImproperlyConfigured
from stockpyle.stores._durable import PAGE, Batch, Entry, Held, check_size

CHUNK = 5000
"""How many keys, or objects, one statement is about; drivers take some 32,000 parameters."""

TEXT = sa.String(250)
for _dialect, _collation in (("sqlite", "BINARY"), ("postgresql", "C")):
    TEXT = TEXT.with_variant(sa.String(250, collation=_collation), _dialect)
TEXT = TEXT.with_variant(mysql.VARCHAR(250, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
BYTES = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")

_NOW = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "CAST(extract(epoch FROM statement_timestamp()) AS double precision)",
    "mysql": "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6)",
}
_NOW["mariadb"] = _NOW["mysql"]

_NAMES = ("owner", "kind", "value", "expires")

MARIA = ("mysql", "mariadb")
"""What SQLAlchemy calls MariaDB."""


class BoundTable(sa.Table):
    """A table that knows the engine of its store: ``create()`` and ``drop()`` need no argument."""

    bind: sa.Engine

    def create(self, bind: Any = None, checkfirst: Any = False) -> None:
        """Make the table in the database, by default in that of the store."""
        super().create(self.bind if bind is None else bind, checkfirst)

    def drop(self, bind: Any = None, checkfirst: Any = False) -> None:
        """Remove the table from the database, by default from that of the store."""
        super().drop(self.bind if bind is None else bind, checkfirst)


def columns() -> list[sa.Column[Any]]:
    """Return the columns of such a table."""
    return [
        sa.Column("key", TEXT, primary_key=True),
        sa.Column("owner", TEXT, nullable=False, index=True),
        sa.Column("kind", TEXT, nullable=False, index=True),
        sa.Column("value", BYTES),
        sa.Column("expires", sa.Double(), index=True),
    ]


class Entries:
    """The rows of one table. Every method but find and now is to be called in a transaction."""

    def __init__(
        self, engine: sa.Engine, metadata: sa.MetaData, tablename: str, clock: Callable[[], float] | None
    ) -> None:
        self.dialect = engine.dialect.name
        if self.dialect not in _NOW:
            raise ImproperlyConfigured(
                f"SqlTableStore works on SQLite, PostgreSQL, MariaDB and MySQL, not on {self.dialect}"
            )
        self._schemas = engine.get_execution_options().get("schema_translate_map") or {}
        self.table = _table_on(metadata, tablename, engine)
        self._clock = clock
        self._time: Any = sa.literal_column(_NOW[self.dialect], sa.Double()) if clock is None else sa.bindparam("now")
        self._largest: float | None = None
        self._cure = ": max_allowed_packet is to be more than twice as many" if self.dialect in MARIA else ""
        self._prepare()

    def _prepare(self) -> None:
        """Build every statement once: SQLAlchemy keeps what it makes of them."""
        row, record = self.table.c, self.table.alias().c
        asked = row.key.in_(sa.bindparam("keys", expanding=True))
        self._read = sa.select(row.key, row.owner, row.kind, row.value).where(asked, self._alive(row))
        self._read_owners = (
            sa.select(row.key, record.key.label("owner"), record.kind, record.value)
            .join_from(self.table, record.key.table, record.key == row.owner)
            .where(asked, self._alive(record))
        )
        self._page = (
            sa.select(row.key, row.kind, row.value)
            .where(row.kind.in_(sa.bindparam("kinds", expanding=True)), row.key > sa.bindparam("last"))
            .where(row.value.is_not(None), self._alive(row))
            .order_by(row.key)
            .limit(PAGE)
        )
        owned = row.owner.in_(sa.bindparam("owners", expanding=True))
        self._delete = sa.delete(self.table).where(asked)
        self._delete_owned = sa.delete(self.table).where(owned)
        self._delete_moved = self._delete_owned.where(row.key.not_in(sa.bindparam("keys", expanding=True)))
        self.upsert = self.upserting(lambda inserted: {name: inserted[name] for name in _NAMES})
        """Puts rows, whatever is there."""

    def _alive(self, row: Any) -> sa.ColumnElement[bool]:
        return sa.or_(row.expires.is_(None), row.expires > self._time)

    def upserting(self, changes: Callable[[Any], dict[str, Any]], where: Any = None) -> Any:
        """Return the statement that inserts rows, or makes these changes to those that are there.

        changes: what is to be in the columns, from what was to be inserted. where: only if this is so of the row that
        is there; not on MariaDB.
        """
        if self.dialect in MARIA:
            insert: Any = mysql.insert(self.table)
            return insert.on_duplicate_key_update(changes(insert.inserted))
        if self.dialect == "sqlite":
            from sqlalchemy.dialects.sqlite import insert as insert_into
        else:
            from sqlalchemy.dialects.postgresql import insert as insert_into  # type: ignore[assignment]
        upsert = insert_into(self.table)
        return upsert.on_conflict_do_update(
            index_elements=[self.table.c.key], set_=changes(upsert.excluded), where=where
        )

    def _at(self, **parameters: Any) -> dict[str, Any]:
        return parameters if self._clock is None else {"now": self._clock(), **parameters}

    def now(self, connection: sa.Connection) -> float:
        """Return the database's time, in seconds since the epoch."""
        return float(connection.execute(sa.select(self._time)).scalar_one())

    # rows

    def find(self, connection: sa.Connection, texts: Sequence[str], *, identities: bool) -> dict[str, Held]:
        """Return what these keys lead to and has not expired: in one statement, for up to 5,000."""
        statement = self._read if identities else self._read_owners
        found = {}
        for chunk in chunks(texts):
            for key, own, kind, value in connection.execute(statement, self._at(keys=chunk)):
                # without a value it is one more key of an object, or its object is no more
                if value is not None:
                    found[key] = Held(own, kind, bytes(value))
        return found

    def page(self, connection: sa.Connection, kinds: Sequence[str], last: str) -> list[Held]:
        """Return the next objects of these classes after the key `last`, in the order of their keys."""
        asked = {"kinds": list(kinds), "last": last}
        return [Held(own, kind, bytes(value)) for own, kind, value in connection.execute(self._page, self._at(**asked))]

    def write(self, connection: sa.Connection, batch: Batch, store: str) -> None:
        """Remove and put objects: a few statements, however many they are."""
        for entry in batch.puts.values():
            self.check_size(connection, store, entry.keys[0], entry.value)
        self.prepare(connection)
        for chunk in chunks(sorted(batch.deletes)):
            # first those that every writer of these objects has to wait for
            connection.execute(self._delete, {"keys": chunk})
            if batch.has_others:
                connection.execute(self._delete_owned, {"owners": chunk})
        rows = sorted(_rows_of(batch.puts.values()), key=lambda row: (row["value"] is None, row["key"]))
        for chunk in chunks(rows):
            connection.execute(self.upsert, chunk)
        if batch.has_others:
            for owners in chunks(sorted(batch.puts)):
                keys = [text for own in owners for text in batch.puts[own].keys]
                connection.execute(self._delete_moved, {"owners": owners, "keys": keys})

    def prepare(self, connection: sa.Connection) -> None:
        """Make a transaction, in which nothing was done yet, one that writes: it locks no more than it has to."""
        if self.dialect in MARIA:
            # what other writers are about to add beside ours is not in the way
            connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))

    def check_size(self, connection: sa.Connection, store: str, text: str, value: bytes) -> None:
        """Raise EncodeError if the database does not take so many bytes under this text."""
        if self._largest is None:
            self._largest = _largest_of(connection)
        check_size(store, text, value, self._largest, self._cure)

    def sweep(self, connection: sa.Connection, limit: int | None) -> int:
        """Remove what has expired, at most `limit` rows, and return how many there were."""
        over = self.table.c.expires <= self._time
        statement = sa.delete(self.table).where(over)
        if limit is not None and self.dialect in MARIA:
            statement = statement.with_dialect_options(**{f"{self.dialect}_limit": limit})
        elif limit is not None:
            # rows that somebody is about to write are left alone, on PostgreSQL
            some = sa.select(self.table.c.key).where(over).limit(limit).with_for_update(skip_locked=True)
            statement = statement.where(self.table.c.key.in_(some))
        return connection.execute(statement, self._at()).rowcount

    def forget_kinds(self, connection: sa.Connection, kinds: Sequence[str]) -> None:
        """Remove all objects of these classes."""
        connection.execute(sa.delete(self.table).where(self.table.c.kind.in_(kinds)))

    def forget_all(self, connection: sa.Connection, prefix: str) -> None:
        """Remove all objects whose keys begin with this prefix."""
        key = self.table.c.key
        # a range, since LIKE does not compare byte for byte everywhere
        connection.execute(sa.delete(self.table).where(key >= f"{prefix}:", key < f"{prefix};"))

    # the table

    def check_table(self, connection: sa.Connection) -> None:
        """Raise ImproperlyConfigured if the table is not in the database, or is another one."""
        table = self.table
        schema = self._schemas.get(table.schema, table.schema)
        try:
            there = sa.inspect(connection).get_columns(table.name, schema=schema)
        except sa.exc.NoSuchTableError:
            raise ImproperlyConfigured(
                f"there is no table {table.fullname!r} in {connection.engine.url!r}: make it with store.table.create()"
            ) from None
        check_columns(table.fullname, [column["name"] for column in there], "in the database")
        if self.dialect in MARIA:
            self._check_collations(connection, schema)

    def _check_collations(self, connection: sa.Connection, schema: str | None) -> None:
        """Raise ImproperlyConfigured if the database takes keys that differ for the same."""
        asked = sa.text(
            "SELECT column_name, collation_name FROM information_schema.columns WHERE table_name = :name"
            " AND table_schema = COALESCE(:schema, DATABASE()) AND collation_name IS NOT NULL"
        )
        for column, collation in connection.execute(asked, {"name": self.table.name, "schema": schema}):
            if not collation.endswith("_bin"):
                raise ImproperlyConfigured(
                    f"{self.table.fullname}.{column} has the collation {collation}, by which different keys are the "
                    "same: make the table with store.table.create(), or give its columns ascii_bin"
                )

    def may_be_tried_again(self, error: BaseException | None) -> bool:
        """True if the database has rolled back one of two writers that waited for each other, or overlapped."""
        original = error.orig if isinstance(error, DBAPIError) else None
        if self.dialect == "postgresql":
            state = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
            return state in ("40001", "40P01")
        return self.dialect in MARIA and getattr(original, "args", (0,))[0] in (1020, 1213)


def check_columns(table: str, there: Iterable[str], where: str) -> None:
    """Raise ImproperlyConfigured if these are not the columns of such a table."""
    own, others = [column.name for column in columns()], list(there)
    lacks = [name for name in own if name not in others]
    foreign = [name for name in others if name not in own]
    if lacks or foreign:
        what = " and ".join(
            f"{verb} {', '.join(names)}" for verb, names in (("lacks", lacks), ("has also", foreign)) if names
        )
        raise ImproperlyConfigured(
            f"the table {table!r} {where} {what}: a SqlTableStore's has {', '.join(own)}; give it another tablename"
        )


def _table_on(metadata: sa.MetaData, tablename: str, engine: sa.Engine) -> sa.Table:
    full = f"{metadata.schema}.{tablename}" if metadata.schema else tablename
    existing = metadata.tables.get(full)
    if existing is not None:
        check_columns(full, existing.c.keys(), "on this MetaData")
        return existing
    table = BoundTable(tablename, metadata, *columns(), mysql_engine="InnoDB", mariadb_engine="InnoDB")
    table.bind = engine
    return table


def _rows_of(entries: Iterable[Entry]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        own = entry.keys[0]
        for key in entry.keys:
            value = entry.value if key == own else None
            yield {"key": key, "owner": own, "kind": entry.kind, "value": value, "expires": entry.deadline}


def chunks(things: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield as many of them at a time as one statement is about."""
    each = iter(things)
    while chunk := list(islice(each, CHUNK)):
        yield chunk


def _largest_of(connection: sa.Connection) -> float:
    """How many bytes a value may have."""
    dialect = connection.dialect.name
    if dialect in MARIA:
        # a statement has at most so many, and drivers write two digits for a byte
        return (float(connection.execute(sa.text("SELECT @@max_allowed_packet")).scalar_one()) - 2048) / 2
    if dialect == "postgresql":
        # a message of the protocol has less than a gigabyte, and psycopg2 writes two digits for a byte
        return 2.0**29 - 2**16 if connection.dialect.driver == "psycopg2" else 2.0**30 - 2**16
    limit = getattr(connection.connection.dbapi_connection, "getlimit", None)
    # 0 is SQLITE_LIMIT_LENGTH, and a row has to fit
    return float(limit(0) if limit else 1_000_000_000) - 2**12
