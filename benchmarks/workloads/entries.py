"""What 100,000 entries weigh: bytes each, under three keys, and how long a full garbage collection takes with them.

Each is built in a process of its own, from the same rows of an SQLite file.
"""

from __future__ import annotations

import gc
import multiprocessing
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from benchmarks.bench import Bench
from benchmarks.contestants import Role
from benchmarks.databases import engine_for
from benchmarks.limits import driver_connection
from benchmarks.measurements import Goal, Measurement, Result
from benchmarks.peers.instances import detached
from benchmarks.shapes import Shape, create, shape

CHUNK = 1000
COLLECTIONS = 5
PATIENCE = 600.0


def chained(drawn: Shape, url: str, count: int) -> Any:
    """A chain's memory, with each row found by all its keys."""
    from stockpyle.stores import ChainedStore, ProcessMemoryStore, SqlAlchemyStore

    memory = ProcessMemoryStore(lifetime=3600)
    chain = ChainedStore([memory, SqlAlchemyStore(engine=engine_for(url))])
    for keys in (drawn.single, drawn.pair, drawn.alternate):
        for start in range(1, count + 1, CHUNK):
            picks = drawn.picks(keys, range(start, min(start + CHUNK, count + 1)))
            asked = [dict(zip(keys.names, pick if isinstance(pick, tuple) else (pick,), strict=True)) for pick in picks]
            assert None not in chain.batch_get(drawn.mapped(), asked)
    assert len(memory) == count
    return chain


def tuples(drawn: Shape, url: str, count: int) -> Any:
    """Three dicts of the driver's rows."""
    rows = driver_connection(url).execute(f"SELECT {', '.join(drawn.names)} FROM {drawn.name.lower()}").fetchall()
    return {r[0]: r for r in rows}, {(r[1], r[2]): r for r in rows}, {r[3]: r for r in rows}


def instances(drawn: Shape, url: str, count: int) -> Any:
    """Three dicts of detached instances."""
    objs = detached(drawn, url)
    single, pair, alternate = ({drawn.key_of(obj, keys): obj for obj in objs} for keys in _keys(drawn))
    return single, pair, alternate


def dogpile(drawn: Shape, url: str, count: int) -> Any:
    """dogpile.cache's memory: detached instances under three keys."""
    from dogpile.cache import make_region

    region = make_region().configure("dogpile.cache.memory", expiration_time=3600)
    for obj in detached(drawn, url):
        region.set_multi({f"{keys.klass}:{drawn.key_of(obj, keys)}": obj for keys in _keys(drawn)})
    return region


def _keys(drawn: Shape) -> Any:
    return drawn.single, drawn.pair, drawn.alternate


def weigh(build: Callable[[], Any]) -> tuple[float, float]:
    """Return how many bytes it takes, and how many seconds a collection.

    It is built three times: to have everything imported and compiled; to be weighed; to be collected.
    """
    build()
    gc.collect()
    tracemalloc.start()
    held = build()
    gc.collect()
    weight = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del held
    gc.collect()
    gc.freeze()
    held = build()
    gc.collect()
    times = []
    for _ in range(COLLECTIONS):
        begin = time.perf_counter()
        gc.collect()
        times.append(time.perf_counter() - begin)
    gc.unfreeze()
    del held
    return weight, statistics.median(times)


def tell_weight(build: Callable[[], Any], pipe: Any) -> None:
    pipe.send(weigh(build))


def measurements(bench: Bench) -> Iterator[Measurement]:
    count = bench.sized(100_000, 3000, 100)
    drawn, url = shape(bench.seed, "entries"), bench.sqlite()
    create(url, drawn, count)
    builders: dict[str, tuple[Role, Callable[..., Any]]] = {
        "stockpyle": (Role.OURS, chained),
        "dicts of the driver's rows": (Role.LIMIT, tuples),
        "dicts of instances": (Role.PEER, instances),
    }
    if bench.has("dogpile.cache"):
        builders["dogpile.cache memory"] = (Role.PEER, dogpile)
    weights = {name: Result(name, role, [], []) for name, (role, _) in builders.items()}
    pauses = {name: Result(name, role, [], []) for name, (role, _) in builders.items()}
    dice, order = bench.dice("entries"), list(builders)
    for _ in range(bench.sized(3, 1, 1)):
        dice.shuffle(order)
        for name in order:
            build = partial(builders[name][1], drawn, url, count)
            weight, pause = weigh(build) if bench.effort_name == "tiny" else _weighed(build)
            weights[name].walls.append(weight / count)
            pauses[name].walls.append(pause * 1000 * 100_000 / count)
    scaled = "" if count == 100_000 else f", scaled up from {count:,}"
    yield Measurement(
        "memory an entry, 3 keys", [], [Goal(1050)], unit="B", results=list(weights.values()), note=__doc__ or ""
    )
    yield Measurement(
        f"full collection with 100,000 entries{scaled}",
        [],
        [Goal(60)],
        unit="ms",
        results=list(pauses.values()),
        note=__doc__ or "",
    )


def _weighed(build: Callable[[], Any]) -> tuple[float, float]:
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=tell_weight, args=(build, other), daemon=True)
    process.start()
    other.close()
    if not pipe.poll(PATIENCE):
        raise TimeoutError("the process that holds the entries does not answer")
    weighed: tuple[float, float] = pipe.recv()
    process.join()
    return weighed
