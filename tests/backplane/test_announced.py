"""Commits that were announced, and are not settled yet."""

from __future__ import annotations

from typing import Any

from stockpyle.classes import spec_of
from stockpyle.coherence.announced import Announced
from stockpyle.coherence.messages import Changes
from stockpyle.testing import Clock, Person


def changes(i: int) -> Changes:
    """Return that this person has changed."""
    return Changes.of([key for key in [spec_of(Person).key({"id": i})] if key is not None])


class Cleaner:
    """What a test has cleaned, and when."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.cleaned: list[Changes] = []
        self.error: Exception | None = None
        self.announced = Announced(self.clean, 5.0, clock=self.clock, courier=None, **options)

    def clean(self, changes: Changes) -> None:
        """Remove it from the shared tiers."""
        if self.error is not None:
            raise self.error
        self.cleaned.append(changes)


def test_settled_commits_are_left_alone() -> None:
    """A commit that is settled in time is nobody's business any more; what it changed is told to be dropped again."""
    cleaner = Cleaner()
    cleaner.announced.hear(b"1", changes(1))
    assert cleaner.announced.waits
    assert cleaner.announced.settled([b"1"]) == changes(1)
    cleaner.clock.advance(100)
    assert cleaner.announced.settle()
    assert cleaner.cleaned == []


def test_overdue_commits_are_cleaned_once() -> None:
    """One that nobody settles within the grace time is settled here, not before it, and only once."""
    cleaner = Cleaner()
    cleaner.announced.hear(b"1", changes(1))
    cleaner.clock.advance(4.9)
    assert not cleaner.announced.settle()
    assert cleaner.cleaned == []
    cleaner.clock.advance(5.1)
    assert cleaner.announced.settle()
    assert cleaner.announced.settle()
    (cleaned,) = cleaner.cleaned
    assert (cleaned.idents, list(cleaned.settled)) == (changes(1).idents, [b"1"])


def test_failed_cleaning_is_tried_again() -> None:
    """What cannot be cleaned stays to be done."""
    cleaner = Cleaner()
    cleaner.announced.hear(b"1", changes(1))
    cleaner.clock.advance(10)
    cleaner.error = OSError("cut off")
    assert not cleaner.announced.settle()
    cleaner.error = None
    assert cleaner.announced.settle()
    assert len(cleaner.cleaned) == 1


def test_unknown_commit_is_told_apart() -> None:
    """That a commit is settled which was never heard of is known: its keys are not."""
    assert Cleaner().announced.settled([b"1"]) is None


def test_too_many_are_settled_early() -> None:
    """What is remembered is bounded: the oldest of too many are settled without waiting."""
    cleaner = Cleaner(limit=10)
    for i in range(12):
        cleaner.announced.hear(bytes([i]), changes(i))
    cleaner.announced.settle()
    (cleaned,) = cleaner.cleaned
    assert list(cleaned.settled) == [b"\0", b"\1"]
    assert len(cleaner.announced) == 10
