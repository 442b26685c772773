"""Processes with a chain of their own, which do as a test tells them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stockpyle.coherence.writer import Writer
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.orm.mapping import spec_of_mapped
from stockpyle.records import Record
from stockpyle.stores import ChainedStore, ProcessMemoryStore, RedisStore, SqlAlchemyStore

PATIENCE = 60.0
"""Seconds after which a test gives up, on a machine with much else to do."""


class Base(DeclarativeBase):
    """The declarative base."""


class Item(Base):
    """What all processes read and write."""

    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]


def furnish(url: str, number: int = 2) -> None:
    """Make the table, with so many items that are called "old"."""
    engine = sa.create_engine(url)
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add_all(Item(id=i, code=f"code {i}", name="old") for i in range(1, number + 1))
    engine.dispose()


class Setting:
    """What a process needs to know. redis: URL of the shared tier, and of a backplane over Redis."""

    def __init__(self, url: str, redis: str, backplane: str, **options: Any) -> None:
        self.url, self.redis, self.backplane, self.options = url, redis, backplane, options

    def chain(self, *, memory: bool = True) -> ChainedStore:
        """Make the chain."""
        source = SqlAlchemyStore(engine=sa.create_engine(self.url))
        shared = [RedisStore(self.redis)]
        stores = [*([ProcessMemoryStore()] if memory else []), *shared, source]
        over: dict[str, Callable[[], Any]] = {
            "postgresql": lambda: source,
            "redis": lambda: shared[0],
            "pub/sub of Redis": lambda: shared[0].pubsub(),
        }
        return ChainedStore(stores, backplane=over[self.backplane](), **self.options)


class Served:
    """The process's side."""

    def __init__(self, setting: Setting) -> None:
        self.chain = setting.chain()
        engine = self.chain.stores[-1].engine
        self.Session = sessionmaker(engine, extension=StockpyleSessionExtension(self.chain))

    def get(self, i: int) -> str | None:
        """What the chain says that an item is called."""
        item = self.chain.get(Item, {"id": i})
        return item and item.name

    def held(self, i: int, tier: int = 0) -> str | None:
        """What process memory, or a tier below it, holds."""
        asked = spec_of_mapped(Item).key({"id": i})
        assert asked is not None
        (found,) = self.chain.stores[tier].read([asked], lease=False)
        return found.spec.materialise(found.value).name if isinstance(found, Record) else None

    def write(self, i: int, name: str) -> None:
        """Rename an item through a session."""
        with self.Session() as session, session.begin():
            session.get_one(Item, i).name = name

    def put(self, i: int, name: str) -> None:
        """Rename an item through the chain."""
        self.chain.put(Item(id=i, code=f"code {i}", name=name))

    def invalidate(self) -> None:
        """Drop all items."""
        self.chain.invalidate(Item)

    def stats(self) -> dict[str, int]:
        """What the backplane has done."""
        stats: Any = self.chain.backplane and self.chain.backplane.stats
        return {name: getattr(stats, name) for name in stats.__slots__}

    def die(self, how: str, i: int, name: str) -> None:
        """Rename an item, and be killed as soon as the database has committed it."""

        def die(*args: Any, **options: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        Writer.publish = die  # type: ignore[method-assign]
        getattr(self, how)(i, name)


def serve(setting: Setting, pipe: Any) -> None:
    """Do what is asked for, until the test ends."""
    served = Served(setting)
    pipe.send(None)
    while True:
        try:
            what, args = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((getattr(served, what)(*args), None))
        except Exception as error:  # noqa: BLE001 - the test raises it
            pipe.send((None, repr(error)))


class Peer:
    """The test's side."""

    def __init__(self, setting: Setting) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(setting, other), daemon=True)
        self.process.start()
        other.close()

    def ready(self) -> Peer:
        """Wait until the chain is made."""
        assert self._pipe.poll(PATIENCE)
        self._pipe.recv()
        return self

    def ask(self, what: str, *args: Any) -> Any:
        """Have it do something, and return what it says."""
        self._pipe.send((what, args))
        assert self._pipe.poll(PATIENCE), f"no answer to {what}"
        answer, error = self._pipe.recv()
        assert error is None, error
        return answer

    def dies(self, *args: Any) -> None:
        """Have it die."""
        self._pipe.send(("die", args))
        self.process.join(PATIENCE)
        assert self.process.exitcode == -signal.SIGKILL

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self.process.join(PATIENCE)


def until(happened: Callable[[], bool]) -> None:
    """Wait until something has happened."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)
