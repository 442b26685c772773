"""What every tier must do that tells revisions: no two writings of a key have the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stockpyle.protocols import Revised
from stockpyle.records import ABSENT, Alias, Lease, Record
from stockpyle.testing.samples import Clock
from stockpyle.testing.tier_contract import MAIL, ONE, PERSON, TWO, key, record


def _lock(tier: Any) -> None:
    tier.lock([ONE], 30)


def _publish(tier: Any) -> None:
    (lock,) = tier.lock([ONE], 30)
    tier.publish([(lock, record(name="Ann"))])


def _remove(tier: Any) -> None:
    (lock,) = tier.lock([ONE], 30)
    tier.publish([(lock, None)])


def _lease(tier: Any) -> None:
    _remove(tier)
    tier.read([ONE])


def _fill_again(tier: Any) -> None:
    _remove(tier)
    (lease,) = tier.read([ONE])
    assert tier.fill([(lease, record(name="Ann"))]) == 1


def _lock_class(tier: Any) -> None:
    tier.lock([PERSON.epoch], 30, without_row_lock=[PERSON.epoch])


def _drop_class(tier: Any) -> None:
    (lock,) = tier.lock([PERSON.epoch], 30, without_row_lock=[PERSON.epoch])
    tier.publish([(lock, None)])


def _drop_class_and_fill(tier: Any) -> None:
    _drop_class(tier)
    (lease,) = tier.read([ONE])
    assert tier.fill([(lease, record(name="Ann"))]) == 1


CHANGES = [_lock, _publish, _remove, _lease, _fill_again, _lock_class, _drop_class, _drop_class_and_fill]


class RevisedContract:
    """Subclass it and implement make_tier."""

    def make_tier(self, clock: Clock) -> Any:
        """Return a new, empty tier that lives by this clock."""
        raise NotImplementedError

    def filled(self) -> Any:
        """Return a tier that holds ONE."""
        tier = self.make_tier(Clock())
        (lease,) = tier.read([ONE])
        assert tier.fill([(lease, record(name="Ann"))]) == 1
        return tier

    def revision(self, tier: Any) -> Any:
        """Return the revision with which ONE is read."""
        (found,) = tier.read_revised([ONE], lease=False)
        assert isinstance(found, Record)
        assert found.revision
        return found.revision

    def test_it_can_tell(self) -> None:
        """The tier says that it can: it has the methods."""
        assert isinstance(self.make_tier(Clock()), Revised)

    def test_a_record_has_the_revision_that_is_told(self) -> None:
        """What a record was read with is told of its key, as long as nothing happens; however often, to whomever."""
        tier = self.filled()
        revision = self.revision(tier)
        assert tier.revisions([ONE]) == [revision] == tier.revisions([ONE], [revision])
        assert self.revision(tier) == revision

    def test_reading_as_usual(self) -> None:
        """read_revised answers what read does: leases, aliases, known absences."""
        tier = self.filled()
        free, mail = tier.read_revised([TWO, MAIL])
        assert isinstance(free, Lease)
        assert tier.fill([(free, Record(PERSON, ABSENT)), (mail, Alias(ONE))]) == 2
        absent, alias = tier.read_revised([TWO, MAIL])
        assert absent.is_absent
        assert tier.revisions([TWO]) == [absent.revision]
        assert isinstance(alias, Alias)
        assert alias.identity == ONE

    def test_nothing_has_no_revision(self) -> None:
        """None is told of a key that nobody has written."""
        assert self.make_tier(Clock()).revisions([ONE, TWO]) == [None, None]

    @pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
    def test_every_change_ends_a_revision(self, change: Callable[[Any], None]) -> None:
        """Whatever happens to a key or to its class, even if the same is written again, the revision is never told."""
        tier = self.filled()
        revision = self.revision(tier)
        change(tier)
        assert tier.revisions([ONE]) != [revision]
        assert tier.revisions([ONE], [revision]) != [revision]

    def test_clearing_ends_all_revisions(self) -> None:
        """After clear() no revision of before is told."""
        tier = self.filled()
        revision = self.revision(tier)
        tier.clear()
        assert tier.revisions([ONE]) == [None]
        (lease,) = tier.read([ONE])
        tier.fill([(lease, record(name="Ann"))])
        assert tier.revisions([ONE]) != [revision]

    def test_revisions_of_many(self) -> None:
        """They are told in the order of the keys, also of many, of which some are not there."""
        tier = self.make_tier(Clock())
        keys = [key(id=i) for i in range(300)]
        leases = tier.read(keys[::2])
        tier.fill([(lease, record(lease.key.values[0])) for lease in leases])
        found = tier.read_revised(keys, lease=False)
        told = tier.revisions(keys)
        assert told == [each.revision if isinstance(each, Record) else None for each in found]
        assert len(set(told)) == 151
        held, expected = keys[::2], [each for each in told if each is not None]
        assert tier.revisions(held, expected) == expected
        (lock,) = tier.lock([held[99]], 30)
        assert tier.revisions(held, expected) != expected
        tier.publish([(lock, None)])
        now = tier.revisions(held, expected)
        assert [i for i, (a, b) in enumerate(zip(now, expected, strict=True)) if a != b] == [99]
