"""A hit in process memory: a plain object, by each kind of key, with and without bound and lifetimes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.bench import Bench
from benchmarks.contestants import Contestant, Role, Timed
from benchmarks.limits import ReferenceGetter
from benchmarks.measurements import Goal, Measurement
from benchmarks.peers.memory import key_maker, memory_peers
from benchmarks.shapes import Keys, shape
from stockpyle.stores import BaseDictionaryStore, ChainedStore, ProcessMemoryStore

LIFETIME = 3600.0
GOALS = [Goal(1.4, "limit"), Goal(0.5, "dogpile.cache")]


def measurements(bench: Bench) -> Iterator[Measurement]:
    count = bench.sized(1000, 1000, 10)
    drawn = shape(bench.seed, "memory hit")
    klass = drawn.plain()
    objects = [drawn.instance(klass, number) for number in range(1, count + 1)]
    bench.dice("memory hit").shuffle(objects)

    def measurement(title: str, keys: Keys, store: Any, lifetime: float | None = None) -> Measurement:
        held = dict(zip(drawn.picks(keys, [getattr(obj, drawn.names[0]) for obj in objects]), objects, strict=True))
        store.batch_put(objects)
        reference = ReferenceGetter()
        as_mapping = key_maker(keys.mapping, keys, {})
        for pick, obj in held.items():
            reference.put(klass, as_mapping(pick), obj)

        def right(answer: Any, pick: Any) -> bool:
            return answer is held[pick]

        def alike(answer: Any, pick: Any) -> bool:
            return drawn.values(answer) == drawn.values(held[pick])

        def asked(name: str, role: Role, what: Any) -> Timed:
            call = f"get({keys.klass}, {keys.mapping})"
            return Timed(name, role, call, {"get": what.get, keys.klass: klass}, list(held), keys.target, right)

        contestants: list[Contestant] = [
            asked("stockpyle", Role.OURS, store),
            asked("reference getter", Role.LIMIT, reference),
            *memory_peers(bench, klass, keys, held, lifetime=lifetime, right=alike),
        ]
        return Measurement(f"memory hit, {title}", contestants, GOALS)

    room = 2 * count
    yield measurement("by one attribute", drawn.single, ProcessMemoryStore())
    yield measurement("bounded", drawn.single, ProcessMemoryStore(maxsize=room))
    yield measurement(
        "bounded, with lifetimes", drawn.single, ProcessMemoryStore(maxsize=room, lifetime=LIFETIME), LIFETIME
    )
    yield measurement("by two attributes", drawn.pair, ProcessMemoryStore(maxsize=room, lifetime=LIFETIME), LIFETIME)
    yield measurement(
        "by an alternate key", drawn.alternate, ProcessMemoryStore(maxsize=room, lifetime=LIFETIME), LIFETIME
    )
    chain = ChainedStore([ProcessMemoryStore(maxsize=room, lifetime=LIFETIME), BaseDictionaryStore()])
    yield measurement("through a chain", drawn.single, chain, LIFETIME)
