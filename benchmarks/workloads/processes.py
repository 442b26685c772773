"""1 to 8 processes that read at once, from memcached and Redis; on all cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.bench import Bench
from benchmarks.crowds import Processes
from benchmarks.measurements import Measurement
from benchmarks.shapes import shape
from benchmarks.workloads.pooled import pooled

NOTE = "The time between two answers, whichever processes they go to; the servers need their share of the cores."


def measurements(bench: Bench) -> Iterator[Measurement]:
    drawn = shape(bench.seed, "processes")
    with bench.on_all_cores():
        for kind in ("memcached", "redis"):
            server = bench.memcached() if kind == "memcached" else bench.redis()
            for count in bench.sized((1, 2, 4, 8), (1, 2), (1,)):
                with ExitStack() as stack:
                    yield Measurement(
                        f"{kind}: {count} process{'es' if count > 1 else ''}",
                        [
                            Processes(stack, count, pooled, kind, (server.host, server.port), drawn, who)
                            for who in ("stockpyle", "peer")
                        ],
                        note=NOTE,
                        group=f"processes {kind}",
                        x=count,
                        x_name="processes",
                        rounds=11,
                    )
