"""A chain of a counted cache and a real database."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.orm.mapping import spec_of_mapped
from stockpyle.stores import ChainedStore, ProcessMemoryStore, SqlAlchemyStore
from tests.ext.models import Base, Employee, User
from tests.remote.caches import Cache
from tests.remote.parts import CountingSockets


class World:
    """A chain of a cache and SQLite, with 600 users; the sockets to the cache are counted.

    Above it may be a memory that validates. The last user and the only employee have been read.
    """

    def __init__(self, cache: Cache, engine: sa.Engine, *, validate: bool = False) -> None:
        self.sockets = CountingSockets()
        self.counted = self.sockets.counted
        self.store = cache.counted(self.sockets)
        self.memory = ProcessMemoryStore(validate=True)
        above: list[Any] = [self.memory] if validate else []
        self.chain = ChainedStore([*above, self.store, SqlAlchemyStore(engine=engine)])
        self.others = ChainedStore([cache.store(self.store.prefix), SqlAlchemyStore(engine=engine)])
        """Another process's, uncounted."""
        self.Session = sessionmaker(engine, extension=StockpyleSessionExtension(self.chain))
        self.engine = engine
        self.address = cache.address
        Base.metadata.create_all(engine)
        with Session(engine) as session, session.begin():
            session.add_all([User(id=i, email=f"{i}@x", name="old") for i in range(600)])
            session.add(Employee(id=1, ssn=1, desk=1))
        # connected, by as many connections as one thread needs, and both epochs made
        for _ in range(3 if validate else 1):
            self.chain.get(User, {"id": 599})
        self.chain.get(Employee, {"id": 1})
        self.memory.stats.reset()

    def text(self, user: int) -> str:
        """The key of a user."""
        wanted = spec_of_mapped(User).key({"id": user})
        assert wanted is not None
        return wanted.text(self.store.prefix)
