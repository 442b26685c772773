"""A run in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tests.coherence.checker import Verdict, Violation
from tests.coherence.models import CLASSES, TABLES, key_value
from tests.coherence.results import Results, rule
from tests.coherence.timelines import NEVER, Timelines, Transaction, name_of

SHOWN = 5


def describe(
    results: Results, timelines: Timelines, verdict: Verdict, void: Sequence[str], start: int, seconds: float
) -> Iterator[str]:
    """Yield the report, line by line."""
    counts = results.counts
    yield f"{verdict.reads:,} reads judged, {verdict.overlaps:,} of them while a commit of their key was under way"
    yield (
        f"{timelines.commits:,} commits in the database: {counts['commits']:,} returned, "
        f"{_unanswered(results, timelines):,} never did; {counts['rolled back']:,} transactions rolled back, "
        f"savepoints {counts['savepoints released']:,} released and {counts['savepoints rolled back']:,} rolled back"
    )
    yield (
        f"{counts['commits past the unit of work']:,} commits past the unit of work, {counts['results checked']:,} of "
        f"their results checked; from outside {counts['keys invalidated']:,} keys and "
        f"{counts['classes invalidated']:,} classes invalidated"
    )
    yield f"{verdict.reads / seconds:,.0f} reads and {timelines.commits / seconds:,.0f} commits a second"
    if results.quiet["reads"]:
        yield f"{100 * results.quiet['hits'] / results.quiet['reads']:.1f} % of the reads in quiet phases were hits"
    if counts["hits in memory"]:
        ages = sorted(each / 1e9 for each in verdict.ages) or [0.0]
        yield (
            f"{counts['hits in memory']:,} hits in processes' own memory; {len(verdict.ages):,} reads older than a "
            f"commit, by {ages[len(ages) // 2]:.3f} s (median), {ages[len(ages) * 99 // 100]:.3f} s (p99), "
            f"{ages[-1]:.3f} s (most)"
        )
    yield f"{counts['refused']:,} fills refused, {counts['locked']:,} reads bypassed a lock, {counts['fills']:,} fills"
    fired = Counter(fault.name for fault in results.faults)
    yield "faults: " + (", ".join(f"{name} {times}" for name, times in sorted(fired.items())) or "none")
    failed = {name: count for name, count in counts.items() if "failed" in name or "gave up" in name}
    yield "errors: " + (", ".join(f"{name} {count:,}" for name, count in sorted(failed.items())) or "none")
    raised = [each for each in results.transactions.values() if each.failed and each.number in _committed(timelines)]
    if raised:
        yield f"{len(raised)} commits raised, and are in the database all the same"
    if counts["owed"]:
        yield f"{counts['owed']:,} keys owed, {counts['delivered']:,} delivered"
    if verdict.excused:
        yield "excused: " + ", ".join(f"{name} {count:,}" for name, count in sorted(verdict.excused.items()))
    if results.own:
        yield f"{len(results.own)} times a transaction was not told what it had written: {results.own[0][1]}"
    total = sum(verdict.kinds.values())
    kinds = ", ".join(f"{count:,} {name}" for name, count in verdict.kinds.most_common())
    yield f"{total:,} violations" + (f": {kinds}" if kinds else "")
    for violation in verdict.violations[:SHOWN]:
        yield ""
        yield from _violation(violation, results, timelines, start)
    yield rule(seconds)
    for reason in void:
        yield f"void: {reason}"


def _committed(timelines: Timelines) -> set[int]:
    return {each.number for each in timelines.author.values()}


def _unanswered(results: Results, timelines: Timelines) -> int:
    committed = _committed(timelines)
    return sum(each.returned == NEVER and each.number in committed for each in results.transactions.values())


def _violation(violation: Violation, results: Results, timelines: Timelines, start: int) -> Iterator[str]:
    number, value = violation.key
    yield (
        f"{violation.kind}: worker {violation.worker} asked for the {CLASSES[violation.klass].__name__} of "
        f"{name_of((number, value))}, from {_at(violation.begin, start)} to {_at(violation.end, start)}"
    )
    yield f"  {violation.why}"
    yield f"  seen: {violation.seen}"
    timeline = timelines.of(number, key_value(number, value))
    last = max((i for i, begin in enumerate(timeline.begins) if begin <= violation.end), default=0)
    given = violation.seen[1] if violation.seen else None
    first = timeline.index.get(given, last) if given is not None else last
    for i in sorted({first - 1, first, first + 1, *range(last - 3, last + 3)}):
        if 0 <= i < len(timeline.wids):
            yield f"  {i:6} {_state(timelines, timeline.wids[i])} by {_transaction(timeline.transactions[i], start)}"
    near = [
        fault
        for fault in results.faults
        if fault.end > violation.begin - 5e9 and fault.begin < violation.end
    ]  # fmt: skip
    for fault in near[-6:]:
        yield f"  fault: {fault.name} ({fault.detail}), {_at(fault.begin, start)} to {_at(fault.end, start)}"


def _state(timelines: Timelines, wid: int) -> str:
    if not wid:
        return "nothing"
    return f"{TABLES[timelines.tables[wid]].name} {timelines.states[wid]}"


def _transaction(transaction: Transaction | None, start: int) -> str:
    if transaction is None:
        return "nobody"
    text = f"transaction {transaction.number} of worker {transaction.worker}, sent {_at(transaction.begin, start)}, "
    if transaction.returned != NEVER:
        text += f"returned {_at(transaction.returned, start)}"
    else:
        text += f"never returned ({transaction.failed or 'killed'}), seen {_at(transaction.witnessed, start)}"
    for key, until in (*transaction.owed.items(), *transaction.unpublished.items()):
        text += f", owed {name_of(key)} until {_at(until, start)}"
    return text


def _at(time: float, start: int) -> str:
    return "never" if abs(time) == NEVER else f"{(time - start) / 1e9:.6f} s"
