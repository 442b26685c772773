"""Traces: who asks for what, one key after the other. All are generated, and the same for the same dice."""

from __future__ import annotations

import random
from bisect import bisect
from collections import deque
from itertools import accumulate

HOUR = 10_000
"""Reads between two changes of what is popular, in the trace of a shop."""


class Zipf:
    """Draws key n with a weight of 1 / n**s."""

    def __init__(self, keys: int, s: float, dice: random.Random) -> None:
        self._sums = list(accumulate(1 / (n + 1) ** s for n in range(keys)))
        self._dice = dice

    def __call__(self) -> int:
        return bisect(self._sums, self._dice.random() * self._sums[-1])


def zipf(reads: int, keys: int, s: float, dice: random.Random) -> list[int]:
    """Some keys are asked for much more often than others, always the same ones."""
    draw = Zipf(keys, s, dice)
    return [draw() for _ in range(reads)]


def scans(reads: int, keys: int, dice: random.Random) -> list[int]:
    """A Zipf trace; now and then somebody reads as many keys in order as there are, once each, never to come back."""
    draw = Zipf(keys, 0.9, dice)
    trace: list[int] = []
    cold = keys
    while len(trace) < reads:
        trace += [draw() for _ in range(keys)]
        trace += range(cold, cold + keys // 2)
        cold += keys // 2
    return trace[:reads]


def loops(reads: int, length: int) -> list[int]:
    """The same keys in the same order, again and again: more than there is room for."""
    return [n % length for n in range(reads)]


def shop(reads: int, keys: int, dice: random.Random) -> list[int]:
    """The shape of a shop's day.

    Of all reads 55 % are of articles by a popularity (Zipf, s = 0.8) that drifts: each hour a twentieth of the articles
    change places. 30 % come back to one of what the same visitor has read last. 10 % are of keys that are read this
    once. 5 % belong to a job that goes through the catalogue in order.
    """
    draw = Zipf(keys, 0.8, dice)
    ranks = list(range(keys))
    dice.shuffle(ranks)
    recent: deque[int] = deque([0], maxlen=200)
    once, job = keys, 0
    trace = []
    for n in range(reads):
        if n % HOUR == HOUR - 1:
            for _ in range(keys // 40):
                i, j = dice.randrange(keys), dice.randrange(keys)
                ranks[i], ranks[j] = ranks[j], ranks[i]
        kind = dice.random()
        if kind < 0.55:
            key = ranks[draw()]
            recent.append(key)
        elif kind < 0.85:
            key = dice.choice(recent)
        elif kind < 0.95:
            key, once = once, once + 1
        else:
            key, job = job, (job + 1) % keys
        trace.append(key)
    return trace
