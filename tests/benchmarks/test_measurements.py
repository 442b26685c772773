from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from benchmarks.contestants import Role, Sample
from benchmarks.measurements import FEWEST_ROUNDS, Effort, Goal, Measurement, Result, measure, take_turns

ALL_ROUNDS = Effort(rounds=20, sample_seconds=0.0, most_seconds=1e9)


@dataclass
class Noting:
    """A contestant that notes when its turn is, and takes as long as it is told."""

    name: str
    role: Role = Role.PEER
    turns: list[str] = field(default_factory=list)
    wall: float = 1.0

    def prepare(self, seconds: float) -> None:
        self.turns.append(f"prepare {self.name}")

    def sample(self) -> Sample:
        self.turns.append(self.name)
        return Sample(self.wall, self.wall / 2)


def noting(names: str) -> tuple[list[Noting], list[str]]:
    """Return contestants, and where they note their turns."""
    turns: list[str] = []
    return [Noting(name, turns=turns, wall=float(i + 1)) for i, name in enumerate(names)], turns


def result(name: str, role: Role, wall: float, cpu: float | None = None) -> Result:
    """Return the result of one sample."""
    return Result(name, role, [wall], [] if cpu is None else [cpu])


def test_each_round_has_everybody_once() -> None:
    """In every round each contestant has exactly one turn, and no two rounds need have the same order."""
    contestants, turns = noting("abcd")
    take_turns(contestants, ALL_ROUNDS, random.Random(1))
    rounds = [turns[i : i + 4] for i in range(0, len(turns), 4)]
    assert len(rounds) == 20
    assert all(sorted(each) == list("abcd") for each in rounds)
    assert len({tuple(each) for each in rounds}) > 5


def test_nobody_has_a_place_of_its_own() -> None:
    """Each contestant is the first of some rounds."""
    contestants, turns = noting("abc")
    take_turns(contestants, ALL_ROUNDS, random.Random(1))
    assert set(turns[::3]) == set("abc")


def test_the_order_is_drawn_from_the_seed() -> None:
    """The same seed draws the same order, another one another."""
    orders = []
    for seed in (1, 1, 2):
        contestants, turns = noting("abcd")
        take_turns(contestants, ALL_ROUNDS, random.Random(seed))
        orders.append(turns)
    assert orders[0] == orders[1] != orders[2]


def test_samples_stay_with_who_has_taken_them() -> None:
    """The results are in the order of the contestants, each with its own samples, of wall time and of CPU."""
    contestants, _ = noting("abc")
    results = take_turns(contestants, ALL_ROUNDS, random.Random(1))
    assert [(each.name, set(each.walls), set(each.cpus)) for each in results] == [
        ("a", {1.0}, {0.5}),
        ("b", {2.0}, {1.0}),
        ("c", {3.0}, {1.5}),
    ]


def test_a_measurement_that_takes_too_long_ends_after_a_few_whole_rounds() -> None:
    """When the time is over no new round begins, but a few rounds there are in any case, and all are whole."""
    contestants, turns = noting("ab")
    ticks = iter(range(1000))
    take_turns(contestants, Effort(20, 0.0, 0.5), random.Random(1), clock=lambda: float(next(ticks)))
    assert len(turns) == 2 * FEWEST_ROUNDS


def test_all_are_prepared_before_the_first_turn() -> None:
    """Who is prepared does not disturb who is measured; and figures are divided by what one call does."""
    contestants, turns = noting("ab")
    measurement = Measurement("title", contestants, per=10)
    measure(measurement, Effort(3, 0.0, 1e9), random.Random(1))
    assert turns[:2] == ["prepare a", "prepare b"]
    assert not any(turn.startswith("prepare") for turn in turns[2:])
    assert [each.wall for each in measurement.results] == pytest.approx([0.1, 0.2])
    assert [each.cpu for each in measurement.results] == pytest.approx([0.05, 0.1])


def test_the_best_peer_is_the_fastest() -> None:
    """The best peer and the limit are those with the lowest figure; what only stands beside is neither."""
    measurement = Measurement("title", [])
    measurement.results = [
        result("ours", Role.OURS, 2.0),
        result("variant", Role.OURS, 1.0),
        result("slow", Role.PEER, 9.0),
        result("quick", Role.PEER, 3.0),
        result("dict", Role.BESIDE, 0.1),
        result("bare", Role.LIMIT, 0.5),
    ]
    found = measurement.ours, measurement.best_peer, measurement.limit
    assert [each.name for each in found if each is not None] == ["ours", "quick", "bare"]


def test_the_best_peer_has_the_highest_ratio_of_hits() -> None:
    """Where higher is better, the best peer is the one with the highest figure."""
    measurement = Measurement("title", [], higher=True)
    measurement.results = [result("a", Role.PEER, 40.0), result("b", Role.PEER, 60.0)]
    assert measurement.best_peer is not None
    assert measurement.best_peer.name == "b"


@pytest.mark.parametrize(
    ("goal", "reached"),
    [
        (Goal(1.4, "limit"), True),
        (Goal(1.3, "limit"), False),
        (Goal(0.5, "dogpile"), True),
        (Goal(0.4, "dogpile"), False),
        (Goal(0.5, "peer"), False),
        (Goal(0.2, "peer", of="cpu"), True),
        (Goal(1.4), True),
        (Goal(1.3), False),
        (Goal(1.0, "nobody"), None),
        (Goal(1.0, "limit", of="cpu"), None),
    ],
)
def test_goals_are_compared_with_whom_they_name(goal: Goal, reached: bool | None) -> None:
    """A goal is a ratio to the limit, the best peer or a named one, of wall time or CPU, or a figure of its own."""
    measurement = Measurement("title", [], [goal])
    measurement.results = [
        result("stockpyle", Role.OURS, 1.4, 0.4),
        result("reference", Role.LIMIT, 1.0),
        result("dogpile.cache memory", Role.PEER, 2.8, 1.0),
        result("cachebox", Role.PEER, 2.0, 2.0),
    ]
    assert measurement.is_met(goal) is reached


@pytest.mark.parametrize(
    ("goal", "text"),
    [
        (Goal(1.4, "limit"), "<= 1.40x limit"),
        (Goal(0.5, "dogpile.cache"), ">= 2.00x faster than dogpile.cache"),
        (Goal(0.4, "peer", of="cpu"), "CPU >= 2.50x faster than peer"),
        (Goal(1050, note="three keys"), "<= 1,050 B (three keys)"),
    ],
)
def test_goals_are_written(goal: Goal, text: str) -> None:
    """A goal says what is to be reached, and in comparison with whom."""
    assert goal.text("B") == text
