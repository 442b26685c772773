"""A database, a chain on it, an extension that listens, and what the chain says compared with the database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from stockpyle.coherence.guards import Guards
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.keys import Key
from stockpyle.orm.mapping import spec_of_mapped
from stockpyle.records import LOCKED, Alias, Found, Lock, Record
from stockpyle.stores import ChainedStore, ProcessMemoryStore, SqlAlchemyStore
from tests.ext.models import Base

KeyDict = Mapping[str, Any]


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Watched(ProcessMemoryStore):
    """Process memory that notes what a writer calls, and can be told to fail."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.guards = Guards(self, clock=self.clock, courier=None)
        self.calls: list[str] = []
        self.keys: list[list[Key]] = []
        self.published: list[Record | Alias | None] = []
        self.failing: BaseException | None = None

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> list[Lock]:
        """Lock, or fail."""
        self.calls.append("lock")
        self.keys.append(list(keys))
        if self.failing is not None:
            raise self.failing
        return super().lock(keys, seconds, without_row_lock=without_row_lock)

    def publish(self, locked: Sequence[tuple[Lock, Record | Alias | None]]) -> None:
        """Publish."""
        self.calls.append("publish")
        self.published += [value for _, value in locked]
        super().publish(locked)

    def unlock(self, locks: Sequence[Lock]) -> None:
        """Unlock."""
        self.calls.append("unlock")
        super().unlock(locks)


class World:
    """Everything that a test needs to write through a session, and to read through a chain."""

    def __init__(
        self, url: str, *, bare: bool = False, on_write: str = "publish", chain: Any = None, **engine_options: Any
    ) -> None:
        self.url = url
        self.engine = sa.create_engine(url, **engine_options)
        self.outside = sa.create_engine(url, poolclass=NullPool)
        Base.metadata.create_all(self.outside)
        self.clock = Clock()
        self.memory = Watched(clock=self.clock)
        self.chain = ChainedStore(
            [self.memory, SqlAlchemyStore(engine=self.engine)], on_write=on_write, **(chain or {})
        )
        self.extension = (
            StockpyleSessionExtension(self.memory, on_write=on_write) if bare else StockpyleSessionExtension(self.chain)
        )
        self.Session = sessionmaker(self.engine, extension=self.extension)
        self.asked: list[tuple[type, KeyDict]] = []

    def close(self) -> None:
        """Give back all connections."""
        self.chain.close()
        self.engine.dispose()
        self.outside.dispose()

    def add(self, *objs: Any) -> None:
        """Write objects behind the cache's back, before it has seen anything."""
        with Session(self.outside) as session, session.begin():
            session.add_all(objs)

    def execute(self, statement: str) -> None:
        """Execute a statement behind the cache's back."""
        with self.outside.begin() as connection:
            connection.execute(sa.text(statement))

    def warm(self, klass: type, *keys: KeyDict) -> None:
        """Read keys through the chain, and remember them for `check`."""
        for key in keys:
            self.asked.append((klass, key))
            self.chain.get(klass, key)
        self.memory.calls.clear()
        self.memory.keys.clear()
        self.memory.published.clear()

    def check(self) -> None:
        """Compare what the chain says, twice, for every key ever asked with the database."""
        for _ in range(2):
            for klass, key in self.asked:
                assert self.cached(klass, key) == self.truth(klass, key), (klass.__name__, key)

    def cached(self, klass: type, key: KeyDict) -> dict[str, Any] | None:
        """Return what the chain says."""
        return _columns(self.chain.get(klass, key))

    def truth(self, klass: type, key: KeyDict) -> dict[str, Any] | None:
        """Return what the database says."""
        with Session(self.outside) as session:
            return _columns(session.scalars(sa.select(klass).filter_by(**key)).one_or_none())

    @contextmanager
    def statements(self) -> Iterator[list[str]]:
        """Collect the statements that run meanwhile on the engine."""
        executed: list[str] = []

        def note(*args: Any) -> None:
            executed.append(args[2])

        event.listen(self.engine, "before_cursor_execute", note)
        try:
            yield executed
        finally:
            event.remove(self.engine, "before_cursor_execute", note)

    def held(self, klass: type, key: KeyDict) -> Found:
        """Return what the memory holds."""
        asked = spec_of_mapped(klass).key(key)
        assert asked is not None
        return self.memory.read([asked], lease=False)[0]

    def is_locked(self, klass: type, key: KeyDict) -> bool:
        """True if a lock stands on the key."""
        return self.held(klass, key) is LOCKED

    def holds(self, klass: type, key: KeyDict) -> bool:
        """True if the memory would answer by itself."""
        return isinstance(self.held(klass, key), Record | Alias)

    @property
    def locks(self) -> list[KeyDict]:
        """Every key asked so far that is locked."""
        return [key for klass, key in self.asked if self.is_locked(klass, key)]


def _columns(obj: Any) -> dict[str, Any] | None:
    if obj is None:
        return None
    return {attribute.key: getattr(obj, attribute.key) for attribute in sa.inspect(type(obj)).column_attrs}
