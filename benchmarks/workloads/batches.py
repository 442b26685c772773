"""Batches of 1 to 10,000 keys: plain objects from memory, entities from memcached and Redis; microseconds a key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.bench import Bench
from benchmarks.contestants import Role, Timed
from benchmarks.measurements import Measurement
from benchmarks.shapes import shape
from benchmarks.workloads.shared import SharedTier
from stockpyle.stores import ProcessMemoryStore


def measurements(bench: Bench) -> Iterator[Measurement]:
    sizes = bench.sized((1, 10, 100, 1000, 10_000), (1, 10, 100, 1000), (1, 10))
    yield from _in_memory(bench, sizes)
    for kind in ("memcached", "redis"):
        tier = SharedTier(bench, kind, max(sizes))
        dice = bench.dice(f"batches {kind}")
        for size in sizes:
            picks = [dice.sample(range(1, max(sizes) + 1), size) for _ in range(5)]
            with ExitStack() as stack:
                yield Measurement(
                    f"{kind}: batch of {size:,}, each",
                    tier.contestants(stack, picks, into_session=False),
                    per=size,
                    group=f"batches {kind}",
                    x=size,
                    x_name="keys in a batch",
                )


def _in_memory(bench: Bench, sizes: tuple[int, ...]) -> Iterator[Measurement]:
    drawn = shape(bench.seed, "batches")
    klass, keys = drawn.plain(), drawn.single
    objects = {number: drawn.instance(klass, number) for number in range(1, max(sizes) + 1)}
    store = ProcessMemoryStore()
    store.batch_put(objects.values())
    names = {"store": store, keys.klass: klass, "held": {(klass, number): obj for number, obj in objects.items()}}
    texts = f"[f'{keys.klass}:{{each}}' for each in pick]"
    calls = [
        ("stockpyle", Role.OURS, f'store.batch_get({keys.klass}, [{{"{keys.names[0]}": each}} for each in pick])'),
        ("dict", Role.LIMIT, f"[held[{keys.klass}, each] for each in pick]"),
    ]
    if dogpile := bench.peer("dogpile.cache"):
        region = names["region"] = dogpile.make_region().configure("dogpile.cache.memory", expiration_time=3600)
        region.set_multi({f"{keys.klass}:{number}": obj for number, obj in objects.items()})
        calls.append(("dogpile.cache memory", Role.PEER, f"region.get_multi({texts})"))
    if cachebox := bench.peer("cachebox"):
        names["cache"] = cachebox.LRUCache(len(objects), names["held"])
        calls.append(("cachebox LRUCache", Role.PEER, f"[cache[{keys.klass}, each] for each in pick]"))
    dice = bench.dice("batches")
    for size in sizes:
        picks = [dice.sample(list(objects), size) for _ in range(5)]
        yield Measurement(
            f"memory: batch of {size:,}, each",
            [Timed(name, role, call, names, picks, right=_all_found) for name, role, call in calls],
            per=size,
            group="batches memory",
            x=size,
            x_name="keys in a batch",
        )


def _all_found(answer: list[object], pick: list[int]) -> bool:
    return len(answer) == len(pick) and None not in answer
