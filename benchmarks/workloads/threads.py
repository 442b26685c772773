"""1 to 16 threads that read at once, from memory, memcached and Redis; on all cores."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.contestants import Role, Timed
from benchmarks.crowds import Threads
from benchmarks.measurements import Measurement
from benchmarks.peers.memory import memory_peers
from benchmarks.shapes import shape
from benchmarks.workloads.pooled import pooled
from stockpyle.stores import ProcessMemoryStore

NOTE = "The time between two answers, whichever threads they go to: what a thread cannot do at once lets it grow."


def measurements(bench: Bench) -> Iterator[Measurement]:
    counts = bench.sized((1, 2, 4, 8, 16), (1, 4, 16), (1, 2))
    with bench.on_all_cores():
        for kind, found in contestants(bench).items():
            for count in counts:
                yield Measurement(
                    f"{kind}: {count} thread{'s' if count > 1 else ''}",
                    [Threads(each, count) for each in found],
                    note=NOTE,
                    group=f"threads {kind}",
                    x=count,
                    x_name="threads",
                    rounds=11,
                )


def contestants(bench: Bench) -> dict[str, list[Timed]]:
    drawn = shape(bench.seed, "threads")
    klass, keys = drawn.plain(), drawn.single
    objects = {number: drawn.instance(klass, number) for number in range(1, 1001)}
    store = ProcessMemoryStore(maxsize=2000, lifetime=3600)
    store.batch_put(objects.values())
    names = {"get": store.get, keys.klass: klass}
    picks = list(objects)
    ours = Timed("stockpyle", Role.OURS, f"get({keys.klass}, {keys.mapping})", names, picks, keys.target)
    peers = memory_peers(bench, klass, keys, objects, lifetime=3600, asynchronous=False)
    # cachetools says of itself that it is not for several threads without a lock
    safe = [each for each in peers if isinstance(each, Timed) and not each.name.startswith("cachetools")]
    found = {"memory": [ours, *safe]}
    for kind in ("memcached", "redis"):
        server = bench.memcached() if kind == "memcached" else bench.redis()
        found[kind] = [
            *pooled(kind, (server.host, server.port), drawn, "stockpyle"),
            *pooled(kind, (server.host, server.port), drawn, "peer"),
        ]
    return found
