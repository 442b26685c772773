"""Histories on disk."""

from __future__ import annotations

import time
from pathlib import Path

from tests.coherence import history
from tests.coherence.models import MEMBERS_ID, PEOPLE_ID, WRITES_EACH
from tests.coherence.results import collect, conditions
from tests.coherence.timelines import NEVER


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Frames come back as lists, in their order."""
    path = tmp_path / "one.history"
    history.write_history(path, [(history.READ, 1, 2, 0, 0, 5, None), (history.FAULT, 3, 4, "kill", {"a": "b"})])
    assert list(history.read_history(path)) == [[history.READ, 1, 2, 0, 0, 5, None], [1 + 4, 3, 4, "kill", {"a": "b"}]]


def test_a_frame_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    """Whatever a kill leaves of the last frame does no harm."""
    path = tmp_path / "one.history"
    history.write_history(path, [(history.INTENT, 1, 2), (history.INTENT, 3, 4)])
    whole = path.read_bytes()
    for length in range(len(whole) // 2, len(whole)):
        path.write_bytes(whole[:length])
        assert list(history.read_history(path)) == [[history.INTENT, 1, 2]]


def test_what_must_not_be_lost_is_on_disk_at_once(tmp_path: Path) -> None:
    """add_now hands over what was added before, and itself, with a time of the monotonic clock."""
    path = tmp_path / "one.history"
    writer = history.HistoryWriter(path)
    before = time.monotonic_ns()
    writer.add(history.READ, 1, 2, 0)
    assert list(history.read_history(path)) == []
    now = writer.add_now(history.INTENT, 7)
    assert before <= now <= time.monotonic_ns()
    assert list(history.read_history(path)) == [[history.READ, 1, 2, 0], [history.INTENT, now, 7]]
    writer.close()


def test_what_became_of_each_transaction(tmp_path: Path) -> None:
    """A commit returned, raised, or its worker died; who never returned is witnessed by the first who saw it."""
    one, two, three = 2_000_001, 2_000_002, 2_000_003
    seen = [0, two * WRITES_EACH + 1, 5]
    frames = [
        (history.INTENT, 10, one, False),
        (history.RETURNED, 15, one),
        (history.INTENT, 20, two, False),
        (history.FAILED, 25, two, "lost"),
        (history.READ, 50, 55, 0, 0, 5, seen),
        (history.READ, 40, 45, 0, 0, 5, seen, 0, 6, None),
        (history.INTENT, 60, three, False),
    ]
    history.write_history(tmp_path / "worker.history", frames)
    history.write_history(tmp_path / "runner.history", [(history.WITNESSED, 70, [one, two, three])])
    transactions = collect(tmp_path).transactions
    assert [transactions[each].returned for each in (one, two, three)] == [15, NEVER, NEVER]
    assert [transactions[each].known for each in (one, two, three)] == [15, 45, 70]
    assert (transactions[two].failed, transactions[two].died) == ("lost", NEVER)
    assert transactions[three].died == 60


def test_a_debt_lasts_until_it_is_delivered(tmp_path: Path) -> None:
    """A key that was owed is so until that debt, and no older one, was delivered, or for ever."""
    five, six, login, member = [0, 5], [0, 6], [2, ["o", "l"]], [MEMBERS_ID, 7]
    frames = [
        (history.INTENT, 10, 1, False),
        (history.OWED, 11, 1, True, [five, six, login, member]),
        (history.DELIVERED, 12, [five, [0, 77]]),
        (history.OWED, 13, 1, False, [five, six, login, member]),
        (history.RETURNED, 15, 1),
        (history.INTENT, 20, 2, False),
        (history.OWED, 21, 2, True, [six]),
        (history.DELIVERED, 90, [five, login]),
    ]
    history.write_history(tmp_path / "worker.history", frames)
    transactions = collect(tmp_path).transactions
    assert transactions[1].owed == {(0, 5): 90, (0, 6): NEVER, (2, ("o", "l")): 90, (PEOPLE_ID, 7): NEVER}
    assert transactions[2].owed == {(0, 6): NEVER}


def test_a_debt_of_the_dead_is_never_delivered(tmp_path: Path) -> None:
    """Who dies before it can say what it owes owes it for ever, though an older debt on the key is delivered."""
    frames = [
        (history.INTENT, 10, 1, False),
        (history.OWED, 11, 1, True, [[0, 5]]),
        (history.OWED, 12, 1, False, [[0, 5]]),
        (history.RETURNED, 13, 1),
        (history.INTENT, 20, 2, False),
        (history.OWED, 21, 2, True, [[0, 5]]),
        (history.DELIVERED, 22, [[0, 5]]),
    ]
    history.write_history(tmp_path / "worker.history", frames)
    transactions = collect(tmp_path).transactions
    assert (transactions[1].owed, transactions[2].owed) == ({(0, 5): 22}, {(0, 5): NEVER})


def test_what_was_locked_is_no_debt_of_that_kind(tmp_path: Path) -> None:
    """Of a commit that was locked, and could not be published, nothing older can be read while its lock stands."""
    frames = [
        (history.INTENT, 10, 1, False),
        (history.OWED, 14, 1, False, [[0, 5], [0, 6]]),
        (history.RETURNED, 15, 1),
        (history.DELIVERED, 20, [[0, 5]]),
    ]
    history.write_history(tmp_path / "worker.history", frames)
    transaction = collect(tmp_path).transactions[1]
    assert (transaction.owed, transaction.unpublished) == ({}, {(0, 5): 20, (0, 6): NEVER})


def test_the_cache_forgets_when_it_is_restarted_or_full(tmp_path: Path) -> None:
    """These faults, and no others, may lose locks."""
    frames = [
        (history.FAULT, 1, 2, "restart cache", None),
        (history.FAULT, 3, 4, "fill cache", None),
        (history.FAULT, 5, 6, "kill after-lock", 1),
        (history.FAULT, 7, 8, "pause cache, long", None),
    ]
    history.write_history(tmp_path / "runner.history", frames)
    assert conditions(collect(tmp_path), lock_seconds=3, lifetime=10).losses == [(1, 2), (3, 4)]


def test_of_what_is_being_sent_nothing_is_known_yet(tmp_path: Path) -> None:
    """While workers run, a commit under way may be seen or not; one whose worker was killed, or failed, has an end."""
    one, two, three = 7, 8, 9
    seen = [0, one * WRITES_EACH, 5, "e", "o", "l", "n", 1, 1, 1, 1]
    other = [0, two * WRITES_EACH, 5, "e", "o", "l", "n", 1, 1, 1, 1]
    third = [0, three * WRITES_EACH, 5, "e", "o", "l", "n", 1, 1, 1, 1]
    history.write_history(tmp_path / "worker-00-00002.history", [(history.INTENT, 10, one, False)])
    history.write_history(
        tmp_path / "worker-00-00003.history",
        [(history.INTENT, 20, two, False), (history.FAILED, 21, two, "lost"), (history.INTENT, 30, three, True)],
    )
    reading = [(history.READ, 40, 41, 0, 0, 5, seen, 0, 5, other, 0, 5, third), (history.CALLS, 42, 43)]
    history.write_history(tmp_path / "worker-01-00004.history", reading)
    for still_running, witnessed in ((False, 41), (True, NEVER)):
        results = collect(tmp_path, still_running=still_running)
        known = [results.transactions[each].known for each in (one, two, three)]
        assert known == [41, 41, witnessed]
    assert [results.transactions[each].outside for each in (one, three)] == [False, True]
    assert results.busy == {0: [], 1: [], 2: [(40, 41), (42, 43)]}
