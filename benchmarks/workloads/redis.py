"""Redis: one entity and a hundred, materialised."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.measurements import Measurement
from benchmarks.workloads.shared import measurements_of


def measurements(bench: Bench) -> Iterator[Measurement]:
    yield from measurements_of(bench, "redis", {})
