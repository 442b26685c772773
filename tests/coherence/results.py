"""What a run's histories say besides reads: transactions, faults, counts; and whether the run is worth anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.coherence import history
from tests.coherence.checker import Conditions, Verdict
from tests.coherence.faults import LOSSES, needed
from tests.coherence.models import MEMBERS_ID, PEOPLE_ID, WRITES_EACH, key_value
from tests.coherence.timelines import NEVER, KeyName, Transaction

SETUP = 1
"""The number of the transaction that makes the first objects."""


@dataclass
class Fault:
    """A fault that fired, and when."""

    begin: float
    end: float
    name: str
    detail: Any


@dataclass
class Results:
    """All of a run but its reads."""

    transactions: dict[int, Transaction] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    quiet: Counter[str] = field(default_factory=Counter)
    """What was counted in quiet phases."""
    own: list[tuple[int, list[Any]]] = field(default_factory=list)
    """Reads inside a transaction that did not see what it had written."""
    broken: list[str] = field(default_factory=list)
    busy: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    """When each process read or wrote."""


def collect(folder: Path, *, still_running: bool = False) -> Results:
    """Read all histories of a run for everything but the reads.

    still_running: workers are at work, and whether the commit that each is sending has happened is not known yet.
    """
    results = Results()
    sending: dict[str, list[Transaction]] = {}
    for number, path in enumerate(sorted(folder.glob("*.history"))):
        # of a worker that was killed there is a later history
        sending[path.name.rpartition("-")[0]] = _collect_one(results, number, path)
    unanswered = {each.number: each for each in results.transactions.values() if each.returned == NEVER}
    for _, frame in reads(folder):
        for seen in frame[6::3]:
            if seen is not None:
                for wid in (seen[1], seen[7]) if seen[0] == 2 else (seen[1],):
                    transaction = unanswered.get(wid // WRITES_EACH)
                    if transaction is not None:
                        transaction.witnessed = min(transaction.witnessed, frame[2])
    if still_running:
        for transaction in (each for own in sending.values() for each in own):
            transaction.witnessed = NEVER
    return results


def _collect_one(results: Results, number: int, path: Path) -> list[Transaction]:
    """Read one; return the transactions that were being sent at its end."""
    open_ones: dict[int, Transaction] = {}
    busy = results.busy[number] = []
    debts: dict[KeyName, list[dict[KeyName, float]]] = {}
    unsaid: dict[int, set[KeyName]] = {}
    """The keys that a transaction could not lock, until its process knows that it owes them."""
    last = 0
    for frame in history.read_history(path):
        kind = frame[0]
        last = max(last, frame[1])
        if kind in (history.READ, history.CALLS):
            busy.append((frame[1], frame[2]))
        elif kind == history.INTENT:
            # somebody whose history was read before may have witnessed it already
            transaction = results.transactions.setdefault(frame[2], Transaction(frame[2], NEVER))
            transaction.begin, transaction.worker, transaction.outside = frame[1], number, frame[3]
            open_ones[frame[2]] = transaction
        elif kind == history.RETURNED:
            open_ones.pop(frame[2]).returned = frame[1]
        elif kind == history.FAILED:
            open_ones.pop(frame[2]).failed = frame[3]
        elif kind == history.COUNTS:
            results.counts.update(frame[3])
            if frame[2]:
                results.quiet.update(frame[3])
        elif kind == history.FAULT:
            results.faults.append(Fault(*frame[1:5]))
        elif kind == history.WITNESSED:
            for each in frame[2]:
                known = results.transactions.get(each)
                if known is None:
                    known = results.transactions[each] = Transaction(each, NEVER)
                known.witnessed = min(known.witnessed, frame[1])
        elif kind == history.OWED:
            transaction = results.transactions[frame[2]]
            for key in map(_key_name, frame[4]):
                unlocked = frame[3] or key in transaction.owed
                until = transaction.owed if unlocked else transaction.unpublished
                until[key] = NEVER
                debts.setdefault(key, []).append(until)
                (set.add if frame[3] else set.discard)(unsaid.setdefault(frame[2], set()), key)
        elif kind == history.DELIVERED:
            for key in map(_key_name, frame[2]):
                for until in debts.pop(key, []):
                    until[key] = frame[1]
        elif kind == history.OWN and tuple(frame[4]) != tuple(frame[5] or ()):
            results.own.append((number, frame))
        elif kind == history.BROKEN:
            results.broken.append(f"{path.name}:\n{frame[2]}")
    for transaction in open_ones.values():
        transaction.died = last
        # what was delivered was another's debt
        transaction.owed.update(dict.fromkeys(unsaid.get(transaction.number, ()), NEVER))
    return list(open_ones.values())


def _key_name(key: list[Any]) -> KeyName:
    number, value = key
    # a member's primary key is that of its person
    number = PEOPLE_ID if number == MEMBERS_ID else number
    return number, key_value(number, tuple(value) if isinstance(value, list) else value)


def reads(folder: Path) -> Iterator[tuple[int, list[Any]]]:
    """Yield the READ frames of all histories, with the number of each."""
    for number, path in enumerate(sorted(folder.glob("*.history"))):
        for frame in history.read_history(path):
            if frame[0] == history.READ:
                yield number, frame


def conditions(results: Results, *, lock_seconds: float, lifetime: float, memory: float = 0.0) -> Conditions:
    """Return what the checker's excuses depend on. A second of a lock's life is memcached's clock's.

    memory: how many seconds the system's processes may keep copies of their own.
    """
    losses = [(fault.begin, fault.end) for fault in results.faults if fault.name in LOSSES]
    return Conditions(losses, (lock_seconds - 1) * 1e9, (lifetime + 2) * 1e9, memory * 1e9, results.busy)


SHARE = 0.6
"""How many of the reads in quiet phases have to be hits in the cache."""


BULK = ("commits past the unit of work", "classes invalidated", "keys invalidated")
"""What is counted of writes that no unit of work holds, and of those outside SQLAlchemy."""


def needed_overlaps(seconds: float) -> int:
    """How many reads have to overlap a commit of their key: 1,000 in ten minutes or more, and always 20."""
    return max(20, round(1_000 * min(1.0, seconds / 600)))


def rule(seconds: float) -> str:
    """Say what a run of this length must have had, or it proves nothing."""
    return (
        f"a run of {seconds:g} s is void with fewer than {SHARE:.0%} hits in quiet phases, {needed_overlaps(seconds)} "
        f"reads during a commit of their key, {needed(seconds)} of each fault, a refused fill and a bypassed lock, "
        f"one of 30 s also without {', '.join(BULK)}; "
        f"one of 600 s with fewer than {needed_overlaps(600):,} such reads and {needed(600)} of each fault"
    )


def why_void(
    results: Results,
    verdict: Verdict,
    *,
    seconds: float,
    faults: Iterable[str],
    lacks: Collection[str],
    memory: float = 0.0,
) -> list[str]:
    """Return what the run lacks to be worth anything, in words."""
    reasons = []
    overlaps = needed_overlaps(seconds)
    if verdict.overlaps < overlaps:
        reasons.append(f"only {verdict.overlaps} reads overlapped a commit of the same key, {overlaps} are needed")
    if "cache" not in lacks:
        asked, hits = results.quiet["reads"], results.quiet["hits"]
        if hits < SHARE * asked or not asked:
            reasons.append(
                f"only {hits} of {asked} reads in quiet phases were hits in the cache, {SHARE:.0%} are needed"
            )
    for name in ("refused", "locked"):
        if name not in lacks and not results.counts[name]:
            reasons.append({"refused": "no fill was refused", "locked": "no read bypassed a lock"}[name])
    fired = Counter(fault.name for fault in results.faults)
    if memory and not verdict.ages:
        reasons.append(f"no read was older than a commit, though memory may be by {memory:g} s")
    if "bulk" not in lacks:
        reasons += [f"there were no {name}" for name in BULK if not results.counts[name]]
    for name in faults:
        if fired[name] < needed(seconds):
            reasons.append(f'the fault "{name}" fired {fired[name]} times, {needed(seconds)} are needed')
    return reasons
