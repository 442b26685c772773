"""What every tier must do: leases, locks and what ends them, key by key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from stockpyle.classes import spec_of
from stockpyle.keys import Key
from stockpyle.records import ABSENT, LOCKED, MISS, Alias, Busy, Found, Lease, Lock, Record
from stockpyle.testing.samples import Clock, Person, Pet

PERSON = spec_of(Person)


def key(**names: Any) -> Key:
    """Return a key of Person."""
    found = PERSON.key(names)
    assert found is not None
    return found


def record(id: Any = 1, email: Any = None, *, name: str = "", deadline: float | None = None) -> Record:
    """Return the record of a Person."""
    return Record(PERSON, Person(id, email, name=name), deadline)


ONE = key(id=1)
TWO = key(id=2)
MAIL = key(email="ann@x")


class TierContract:
    """Subclass it and implement make_tier."""

    clock_is_ours = True
    """False for a tier whose locks, leases and records run out by a clock that no test can turn."""

    def make_tier(self, clock: Clock) -> Any:
        """Return a new, empty tier that lives by this clock."""
        raise NotImplementedError

    # what the tests are written in

    def read(self, tier: Any, *keys: Key, lease: bool = True) -> Any:
        """Read one or several keys."""
        found: list[Found] = tier.read(keys, lease=lease)
        assert len(found) == len(keys)
        return found[0] if len(keys) == 1 else found

    def lease(self, tier: Any, wanted: Key = ONE) -> Lease:
        """Take the lease of a key that is free."""
        found = self.read(tier, wanted)
        assert isinstance(found, Lease)
        assert found.key == wanted
        return found

    def lock(self, tier: Any, *keys: Key, seconds: float = 30, without_row_lock: Sequence[Key] = ()) -> Any:
        """Lock one or several keys."""
        locks: list[Lock] = tier.lock(list(keys), seconds, without_row_lock=without_row_lock)
        assert [lock.key for lock in locks] == list(keys)
        return locks[0] if len(keys) == 1 else locks

    def keep(self, tier: Any, *records: Record) -> None:
        """Fill records and the aliases that lead to them."""
        for each in records:
            identity, *alternates = each.spec.keys_in(each.value)
            leases = tier.read([identity, *alternates])
            values = [each, *(Alias(identity, each.deadline) for _ in alternates)]
            assert tier.fill(list(zip(leases, values, strict=True))) == len(values)

    def holds(self, tier: Any, wanted: Key = ONE) -> Any:
        """Return the name that is held, LOCKED, or None for nothing; takes no lease."""
        found = self.read(tier, wanted, lease=False)
        return found.value.name if isinstance(found, Record) else None if found is MISS else found

    def is_free(self, tier: Any, wanted: Key = ONE) -> bool:
        """True if nothing at all is held: a reader gets the lease, which is given back."""
        found = self.read(tier, wanted)
        if not isinstance(found, Lease):
            return False
        tier.fill([(found, None)])
        return True

    # reading and filling

    def test_miss_gives_a_lease_and_the_fill_is_read(self) -> None:
        """A miss hands out a lease; what is filled with it is the next reader's."""
        tier = self.make_tier(Clock())
        assert tier.fill([(self.lease(tier), record(name="Ann"))]) == 1
        assert self.holds(tier) == "Ann"

    def test_reading_without_lease_takes_none(self) -> None:
        """lease=False answers MISS and leaves the lease to the next."""
        tier = self.make_tier(Clock())
        assert self.read(tier, ONE, lease=False) is MISS
        assert self.is_free(tier)

    def test_second_reader_is_busy(self) -> None:
        """While one reader has the lease of a key, others get Busy, and other keys are free."""
        tier = self.make_tier(Clock())
        self.lease(tier)
        assert isinstance(self.read(tier, ONE), Busy)
        self.lease(tier, TWO)

    def test_lease_given_back_is_free(self) -> None:
        """A lease that is filled with None is the next reader's, and counts as nothing filled."""
        tier = self.make_tier(Clock())
        assert tier.fill([(self.lease(tier), None)]) == 0
        assert self.is_free(tier)

    def test_lease_is_good_once(self) -> None:
        """A lease that was used, or given back, fills nothing."""
        tier = self.make_tier(Clock())
        lease = self.lease(tier)
        assert tier.fill([(lease, record(name="first"))]) == 1
        assert tier.fill([(lease, record(name="second"))]) == 0
        assert self.holds(tier) == "first"
        given_back = self.lease(tier, TWO)
        tier.fill([(given_back, None)])
        assert tier.fill([(given_back, record(2))]) == 0

    def test_lease_that_ran_out_is_the_next_readers(self) -> None:
        """A reader that is too slow loses its lease to the next, and its fill is refused."""
        if not self.clock_is_ours:
            return
        clock = Clock()
        tier = self.make_tier(clock)
        slow = self.lease(tier)
        clock.advance(11)
        quick = self.lease(tier)
        assert tier.fill([(slow, record(name="slow"))]) == 0
        assert tier.fill([(quick, record(name="quick"))]) == 1
        assert self.holds(tier) == "quick"

    def test_batch_is_answered_in_order(self) -> None:
        """One read answers records, locks and misses in the order of its keys, also asked twice."""
        tier = self.make_tier(Clock())
        self.keep(tier, record(1, name="Ann"))
        self.lock(tier, TWO)
        third = key(id=3)
        found = self.read(tier, third, TWO, ONE, TWO, ONE)
        assert isinstance(found[0], Lease)
        assert [found[1], found[3]] == [LOCKED, LOCKED]
        assert [found[2].value.name, found[4].value.name] == ["Ann", "Ann"]
        assert self.read(tier, third, third, lease=False)[0] is not LOCKED

    def test_fill_counts_what_it_took(self) -> None:
        """fill returns how many values stand, and refuses the others one by one."""
        tier = self.make_tier(Clock())
        first, second = self.lease(tier), self.lease(tier, TWO)
        self.lock(tier, ONE)
        assert tier.fill([(first, record(1)), (second, record(2, name="Bob"))]) == 1
        assert self.holds(tier) is LOCKED
        assert self.holds(tier, TWO) == "Bob"

    def test_absent_is_a_record(self) -> None:
        """That there is no such object can be kept under any key."""
        tier = self.make_tier(Clock())
        for wanted in (ONE, MAIL):
            assert tier.fill([(self.lease(tier, wanted), Record(PERSON, ABSENT))]) == 1
            assert self.read(tier, wanted).is_absent

    def test_record_expires(self) -> None:
        """A record is gone at its deadline, with its aliases, and its key can be leased."""
        if not self.clock_is_ours:
            return
        clock = Clock()
        tier = self.make_tier(clock)
        self.keep(tier, record(1, "ann@x", name="Ann", deadline=clock.now + 60))
        clock.advance(59)
        assert self.holds(tier) == "Ann"
        clock.advance(1)
        assert self.holds(tier) is None
        assert self.is_free(tier)

    def test_expired_record_is_not_filled(self) -> None:
        """A record whose deadline has passed is refused."""
        clock = Clock()
        tier = self.make_tier(clock)
        assert tier.fill([(self.lease(tier), record(deadline=clock.now))]) == 0
        assert self.is_free(tier)

    # aliases

    def test_alias_leads_to_the_identity(self) -> None:
        """Under an alternate key a tier holds the identity that it leads to."""
        tier = self.make_tier(Clock())
        self.keep(tier, record(1, "ann@x"))
        found = self.read(tier, MAIL)
        assert isinstance(found, Alias)
        assert found.identity == ONE
        assert found.identity.is_identity

    def test_alias_after_its_record_is_gone_leads_to_nothing(self) -> None:
        """When a record is invalidated its aliases are gone, or lead to an identity that is gone."""
        tier = self.make_tier(Clock())
        self.keep(tier, record(1, "ann@x"))
        tier.publish([(self.lock(tier, ONE), None)])
        found = self.read(tier, MAIL, lease=False)
        assert found is MISS or (isinstance(found, Alias) and self.holds(tier, found.identity) is None)

    # locks

    def test_locked_key_is_bypassed(self) -> None:
        """Readers of a locked key are told so, with lease and without."""
        tier = self.make_tier(Clock())
        self.lock(tier, ONE)
        assert self.read(tier, ONE) is LOCKED
        assert self.read(tier, ONE, lease=False) is LOCKED

    def test_lock_replaces_whatever_is_held(self) -> None:
        """A lock takes the place of a record, an alias, a lease and another's lock."""
        tier = self.make_tier(Clock())
        self.keep(tier, record(1, "ann@x"))
        self.lease(tier, TWO)
        third = key(id=3)
        self.lock(tier, third)
        self.lock(tier, ONE, MAIL, TWO, third)
        assert self.read(tier, ONE, MAIL, TWO, third) == [LOCKED] * 4

    def test_fill_after_a_lock_is_refused(self) -> None:
        """What was loaded before a lock is never filled: not under it, nor after its publish or unlock."""
        tier = self.make_tier(Clock())
        for end in ("none", "publish", "publish nothing", "unlock"):
            lease = self.lease(tier)
            lock = self.lock(tier, ONE)
            if end.startswith("publish"):
                tier.publish([(lock, record(name="new") if end == "publish" else None)])
            elif end == "unlock":
                tier.unlock([lock])
            assert tier.fill([(lease, record(name="old"))]) == 0
            assert self.holds(tier) == {"none": LOCKED, "publish": "new"}.get(end)
            tier.publish([(self.lock(tier, ONE), None)])

    def test_publish_replaces_the_own_lock(self) -> None:
        """After a commit the own lock becomes the record and its alias, in one call."""
        tier = self.make_tier(Clock())
        locks = self.lock(tier, ONE, MAIL)
        tier.publish([(locks[0], record(1, "ann@x", name="new")), (locks[1], Alias(ONE))])
        assert self.holds(tier) == "new"
        assert self.read(tier, MAIL).identity == ONE

    def test_publish_of_nothing_removes_the_own_lock(self) -> None:
        """After a commit that is not published the key is free."""
        tier = self.make_tier(Clock())
        tier.publish([(self.lock(tier, ONE), None)])
        assert self.is_free(tier)

    def test_publish_of_what_expired_removes(self) -> None:
        """A published record whose deadline has passed leaves nothing."""
        clock = Clock()
        tier = self.make_tier(clock)
        tier.publish([(self.lock(tier, ONE), record(deadline=clock.now - 1))])
        assert self.is_free(tier)

    def test_publish_leaves_a_foreign_lock(self) -> None:
        """A writer whose lock was replaced by another's publishes nothing, and the other can."""
        tier = self.make_tier(Clock())
        first = self.lock(tier, ONE)
        second = self.lock(tier, ONE)
        tier.publish([(first, record(name="first"))])
        assert self.holds(tier) is LOCKED
        tier.publish([(second, record(name="second"))])
        assert self.holds(tier) == "second"

    def test_publish_removes_what_came_after_a_lost_lock(self) -> None:
        """If the own lock is gone, a record filled meanwhile may be older than the commit, and is removed."""
        tier = self.make_tier(Clock())
        lock = self.lock(tier, ONE)
        tier.unlock([lock])
        self.keep(tier, record(1, name="filled"))
        tier.publish([(lock, record(name="new"))])
        assert self.holds(tier) is None

    def test_publish_removes_a_lease_taken_after_a_lost_lock(self) -> None:
        """If the own lock is gone, a reader that is loading meanwhile may not fill."""
        tier = self.make_tier(Clock())
        lock = self.lock(tier, ONE)
        tier.unlock([lock])
        lease = self.lease(tier)
        tier.publish([(lock, None)])
        assert tier.fill([(lease, record(name="old"))]) == 0

    def test_publish_of_a_key_that_is_gone_leaves_nothing(self) -> None:
        """If the own lock is gone and nothing came, nothing is published."""
        tier = self.make_tier(Clock())
        lock = self.lock(tier, ONE)
        tier.unlock([lock])
        tier.publish([(lock, record(name="new"))])
        assert self.is_free(tier)

    def test_unlock_removes_the_own_lock_only(self) -> None:
        """After a rollback the own lock is removed; another's lock, a record and a lease are left."""
        tier = self.make_tier(Clock())
        own = self.lock(tier, ONE)
        tier.unlock([own])
        assert self.is_free(tier)
        lease = self.lease(tier)
        tier.unlock([own])
        assert tier.fill([(lease, record(name="Ann"))]) == 1
        tier.unlock([own])
        assert self.holds(tier) == "Ann"
        first, _ = self.lock(tier, ONE), self.lock(tier, ONE)
        tier.unlock([first])
        assert self.holds(tier) is LOCKED

    def test_lock_runs_out(self) -> None:
        """A lock whose writer never comes back ends by the clock, and the key can be leased."""
        if not self.clock_is_ours:
            return
        clock = Clock()
        tier = self.make_tier(clock)
        self.lock(tier, ONE, seconds=30)
        clock.advance(29)
        assert self.holds(tier) is LOCKED
        clock.advance(1)
        assert self.is_free(tier)

    def test_writer_whose_lock_ran_out_removes_what_came(self) -> None:
        """A writer that comes back after its lock has run out removes what a reader filled meanwhile."""
        if not self.clock_is_ours:
            return
        clock = Clock()
        tier = self.make_tier(clock)
        lock = self.lock(tier, ONE)
        clock.advance(31)
        self.keep(tier, record(1, name="perhaps old"))
        tier.publish([(lock, record(name="new"))])
        assert self.holds(tier) is None

    # without the row's lock

    def test_contention_is_told_to_who_has_no_row_lock(self) -> None:
        """A lock without a row lock says if it replaced a live one; one with a row lock, or over others, does not."""
        tier = self.make_tier(Clock())
        self.keep(tier, record(2))
        loose = self.lock(tier, ONE, TWO, without_row_lock=[ONE, TWO])
        assert [lock.contended for lock in loose] == [False, False]
        again = self.lock(tier, ONE, TWO, without_row_lock=[ONE])
        assert [lock.contended for lock in again] == [True, False]

    def test_lock_that_ran_out_is_no_contention(self) -> None:
        """To replace a lock that has run out is no contention."""
        if not self.clock_is_ours:
            return
        clock = Clock()
        tier = self.make_tier(clock)
        self.lock(tier, ONE)
        clock.advance(31)
        assert not self.lock(tier, ONE, without_row_lock=[ONE]).contended

    def test_contended_lock_is_left_to_run_out(self) -> None:
        """Neither publish nor unlock removes a contended lock; the clock does."""
        clock = Clock()
        tier = self.make_tier(clock)
        self.lock(tier, ONE)
        contended = self.lock(tier, ONE, without_row_lock=[ONE])
        tier.publish([(contended, None)])
        assert self.holds(tier) is LOCKED
        tier.unlock([contended])
        assert self.holds(tier) is LOCKED
        if self.clock_is_ours:
            clock.advance(31)
            assert self.is_free(tier)

    def test_contended_writer_that_lost_its_lock_removes_what_came(self) -> None:
        """A contended lock that has run out does not protect what was filled since."""
        if not self.clock_is_ours:
            return
        clock = Clock()
        tier = self.make_tier(clock)
        self.lock(tier, ONE)
        contended = self.lock(tier, ONE, without_row_lock=[ONE])
        clock.advance(31)
        self.keep(tier, record(1, name="perhaps old"))
        tier.publish([(contended, None)])
        assert self.holds(tier) is None

    # epochs

    def test_locked_class_is_bypassed_as_a_whole(self) -> None:
        """While a class's epoch is locked, every key of it is, known or not; other classes are not."""
        tier = self.make_tier(Clock())
        self.keep(tier, record(1, "ann@x"))
        self.lock(tier, PERSON.epoch, without_row_lock=[PERSON.epoch])
        assert self.read(tier, ONE, MAIL, TWO) == [LOCKED] * 3
        other = spec_of(Pet).key({"id": 1})
        assert other is not None
        assert self.is_free(tier, other)

    def test_published_epoch_has_invalidated_the_class(self) -> None:
        """After a commit that may have changed a whole class nothing that was held of it is."""
        tier = self.make_tier(Clock())
        self.keep(tier, record(1, "ann@x"))
        tier.fill([(self.lease(tier, TWO), Record(PERSON, ABSENT))])
        tier.publish([(self.lock(tier, PERSON.epoch, without_row_lock=[PERSON.epoch]), None)])
        assert self.is_free(tier, ONE)
        assert self.is_free(tier, MAIL)
        assert self.is_free(tier, TWO)

    def test_unlocked_epoch_frees_the_class(self) -> None:
        """After a rollback the class's keys can be leased again."""
        tier = self.make_tier(Clock())
        tier.unlock([self.lock(tier, PERSON.epoch, without_row_lock=[PERSON.epoch])])
        self.keep(tier, record(1, name="Ann"))
        assert self.holds(tier) == "Ann"

    def test_lease_from_before_an_epoch_fills_nothing(self) -> None:
        """What was loaded before a class was invalidated is never filled."""
        tier = self.make_tier(Clock())
        leases = self.read(tier, ONE, MAIL)
        lock = self.lock(tier, PERSON.epoch, without_row_lock=[PERSON.epoch])
        tier.fill([(leases[0], record(1, "ann@x"))])
        assert self.read(tier, ONE) is LOCKED
        tier.publish([(lock, None)])
        assert self.holds(tier) is None
        tier.fill([(leases[0], record(1, "ann@x")), (leases[1], Record(PERSON, ABSENT))])
        assert self.is_free(tier, ONE)
        assert self.is_free(tier, MAIL)

    def test_lock_from_before_an_epoch_publishes_nothing(self) -> None:
        """What a writer loaded may be older than a class's invalidation that came after its lock."""
        tier = self.make_tier(Clock())
        one = self.lock(tier, ONE)
        epoch = self.lock(tier, PERSON.epoch, without_row_lock=[PERSON.epoch])
        tier.publish([(epoch, None)])
        assert self.holds(tier) in (LOCKED, None)
        tier.publish([(one, record(name="perhaps old"))])
        assert self.is_free(tier)

    def test_lock_under_a_locked_epoch_publishes_nothing(self) -> None:
        """While a class is locked no record of it is published, whoever locked its key."""
        tier = self.make_tier(Clock())
        epoch = self.lock(tier, PERSON.epoch, without_row_lock=[PERSON.epoch])
        tier.publish([(self.lock(tier, ONE), record(name="perhaps old"))])
        tier.publish([(epoch, None)])
        assert self.is_free(tier)

    def lock_class(self, tier: Any, seconds: float = 30) -> Lock:
        """Lock the class, as one writer of several."""
        lock: Lock = self.lock(tier, PERSON.epoch, seconds=seconds, without_row_lock=[PERSON.epoch])
        assert not lock.contended
        return lock

    def test_last_writer_opens_the_class(self) -> None:
        """Writers of a whole class that overlap: it is locked until the last of them ends, in whatever order."""
        for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
            tier = self.make_tier(Clock())
            self.keep(tier, record(1, "ann@x"))
            locks = [self.lock_class(tier) for _ in range(3)]
            for number in order:
                assert self.read(tier, ONE) is LOCKED
                tier.publish([(locks[number], None)])
            assert self.is_free(tier)
            self.keep(tier, record(1, name="new"))
            assert self.holds(tier) == "new"

    def test_writers_may_come_and_go(self) -> None:
        """A class that was never without a writer is open when it has none."""
        tier = self.make_tier(Clock())
        before = self.lock_class(tier)
        for _ in range(5):
            after = self.lock_class(tier)
            tier.publish([(before, None)])
            assert self.read(tier, ONE) is LOCKED
            before = after
        tier.publish([(before, None)])
        assert self.is_free(tier)

    def test_rollback_leaves_the_other_writers_of_a_class(self) -> None:
        """A writer of a whole class that rolls back takes out its own lock only; twice is no harm."""
        tier = self.make_tier(Clock())
        self.keep(tier, record(1, name="old"))
        first, second = self.lock_class(tier), self.lock_class(tier)
        for _ in range(2):
            tier.unlock([first])
            assert self.read(tier, ONE) is LOCKED
        tier.publish([(second, None)])
        assert self.holds(tier) is None
        assert self.is_free(tier)

    def test_last_writer_of_a_class_may_roll_back(self) -> None:
        """If another has committed before, what was held of the class is gone all the same."""
        tier = self.make_tier(Clock())
        self.keep(tier, record(1, name="old"))
        first, second = self.lock_class(tier), self.lock_class(tier)
        tier.publish([(first, None)])
        tier.unlock([second])
        assert self.holds(tier) is None
        assert self.is_free(tier)

    def test_lease_from_before_the_writers_of_a_class_fills_nothing(self) -> None:
        """What was loaded before the first of them, or among them, is never filled."""
        tier = self.make_tier(Clock())
        lease = self.lease(tier)
        locks = [self.lock_class(tier) for _ in range(2)]
        for lock in locks:
            tier.publish([(lock, None)])
            tier.fill([(lease, record(name="old"))])
        assert self.holds(tier) is None

    def test_unknown_outcome_leaves_a_class_to_run_out(self) -> None:
        """A writer of a class that does not know if it has committed leaves its lock, whoever else ends."""
        clock = Clock()
        tier = self.make_tier(clock)
        unsure, other = self.lock_class(tier), self.lock_class(tier)
        tier.publish([(replace(unsure, contended=True), None)])
        tier.publish([(other, None)])
        tier.unlock([replace(unsure, contended=True)])
        assert self.read(tier, ONE) is LOCKED
        if self.clock_is_ours:
            clock.advance(31)
            assert self.is_free(tier)

    def test_lock_under_a_locked_epoch_publishes_nothing_when_that_has_run_out(self) -> None:
        """Nor is a record published that may be older than the commit of a writer of the class that never came back."""
        if not self.clock_is_ours:
            return
        clock = Clock()
        tier = self.make_tier(clock)
        self.lock_class(tier)
        clock.advance(5)
        lock = self.lock(tier, ONE)
        clock.advance(26)
        tier.publish([(lock, record(name="perhaps old"))])
        assert self.holds(tier) is None

    def test_lock_among_the_writers_of_a_class_publishes_nothing(self) -> None:
        """Nor one that may be older than the commit of a writer of the class that has ended, if the last rolls back."""
        tier = self.make_tier(Clock())
        locks = [self.lock_class(tier), self.lock_class(tier)]
        one = self.lock(tier, ONE)
        tier.publish([(locks[0], None)])
        tier.unlock([locks[1]])
        tier.publish([(one, record(name="perhaps old"))])
        assert self.is_free(tier)

    def test_dead_writers_lock_of_a_class_runs_out(self) -> None:
        """A writer of a class that died is waited for as long as its lock lives, however many come and go meanwhile."""
        if not self.clock_is_ours:
            return
        clock = Clock()
        tier = self.make_tier(clock)
        self.lock_class(tier)
        for passed in (5, 10, 15, 20, 25, 30):
            lock = self.lock_class(tier)
            clock.advance(5)
            assert self.read(tier, ONE) is LOCKED
            tier.publish([(lock, None)])
            assert self.read(tier, ONE, lease=False) is (LOCKED if passed < 30 else MISS)
        assert self.is_free(tier)

    def test_longest_lock_of_a_class_counts(self) -> None:
        """Of several writers of a class each is waited for as long as its own lock lives, not as another's."""
        if not self.clock_is_ours:
            return
        clock = Clock()
        tier = self.make_tier(clock)
        self.lock_class(tier, seconds=60)
        self.lock_class(tier, seconds=10)
        clock.advance(59)
        assert self.read(tier, ONE) is LOCKED
        clock.advance(1)
        assert self.is_free(tier)

    def test_epoch_whose_lock_ran_out_is_invalidated_again(self) -> None:
        """A writer of a whole class that comes back after its lock has run out removes what came meanwhile."""
        if not self.clock_is_ours:
            return
        clock = Clock()
        tier = self.make_tier(clock)
        lock = self.lock(tier, PERSON.epoch, without_row_lock=[PERSON.epoch])
        clock.advance(31)
        self.keep(tier, record(1, name="perhaps old"))
        tier.publish([(lock, None)])
        assert self.holds(tier) is None

    def test_writer_of_a_class_that_lost_its_lock_leaves_the_others(self) -> None:
        """It changes the epoch, unless others have locked the class, of whom the last will."""
        if not self.clock_is_ours:
            return
        clock = Clock()
        tier = self.make_tier(clock)
        slow = self.lock_class(tier)
        clock.advance(31)
        self.keep(tier, record(1, name="perhaps old"))
        other = self.lock_class(tier)
        tier.publish([(slow, None)])
        assert self.read(tier, ONE) is LOCKED
        tier.publish([(other, None)])
        assert self.holds(tier) is None
