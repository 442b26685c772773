"""SqlTableStore: any keyed Python object in one table of an existing database."""

from __future__ import annotations

import logging
import random
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

from stockpyle.addresses import ConnectionString
from stockpyle.codecs import Codec
from stockpyle.exceptions import ImproperlyConfigured, MissingDependency, StockpyleError, StoreError, StoreUnavailable
from stockpyle.lifetimes import Lifetime, LifetimeCallback
from stockpyle.masking import displayed, masked
from stockpyle.parameters import parameters_of, text_of
from stockpyle.stores._connected import with_text
from stockpyle.stores._durable import PAGE, Batch, DurableStore, Held
from stockpyle.stores._sql import SqlVerbs

if TYPE_CHECKING:
    import sqlalchemy as sa

    from stockpyle.stores._sql_entries import Entries
    from stockpyle.views.collection import Entries as CollectionEntries
    from stockpyle.views.counter import Numbers

T = TypeVar("T")

ATTEMPTS = 8
"""How often a write is begun anew that the database has ended in favour of another's."""

SWEEP_AFTER = 100
"""How many objects with a lifetime are put before some that have expired are removed."""


class SqlTableStore(SqlVerbs, DurableStore):
    """Any objects with keys in one table of a database: SQLite, PostgreSQL, MariaDB or MySQL.

    bind: the Engine of the database. metadata: the MetaData on which `table` is made. tablename: what it is called
    there. The table itself is made once, by ``store.table.create()`` or ``metadata.create_all(engine)``.

    In a chain the store is the source of plain classes. Used alone it keeps instances of mapped classes, too, as rows
    of their columns. Plain objects are pickled, unless `codec` says otherwise. Lifetimes are reckoned by the database's
    clock, unless another `clock` is given: seconds since the epoch. What has expired is found no more, and removed by
    `sweep`, or bit by bit by writes. Other users of the table are told apart by `prefix` (or namespace).
    """

    schemes = ("sqltable",)
    supports = frozenset({"plain", "mapped", "shared", "expiry", "polymorphic"})
    serialises = True

    def __init__(
        self,
        bind: sa.Engine,
        metadata: sa.MetaData,
        tablename: str,
        polymorphic: bool = False,
        lifetime_cb: LifetimeCallback | None = None,
        *,
        lifetime: Lifetime = None,
        prefix: str | None = None,
        namespace: str | None = None,
        codec: Codec | None = None,
        allow_pickle: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        try:
            import sqlalchemy
        except ImportError as error:
            raise MissingDependency("SqlTableStore needs SQLAlchemy: pip install 'stockpyle[sqlalchemy]'") from error
        super().__init__(polymorphic, lifetime_cb, lifetime, prefix, namespace, codec, allow_pickle, clock)
        from stockpyle.orm.commands import SqlCommands
        from stockpyle.orm.connections import SourceConnections
        from stockpyle.stores._sql_entries import Entries

        if not isinstance(bind, sqlalchemy.Engine):
            raise ImproperlyConfigured(f"bind is a SQLAlchemy Engine, not {displayed(bind)}")
        if bind.dialect.is_async:
            raise ImproperlyConfigured(f"{bind.dialect.driver} is an async driver: give an Engine with another one")
        if not isinstance(metadata, sqlalchemy.MetaData):
            raise ImproperlyConfigured(f"metadata is a SQLAlchemy MetaData, not {displayed(metadata)}")
        if not isinstance(tablename, str) or not tablename:
            raise ImproperlyConfigured(f"tablename is the name of a table, not {displayed(tablename)}")
        self._entries: Entries = Entries(bind, metadata, tablename, clock)
        self._connections = SourceConnections(bind, self.name)
        self._commands = SqlCommands(bind, self._connections, self.name)
        self._engine = bind
        self._own_clock = clock is not None
        self._since_sweep = 0
        self._is_there = False

    @classmethod
    def from_url(cls, url: ConnectionString) -> dict[str, Any]:
        """See BaseStore.from_url: what is not the store's own is SQLAlchemy's URL, after the scheme's +."""
        own, rest = url.take(parameters_of(cls))
        if not url.inner:
            if rest.rest or "bind" not in own:
                raise url.wrong("it names no database: write sqltable+postgresql://..., for example")
            return {**own, **rest.params}
        for name in rest.params:
            near = get_close_matches(name, parameters_of(cls), 1, 0.8)
            if near:
                raise url.wrong(f"there is no parameter {name!r} (do you mean {near[0]!r}?)")
        import sqlalchemy

        from stockpyle.orm.engines import engine_for

        engine, _ = engine_for(replace(rest, scheme=url.inner).written(text_of))
        return {"bind": engine, "metadata": sqlalchemy.MetaData(), "tablename": "stockpyle", **own}

    def to_url(self, scheme: str, arguments: Mapping[str, Any]) -> ConnectionString | None:
        """See BaseStore.to_url."""
        url = ConnectionString.parse(self._engine.url.render_as_string(hide_password=False))
        return with_text(replace(url, scheme=f"{scheme}+{url.scheme}"), arguments)

    @property
    def database(self) -> str | None:
        """The name of the database, or the path of its file; None for one in memory."""
        return self._connections.engine.url.database

    @property
    def table(self) -> sa.Table:
        """The table, whose ``create()`` makes it in the database."""
        return self._entries.table

    @contextmanager
    def _reading(self) -> Iterator[tuple[sa.Connection, Callable[[], bool]]]:
        with self._drivers_errors("load"), self._connections.reading() as (connection, is_latest):
            self._look(connection)
            yield connection, is_latest

    @contextmanager
    def _drivers_errors(self, operation: str) -> Iterator[None]:
        """What a driver makes of an answer that is none is no error of DBAPI's."""
        try:
            yield
        except StockpyleError:
            raise
        except (IndexError, struct.error, ValueError, TypeError, AssertionError) as error:
            raise StoreUnavailable(f"the answer makes no sense: {error!r}", self.name, operation) from error

    def _look(self, connection: sa.Connection) -> None:
        if not self._is_there:
            self._entries.check_table(connection)
            self._is_there = True

    def _now(self) -> float:
        if self._own_clock:
            return self.clock()
        with self._reading() as (connection, _):
            return self._entries.now(connection)

    def _find(self, texts: Sequence[str], *, identities: bool) -> tuple[dict[str, Held], bool]:
        with self._reading() as (connection, is_latest):
            return self._entries.find(connection, texts, identities=identities), is_latest()

    def _list(self, kinds: Sequence[str]) -> Iterator[Held]:
        last = ""
        while True:
            # a page at a time: whoever takes long over the objects holds no connection meanwhile
            with self._reading() as (connection, _):
                page = self._entries.page(connection, kinds, last)
            yield from page
            if len(page) < PAGE:
                return
            last = page[-1].own

    @contextmanager
    def _writing(self, batch: Batch) -> Iterator[Callable[[], None]]:
        with ExitStack() as stack:
            connection, _ = self._begun(stack, lambda connection: self._entries.write(connection, batch, self.name))
            yield connection.commit
        self._sweep_some(sum(entry.deadline is not None for entry in batch.puts.values()))

    def _written(self, work: Callable[[sa.Connection], T]) -> T:
        """Commit what `work` does in a transaction, and return its answer."""
        with ExitStack() as stack:
            connection, answer = self._begun(stack, work)
            connection.commit()
        return answer

    def _begun(self, stack: ExitStack, work: Callable[[sa.Connection], T]) -> tuple[sa.Connection, T]:
        """Return a connection on which everything is written, and nothing committed, and the answer of `work`."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._drivers_errors("write"), ExitStack() as tried:
                    connection = tried.enter_context(self._connections.writing())
                    self._look(connection)
                    answer = work(connection)
                    stack.push(tried.pop_all())
                    return connection, answer
            except StoreError as error:
                if attempt == ATTEMPTS or not self._entries.may_be_tried_again(error.__cause__):
                    raise
                time.sleep(random.uniform(0, 0.01 * attempt))
        raise AssertionError("the last attempt returns or raises")

    def _failed_for_sure(self, error: Exception) -> bool:
        from stockpyle.orm.connections import commit_failed_for_sure

        return commit_failed_for_sure(error)

    # what it offers besides objects

    def _collections(self) -> CollectionEntries:
        from stockpyle.stores._sql_views import SqlCollections

        return SqlCollections(self._entries, self._reading, self._written, self.prefix, self.name)

    def _counters(self) -> Numbers:
        from stockpyle.stores._sql_views import SqlNumbers

        return SqlNumbers(self._entries, self._reading, self._written, self.prefix)

    # upkeep

    def sweep(self, limit: int | None = None) -> int:
        """Remove what has expired, at most `limit` rows, and return how many rows there were."""
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise ImproperlyConfigured(f"limit is a number of rows, not {limit!r}")
        with self._connections.writing() as connection:
            self._look(connection)
            removed = self._entries.sweep(connection, limit)
            connection.commit()
        return removed

    def _sweep_some(self, added: int) -> None:
        self._since_sweep += added
        if self._since_sweep < SWEEP_AFTER:
            return
        # more than were put, so that what has expired does not pile up
        limit, self._since_sweep = 4 * self._since_sweep, 0
        try:
            self.sweep(limit)
        except StoreError as error:
            # the put is durable, and must not look as if it had failed
            self.stats.errors += 1
            self._seldom.log(logging.WARNING, "sweep", "%s could not remove what has expired: %s", self, error)

    def _forget_kinds(self, kinds: Sequence[str]) -> None:
        with self._connections.writing() as connection:
            self._look(connection)
            self._entries.forget_kinds(connection, kinds)
            connection.commit()

    def clear(self) -> None:
        """Forget every object under this prefix. They are kept nowhere else."""
        with self._connections.writing() as connection:
            self._look(connection)
            self._entries.forget_all(connection, self.prefix)
            connection.commit()

    def release(self) -> None:
        """Give back the connection that this thread may hold."""
        self._connections.release()

    def close(self) -> None:
        """Give back all connections; the engine is the caller's, unless a connection string has made it."""
        self._connections.close()
        if self._url is not None and "bind" not in self._url.params:
            self._engine.dispose()

    def __repr__(self) -> str:
        url = masked(self._engine.url.render_as_string(hide_password=False))
        return f"SqlTableStore({url}, table={self.table.fullname!r}, prefix={self.prefix!r})"


__all__ = ["SqlTableStore"]
