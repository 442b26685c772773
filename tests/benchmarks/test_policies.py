from __future__ import annotations

import random

from benchmarks.policies import Sieve, best_hits


def hits_of(cache: Sieve, trace: list[int]) -> list[int]:
    """Return what was found, of keys that are put when they are not."""
    found = []
    for key in trace:
        if cache.get(key) is not None:
            found.append(key)
        else:
            cache[key] = key
    return found


def test_sieve_evicts_the_oldest_that_was_not_asked_for() -> None:
    """What was asked for since the hand last came by stays, and the next oldest goes."""
    cache = Sieve(3)
    hits_of(cache, [1, 2, 3, 1])
    cache[4] = 4
    assert set(cache) == {1, 3, 4}


def test_sieves_hand_stays_where_it_was() -> None:
    """The next eviction begins where the last one ended, not at the oldest."""
    cache = Sieve(3)
    hits_of(cache, [1, 2, 3, 1, 4, 5])
    assert set(cache) == {1, 4, 5}
    hits_of(cache, [4, 5, 1])
    cache[6] = 6
    assert len(cache) == 3
    assert 6 in set(cache)


def test_sieve_never_holds_more_than_it_may() -> None:
    """Whatever is asked for, there are at most maxsize entries, and each is found again."""
    dice, cache = random.Random(1), Sieve(10)
    for _ in range(5000):
        key = int(dice.expovariate(0.05))
        if cache.get(key) is None:
            cache[key] = key
        assert len(cache) <= 10
        assert cache.get(key) == key


def test_the_best_possible_keeps_what_is_asked_for_soonest() -> None:
    """With room for three of four keys in a loop, the fourth takes the place of the third: then 1, 2 and 4 are hits."""
    assert best_hits([1, 2, 3, 4, 1, 2, 3, 4], 3) == 3


def test_nobody_finds_more_than_the_best_possible() -> None:
    """The best possible number of hits is at least what SIEVE has, on any trace."""
    for seed in range(20):
        dice = random.Random(seed)
        trace = [int(dice.expovariate(0.1)) for _ in range(500)]
        assert len(hits_of(Sieve(8), trace)) <= best_hits(trace, 8)
