"""Puts every system under the same workload, one after the other, and prints what the checker has found.

    python -m tests.coherence.compare --seconds 60 --seed 1

Without faults, on PostgreSQL; memcached, and Redis for whoever has only that, on this machine. It exits with 0 whatever
it finds: it is a comparison.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tests.coherence.runner import Options, Outcome, RunFailed, run
from tests.coherence.systems import REDIS
from tests.servers import Redis

HEADINGS = ("system", "version", "cache", "reads", "commits", "stale", "absent", "other", "hits")


@dataclass(frozen=True)
class Entrant:
    """A system that is compared: its name among SYSTEMS and in the table, its package, and where it keeps objects.

    imports: the modules that it needs, besides those of the tests.
    """

    system: str
    title: str
    package: str
    cache: str
    imports: tuple[str, ...] = ()


ENTRANTS = [
    Entrant("source", "no cache", "", "none"),
    Entrant("look-aside", "look-aside by hand", "", "memcached"),
    Entrant("dogpile.cache-local", "dogpile.cache", "dogpile.cache", "memcached", ("dogpile", "pylibmc")),
    Entrant("dogpile.cache", "dogpile.cache, distributed_lock", "dogpile.cache", "memcached", ("dogpile", "pylibmc")),
    Entrant("aiocache", "aiocache", "aiocache", "memcached", ("aiocache", "aiomcache")),
    Entrant("cashews", "cashews", "cashews", "Redis", ("cashews", "redis")),
    Entrant("advanced-alchemy", "advanced-alchemy", "advanced-alchemy", "memcached", ("advanced_alchemy", "pylibmc")),
    Entrant("stockpyle", "stockpyle", "stockpyle", "memcached"),
]


@dataclass(frozen=True)
class Row:
    """What is said of a system. other: violations of every other kind; hits: the share of reads in quiet phases."""

    system: str
    version: str
    cache: str
    reads: int
    commits: int
    stale: int
    absent: int
    other: int
    hits: float | None

    def cells(self) -> tuple[str, ...]:
        """The row in words."""
        numbers = (self.reads, self.commits, self.stale, self.absent, self.other)
        hits = "-" if self.hits is None else f"{100 * self.hits:.1f} %"
        return (self.system, self.version, self.cache, *(f"{number:,}" for number in numbers), hits)


def missing(entrant: Entrant) -> list[str]:
    """Return what has to be installed before a system can be compared."""
    return [name for name in entrant.imports if importlib.util.find_spec(name) is None]


def row(entrant: Entrant, outcome: Outcome) -> Row:
    """Sum up a run."""
    kinds = outcome.verdict.kinds
    asked, hits = outcome.results.quiet["reads"], outcome.results.quiet["hits"]
    return Row(
        entrant.title,
        importlib.metadata.version(entrant.package) if entrant.package else "-",
        entrant.cache,
        outcome.verdict.reads,
        outcome.timelines.commits,
        kinds["stale"],
        kinds["absent"],
        sum(kinds.values()) - kinds["stale"] - kinds["absent"] + len(outcome.results.own),
        None if entrant.cache == "none" or not asked else hits / asked,
    )


def others(entrant: Entrant, outcome: Outcome) -> Iterator[str]:
    """Yield what the violations of other kinds are, with the first of each."""
    for kind, count in outcome.verdict.kinds.items():
        if kind not in ("stale", "absent"):
            first = next((each for each in outcome.verdict.violations if each.kind == kind), None)
            yield f"{entrant.title}: {count:,} {kind}" + (f", {first.key}, {first.seen}: {first.why}" if first else "")
    if outcome.results.own:
        own = f"{len(outcome.results.own):,} reads inside a transaction did not see what it had written"
        yield f"{entrant.title}: {own}: {outcome.results.own[0][1]}"


def table(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines of a table, as Markdown has them."""
    cells = [HEADINGS, *(each.cells() for each in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADINGS))]
    words = 3

    def line(values: Sequence[str]) -> str:
        padded = (
            value.ljust(width) if i < words else value.rjust(width)
            for i, (value, width) in enumerate(zip(values, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    yield line(HEADINGS)
    yield line(["-" * width if i < words else "-" * (width - 1) + ":" for i, width in enumerate(widths)])
    for values in cells[1:]:
        yield line(values)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.coherence.compare", description=__doc__)
    default = Options()
    parser.add_argument("--seconds", type=float, default=default.seconds, help="for each system")
    parser.add_argument("--workers", type=int, default=default.workers)
    parser.add_argument("--seed", type=int, default=default.seed)
    names = [entrant.system for entrant in ENTRANTS]
    parser.add_argument("--systems", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run all, and print the table; what cannot be run is named below it."""
    given = _options(arguments)
    rows, notes = [], []
    with Redis() as redis:
        os.environ[REDIS] = redis.url
        for entrant in ENTRANTS:
            if entrant.system not in given.systems:
                continue
            if lacking := missing(entrant):
                notes.append(f"{entrant.title}: not compared, there is no {' or '.join(lacking)} here")
                continue
            sys.stderr.write(f"{entrant.title}: {given.seconds:g} s ...\n")
            # what no unit of work holds, most of them do not claim to hear of
            options = Options(
                seconds=given.seconds,
                workers=given.workers,
                seed=given.seed,
                faults="none",
                steps="flushed",
                system=entrant.system,
            )
            try:
                outcome = run(options)
            except RunFailed as error:
                notes.append(f"{entrant.title}: the run failed: {str(error).strip().splitlines()[-1]}")
                continue
            rows.append(row(entrant, outcome))
            notes += others(entrant, outcome)
    versions = f"CPython {platform.python_version()}, SQLAlchemy {importlib.metadata.version('SQLAlchemy')}"
    sys.stdout.write(
        "\n".join(
            [
                *table(rows),
                "",
                f"seed {given.seed}, {given.workers} processes, {given.seconds:g} s each, no faults; "
                f"{os.cpu_count()} cores, {versions}",
                *notes,
                "",
            ]
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
