"""Measurements: contestants, taken in turns, and what became of them."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.contestants import Contestant, Role, Sample
from benchmarks.figures import median, shown, spread, times

FEWEST_ROUNDS = 3


@dataclass
class Effort:
    """How long a measurement may take."""

    rounds: int
    sample_seconds: float
    most_seconds: float
    """After so many, no further round begins, if there were a few."""


@dataclass
class Result:
    """What one contestant has made of it."""

    name: str
    role: Role
    walls: list[float]
    cpus: list[float]

    @property
    def wall(self) -> float:
        return median(self.walls)

    @property
    def cpu(self) -> float | None:
        return median(self.cpus) if self.cpus else None

    @property
    def spread(self) -> float:
        return spread(self.walls)


@dataclass
class Goal:
    """At most so many times as much as another ("limit", "peer": the best of them, or a name's beginning)."""

    most: float
    than: str = ""
    """Empty for a goal of its own, in the measurement's unit."""
    of: str = "wall"
    note: str = ""

    def text(self, unit: str) -> str:
        words = "CPU " if self.of == "cpu" else ""
        note = f" ({self.note})" if self.note else ""
        if not self.than:
            return f"{words}<= {shown(self.most)} {unit}{note}"
        if self.most < 1:
            return f"{words}>= {times(1 / self.most)} faster than {self.than}{note}"
        return f"{words}<= {times(self.most)} {self.than}{note}"


@dataclass
class Measurement:
    """Contestants who do the same. Lower is better, unless `higher` says otherwise."""

    title: str
    contestants: Sequence[Contestant]
    goals: Sequence[Goal] = ()
    unit: str = "us"
    per: int = 1
    """By how many a sample is divided: the keys of a batch."""
    higher: bool = False
    note: str = ""
    group: str = ""
    """Measurements of one group are one plot, over x."""
    x: float | None = None
    x_name: str = ""
    rounds: int | None = None
    """Where one sample takes long, fewer rounds than usual."""
    results: list[Result] = field(default_factory=list)

    @property
    def ours(self) -> Result | None:
        """The first of ours: others of ours are variants."""
        return next((each for each in self.results if each.role is Role.OURS), None)

    @property
    def best_peer(self) -> Result | None:
        return self._best(Role.PEER)

    @property
    def limit(self) -> Result | None:
        return self._best(Role.LIMIT)

    def _best(self, role: Role) -> Result | None:
        able = [each for each in self.results if each.role is role]
        choose = max if self.higher else min
        return choose(able, key=lambda each: each.wall) if able else None

    def than(self, name: str) -> Result | None:
        """Return whom a goal names."""
        if name == "limit":
            return self.limit
        if name == "peer":
            return self.best_peer
        able = [each for each in self.results if each.name.startswith(name) and each.role is not Role.OURS]
        return min(able, key=lambda each: each.wall) if able else None

    def is_met(self, goal: Goal) -> bool | None:
        """Return whether ours has reached a goal; None if there is nobody to compare with."""
        other = self.than(goal.than) if goal.than else None
        mine = None if self.ours is None else getattr(self.ours, goal.of)
        theirs = 1.0 if not goal.than else None if other is None else getattr(other, goal.of)
        if mine is None or theirs is None:
            return None
        return bool(mine >= goal.most * theirs) if self.higher else bool(mine <= goal.most * theirs)


def take_turns(
    contestants: Sequence[Contestant],
    effort: Effort,
    dice: random.Random,
    clock: Callable[[], float] = time.monotonic,
) -> list[Result]:
    """Have all sample once a round, each round in another order, and return what they have sampled.

    So whatever else the machine does is in all of them, and none always comes after the same other one.
    """
    taken: list[list[Sample]] = [[] for _ in contestants]
    order = list(range(len(contestants)))
    end = clock() + effort.most_seconds
    for done in range(effort.rounds):
        if done >= FEWEST_ROUNDS and clock() > end:
            break
        dice.shuffle(order)
        for i in order:
            taken[i].append(contestants[i].sample())
    return [
        Result(
            each.name,
            each.role,
            [sample.wall for sample in samples],
            [sample.cpu for sample in samples if sample.cpu is not None],
        )
        for each, samples in zip(contestants, taken, strict=True)
    ]


def measure(measurement: Measurement, effort: Effort, dice: random.Random) -> None:
    """Prepare all contestants, and let them take turns."""
    for each in measurement.contestants:
        each.prepare(effort.sample_seconds)
    if measurement.rounds is not None:
        effort = Effort(min(effort.rounds, measurement.rounds), effort.sample_seconds, effort.most_seconds)
    if effort.sample_seconds:
        gc.collect()
        # what one contestant has built up is not to be looked through while another one works
        gc.freeze()
    try:
        measurement.results = take_turns(measurement.contestants, effort, dice)
        for result in measurement.results:
            result.walls = [wall / measurement.per for wall in result.walls]
            result.cpus = [cpu / measurement.per for cpu in result.cpus]
    finally:
        gc.unfreeze()
