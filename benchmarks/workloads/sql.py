"""SqlAlchemyStore, the source: one row and a thousand, on SQLite and PostgreSQL, by composite keys too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from benchmarks.bench import Bench
from benchmarks.contestants import Role, Timed
from benchmarks.databases import engine_for
from benchmarks.measurements import Goal, Measurement
from benchmarks.peers.sql import by_sql
from benchmarks.shapes import create, shape
from stockpyle.stores import SqlAlchemyStore

ONE = [Goal(3.3, "driver", note="25 us where that takes 7.6"), Goal(0.34, "Session.get")]
MANY = [Goal(2.35, "driver", note="4 us each where that takes 1.7"), Goal(0.87, "ORM IN")]
COMPOSITE = [Goal(8.0, note="composite keys")]


def measurements(bench: Bench) -> Iterator[Measurement]:
    count = bench.sized(5000, 2000, 60)
    size = bench.sized(1000, 1000, 20)
    for system, url in bench.databases().items():
        for composite in (False, True):
            if composite and system == "SQLite":
                goals: tuple[list[Goal], list[Goal]] = ([], [])
            elif composite:
                goals = ([], COMPOSITE)
            elif system == "SQLite":
                goals = (ONE, MANY)
            else:
                goals = ([], [])
            yield from _of(bench, system, url, count, size, composite, goals)


def _of(
    bench: Bench, system: str, url: str, count: int, size: int, composite: bool, goals: tuple[list[Goal], list[Goal]]
) -> Iterator[Measurement]:
    drawn = shape(bench.seed, f"sql {system} {composite}", composite=composite)
    klass, keys = drawn.mapped(), drawn.identity
    create(url, drawn, count)
    store = SqlAlchemyStore(engine=engine_for(url))
    dice = bench.dice(f"sql {system}")
    ids = drawn.picks(keys, range(1, count + 1))
    ones = dice.sample(ids, 50)
    batches = [dice.sample(ids, size) for _ in range(5)]
    mappings = ", ".join(f'"{name}": {variable}' for name, variable in zip(keys.names, "ab", strict=False))
    names = {"store": store, keys.klass: klass}
    by = ", composite key" if composite else ""
    one = f"store.get({keys.klass}, {keys.mapping})"
    many = f"store.batch_get({keys.klass}, [{{{mappings}}} for {keys.target} in pick])"
    with ExitStack() as stack:
        ours = Timed("stockpyle", Role.OURS, one, names, ones, keys.target, drawn.is_row(keys))
        peers: Any = bench.elsewhere(stack, by_sql, drawn, url, ones)
        yield Measurement(f"{system}: get of one row{by}", [ours, *peers], goals[0])
    with ExitStack() as stack:
        ours = Timed("stockpyle", Role.OURS, many, names, batches, "pick", drawn.are_rows(keys))
        others: Any = bench.elsewhere(stack, by_sql, drawn, url, batches)
        yield Measurement(f"{system}: batch_get({size}), each{by}", [ours, *others], goals[1], per=size)
    store.close()
