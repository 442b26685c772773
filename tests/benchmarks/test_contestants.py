from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from benchmarks.contestants import MOST_CALLS, Role, Timed
from benchmarks.crowds import Threads
from benchmarks.elsewhere import elsewhere


def test_an_expression_is_called_with_each_pick() -> None:
    """A sample evaluates the expression once a pick, in the order of the picks, and again from the first one."""
    seen: list[int] = []
    timed = Timed("noting", Role.PEER, "note(pick)", {"note": lambda pick: seen.append(pick) or True}, [1, 2, 3])
    timed.run([1, 2, 3, 1])
    assert seen == [1, 2, 3, 1]


def test_a_pick_of_several_values_is_taken_apart() -> None:
    """Where the target has two names, each pick is a pair of values."""
    seen: list[tuple[int, str]] = []
    timed = Timed(
        "noting",
        Role.PEER,
        "note(a, b)",
        {"note": lambda a, b: seen.append((a, b)) or True},
        [(1, "x"), (2, "y")],
        "a, b",
    )
    timed.prepare(0.0)
    assert seen == [(1, "x"), (2, "y")]


def test_an_expression_may_be_awaited() -> None:
    """An expression with await runs in a loop, and answers as others do."""

    async def double(value: int) -> int:
        return 2 * value

    loop = asyncio.new_event_loop()
    names, picks = {"double": double}, [1, 2]
    timed = Timed(
        "async", Role.PEER, "await double(pick)", names, picks, right=lambda a, pick: a == 2 * pick, loop=loop
    )
    timed.prepare(0.0)
    assert timed.sample().wall > 0
    loop.close()


def test_a_wrong_answer_is_no_contest() -> None:
    """Whoever does not answer rightly is refused, by name, before anything is measured."""
    timed = Timed("forgetful", Role.PEER, "held.get(pick)", {"held": {}}, [5])
    with pytest.raises(AssertionError, match="forgetful has answered None to 5"):
        timed.prepare(0.0)


def test_samples_are_as_long_as_asked_for() -> None:
    """So many calls make a sample that they take about as long as asked for, and there is a bound."""
    short, long = (Timed("one", Role.PEER, "pick", {}, [1]) for _ in range(2))
    short.prepare(0.0)
    long.prepare(1e9)
    assert len(short.drawn) == 1
    assert len(long.drawn) == MOST_CALLS


def test_threads_share_the_picks() -> None:
    """Several threads ask for what one alone would have asked for, each pick once."""
    seen: list[int] = []
    timed = Timed("noting", Role.PEER, "note(pick)", {"note": seen.append}, range(10), right=lambda *_: True)
    crowd = Threads(timed, 3)
    crowd.prepare(0.0)
    timed.drawn = list(range(10))
    seen.clear()
    crowd.sample()
    assert sorted(seen) == list(range(10))


def test_a_failure_in_a_thread_fails_the_sample() -> None:
    """An error in one of the threads is raised, not lost."""
    timed = Timed("failing", Role.PEER, "1 / pick", {}, [1])
    timed.drawn = [0]
    with pytest.raises(ZeroDivisionError):
        Threads(timed, 2).sample()


def divider(values: list[int]) -> list[Timed]:
    """Return what divides by its picks."""
    return [Timed("divider", Role.LIMIT, "1 / pick", {}, values)]


def importer() -> list[Timed]:
    """Return a contestant, having imported stockpyle."""
    import stockpyle

    return [Timed(stockpyle.__name__, Role.PEER, "pick", {})]


def test_a_contestant_elsewhere_is_like_one_here() -> None:
    """What another process has made is prepared and sampled through what stands for it; its errors are raised here."""
    with ExitStack() as stack:
        (remote,) = elsewhere(stack, divider, [1, 2])
        remote.prepare(0.0)
        assert (remote.name, remote.role) == ("divider", Role.LIMIT)
        assert remote.sample().wall > 0
        (failing,) = elsewhere(stack, divider, [0])
        with pytest.raises(RuntimeError, match="divider: ZeroDivisionError"):
            failing.prepare(0.0)


def test_stockpyle_is_not_where_its_peers_are() -> None:
    """A process for those without stockpyle is refused if it has imported it."""
    with ExitStack() as stack, pytest.raises(RuntimeError, match="has imported stockpyle"):
        elsewhere(stack, importer)
