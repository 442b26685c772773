"""What becomes of commits that were announced from inside their transactions, with clocks that tests turn."""

from __future__ import annotations

from typing import Any

from stockpyle.classes import spec_of
from stockpyle.coherence.backplane import Backplane
from stockpyle.coherence.messages import Changes
from stockpyle.keys import Key
from stockpyle.records import MISS, Alias, Lease, Record
from stockpyle.testing import Clock, Person
from tests.chain.parts import Tier
from tests.chain.radio import Air, Radio, unavailable

ANN = Person(1, "ann@x")


class Peer:
    """A process: memory, a backplane, and what it has removed from the shared tiers."""

    def __init__(self, air: Air, *, shared: bool = True) -> None:
        self.clock = Clock()
        self.memory = Tier()
        self.radio = Radio(air)
        self.cleaned: list[Changes] = []
        self.backplane = Backplane(
            self.radio,
            "channel",
            [self.memory],
            self.cleaned.append if shared else None,
            in_transaction=True,
            grace=5.0,
            clock=self.clock,
            courier=None,
        )
        self.backplane.start()
        self.fill()

    def fill(self) -> None:
        """Keep Ann in memory."""
        leases = [found for found in self.memory.read(keys()) if isinstance(found, Lease)]
        values: list[Any] = [Record(spec_of(Person), ANN), Alias(keys()[0])]
        self.memory.fill(list(zip(leases, values, strict=True)))
        assert self.holds()

    def holds(self) -> bool:
        """True if Ann is in memory."""
        return self.memory.holds(keys()[0]) is not MISS

    def later(self, seconds: float) -> None:
        """Let time pass, and the courier come by."""
        self.clock.advance(seconds)
        self.backplane._announced.settle()


def keys() -> list[Key]:
    """Ann's keys."""
    return spec_of(Person).keys_of(ANN)


def announced(air: Air, writer: Peer) -> bytes:
    """Announce a commit, and return its number."""
    number = writer.backplane.announce(None, keys())
    assert number is not None
    return number


def test_settled_commit() -> None:
    """Others drop it when it is announced, and once more when it is settled, and clean nothing up."""
    air = Air()
    writer, reader = Peer(air), Peer(air)
    number = announced(air, writer)
    assert writer.holds()
    assert not reader.holds()
    reader.fill()
    writer.backplane.settled(number)
    assert writer.backplane._outbox.settle()
    assert not reader.holds()
    reader.later(100)
    assert reader.cleaned == []


def test_commit_that_nobody_settles() -> None:
    """After the grace time one of those who have heard it cleans up; all drop what they have read since, itself too."""
    air = Air()
    writer, first, second = Peer(air), Peer(air), Peer(air)
    number = announced(air, writer)
    writer.radio.close()
    for peer in (first, second):
        peer.fill()
        peer.later(4.9)
        assert peer.cleaned == []
    first.later(5.1)
    (cleaned,) = first.cleaned
    assert (list(cleaned.idents), list(cleaned.settled)) == ([key.ident for key in keys()], [number])
    assert not first.holds()
    assert not second.holds()
    second.later(100)
    assert second.cleaned == []


def test_who_cleans_up_and_cannot_tell() -> None:
    """Who cleans up drops its own copies at once, and tells the others as soon as that is possible."""
    air = Air()
    writer, first, second = Peer(air), Peer(air), Peer(air)
    announced(air, writer)
    first.fill()
    second.fill()
    first.radio.error = unavailable()
    first.later(10)
    assert not first.holds()
    assert second.holds()
    first.radio.error = None
    assert first.backplane._outbox.settle()
    assert not second.holds()


def test_settlement_of_what_was_not_heard() -> None:
    """Who has not heard what is settled does not know its keys, and drops everything."""
    air = Air()
    writer = Peer(air)
    number = announced(air, writer)
    late = Peer(air)
    writer.backplane.settled(number)
    assert writer.backplane._outbox.settle()
    assert not late.holds()


def test_clean_up_of_what_was_not_heard() -> None:
    """Who cleans up says which keys these were: others who had not heard of it drop only those."""
    air = Air()
    writer, cleaner = Peer(air), Peer(air)
    announced(air, writer)
    late = Peer(air)
    other = spec_of(Person).keys_of(Person(2))[0]
    (lease,) = late.memory.read([other])
    late.memory.fill([(lease, Record(spec_of(Person), Person(2)))])
    cleaner.later(10)
    assert not late.holds()
    assert late.memory.holds(other) is not MISS


def test_who_is_closed_cleans_nothing_up() -> None:
    """What a chain has heard of, and is not settled when it is closed, is left to the others: its stores are closed."""
    air = Air()
    writer, reader = Peer(air), Peer(air)
    announced(air, writer)
    reader.backplane.close()
    assert not reader.backplane._announced.waits
    reader.later(100)
    assert reader.cleaned == []
    assert not reader.backplane._outbox.waits


def test_without_a_shared_tier_nothing_is_left_to_be_done() -> None:
    """Memory that has nothing below it but the source is right as soon as it has heard the announcement."""
    air = Air()
    writer, reader = Peer(air), Peer(air, shared=False)
    number = announced(air, writer)
    assert not reader.holds()
    reader.fill()
    writer.backplane.settled(number)
    assert writer.backplane._outbox.settle()
    reader.later(100)
    assert reader.holds()
