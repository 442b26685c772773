"""The judge of plain objects: what it finds wrong, and what it leaves alone."""

from __future__ import annotations

import pytest

from tests.coherence.registers import NEVER, Read, Write, judge

ONE, TWO = Write(10, 20, 1, "a", 1), Write(30, 40, 1, "a", 2)
GONE = Write(30, 40, 1, None, 2)
TAKEN = Write(30, 40, 2, "a", 2)
LOST = Write(10, NEVER, 1, "a", 1)


def read(begin: float, end: float, asked: int | str, found: tuple[int, str, int] | None) -> Read:
    """Return a read."""
    return Read(begin, end, asked, found)


@pytest.mark.parametrize(
    ("kind", "writes", "reads"),
    [
        ("stale", [ONE, TWO], [read(41, 42, 1, (1, "a", 1))]),
        ("stale", [ONE, TWO], [read(41, 42, "a", (1, "a", 1))]),
        ("stale", [ONE, GONE], [read(41, 42, "a", (1, "a", 1))]),
        ("stale", [ONE, TAKEN], [read(41, 42, "a", (1, "a", 1))]),
        ("absent", [ONE], [read(21, 22, 1, None)]),
        ("absent", [ONE], [read(21, 22, "a", None)]),
        ("absent", [GONE, Write(50, 60, 1, "a", 3)], [read(61, 62, 1, None)]),
        ("dirty", [ONE], [read(1, 2, 1, (1, "a", 1))]),
        ("dirty", [], [read(1, 2, 1, (1, "a", 1))]),
        ("wrong object", [ONE], [read(21, 22, 1, (1, "b", 1))]),
        ("wrong object", [ONE], [read(21, 22, "b", (1, "a", 1))]),
        # what was seen was written, though its writer was not told so yet, or was killed
        ("stale", [ONE, TWO], [read(31, 32, 1, (1, "a", 2)), read(33, 34, 1, (1, "a", 1))]),
        ("stale", [LOST, TWO], [read(21, 22, 1, (1, "a", 1)), read(41, 42, 1, (1, "a", 1))]),
    ],
)
def test_what_is_wrong(kind: str, writes: list[Write], reads: list[Read]) -> None:
    """Each of these is told once, by its name."""
    judgement = judge([Write(w.begin, w.end, w.ident, w.email, w.version) for w in writes], reads)
    assert judgement.kinds == {kind: 1}
    assert len(judgement.told) == 1


@pytest.mark.parametrize(
    ("writes", "reads"),
    [
        ([ONE, TWO], [read(29, 50, 1, (1, "a", 1)), read(31, 32, 1, (1, "a", 2))]),
        ([ONE, GONE], [read(31, 32, 1, None), read(31, 32, "a", (1, "a", 1)), read(50, 60, "a", None)]),
        ([ONE, TAKEN], [read(50, 60, "a", (2, "a", 2)), read(50, 60, 1, (1, "a", 1))]),
        ([ONE, TAKEN], [read(35, 36, "a", None)]),
        ([LOST], [read(50, 60, 1, None), read(50, 60, 1, (1, "a", 1)), read(50, 60, "a", None)]),
        # they overlap: either may have been the last
        ([ONE, Write(15, 25, 1, "a", 3)], [read(30, 31, 1, (1, "a", 1)), read(30, 31, 1, (1, "a", 3))]),
        ([], [read(1, 2, 1, None), read(1, 2, "a", None)]),
    ],
)
def test_what_may_be(writes: list[Write], reads: list[Read]) -> None:
    """Nothing of this is wrong, whatever the order was in which the database wrote."""
    judgement = judge([Write(w.begin, w.end, w.ident, w.email, w.version) for w in writes], reads)
    assert judgement.told == []
    assert judgement.reads == len(reads)


def test_overlaps_are_counted() -> None:
    """A read during which its key was written is one that could have gone wrong."""
    reads = [read(15, 16, 1, None), read(15, 16, "a", None), read(1, 2, 1, None), read(15, 16, 2, None)]
    assert judge([Write(10, 20, 1, "a", 1)], reads).overlaps == 2
