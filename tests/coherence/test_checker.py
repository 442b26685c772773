"""The judge, on histories made by hand: each kind of violation, and what comes close to one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.coherence.audit import Entry
from tests.coherence.checker import Checker, Conditions, judge
from tests.coherence.models import (
    ACCOUNT,
    ACCOUNTS,
    ALL_ACCOUNTS,
    ALL_PEOPLE,
    MEMBER,
    MEMBERS,
    MEMBERS_BADGE,
    PEOPLE,
    PEOPLE_EMAIL,
    PEOPLE_ID,
    PERSON,
    State,
)
from tests.coherence.timelines import NEVER, BrokenHistory, Timelines, Transaction, build

ID, EMAIL, LOGIN, NICK = range(4)


def account(wid: int, ident: int = 5, email: str = "e", nick: str = "n", a: int = 0, b: int = 0) -> State:
    """A row of accounts. a and b are the writes that wrote its two groups of columns."""
    return (wid, ident, email, "org", email, nick, a or wid, a or wid, b or wid, b or wid)


def person(wid: int, email: str = "p", kind: str = "member") -> State:
    """A row of people."""
    return (wid, 5, email, kind, wid, wid)


def member(wid: int, badge: str = "b") -> State:
    """A row of members."""
    return (wid, 5, badge, wid, wid)


class Story:
    """A log and its transactions, written as they happen: transaction n is sent at 10 n, and has returned at 10 n + 5.

    Nothing of it is known after that if it is `lost`.
    """

    def __init__(self) -> None:
        self.log: list[Entry] = []
        self.transactions: dict[int, Transaction] = {}

    def tx(self, number: int, *writes: tuple[int, State | None, State | None], **told: Any) -> Transaction:
        """Commit a transaction that writes rows: (table, state before, state after)."""
        transaction = self.transactions[number] = Transaction(number, 10 * number, returned=10 * number + 5)
        for name, value in told.items():
            setattr(transaction, name, value)
        for table, old, new in writes:
            seq = len(self.log) + 1
            self.log.append(Entry(seq, number, table, old and old[0], new and new[0], new))
        return transaction

    def timelines(self) -> Timelines:
        """Put it together."""
        return build(self.log, self.transactions)

    def judge(
        self, begin: int, end: int, number: int, value: Any, *states: State, klass: int = ACCOUNT, **conditions: Any
    ) -> str | None:
        """Return the kind of violation that a read is, or None; or what excuses it, in brackets."""
        seen = None
        if states:
            kind = ACCOUNT if klass == ACCOUNT else MEMBER if len(states) == 2 else PERSON
            seen = (kind, *(column for state in states for column in state))
        checker = Checker(self.timelines(), Conditions(**conditions))
        checker.read(1, begin, end, klass, number, value, seen)
        if checker.verdict.violations:
            (violation,) = checker.verdict.violations
            return violation.kind
        return "({})".format(", ".join(checker.verdict.excused)) if checker.verdict.excused else None


@pytest.fixture
def updated() -> Story:
    """Account 5 is inserted at 10 to 15, and its first group is written at 20 to 25, its second at 30 to 35."""
    story = Story()
    story.tx(1, (ACCOUNTS, None, account(1)))
    story.tx(2, (ACCOUNTS, account(1), account(2, a=2, b=1)))
    story.tx(3, (ACCOUNTS, account(2), account(3, a=2, b=3)))
    return story


@pytest.mark.parametrize(
    ("begin", "end", "wrong"),
    [
        (16, 19, None),
        (19, 22, None),
        (24, 26, None),
        (25, 40, None),
        (26, 40, "stale"),
        (8, 10, None),
        (8, 9, "dirty"),
    ],
)
def test_a_version_may_be_read_until_the_next_has_returned(
    updated: Story, begin: int, end: int, wrong: str | None
) -> None:
    """A version is right from when its commit was sent until the next one's has returned."""
    assert updated.judge(begin, end, ID, 5, account(1)) == wrong
    assert updated.judge(begin, end, EMAIL, "e", account(1)) == wrong
    assert updated.judge(begin, end, LOGIN, ("org", "e"), account(1)) == wrong
    assert updated.judge(begin, end, LOGIN, ["org", "e"], account(1)) == wrong


def test_a_commit_under_way_may_be_seen_or_not(updated: Story) -> None:
    """While a commit is under way, the version before and the one after are both right."""
    assert updated.judge(22, 23, ID, 5, account(1)) is None
    assert updated.judge(22, 23, ID, 5, account(2, a=2, b=1)) is None


def test_a_later_commit_that_returned_first_counts(updated: Story) -> None:
    """What is older than any commit that has returned is stale, even if the one right after it has not."""
    updated.transactions[2].returned = 90
    assert updated.judge(36, 40, ID, 5, account(1)) == "stale"
    assert updated.judge(36, 40, ID, 5, account(2, a=2, b=1)) == "stale"
    assert updated.judge(34, 40, ID, 5, account(1)) is None


def test_a_state_that_nobody_committed_is_dirty(updated: Story) -> None:
    """A write id that is not in the log is of a transaction that was rolled back, or is not committed."""
    assert updated.judge(36, 40, ID, 5, account(4)) == "dirty"


def test_a_row_of_two_versions_is_a_mix(updated: Story) -> None:
    """The columns of a row must be those of one version: a group that was not written may not be an older one."""
    assert updated.judge(36, 40, ID, 5, account(3, a=2, b=3)) is None
    assert updated.judge(36, 40, ID, 5, account(3, a=1, b=3)) == "mix"
    assert updated.judge(36, 40, ID, 5, account(2, a=2, b=3)) == "mix"


def test_what_a_transaction_has_replaced_itself_is_dirty() -> None:
    """Of several writes of one row in one transaction only the last is ever to be seen."""
    story = Story()
    story.tx(1, (ACCOUNTS, None, account(1)))
    story.tx(2, (ACCOUNTS, account(1), account(2)), (ACCOUNTS, account(2), account(3)))
    assert story.judge(26, 30, ID, 5, account(2)) == "dirty"
    assert story.judge(26, 30, ID, 5, account(3)) is None
    assert story.judge(26, 30, ID, 5, account(1)) == "stale"


@pytest.fixture
def deleted() -> Story:
    """Account 5 is inserted at 10 to 15, deleted at 20 to 25, and inserted again at 30 to 35."""
    story = Story()
    story.tx(1, (ACCOUNTS, None, account(1)))
    story.tx(2, (ACCOUNTS, account(1), None))
    story.tx(3, (ACCOUNTS, None, account(3)))
    return story


@pytest.mark.parametrize(
    ("begin", "end", "wrong"),
    [
        (1, 9, None),
        (15, 30, None),
        (16, 19, "absent"),
        (16, 20, None),
        (26, 29, None),
        (35, 36, None),
        (36, 40, "absent"),
    ],
)
def test_nothing_may_be_found_while_there_may_be_nothing(
    deleted: Story, begin: int, end: int, wrong: str | None
) -> None:
    """To find nothing is right if, between the beginning and the end of the read, there may have been nothing."""
    for number, value in ((ID, 5), (EMAIL, "e"), (LOGIN, ("org", "e")), (NICK, "n")):
        assert deleted.judge(begin, end, number, value) == wrong


def test_a_deleted_row_is_stale(deleted: Story) -> None:
    """What was deleted is stale, also once another row has its key."""
    assert deleted.judge(26, 29, ID, 5, account(1)) == "stale"
    assert deleted.judge(36, 40, ID, 5, account(1)) == "stale"


def test_nothing_was_ever_there(deleted: Story) -> None:
    """A key that no row ever had leads to nothing, and only to nothing."""
    assert deleted.judge(1, 2, ID, 6) is None
    assert deleted.judge(36, 40, ID, 6, account(3)) == "wrong object"


def test_a_key_compared_regardless_of_case() -> None:
    """A key of such a column leads to the row whatever its case."""
    story = Story()
    story.tx(1, (ACCOUNTS, None, account(1, nick="Ann")))
    assert story.judge(16, 19, NICK, "ANN", account(1, nick="Ann")) is None
    assert story.judge(16, 19, NICK, "ann") == "absent"


@pytest.fixture
def swapped() -> Story:
    """Accounts 5 and 6 swap their e-mail addresses at 20 to 25, by way of a third one."""
    story = Story()
    story.tx(1, (ACCOUNTS, None, account(1, 5, "e")), (ACCOUNTS, None, account(2, 6, "f")))
    story.tx(
        2,
        (ACCOUNTS, account(2), account(3, 6, "t")),
        (ACCOUNTS, account(1), account(4, 5, "f")),
        (ACCOUNTS, account(3), account(5, 6, "e")),
    )
    return story


def test_a_key_that_moves_leads_to_one_of_its_holders(swapped: Story) -> None:
    """A key leads to who had it before until the commit returns, and and to who has it after from when it is sent."""
    assert swapped.judge(16, 19, EMAIL, "e", account(1, 5, "e")) is None
    assert swapped.judge(22, 23, EMAIL, "e", account(1, 5, "e")) is None
    assert swapped.judge(22, 23, EMAIL, "e", account(5, 6, "e")) is None
    assert swapped.judge(26, 29, EMAIL, "e", account(5, 6, "e")) is None
    assert swapped.judge(16, 19, EMAIL, "e", account(5, 6, "e")) == "dirty"
    assert swapped.judge(26, 29, EMAIL, "e", account(1, 5, "e")) == "stale"


def test_a_key_that_moves_is_never_nobodys(swapped: Story) -> None:
    """A key that one transaction moves has a holder all the time; the third value that it went through, none."""
    assert swapped.judge(16, 40, EMAIL, "e") == "absent"
    assert swapped.judge(16, 40, EMAIL, "f") == "absent"
    assert swapped.judge(16, 40, EMAIL, "t") is None
    assert swapped.judge(21, 24, EMAIL, "t", account(3, 6, "t")) == "dirty"


def test_an_object_without_the_key_that_was_asked_for(swapped: Story) -> None:
    """A right version of another object is the wrong object."""
    assert swapped.judge(26, 29, EMAIL, "f", account(5, 6, "e")) == "wrong object"
    assert swapped.judge(26, 29, ID, 5, account(5, 6, "e")) == "wrong object"


def test_a_primary_key_changes() -> None:
    """A changed primary key leaves nothing behind under the old one."""
    story = Story()
    story.tx(1, (ACCOUNTS, None, account(1, 5)))
    story.tx(2, (ACCOUNTS, account(1), account(2, 7)))
    assert story.judge(26, 29, ID, 5) is None
    assert story.judge(26, 29, ID, 5, account(1, 5)) == "stale"
    assert story.judge(26, 29, ID, 7, account(2, 7)) is None
    assert story.judge(26, 29, ID, 7) == "absent"
    assert story.judge(26, 29, EMAIL, "e", account(1, 5)) == "stale"


# joined rows


@pytest.fixture
def joined() -> Story:
    """Member 5; at 20 to 25 its first table is written, at 30 to 35 its second, at 40 to 45 both."""
    story = Story()
    story.tx(1, (PEOPLE, None, person(1)), (MEMBERS, None, member(2)))
    story.tx(2, (PEOPLE, person(1), person(3)))
    story.tx(3, (MEMBERS, member(2), member(4)))
    story.tx(4, (PEOPLE, person(3), person(5)), (MEMBERS, member(4), member(6)))
    return story


@pytest.mark.parametrize("key", [(PEOPLE_ID, 5), (PEOPLE_EMAIL, "p"), (MEMBERS_BADGE, "b")])
def test_each_table_of_a_joined_row_is_judged(joined: Story, key: tuple[int, Any]) -> None:
    """The state of either table may be stale or dirty, by whichever key it was read."""
    assert joined.judge(36, 39, *key, person(3), member(4), klass=MEMBER) is None
    assert joined.judge(36, 39, *key, person(1), member(4), klass=MEMBER) == "stale"
    assert joined.judge(36, 39, *key, person(3), member(2), klass=MEMBER) == "stale"
    assert joined.judge(36, 39, *key, person(3), member(6), klass=MEMBER) == "dirty"
    assert joined.judge(16, 39, *key, person(1), member(2), klass=MEMBER) is None


def test_states_of_two_tables_that_never_met_are_a_mix(joined: Story) -> None:
    """One table's state was over before the other's began: a mix, however long the read took."""
    assert joined.judge(16, 39, PEOPLE_ID, 5, person(1), member(4), klass=MEMBER) == "mix"


def test_a_transaction_on_two_tables_is_seen_in_both_or_in_none(joined: Story) -> None:
    """While a commit on both tables is under way, one of the two alone is not to be seen."""
    assert joined.judge(42, 43, PEOPLE_ID, 5, person(3), member(4), klass=MEMBER) is None
    assert joined.judge(42, 43, PEOPLE_ID, 5, person(5), member(6), klass=MEMBER) is None
    assert joined.judge(42, 43, PEOPLE_ID, 5, person(5), member(4), klass=MEMBER) == "mix"
    assert joined.judge(42, 43, PEOPLE_ID, 5, person(3), member(6), klass=MEMBER) == "mix"


def test_two_tables_written_by_two_commits_at_the_same_time(joined: Story) -> None:
    """Two commits that overlap may have become visible in either order."""
    joined.transactions[2].returned = joined.transactions[3].returned = 39
    assert joined.judge(31, 32, PEOPLE_ID, 5, person(3), member(2), klass=MEMBER) is None
    assert joined.judge(31, 32, PEOPLE_ID, 5, person(1), member(4), klass=MEMBER) is None


def test_a_person_is_no_member() -> None:
    """Who is in the first table only is found as a person, and not as a member."""
    story = Story()
    story.tx(1, (PEOPLE, None, person(1, kind="person")))
    assert story.judge(16, 19, PEOPLE_ID, 5, person(1, kind="person"), klass=PERSON) is None
    assert story.judge(16, 19, PEOPLE_ID, 5, klass=MEMBER) is None
    assert story.judge(16, 19, PEOPLE_EMAIL, "p", klass=MEMBER) is None
    assert story.judge(16, 19, PEOPLE_ID, 5, klass=PERSON) == "absent"
    assert story.judge(16, 19, PEOPLE_ID, 5, person(1, kind="person"), klass=MEMBER) == "wrong object"


def test_a_member_is_found_as_one(joined: Story) -> None:
    """A member is found under both classes, with the columns of both tables."""
    assert joined.judge(36, 39, PEOPLE_ID, 5, person(3), member(4), klass=PERSON) is None
    assert joined.judge(36, 39, PEOPLE_ID, 5, person(3), klass=PERSON) == "wrong object"
    assert joined.judge(36, 39, MEMBERS_BADGE, "b", klass=MEMBER) == "absent"
    assert joined.judge(36, 39, PEOPLE_EMAIL, "p", klass=MEMBER) == "absent"


# commits without an answer, and the excuses


def test_a_commit_without_an_answer_counts_once_it_was_seen(updated: Story) -> None:
    """Whose commit never returned may be seen or not, until somebody has seen it."""
    updated.transactions[3].returned = NEVER
    old = account(2, a=2, b=1)
    assert updated.judge(90, 91, ID, 5, old) is None
    assert updated.judge(90, 91, ID, 5, account(3, a=2, b=3)) is None
    updated.transactions[3].witnessed = 60
    assert updated.judge(60, 91, ID, 5, old) is None
    assert updated.judge(61, 91, ID, 5, old) == "stale"
    assert updated.judge(61, 91, ID, 5) == "absent"


def lost(story: Story, **told: float) -> None:
    """Let the third transaction never return, and be seen at 60."""
    story.tx(3, **{"returned": NEVER, "witnessed": 60, "died": 34, **told})


def test_the_gap_is_a_lost_lock_of_a_writer_that_died(updated: Story) -> None:
    """It excuses a stale read if the cache lost the lock before the commit was seen, and the writer died."""
    lost(updated)
    old = account(2, a=2, b=1)
    assert updated.judge(61, 62, ID, 5, old, losses=[(40, 41)]) == "(gap)"
    assert updated.judge(61, 62, ID, 5, old, losses=[(28, 31)]) == "(gap)"
    assert updated.judge(61, 62, ID, 5, old, losses=[(20, 29)]) == "stale"
    assert updated.judge(61, 62, ID, 5, old, losses=[(61, 62)]) == "stale"


def test_a_lock_that_ran_out_is_lost(updated: Story) -> None:
    """A lock is lost, too, if it had run out before the commit was seen."""
    lost(updated)
    old = account(2, a=2, b=1)
    assert updated.judge(61, 62, ID, 5, old, lock_life=29) == "(gap)"
    assert updated.judge(61, 62, ID, 5, old, lock_life=30) == "stale"


def test_a_writer_that_lives_has_no_gap(updated: Story) -> None:
    """A lost lock alone excuses nothing."""
    old = account(2, a=2, b=1)
    assert updated.judge(36, 37, ID, 5, old, losses=[(28, 31)], lock_life=1) == "stale"


def test_a_writer_that_lives_and_cannot_publish_is_told_apart(updated: Story) -> None:
    """Nor can it clean up whose lock was lost while the cache was out of its reach; until it has told the cache."""
    updated.transactions[3].unpublished = {(ID, 5): 80}
    old = account(2, a=2, b=1)
    assert updated.judge(79, 99, ID, 5, old, losses=[(28, 31)]) == "(gap, of a cache out of reach)"
    assert updated.judge(79, 99, ID, 5, old, lock_life=1) == "(gap, of a cache out of reach)"
    assert updated.judge(79, 99, ID, 5, old) == "stale"
    assert updated.judge(80, 99, ID, 5, old, losses=[(28, 31)]) == "stale"
    assert updated.judge(79, 99, EMAIL, "f", account(2, a=2, b=1), losses=[(28, 31)]) == "wrong object"


def test_no_gap_lasts_longer_than_a_record(updated: Story) -> None:
    """What was in the cache before the commit is gone at the end of its lifetime."""
    lost(updated)
    old = account(2, a=2, b=1)
    assert updated.judge(69, 70, ID, 5, old, losses=[(28, 31)], record_life=10) == "(gap)"
    assert updated.judge(70, 71, ID, 5, old, losses=[(28, 31)], record_life=10) == "stale"


def test_a_lost_answer_is_told_apart(updated: Story) -> None:
    """A writer that lives, and does not know the outcome, cannot clean up either: reported by another name."""
    lost(updated, died=NEVER)
    assert updated.judge(61, 62, ID, 5, account(2, a=2, b=1), losses=[(28, 31)]) == "(gap, of a lost answer)"


def test_every_newer_transaction_needs_an_excuse(updated: Story) -> None:
    """The gap of one transaction does not excuse having missed another."""
    lost(updated)
    assert updated.judge(61, 62, ID, 5, account(1), losses=[(28, 31)]) == "stale"


def test_the_gap_excuses_no_mix_and_nothing_dirty(updated: Story) -> None:
    """What was never a version has no excuse."""
    lost(updated)
    assert updated.judge(61, 62, ID, 5, account(3, a=1, b=3), losses=[(28, 31)]) == "mix"
    assert updated.judge(61, 62, ID, 5, account(9), losses=[(28, 31)]) == "dirty"


def test_the_gap_excuses_a_false_absence(deleted: Story) -> None:
    """What was known to be absent is as stale as a record."""
    lost(deleted)
    assert deleted.judge(61, 62, ID, 5, losses=[(28, 31)]) == "(gap)"
    assert deleted.judge(61, 62, ID, 5) == "absent"


def test_a_debt_excuses_until_it_is_delivered(updated: Story) -> None:
    """What the cache could not be told of is excused until it was told, and no longer than records live."""
    updated.transactions[3].owed = {(ID, 5): 80}
    old = account(2, a=2, b=1)
    assert updated.judge(79, 99, ID, 5, old) == "(owed)"
    assert updated.judge(80, 99, ID, 5, old) == "stale"
    assert updated.judge(79, 99, ID, 5, old, record_life=40) == "stale"
    updated.transactions[3].owed = {(ID, 5): NEVER}
    assert updated.judge(90, 99, ID, 5, old, record_life=56) == "(owed)"
    assert updated.judge(91, 99, ID, 5, old, record_life=56) == "stale"


def test_a_debt_excuses_only_the_keys_that_are_owed(updated: Story) -> None:
    """They are the one that was asked for, and the identity of what it has led to."""
    updated.transactions[3].owed = {(EMAIL, "e"): 80}
    old = account(2, a=2, b=1)
    assert updated.judge(70, 71, EMAIL, "e", old) == "(owed)"
    assert updated.judge(70, 71, NICK, "n", old) == updated.judge(70, 71, ID, 5, old) == "stale"
    updated.transactions[3].owed = {(ID, 5): 80}
    assert updated.judge(70, 71, EMAIL, "e", old) == updated.judge(70, 71, ID, 5, old) == "(owed)"


@pytest.mark.parametrize("spelling", ["N", "n"])
def test_a_debt_excuses_what_a_key_has_moved_from(spelling: str) -> None:
    """What has left a key is still found by it, whatever its new holder does meanwhile, until the debt is paid."""
    story = Story()
    one, two = account(1, 5, "e", spelling), account(2, 6, "f", "n")
    story.tx(1, (ACCOUNTS, None, one))
    story.tx(2, (ACCOUNTS, one, account(3, 5, "e", "t")), (ACCOUNTS, None, two), owed={(ID, 5): 80, (NICK, "n"): 80})
    story.tx(3, (ACCOUNTS, two, account(4, 6, "f", "n")))
    assert story.judge(70, 71, NICK, spelling, one) == "(owed)"
    assert story.judge(81, 82, NICK, spelling, one) == "stale"
    assert story.judge(70, 71, NICK, spelling, two) == "stale"


def test_a_debt_excuses_what_a_key_of_the_second_table_has_moved_from() -> None:
    """The same of joined rows, if only the table with the key was written."""
    story = Story()
    other = (11, 6, "q", "member", 11, 11)
    story.tx(1, (PEOPLE, None, person(1)), (MEMBERS, None, member(2)), (PEOPLE, None, other))
    story.tx(2, (MEMBERS, member(2), member(3, "c")), owed={(PEOPLE_ID, 5): 80})
    story.tx(3, (MEMBERS, None, (4, 6, "b", 4, 4)))
    assert story.judge(70, 71, MEMBERS_BADGE, "b", person(1), member(2), klass=MEMBER) == "(owed)"
    assert story.judge(81, 82, MEMBERS_BADGE, "b", person(1), member(2), klass=MEMBER) == "stale"


@pytest.mark.parametrize("later", ["changed", "given to another"])
def test_a_debt_excuses_that_nothing_had_the_key_before(later: str) -> None:
    """Where nothing had a key, nothing is found by it until the debt is paid, whoever changes its object meanwhile."""
    story = Story()
    one = account(2, 5, "e", "n")
    story.tx(1, (ACCOUNTS, None, account(1, 5, "d", "n")))
    story.tx(2, (ACCOUNTS, account(1, 5, "d", "n"), one), owed={(EMAIL, "e"): 80})
    if later == "changed":
        story.tx(3, (ACCOUNTS, one, account(3, 5, "e", "n")))
        assert story.judge(70, 71, EMAIL, "e") == "(owed)"
    else:
        story.tx(3, (ACCOUNTS, one, account(3, 5, "f", "n")), (ACCOUNTS, None, account(4, 6, "e", "t")))
        assert story.judge(70, 71, EMAIL, "e") == "absent"
    assert story.judge(81, 82, EMAIL, "e") == "absent"
    assert story.judge(70, 71, ID, 5) == "absent"


def test_who_owes_has_no_excuse(updated: Story) -> None:
    """A process believes nothing of a cache that it owes something: the excuse is the others'."""
    updated.transactions[3].owed = {(ID, 5): 80}
    updated.transactions[3].worker = 1
    assert updated.judge(70, 71, ID, 5, account(2, a=2, b=1)) == "stale"


def test_a_debt_of_a_whole_class_excuses_all_its_keys(updated: Story) -> None:
    """Where a cache could not be told that a class has changed, any object of that class may be as it was."""
    updated.transactions[3].owed = {(ALL_ACCOUNTS, None): 80}
    old = account(2, a=2, b=1)
    assert updated.judge(70, 71, ID, 5, old) == updated.judge(70, 71, NICK, "n", old) == "(owed)"
    assert updated.judge(80, 81, ID, 5, old) == "stale"
    updated.transactions[3].owed = {(ALL_PEOPLE, None): 80}
    assert updated.judge(70, 71, ID, 5, old) == "stale"


def test_what_is_written_outside_counts_once_the_cache_was_told(updated: Story) -> None:
    """A write that nobody heard of may be missed until its worker has told of it; for ever, if he never did."""
    updated.transactions[3].outside = True
    old = account(2, a=2, b=1)
    assert updated.judge(35, 36, ID, 5, old) is None
    assert updated.judge(36, 37, ID, 5, old) == "stale"
    lost(updated, outside=True)
    assert updated.judge(61, 62, ID, 5, old) == "(untold)"
    assert updated.judge(61, 62, ID, 5, account(1)) == "stale"
    assert updated.judge(69, 70, ID, 5, old, record_life=10) == "(untold)"
    assert updated.judge(70, 71, ID, 5, old, record_life=10) == "stale"


# memory that others' commits do not reach


def test_memory_may_be_older_by_its_lifetime(updated: Story) -> None:
    """A copy may be handed out until its lifetime is over, and how old it then is is measured."""
    old = account(2, a=2, b=1)
    assert updated.judge(55, 56, ID, 5, old, memory_life=20) is None
    assert updated.judge(56, 57, ID, 5, old, memory_life=20) == "stale"
    assert updated.judge(55, 56, ID, 5, account(1), memory_life=20) == "stale"
    assert updated.judge(26, 27, ID, 5, memory_life=20) is None
    checker = Checker(updated.timelines(), Conditions(memory_life=20))
    checker.read(1, 54, 55, ACCOUNT, ID, 5, (0, *old))
    checker.read(1, 30, 55, ACCOUNT, ID, 5, (0, *old))
    assert checker.verdict.ages == [19]


def test_a_copy_is_as_old_as_the_call_that_made_it(updated: Story) -> None:
    """What a call loads at its beginning it may put into memory at its end: the lifetime begins then."""
    old = account(2, a=2, b=1)
    busy = {1: [(10, 20), (34, 50), (52, 53)]}
    assert updated.judge(70, 71, ID, 5, old, memory_life=20, busy=busy) is None
    assert updated.judge(71, 72, ID, 5, old, memory_life=20, busy=busy) == "stale"
    assert updated.judge(70, 71, ID, 5, old, memory_life=20, busy={1: [(36, 50)], 2: busy[1]}) == "stale"


def test_memory_has_what_its_own_process_has_committed(updated: Story) -> None:
    """The bound is for others' commits: who has committed himself sees it at once."""
    updated.transactions[3].worker = 1
    assert updated.judge(40, 41, ID, 5, account(2, a=2, b=1), memory_life=20) == "stale"


@pytest.mark.parametrize(("nick", "wrong"), [("n", "stale"), ("N", None)])
def test_memory_has_a_key_that_its_own_process_gave_away(nick: str, wrong: str | None) -> None:
    """Who gives a key to another object sees that at once; of another spelling of the key his memory knows nothing."""
    story = Story()
    story.tx(1, (ACCOUNTS, None, account(1)))
    story.tx(2, (ACCOUNTS, account(1), account(2, nick="m")))
    story.tx(3, (ACCOUNTS, None, account(3, ident=6, email="f", nick=nick)), worker=1)
    assert story.judge(40, 41, NICK, "n", account(1), memory_life=30) == wrong
    story.transactions[3].worker = 2
    assert story.judge(40, 41, NICK, "n", account(1), memory_life=30) is None


def test_memory_excuses_no_mix_and_nothing_dirty(updated: Story) -> None:
    """What was never a version is not in memory either."""
    assert updated.judge(40, 41, ID, 5, account(3, a=1, b=3), memory_life=20) == "mix"
    assert updated.judge(40, 41, ID, 5, account(9), memory_life=20) == "dirty"


# what cannot be judged, and what is counted


def test_a_commit_that_nobody_sent_breaks_the_run(updated: Story) -> None:
    """The log has a transaction that no worker has told of: the histories are no good."""
    del updated.transactions[2]
    with pytest.raises(BrokenHistory, match="transaction 2"):
        updated.timelines()


def test_a_write_id_used_twice_breaks_the_run(updated: Story) -> None:
    """A state must be known by its write id."""
    updated.tx(4, (ACCOUNTS, account(3), account(2)))
    with pytest.raises(BrokenHistory, match="write id 2"):
        updated.timelines()


def test_overlaps_are_counted(updated: Story) -> None:
    """A read overlaps a commit of its key if that is under way while it runs."""
    frames = [
        (1, [0, 16, 19, ACCOUNT, ID, 5, [0, *account(1)]]),
        (1, [0, 16, 22, ACCOUNT, ID, 5, [0, *account(1)], EMAIL, "e", [0, *account(1)]]),
        (1, [0, 24, 26, ACCOUNT, ID, 5, [0, *account(2, a=2, b=1)], ID, 77, None]),
    ]
    verdict = judge(updated.timelines(), frames)
    assert (verdict.reads, verdict.overlaps, verdict.violations) == (5, 3, [])
