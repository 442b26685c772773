"""What the extension costs a commit: rows changed by a Session, with it and without.

Each transaction selects the rows, changes a number in each, and commits. All of them are cached before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks.bench import Bench
from benchmarks.contestants import Role, Timed
from benchmarks.databases import engine_for
from benchmarks.measurements import Measurement
from benchmarks.shapes import Shape, create, shape

SIZES = (1, 10, 1000)


def committer(makes: Callable[[], Session], drawn: Shape, attribute: str) -> Callable[[Sequence[int]], int]:
    """Return what changes rows, and commits, in a Session of its own each time; it returns how many."""
    klass = drawn.mapped()
    column = getattr(klass, drawn.names[0])
    statement = sa.select(klass).where(column.in_(sa.bindparam("keys", expanding=True)))
    numbers = count(10**7)

    def work(picks: Sequence[int]) -> int:
        with makes() as session:
            changed = session.scalars(statement, {"keys": picks}).all()
            for each in changed:
                setattr(each, attribute, next(numbers))
            session.commit()
            return len(changed)

    return work


def bare(drawn: Shape, url: str, picks: Sequence[Any], attribute: str) -> list[Timed]:
    """Return a bare Session, to be run where stockpyle is not."""
    engine = engine_for(url)
    names = {"work": committer(lambda: Session(engine), drawn, attribute)}
    return [Timed("bare Session", Role.LIMIT, "work(pick)", names, list(picks), right=is_all)]


def is_all(changed: int, picks: Sequence[int]) -> bool:
    return changed == len(picks)


def measurements(bench: Bench) -> Iterator[Measurement]:
    from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
    from stockpyle.stores import ChainedStore, MemcacheStore, ProcessMemoryStore, SqlAlchemyStore

    rows = bench.sized(2000, 1000, 20)
    drawn = shape(bench.seed, "commits")
    # an alternate key or a part of one is not what is changed most
    drawn = Shape(drawn.name, (*drawn.columns, ("changed_number", int)), drawn.seed)
    keys = drawn.identity
    for system, url in bench.databases().items():
        create(url, drawn, rows)
        dice = bench.dice(f"commits {system}")
        for size in SIZES:
            number = min(size, rows)
            rounds = 11 if size < 1000 else bench.sized(7, 3, 1)
            picks = [dice.sample(range(1, rows + 1), number) for _ in range(10)]
            with ExitStack() as stack:
                found: list[Any] = []
                for tier in ("memory", "memcached"):
                    store: Any = ProcessMemoryStore()
                    if tier == "memcached":
                        store = MemcacheStore(servers=[bench.memcached().address], prefix=f"commits-{system}-{size}")
                    engine = engine_for(url)
                    stack.callback(engine.dispose)
                    chain = ChainedStore([store, SqlAlchemyStore(engine=engine)])
                    chain.batch_get(drawn.mapped(), [{keys.names[0]: n} for n in range(1, rows + 1)])
                    makes = sessionmaker(engine, extension=StockpyleSessionExtension(store=chain))
                    names = {"work": committer(makes, drawn, "changed_number")}
                    found.append(Timed(f"extension, {tier}", Role.OURS, "work(pick)", names, picks, right=is_all))
                others = bench.elsewhere(stack, bare, drawn, url, picks, "changed_number")
                for own in found:
                    yield Measurement(
                        f"{system}: commit of {size:,}, {own.name}", [own, *others], note=__doc__ or "", rounds=rounds
                    )
