"""When a run proves nothing, however clean it is."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.coherence.checker import Verdict
from tests.coherence.faults import FAULTS, KILL, LEAD, RESTART, in_busy_phase, needed, plan
from tests.coherence.results import BULK, Fault, Results, needed_overlaps, rule, why_void
from tests.coherence.workload import BUSY_SECONDS, QUIET_SECONDS, is_quiet


def good(seconds: float, times: int, overlaps: int) -> tuple[Results, Verdict]:
    """What a run with two faults has brought."""
    results = Results(counts=Counter(refused=1, locked=1, **dict.fromkeys(BULK, 1)), quiet=Counter(reads=100, hits=60))
    results.faults = [Fault(0, 1, name, None) for name in (KILL, RESTART) for _ in range(times)]
    return results, Verdict(overlaps=overlaps)


def reasons(results: Results, verdict: Verdict, seconds: float = 600, lacks: frozenset[str] = frozenset()) -> list[str]:
    """Return why it is void."""
    return why_void(results, verdict, seconds=seconds, faults=[KILL, RESTART], lacks=lacks)


@pytest.mark.parametrize(
    ("seconds", "times", "overlaps"), [(600, 20, 1_000), (3_600, 20, 1_000), (300, 10, 500), (30, 2, 50), (1, 2, 20)]
)
def test_shorter_runs_need_less_in_proportion(seconds: float, times: int, overlaps: int) -> None:
    """Ten minutes need every fault 20 times and 1,000 reads during a commit; nothing goes below 2 and 20."""
    assert (needed(seconds), needed_overlaps(seconds)) == (times, overlaps)
    assert not reasons(*good(seconds, times, overlaps), seconds)
    assert "during a commit" in rule(seconds)


def test_every_fault_must_have_fired() -> None:
    """One that was enabled and did not fire often enough makes the run void, by its name."""
    results, verdict = good(600, 20, 1_000)
    results.faults.pop()
    assert reasons(results, verdict) == ['the fault "restart cache" fired 19 times, 20 are needed']


def test_reads_must_have_met_commits() -> None:
    """Without races nothing is proved."""
    (reason,) = reasons(*good(600, 20, 999))
    assert "only 999 reads overlapped a commit" in reason


def test_the_cache_must_have_been_used() -> None:
    """60 % of the reads in quiet phases are hits, or the database has answered instead."""
    results, verdict = good(600, 20, 1_000)
    results.quiet["hits"] = 59
    (reason,) = reasons(results, verdict)
    assert "only 59 of 100" in reason
    results.quiet.clear()
    assert len(reasons(results, verdict)) == 1


@pytest.mark.parametrize("name", ["refused", "locked"])
def test_the_protocol_must_have_been_at_work(name: str) -> None:
    """A fill was refused, and a reader met a lock; unless the system cannot tell."""
    results, verdict = good(600, 20, 1_000)
    results.counts[name] = 0
    assert len(reasons(results, verdict)) == 1
    assert not reasons(results, verdict, lacks=frozenset({name}))


@pytest.mark.parametrize("name", BULK)
def test_there_must_have_been_writes_past_the_unit_of_work(name: str) -> None:
    """Statements of every kind were committed, and classes and keys invalidated; unless nobody asked for it."""
    results, verdict = good(600, 20, 1_000)
    results.counts[name] = 0
    assert reasons(results, verdict) == [f"there were no {name}"]
    assert not reasons(results, verdict, lacks=frozenset({"bulk"}))


def test_faults_come_from_the_seed() -> None:
    """The same seed, the same faults at the same times."""
    assert plan(FAULTS, 600, 7) == plan(FAULTS, 600, 7) != plan(FAULTS, 600, 8)


@pytest.mark.parametrize("seconds", [12, 30, 600])
def test_more_faults_are_planned_than_needed_and_in_busy_phases(seconds: float) -> None:
    """Some do not fire, because their worker is just dead: half as many again are planned; quiet phases stay quiet."""
    planned = plan(FAULTS, seconds, 7)
    times = Counter(each.name for each in planned)
    assert all(times[name] >= 1.5 * needed(seconds) for name in FAULTS)
    assert not any(is_quiet(each.time) for each in planned)
    assert all(0 < each.time < seconds for each in planned)


def test_times_keep_their_order() -> None:
    """A time within a phase becomes one of its busy part."""
    phase = BUSY_SECONDS + QUIET_SECONDS
    assert in_busy_phase(0.0) == 0.0
    assert BUSY_SECONDS - LEAD - 0.1 < in_busy_phase(phase - 0.01) < BUSY_SECONDS - LEAD
    assert in_busy_phase(phase) == phase
