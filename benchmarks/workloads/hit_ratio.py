"""How many reads a bounded memory answers, and how fast it is at that: ours, SIEVE, beside other policies.

Each trace is read once: what is not held is put. The room is for a tenth of the keys; in the loop, for nine tenths.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks import traces
from benchmarks.bench import Bench
from benchmarks.contestants import Role
from benchmarks.measurements import Measurement, Result
from benchmarks.policies import Sieve, best_hits
from benchmarks.shapes import shape
from stockpyle.stores import ProcessMemoryStore


def measurements(bench: Bench) -> Iterator[Measurement]:
    reads, keys = bench.sized((200_000, 10_000), (10_000, 1000), (200, 20))
    dice = bench.dice("traces")
    room = keys // 10
    cases: dict[str, tuple[list[int], int]] = {
        "Zipf 0.8": (traces.zipf(reads, keys, 0.8, dice), room),
        "Zipf 1.1": (traces.zipf(reads, keys, 1.1, dice), room),
        "Zipf 0.9 with scans": (traces.scans(reads, keys, dice), room),
        "a loop": (traces.loops(reads, room * 10 // 9), room),
        "a shop's day": (traces.shop(reads, keys, dice), room),
    }
    rounds = bench.sized(3, 1, 1)
    for title, (trace, maxsize) in cases.items():
        best = Result("the best possible", Role.LIMIT, [100 * best_hits(trace, maxsize) / len(trace)], [])
        ratios, speeds = [best], []
        makers = makers_of(bench, trace)
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in makers}
        order = list(makers)
        for _ in range(rounds):
            dice.shuffle(order)
            for name in order:
                get, put = makers[name][1](maxsize)
                found[name].append(replay(get, put, trace))
        for name, taken in found.items():
            role = makers[name][0]
            ratios.append(Result(name, role, [ratio for ratio, _, _ in taken], []))
            speeds.append(Result(name, role, [wall for _, wall, _ in taken], [cpu for _, _, cpu in taken]))
        note = f"{__doc__}\n{len(trace):,} reads, {len(set(trace)):,} keys, room for {maxsize:,}."
        yield Measurement(
            f"hit ratio, {title}", [], unit="%", higher=True, results=ratios, note=note, group="hit ratio"
        )
        yield Measurement(f"time a read, {title}", [], results=speeds, note=note)


Access = tuple[Callable[[int], Any], Callable[[int], Any]]


def makers_of(bench: Bench, trace: Sequence[int]) -> dict[str, tuple[Role, Callable[[int], Access]]]:
    """Return by name what makes, for a size, how to get and how to put."""
    drawn = shape(bench.seed, "hit ratio")
    klass, name = drawn.plain(), drawn.names[0]
    objects = {number: drawn.instance(klass, number) for number in set(trace)}
    for number, obj in objects.items():
        setattr(obj, name, number)

    def stored(**options: Any) -> Access:
        store = ProcessMemoryStore(**options)
        return (lambda key: store.get(klass, {name: key})), (lambda key: store.put(objects[key]))

    def mapping(cache: Any) -> Access:
        return cache.get, (lambda key: cache.__setitem__(key, objects[key]))

    def made(kind: Callable[[int], Any]) -> Callable[[int], Access]:
        return lambda size: mapping(kind(size))

    found: dict[str, tuple[Role, Callable[[int], Access]]] = {
        "stockpyle (SIEVE)": (Role.OURS, lambda size: stored(maxsize=size)),
        "SIEVE": (Role.PEER, made(Sieve)),
    }
    if cachetools := bench.peer("cachetools"):
        for policy in ("LRUCache", "LFUCache", "FIFOCache", "RRCache"):
            kind = getattr(cachetools, policy)
            found[f"cachetools {policy}"] = (Role.PEER, made(kind))
        found["stockpyle with cachetools LRUCache"] = (
            Role.OURS,
            lambda size: stored(policy=cachetools.LRUCache(size)),
        )
    if cachebox := bench.peer("cachebox"):
        for policy in ("LRUCache", "LFUCache"):
            kind = getattr(cachebox, policy)
            found[f"cachebox {policy}"] = (Role.PEER, made(kind))
    return found


def replay(get: Callable[[int], Any], put: Callable[[int], Any], trace: Sequence[int]) -> tuple[float, float, float]:
    """Read a trace; return the percentage of hits, and microseconds a read, of wall time and of CPU."""
    hits = 0
    begin, cpu = time.perf_counter(), time.process_time()
    for key in trace:
        if get(key) is None:
            put(key)
        else:
            hits += 1
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return 100 * hits / len(trace), wall / len(trace) * 1e6, cpu / len(trace) * 1e6
