"""A process with a cache that fails in some way, over a database that does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from stockpyle.coherence.courier import Courier
from stockpyle.coherence.guards import Guards
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.orm.mapping import spec_of_mapped
from stockpyle.records import Record
from stockpyle.stores import ChainedStore, SqlAlchemyStore
from stockpyle.testing import Clock
from tests.ext.models import Base, User
from tests.remote.caches import Cache
from tests.remote.parts import Meddler, new_prefix

TIMEOUT = 0.5


def garbage(answer: bytes) -> Iterable[bytes]:
    """Say what no cache would."""
    yield b"HTTP/1.1 400 Bad Request\r\n\r\n"


def half(answer: bytes) -> Iterable[bytes]:
    """Say half of it, and go."""
    yield answer[: len(answer) // 2]


def nothing(answer: bytes) -> Iterable[bytes]:
    """Go without a word."""
    yield b""


class NoCourier(Courier):
    """A courier who comes by when a test says so."""

    def call(self, debtor: Any) -> None:
        self.debtors.add(debtor)


class Place:
    """One process's chain, through a meddler, over a database with one user; and another that reaches the cache."""

    def __init__(self, folder: Path, cache: Cache, between: Meddler | None = None, **options: Any) -> None:
        self.between = between
        self.engine = sa.create_engine(f"sqlite:///{folder}/test.db")
        Base.metadata.create_all(self.engine)
        with Session(self.engine) as session, session.begin():
            session.add(User(id=1, email="ann@x", name="old"))
        self.clock = Clock()
        prefix = new_prefix()
        at = None if between is None else between.address
        self.tier = cache.store(prefix, at=at, timeout=TIMEOUT)
        self.tier.guards = Guards(self.tier, clock=self.clock, courier=NoCourier())
        self.chain = ChainedStore([self.tier, SqlAlchemyStore(engine=self.engine)], **options)
        self.Session = sessionmaker(self.engine, extension=StockpyleSessionExtension(store=self.chain))
        self.others = cache.store(prefix)
        assert self.name == "old"
        assert self.others_see == "old"

    @property
    def name(self) -> str:
        """What the chain says that the user is called."""
        user = self.chain.get(User, {"id": 1})
        assert user is not None
        return user.name

    @property
    def others_see(self) -> Any:
        """What other processes find in the cache."""
        key = spec_of_mapped(User).key({"id": 1})
        assert key is not None
        (found,) = self.others.read([key], lease=False)
        return found.value[list(key.spec.attributes).index("name")] if isinstance(found, Record) else found

    def rename(self, name: str) -> None:
        """Write through a session."""
        with self.Session() as session:
            session.get_one(User, 1).name = name
            session.commit()

    def recover(self) -> None:
        """The cache answers again, and the courier finds that out."""
        if self.between is not None:
            self.between.meddle = None
        self.clock.advance(1)
        assert self.tier.guards.parts[0].settle()


FAILURES: dict[str, Callable[[Meddler], Callable[[bytes], Iterable[bytes]]]] = {
    "hangs": lambda between: between.silent,
    "answers garbage": lambda between: garbage,
    "closes in mid-reply": lambda between: half,
    "closes without a word": lambda between: nothing,
}
