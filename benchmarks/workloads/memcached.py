"""memcached: one entity and a hundred, materialised."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.measurements import Goal, Measurement
from benchmarks.workloads.shared import measurements_of

ONE = [Goal(1.25, "limit")]
HUNDRED = [Goal(1.58, "limit", note="190 us where that takes 120")]
GOALS = {
    (1, True): [*ONE, Goal(0.4, "peer", of="cpu")],
    (1, False): ONE,
    (100, True): [*HUNDRED, Goal(1 / 8, "peer")],
    (100, False): HUNDRED,
}


def measurements(bench: Bench) -> Iterator[Measurement]:
    yield from measurements_of(bench, "memcached", GOALS)
