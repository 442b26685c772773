"""What goes wrong in a run, and when: drawn from the seed before it begins."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tests.coherence.workload import BUSY_SECONDS, QUIET_SECONDS

AT_POINTS = ("kill after-lock", "kill after-commit", "kill between-tiers", "stall after-lock")
"""Faults of a worker itself, at a point of its write path. A worker that stalls does so for longer than its lock."""

KILL = "kill anywhere"
PAUSE_SHORT, PAUSE_LONG = "pause cache, short", "pause cache, long"
RESTART, FILL = "restart cache", "fill cache"
CUT_COMMIT = "cut commit"
CUT_CACHE = "cut cache"

FAULTS = (*AT_POINTS, KILL, PAUSE_SHORT, PAUSE_LONG, RESTART, FILL, CUT_COMMIT, CUT_CACHE)
OF_CACHE = frozenset({PAUSE_SHORT, PAUSE_LONG, RESTART, FILL, CUT_CACHE, "kill between-tiers"})

LOSSES = frozenset({RESTART, FILL})
"""During these the cache forgets what it holds, locks too."""

LEAD = 1.0
"""How many seconds before a quiet phase the last fault may begin."""

TIMES = 20
"""How often each fault has to fire in ten minutes."""


@dataclass(frozen=True, order=True)
class Planned:
    """A fault, how many seconds after the start, and which worker's it is, out of those that can have it."""

    time: float
    name: str
    which: int


def needed(seconds: float) -> int:
    """How often each fault has to fire in a run of this length: 20 times in ten minutes, and always twice."""
    return max(2, math.ceil(TIMES * min(1.0, seconds / 600)))


def chosen(names: str, *, lacks: Collection[str], database: str, points: Iterable[str]) -> list[str]:
    """Return the faults that `--faults` names and that this system and database can have."""
    wanted = {"all": list(FAULTS), "none": []}.get(names, [name.strip() for name in names.split(",")])
    unknown = [name for name in wanted if _slug(name) not in map(_slug, FAULTS)]
    if unknown:
        raise SystemExit(f"no fault {unknown[0]!r}: there are {', '.join(map(_slug, FAULTS))}")
    slugs = set(map(_slug, wanted))
    able = [name for name in FAULTS if _slug(name) in slugs]
    if "cache" in lacks:
        able = [name for name in able if name not in OF_CACHE]
    if database != "postgresql":
        able = [name for name in able if name != CUT_COMMIT]
    own = set(points) | {"after-lock", "after-commit"}
    return [name for name in able if name not in AT_POINTS or name.partition(" ")[2] in own]


def _slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


def plan(names: Iterable[str], seconds: float, seed: int, rate: float = 1.0) -> list[Planned]:
    """Spread each fault over the run, half as often again as is needed; `rate` times as often as that.

    None begins in a quiet phase, nor right before one.
    """
    dice = random.Random(f"faults {seed}")
    times = math.ceil(rate * 1.5 * needed(seconds)) + 1
    first, last = min(1.5, seconds / 10), seconds - min(6.0, seconds / 4)
    planned = []
    for name in names:
        for i in range(times):
            at = first + (i + dice.random()) * (last - first) / times
            planned.append(Planned(in_busy_phase(at), name, dice.randrange(1_000)))
    return sorted(planned)


def in_busy_phase(seconds: float) -> float:
    """Return a time of the same busy and quiet phase, early in its busy part; each has its own."""
    begun, into = divmod(seconds, BUSY_SECONDS + QUIET_SECONDS)
    share = (BUSY_SECONDS - LEAD) / (BUSY_SECONDS + QUIET_SECONDS)
    return begun * (BUSY_SECONDS + QUIET_SECONDS) + into * share
