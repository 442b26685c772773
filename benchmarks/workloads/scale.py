"""A memory hit among 1,000 to 1,000,000 entries: how it grows, beside how a bare dict's own grows."""

from __future__ import annotations

import gc
from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.contestants import Role, Timed
from benchmarks.measurements import Goal, Measurement, Result
from benchmarks.peers.memory import memory_peers
from benchmarks.shapes import shape
from stockpyle.stores import ProcessMemoryStore

COLUMNS = 4
PICKS = 20_000


def measurements(bench: Bench) -> Iterator[Measurement]:
    drawn = shape(bench.seed, "scale", columns=COLUMNS)
    klass, keys = drawn.plain(), drawn.single
    dice = bench.dice("scale")
    done: list[Measurement] = []
    for size in bench.sized((1000, 10_000, 100_000, 1_000_000), (1000, 10_000, 30_000), (10, 20)):
        objects = {number: drawn.instance(klass, number) for number in range(1, size + 1)}
        store = ProcessMemoryStore(maxsize=size)
        # nothing of it is garbage
        gc.disable()
        store.batch_put(objects.values())
        picks = [dice.randint(1, size) for _ in range(min(size, PICKS))]
        names = {"get": store.get, keys.klass: klass}
        ours = Timed("stockpyle", Role.OURS, f"get({keys.klass}, {keys.mapping})", names, picks, keys.target)
        peers = memory_peers(bench, klass, keys, objects, picks=picks, asynchronous=False)
        gc.enable()
        done.append(
            Measurement(
                f"memory hit among {size:,}",
                [ours, *peers],
                group="scale",
                x=size,
                x_name="entries",
            )
        )
        yield done[-1]
        done[-1].contestants = ()
        del store, objects, ours, peers, names
    yield growth(done[0], done[-1])


def growth(first: Measurement, last: Measurement) -> Measurement:
    """Return how many times the first size's time the last size's is, for everybody; a bare dict's is the limit."""
    before = {each.name: each for each in first.results}
    grown = [
        Result(
            each.name,
            Role.LIMIT if each.name == "dict" else each.role,
            [wall / before[each.name].wall for wall in each.walls],
            [cpu / (before[each.name].cpu or cpu) for cpu in each.cpus],
        )
        for each in last.results
    ]
    title = f"growth of a memory hit, from {first.x:,} to {last.x:,} entries"
    return Measurement(title, [], [Goal(1.3, "limit")], unit="times", results=grown)
