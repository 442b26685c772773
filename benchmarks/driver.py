"""The driver: ``python -m benchmarks [workload ...]``."""

from __future__ import annotations

import argparse
import cProfile
import importlib
import os
import pstats
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench import EFFORTS, Bench
from benchmarks.contestants import Role
from benchmarks.machine import described
from benchmarks.measurements import Measurement, measure
from benchmarks.plots import write_plots
from benchmarks.table import cells, details, left_out_lines, markdown_table, text_table
from benchmarks.workloads import NAMES

RESULTS = Path(__file__).parent / "results"
"""Of a full run; what is quick, or of some workloads only, goes into a folder of it that git ignores."""

PROFILED = 15
"""Functions of a profile that are shown."""
PROFILED_SECONDS = 0.5


def run(bench: Bench, names: Sequence[str]) -> Iterator[Measurement]:
    """Measure these workloads, and yield each measurement when it is done."""
    for name in names:
        for measurement in _module(name).measurements(bench):
            if not measurement.results:
                measure(measurement, bench.effort, bench.dice(measurement.title))
            yield measurement


def profile(bench: Bench, names: Sequence[str]) -> None:
    """Print what the first of ours spends its time with, for each measurement of these workloads."""
    for name in names:
        for measurement in _module(name).measurements(bench):
            ours = [each for each in measurement.contestants if each.role is Role.OURS]
            if not ours:
                continue
            ours[0].prepare(PROFILED_SECONDS)
            profiler = cProfile.Profile()
            profiler.runcall(ours[0].sample)
            print(f"\n{measurement.title}")
            pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(PROFILED)


def _module(name: str) -> Any:
    return importlib.import_module(f"benchmarks.workloads.{name.replace('-', '_')}")


def report(bench: Bench, measurements: Sequence[Measurement], lines: Sequence[str], plots: Sequence[Path]) -> str:
    """Return the whole report as Markdown."""
    parts = ["# What was measured\n"]
    parts += [f"- {line}" for line in lines]
    parts += ["", markdown_table([cells(each) for each in measurements]), ""]
    parts += [f"{line}\n" for line in left_out_lines(bench.left_out)]
    parts += [f"![{path.stem}]({path.name})" for path in plots]
    parts += ["\n## All contestants\n", *(details(each) for each in measurements)]
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print one table, and write it."""
    cores = sorted(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Put stockpyle beside other caches.")
    parser.add_argument("workloads", nargs="*", help=f"of {', '.join(NAMES)}; by default all")
    parser.add_argument("--quick", action="store_true", help="in less than two minutes, and less exactly")
    parser.add_argument("--effort", choices=EFFORTS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1, help="draws classes, keys, and the order of the contestants")
    parser.add_argument("--core", type=int, default=cores[-1], help="of this process; -1: any")
    parser.add_argument("--server-core", type=int, help="of the servers; -1: any; by default the same")
    parser.add_argument("--results", type=Path, help="the folder to write into")
    parser.add_argument("--profile", action="store_true", help="only show what stockpyle's own time goes to")
    given = parser.parse_args(arguments)
    unknown = set(given.workloads) - set(NAMES)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    core = None if given.core < 0 else given.core
    server_core = core if given.server_core is None else None if given.server_core < 0 else given.server_core
    effort = given.effort or ("quick" if given.quick else "full")
    bench = Bench(effort, given.seed, core, server_core)
    if given.profile:
        try:
            profile(bench, given.workloads or NAMES)
        finally:
            bench.close()
        return
    lines = described(bench)
    print("\n".join(lines), file=sys.stderr)
    begin = time.monotonic()
    done: list[Measurement] = []
    try:
        for measurement in run(bench, given.workloads or NAMES):
            done.append(measurement)
            seconds = time.monotonic() - begin
            print(f"{seconds:6.1f} s  {measurement.title}: {' | '.join(cells(measurement)[2:])}", file=sys.stderr)
    finally:
        # what was measured before something failed is worth reading, too
        bench.close()
        lines.append(f"Took {time.monotonic() - begin:.0f} s")
        is_whole = effort == "full" and not given.workloads
        publish(bench, done, lines, given.results or (RESULTS if is_whole else RESULTS / "latest"))


def publish(bench: Bench, done: Sequence[Measurement], lines: Sequence[str], folder: Path) -> None:
    """Print the table, and write it with all contestants and plots."""
    print(text_table([cells(each) for each in done]))
    print("\n".join(left_out_lines(bench.left_out)))
    folder.mkdir(parents=True, exist_ok=True)
    plots = write_plots(done, folder)
    (folder / "README.md").write_text(report(bench, done, lines, plots), encoding="utf-8")
    print(f"Written to {folder / 'README.md'}, with {len(plots)} plots")
