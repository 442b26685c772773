"""A hit in a memory that validates against a hit in the shared tier below it, for rows and objects of about 20 kB.

    python -m benchmarks.validate [--rounds 101] [--calls 20] [--pinned]

Each round measures all variants one after the other, so that what the machine does besides is in all of them; shown is
the median round of each, in microseconds a call of ``chain.get``. --pinned keeps the program and the servers on one
core: else it is up to the system, and a wake-up of another core is in every round trip.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from decimal import Decimal
from statistics import median
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column

from stockpyle.stores import (
    BaseDictionaryStore,
    ChainedStore,
    MemcacheStore,
    ProcessMemoryStore,
    RedisStore,
    SqlAlchemyStore,
)
from tests.servers import Memcached, Redis

SIZE = 20_000
WHEN = datetime(2026, 1, 2, 3, 4, 5)
PROSE = "Der Käufer zahlt den Preis, wenn die Ware über die Grenze geführt wird; für Schäden haftet er nicht. "


class Base(DeclarativeBase):
    """What the mapped classes are declared on."""


class Text(Base):
    """One long text of ASCII: what is the least work to read."""

    __tablename__ = "texts"
    __stockpyle_keys__: ClassVar = ["id"]
    id = mapped_column(sa.Integer, primary_key=True)
    title = mapped_column(sa.String)
    body = mapped_column(sa.Text)


class Article(Base):
    """One long text with umlauts, and a few columns beside it."""

    __tablename__ = "articles"
    __stockpyle_keys__: ClassVar = ["id"]
    id = mapped_column(sa.Integer, primary_key=True)
    title = mapped_column(sa.String)
    written = mapped_column(sa.DateTime)
    price = mapped_column(sa.Numeric(10, 2))
    body = mapped_column(sa.Text)


class Wide(Base):
    """60 texts, 60 dates and 60 amounts."""

    __tablename__ = "wide"
    __stockpyle_keys__: ClassVar = ["id"]
    id = mapped_column(sa.Integer, primary_key=True)
    for i in range(60):
        locals()[f"text_{i}"] = mapped_column(sa.Text)
        locals()[f"date_{i}"] = mapped_column(sa.DateTime)
        locals()[f"amount_{i}"] = mapped_column(sa.Numeric(12, 2))


class Document(Base):
    """A JSON document, of which each reader gets a copy of its own."""

    __tablename__ = "documents"
    __stockpyle_keys__: ClassVar = ["id"]
    id = mapped_column(sa.Integer, primary_key=True)
    data = mapped_column(sa.JSON)


class Basket:
    """A plain object, of which all readers in a process get the same."""

    __stockpyle_keys__: ClassVar = ["id"]

    def __init__(self, id: int) -> None:
        self.id = id
        self.lines = [{"name": f"article {i}", "price": i * 1.5, "tags": ["a", "b"]} for i in range(400)]


CLASSES = [Text, Article, Wide, Document, Basket]


def fill(engine: sa.Engine, plain: BaseDictionaryStore) -> None:
    """Put one object of each class where it comes from."""
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add(Text(id=1, title="a title", body="x" * SIZE))
        session.add(Article(id=1, title="ein Titel", written=WHEN, price=Decimal("9.95"), body=(PROSE * 300)[:19_000]))
        wide = {f"text_{i}": "y" * 280 for i in range(60)}
        dates = {f"date_{i}": WHEN for i in range(60)}
        amounts = {f"amount_{i}": Decimal("12.50") for i in range(60)}
        session.add(Wide(id=1, **wide, **dates, **amounts))
        session.add(Document(id=1, data=Basket(1).lines))
    plain.put(Basket(1))


def measure(calls: dict[str, Callable[[], Any]], rounds: int, number: int) -> dict[str, float]:
    """Return the median of each in microseconds a call."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(number):
                call()
            taken[name].append((time.perf_counter() - begin) / number * 1e6)
    return {name: median(each) for name, each in taken.items()}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--pinned", action="store_true")
    given = parser.parse_args()
    if given.pinned:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with ExitStack() as stack:
        memcached, redis = stack.enter_context(Memcached()), stack.enter_context(Redis())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        engine = sa.create_engine(f"sqlite:///{folder}/rows.db")
        plain = BaseDictionaryStore()
        fill(engine, plain)

        def chain(*above: Any) -> ChainedStore:
            return ChainedStore([*above, plain, SqlAlchemyStore(engine=engine)])

        def on_memcached() -> MemcacheStore:
            return MemcacheStore(servers=[memcached.address])

        def on_redis() -> RedisStore:
            return RedisStore(redis.url)

        chains = {
            "memory": chain(ProcessMemoryStore()),
            "memcached": chain(on_memcached()),
            "validated": chain(ProcessMemoryStore(validate=True), on_memcached()),
            "Redis": chain(on_redis()),
            "validated ": chain(ProcessMemoryStore(validate=True), on_redis()),
        }
        print(f"{'us a hit':10}", *(f"{name.strip():>10}" for name in chains), "  memcached      Redis")
        for klass in CLASSES:
            calls = {name: (lambda each=each, klass=klass: each.get(klass, {"id": 1})) for name, each in chains.items()}
            for name, call in calls.items():
                for _ in range(3):
                    call()
                assert chains[name].stores[0].stats.hits, f"{name} is no hit for a {klass.__name__}"
                chains[name].stores[0].stats.reset()
            found = measure(calls, given.rounds, given.calls)
            ratios = found["memcached"] / found["validated"], found["Redis"] / found["validated "]
            print(
                f"{klass.__name__:10}",
                *(f"{each:10.1f}" for each in found.values()),
                *(f"{each:10.2f}x" for each in ratios),
            )


if __name__ == "__main__":
    main()
