"""Which entry makes room for another."""

from __future__ import annotations

import random

from stockpyle.stores import ProcessMemoryStore
from stockpyle.stores._sieve import Sieve
from stockpyle.testing import Person


def test_the_hand_goes_from_the_oldest_to_the_newest() -> None:
    """What is kept stays in its place, and what comes later is met before it is met again."""
    sieve: Sieve[str] = Sieve()
    for thing in "abc":
        sieve.add(thing)
    for thing in "ab":
        assert sieve.take() == thing
        sieve.keep(thing)
    sieve.add("d")
    assert [sieve.take(), sieve.take(), sieve.take(), sieve.take()] == ["c", "d", "a", "b"]
    assert len(sieve) == 0


def reference(size: int, asked: list[int]) -> list[bool]:
    """SIEVE as its authors describe it, over a list: which reads are hits."""
    line: list[int] = []  # from the newest to the oldest
    visited: dict[int, bool] = {}
    hand: int | None = None
    hits = []
    for key in asked:
        hits.append(key in visited)
        if key in visited:
            visited[key] = True
            continue
        if len(line) == size:
            place = len(line) - 1 if hand is None else line.index(hand)
            while visited[line[place]]:
                visited[line[place]] = False
                place = place - 1 if place else len(line) - 1
            gone = line[place]
            hand = line[place - 1] if place else None
            line.pop(place)
            del visited[gone]
        line.insert(0, key)
        visited[key] = False
    return hits


def test_a_bounded_memory_evicts_as_sieve_does() -> None:
    """On a trace with a few keys that are asked for often, each read is the hit or the miss that SIEVE says it is."""
    chosen = random.Random(7)
    asked = [int(chosen.paretovariate(0.7)) % 200 for _ in range(3000)]
    store = ProcessMemoryStore(maxsize=20)
    hits = []
    for key in asked:
        found = store.get(Person, {"id": key})
        hits.append(found is not None)
        if found is None:
            store.put(Person(key))
    assert hits == reference(20, asked)
    assert 0.2 < sum(hits) / len(hits) < 0.9
