"""What is demonstrated: a database, a chain of stores in front of it, and two kinds of Session."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from models import KEYS, Base, everything
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker

import stockpyle.ext.sqlalchemy
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension
from stockpyle.stores import ChainedStore, MemcacheStore, ProcessMemoryStore, SqlAlchemyStore

Row = tuple[Any, ...]


LIFETIME = 600
"""Seconds that what the demonstration leaves in a memcached may stay there."""


class Mismatch(Exception):
    """Something handed out is not what the database has."""


class Stack:
    """The database file, the chain, and the sessions that write to it.

    memcache: the servers of a layer between memory and database, "host:port" with commas between them, if there is to
    be one; prefix: what all of its keys begin with.
    """

    def __init__(self, folder: Path, memcache: str = "", prefix: str = "") -> None:
        self.file = folder / "iso.db"
        self.engine = sa.create_engine(f"sqlite:///{self.file}")
        self.layers: dict[str, Any] = {"memory": ProcessMemoryStore()}
        if memcache:
            servers = [server.strip() for server in memcache.split(",")]
            self.layers["memcached"] = MemcacheStore(servers=servers, prefix=prefix, lifetime=LIFETIME)
        source = SqlAlchemyStore(engine=self.engine)
        self.chain = ChainedStore([*self.layers.values(), source])
        # what other processes have committed is seen at once by who does not look into a memory of his own first
        self.without_memory = ChainedStore([*list(self.layers.values())[1:], source])
        self.bare_session = sessionmaker(self.engine)
        self.session = stockpyle.ext.sqlalchemy.sessionmaker(
            self.engine, extension=StockpyleSessionExtension(store=self.chain)
        )
        self.statements = 0
        self.checks = 0
        event.listen(self.engine, "before_cursor_execute", self._count)

    def _count(self, *_: Any) -> None:
        self.statements += 1

    def fill_database(self) -> dict[type[Any], int]:
        """Make the tables and write all rows; return how many of each class."""
        Base.metadata.create_all(self.engine)
        with self.bare_session() as session:
            session.add_all(everything())
            session.commit()
            return {klass: session.scalar(sa.select(sa.func.count()).select_from(klass)) or 0 for klass in KEYS}

    def close(self) -> None:
        self.chain.close()
        self.engine.dispose()

    # reading, with stockpyle and without it

    def read(self, klass: type[Any], keys: list[dict[str, Any]]) -> list[Any]:
        return [self.chain.get(klass, keys[0])] if len(keys) == 1 else self.chain.batch_get(klass, keys)

    def hits(self) -> dict[str, int]:
        """How many reads each layer above the database has answered so far."""
        return {name: layer.stats.hits for name, layer in self.layers.items()}

    def bare_read(self, klass: type[Any], keys: list[dict[str, Any]]) -> list[Any]:
        if len(keys) > 1:
            return self._bare_batch(klass, keys)
        with self.bare_session() as session:
            return [bare_get(session, klass, keys[0])]

    def _bare_batch(self, klass: type[Any], keys: list[dict[str, Any]]) -> list[Any]:
        names = tuple(keys[0])
        columns = [getattr(klass, name) for name in names]
        values = [tuple(key.values()) for key in keys]
        one = len(columns) == 1
        criterion = columns[0].in_([value for (value,) in values]) if one else sa.tuple_(*columns).in_(values)
        with self.bare_session() as session:
            found = {values_of(obj, names): obj for obj in session.scalars(sa.select(klass).where(criterion))}
        return [found.get(value) for value in values]

    # what is true, asked of SQLite itself

    def rows(self, klass: type[Any]) -> list[Row]:
        """Read a whole table with the sqlite3 of the standard library, past SQLAlchemy and past the cache."""
        with closing(sqlite3.connect(self.file)) as connection:
            names = ", ".join(f'"{name}"' for name in columns_of(klass))
            return connection.execute(f"SELECT {names} FROM {klass.__tablename__}").fetchall()

    def check(self, what: str, found: Iterable[Any], expected: Iterable[Row | None]) -> None:
        """Compare objects with rows of the database; raise Mismatch at the first that differs."""
        self.check_rows(what, map(row_of, found), expected)

    def check_rows(self, what: str, found: Iterable[Row | None], expected: Iterable[Row | None]) -> None:
        """The same for objects that are rows already."""
        for own, row in zip(found, expected, strict=True):
            self.checks += 1
            if own != row:
                raise Mismatch(f"{what}: got {own}, but the database has {row}")


def bare_get(session: Session, klass: type[Any], key: dict[str, Any]) -> Any:
    """Read one object the way one does without a cache."""
    if tuple(key) == KEYS[klass][0]:
        return session.get(klass, next(iter(key.values())))
    return session.scalars(sa.select(klass).filter_by(**key)).one_or_none()


def columns_of(klass: type[Any]) -> tuple[str, ...]:
    return tuple(klass.__table__.columns.keys())


def values_of(obj: Any, names: Iterable[str]) -> Row:
    return tuple([getattr(obj, name) for name in names])


def row_of(obj: Any) -> Row | None:
    """Return what an object has in the columns of its table."""
    return None if obj is None else values_of(obj, columns_of(type(obj)))


def key_of(klass: type[Any], row: Row, names: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the key of this name that a row has, or None if a part of it is NULL."""
    values = dict(zip(columns_of(klass), row, strict=True))
    key = {name: values[name] for name in names}
    return None if None in key.values() else key
