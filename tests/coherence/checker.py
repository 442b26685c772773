"""Judges every read of a run: a function of what the workers and the database have written down, and of nothing else.

A read that began at b and ended at e, and was given a state, is right if

- that state was committed, all columns of it (else it is *dirty*, or a *mix* of several);
- its transaction had begun to commit before e (else it is *dirty*, too);
- no later transaction on the same key had returned before b (else it is *stale*);
- the state has the key that was asked for (else it is the *wrong object*);
- of an object in two tables: both states may have been there at one moment (else it is a *mix*).

To have been given nothing is right if there was nothing for one moment between b and e (else it is *absent*).

A transaction that never returned, because its worker was killed or its answer was lost, counts from the moment at
which somebody has seen what it wrote.

Three excuses are known, and reported apart; none lasts longer than a record. *gap*: the transaction that the read
is too old for never returned, or its commit could not be published, as the cache was out of reach by then; and its lock
was lost before it was committed. *owed*: it could not lock this key, or that of the object, because it could
not reach the cache, which was told of it only after the read had begun, in another process. *untold*: it was made
outside SQLAlchemy, and its worker, who was to tell the cache of it, never came to an end with that.

Where processes keep copies in a memory of their own for a while, a read may instead have been right at any time since
its process may have made its copy (see Conditions.oldest), unless what is newer is of that very process.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.coherence.models import (
    ACCOUNT,
    KEYS,
    KIND,
    MEMBER,
    MEMBERS,
    MEMBERS_ID,
    PEOPLE,
    PEOPLE_ID,
    TABLES,
    Seen,
    key_value,
    whole_class,
)
from tests.coherence.timelines import ABSENT, NEVER, KeyName, Timeline, Timelines, Transaction

SECOND = 1_000_000_000

_ACCOUNT_END = 1 + len(TABLES[0].columns)
_PEOPLE_END = 1 + len(TABLES[PEOPLE].columns)


@dataclass(frozen=True)
class Conditions:
    """What the excuses depend on. Times in nanoseconds.

    losses: from when to when the cache may have lost what it held. lock_life: how long a lock certainly lives.
    record_life: how long after a commit the cache may still hold what was there before.

    memory_life: how long processes keep copies in a memory of their own, which others' commits do not reach; 0 if they
    keep none. busy: when each process was at work, by its number, in order.
    """

    losses: Sequence[tuple[float, float]] = ()
    lock_life: float = NEVER
    record_life: float = NEVER
    memory_life: float = 0
    busy: Mapping[int, Sequence[tuple[float, float]]] = field(default_factory=dict)

    def oldest(self, worker: int, begin: float) -> float:
        """Return since when a copy that is served at `begin` may have been loaded.

        Its life began when it was filled, which was less than `memory_life` before. It was loaded in the same call, and
        so at the earliest when that call began which was under way, or came next, at that time.
        """
        filled = begin - self.memory_life
        calls = self.busy.get(worker, ())
        i = bisect_left(calls, filled, key=lambda call: call[1])
        return min(filled, calls[i][0]) if i < len(calls) else filled


@dataclass(frozen=True)
class Violation:
    """A read that no order of events explains. newer are the transactions that it should have seen."""

    kind: str
    worker: int
    begin: int
    end: int
    klass: int
    key: tuple[int, Any]
    seen: Seen | None
    why: str
    newer: tuple[Transaction, ...] = ()


@dataclass
class Verdict:
    """What is known after all reads."""

    reads: int = 0
    overlaps: int = 0
    """Reads during which a commit of the same key was under way."""
    kinds: Counter[str] = field(default_factory=Counter)
    """How many violations of each kind."""
    excused: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    """The first of them."""
    ages: list[float] = field(default_factory=list)
    """Of reads that a process's own memory has answered with what was right a while ago: for how long it was not."""

    KEPT = 200

    def add(self, violation: Violation) -> None:
        """Count a violation, and keep it if it is one of the first."""
        self.kinds[violation.kind] += 1
        if len(self.violations) < self.KEPT:
            self.violations.append(violation)


class _Wrong(Exception):
    def __init__(self, kind: str, why: str, newer: Iterable[Transaction] = ()) -> None:
        super().__init__(why)
        self.kind = kind
        self.newer = tuple(newer)


class Checker:
    """Judges reads one by one, each in constant time, whatever their order."""

    def __init__(self, timelines: Timelines, conditions: Conditions = Conditions()) -> None:
        self._timelines = timelines
        self._states = timelines.states
        self._conditions = conditions
        self._floors: dict[int, tuple[list[int], list[int]]] = {}
        self._reader = 0
        self._given: KeyName | None = None
        self.verdict = Verdict()

    def read(self, worker: int, begin: int, end: int, klass: int, number: int, value: Any, seen: Any) -> None:
        """Judge what one read of one key was given. seen is a sequence as `models.seen` makes it, or None."""
        if type(value) is list:
            value = tuple(value)
        self.verdict.reads += 1
        self._reader = worker
        self._given = None if seen is None else (0 if klass == ACCOUNT else PEOPLE_ID, seen[2])
        given = None if seen is None else tuple(seen)
        try:
            self._judge(begin, end, klass, number, value, given)
        except _Wrong as wrong:
            if not self._was_right(wrong, begin, end, klass, number, value, given):
                self.verdict.add(
                    Violation(wrong.kind, worker, begin, end, klass, (number, value), given, str(wrong), wrong.newer)
                )

    def _judge(self, begin: float, end: int, klass: int, number: int, value: Any, given: Seen | None) -> None:
        if given is None:
            self._absent(begin, end, klass, number, key_value(number, value))
        elif klass == ACCOUNT:
            self._account(begin, end, number, key_value(number, value), given)
        else:
            self._joined(begin, end, klass, number, key_value(number, value), given)

    def _was_right(self, wrong: _Wrong, begin: int, *rest: Any) -> bool:
        """True if it was right when the process may have put it into its memory; which its own commits do reach."""
        if not self._conditions.memory_life or any(self._reaches(each, *rest[2:4]) for each in wrong.newer):
            return False
        try:
            self._judge(self._conditions.oldest(self._reader, begin), *rest)
        except _Wrong:
            return False
        if wrong.newer:
            self.verdict.ages.append(begin - min(each.known for each in wrong.newer))
        return True

    def _reaches(self, transaction: Transaction, number: int, value: Any) -> bool:
        """True if a commit was the reader's own, and wrote what it has seen, or gave the key to another object.

        Others may have taken the key from what was seen before: of them its memory knows nothing.
        """
        if transaction.worker != self._reader or self._given is None:
            return transaction.worker == self._reader
        kinds = (self._given[0], MEMBERS_ID) if self._given[0] == PEOPLE_ID else (self._given[0],)
        if any(transaction in self._timelines.of(each, self._given[1]).transactions for each in kinds):
            return True
        timeline = self._timelines.of(number, key_value(number, value))
        if transaction not in timeline.transactions:
            return True
        place = timeline.transactions.index(transaction)
        now, before = (self._states.get(timeline.wids[each]) for each in (place, place - 1))
        if now is None or (before is not None and now[1] == before[1]):
            return False
        # to the database keys of other spelling may be equal; a tier keeps each by itself
        return all(part in now for part in (value if isinstance(value, tuple | list) else (value,)))

    # each kind of answer

    def _account(self, begin: float, end: int, number: int, value: Any, seen: Seen) -> None:
        timeline = self._timelines.of(number, value)
        self._overlap(timeline, self._state(timeline, begin, end, seen[1:_ACCOUNT_END]), begin, end)

    def _joined(self, begin: float, end: int, klass: int, number: int, value: Any, seen: Seen) -> None:
        timelines = self._timelines
        base, sub = seen[1:_PEOPLE_END], seen[_PEOPLE_END:]
        ident = base[1]
        asked = timelines.of(number, value)
        of_base = asked if KEYS[number].table == PEOPLE else timelines.of(PEOPLE_ID, ident)
        at_base = self._state(of_base, begin, end, base)
        if (base[KIND] == "member") != (seen[0] == MEMBER) or (klass == MEMBER and seen[0] != MEMBER):
            raise _Wrong("wrong object", f"a {base[KIND]} was given as an object of another class")
        if seen[0] != MEMBER:
            self._overlap(asked, at_base, begin, end)
            return
        of_sub = asked if KEYS[number].table == MEMBERS else timelines.of(MEMBERS_ID, ident)
        at_sub = self._state(of_sub, begin, end, sub)
        if sub[1] != ident:
            raise _Wrong("mix", f"the row of people has id {ident}, that of members {sub[1]}")
        if max(of_base.begins[at_base], of_sub.begins[at_sub]) > min(of_base.ends[at_base], of_sub.ends[at_sub]):
            raise _Wrong("mix", "the states of the two tables were never there at the same time")
        self._together(ident, base[0], sub[0])
        self._overlap(asked, at_base if of_base is asked else at_sub, begin, end)

    def _absent(self, begin: float, end: int, klass: int, number: int, value: Any) -> None:
        timeline = self._timelines.of(number, value)
        wids = timeline.wids
        for i in range(timeline.first_not_over(begin), len(wids)):
            if timeline.later[i] > end:
                break
            if timeline.begins[i] <= end and self._is_nothing(wids[i], klass):
                self._overlap(timeline, i, begin, end)
                return
        self._false_absence(timeline, begin, end, klass)

    def _is_nothing(self, wid: int, klass: int) -> bool:
        """True if a reader of this class finds nothing in this state."""
        if wid == ABSENT:
            return True
        return klass == MEMBER and self._timelines.tables[wid] == PEOPLE and self._states[wid][KIND] != "member"

    # what may be wrong

    def _state(self, timeline: Timeline, begin: float, end: int, given: Seen) -> int:
        """Return where in its key's timeline a state is that may have been seen; raise _Wrong if it may not."""
        wid = given[0]
        state = self._states.get(wid)
        if state is None:
            raise _Wrong("dirty", f"nobody has committed a write {wid}")
        if state != given:
            raise _Wrong("mix", f"write {wid} has left {state}, which is not what was seen")
        inner = self._timelines.inner.get(wid)
        if inner is not None:
            raise _Wrong("dirty", f"transaction {inner.number} has replaced write {wid} before it committed")
        i = timeline.index.get(wid)
        if i is None:
            raise _Wrong("wrong object", f"write {wid} never had the key that was asked for")
        if timeline.begins[i] > end:
            raise _Wrong("dirty", "it was seen before its commit was sent", _only(timeline.transactions[i]))
        if timeline.ends[i] < begin:
            self._late(timeline, i, begin, "stale")
        return i

    def _false_absence(self, timeline: Timeline, begin: float, end: int, klass: int) -> None:
        wrong: _Wrong | None = None
        for i in reversed(range(len(timeline.wids))):
            if timeline.begins[i] <= end and self._is_nothing(timeline.wids[i], klass):
                try:
                    self._late(timeline, i, begin, "absent")
                except _Wrong as found:
                    wrong = wrong or found
                else:
                    return
        raise wrong or _Wrong("absent", "there was something all the time")

    def _late(self, timeline: Timeline, i: int, begin: float, kind: str) -> None:
        """A state was over when the read began: raise _Wrong, unless for each newer transaction there is an excuse."""
        places = [
            place
            for place, each in enumerate(timeline.transactions[i + 1 :], i + 1)
            if each is not None and each.known < begin
        ]
        newer = [each for place in places for each in _only(timeline.transactions[place])]
        excuses = [self._excuse_at(timeline, i, place, begin) for place in places]
        if None in excuses:
            guilty = [each for each, excuse in zip(newer, excuses, strict=True) if excuse is None]
            what = "been seen" if guilty[0].returned == NEVER else "returned"
            before = (begin - guilty[0].known) / 1e6
            why = f"transaction {guilty[0].number} had {what} {before:.3f} ms before the read began"
            raise _Wrong(kind, why, guilty)
        self.verdict.excused.update({str(excuse) for excuse in excuses})

    def _excuse_at(self, timeline: Timeline, i: int, place: int, begin: float) -> str | None:
        """Return what excuses having seen the state i of a timeline, and not this later one."""
        transaction = timeline.transactions[place]
        assert transaction is not None
        excuse = self._excuse(transaction, timeline.name, begin)
        if excuse is not None:
            return excuse
        if self._given is None:
            # one that has only changed what already had the key need not know of the key; whoever gave it that did
            giver = self._giver(timeline, i, place)
            known = replace(giver, witnessed=min(giver.witnessed, transaction.known))
            return None if giver is transaction else self._excuse(known, timeline.name, begin)
        # one that has not touched what was seen did not make it stale; whoever has taken the key from it did, and an
        # alias that is left is no more than a hint to what was seen, which has the key
        rows = [self._given] if self._given[0] == 0 else [self._given, (MEMBERS_ID, self._given[1])]
        holder = {each.number for row in rows for each in self._timelines.of(*row).transactions if each is not None}
        if transaction.number in holder:
            return None
        for other in reversed(timeline.transactions[i + 1 : place]):
            if other is not None and other.number in holder:
                known = replace(other, witnessed=min(other.witnessed, transaction.known))
                return self._excuse(known, timeline.name, begin)
        return None

    def _giver(self, timeline: Timeline, i: int, place: int) -> Transaction:
        """Return who, since the state i, has given the key to the object that has it at this later place."""
        states = [self._states.get(wid) for wid in timeline.wids[i : place + 1]]
        while len(states) > 2 and states[-1] and states[-2] and states[-1][1] == states[-2][1]:
            states.pop()
        giver = timeline.transactions[i + len(states) - 1]
        assert giver is not None
        return giver

    def _excuse(self, transaction: Transaction, key: KeyName, begin: float) -> str | None:
        """Return what excuses a reader who asked for this key and did not see this transaction, or None."""
        number, value = key
        # an alternate key that its writer did not know of has led to the identity, under which the cache holds the row
        keys = [each for each in ((PEOPLE_ID, value) if number == MEMBERS_ID else key, self._given) if each]
        keys.append((whole_class(number), None))
        # who owes it believes nothing that the cache says
        others = transaction.worker != self._reader
        if begin >= transaction.known + self._conditions.record_life:
            return None
        if others and begin < max(transaction.owed.get(each, 0) for each in keys):
            return "owed"
        if transaction.outside and transaction.returned == NEVER:
            return "untold"
        if not self._lost_its_lock(transaction):
            return None
        if transaction.returned != NEVER:
            unpublished = others and begin < max(transaction.unpublished.get(each, 0) for each in keys)
            return "gap, of a cache out of reach" if unpublished else None
        return "gap" if transaction.died != NEVER else "gap, of a lost answer"

    def _lost_its_lock(self, transaction: Transaction) -> bool:
        """True if the lock of a transaction may have been gone before its commit was seen."""
        known = transaction.known
        ran_out = known - transaction.begin > self._conditions.lock_life
        return ran_out or any(start <= known and until >= transaction.begin for start, until in self._conditions.losses)

    def _together(self, ident: int, base: int, sub: int) -> None:
        """The states of two tables: after a transaction that wrote both, both are its own, or newer."""
        of_base, of_sub = self._timelines.of(PEOPLE_ID, ident), self._timelines.of(MEMBERS_ID, ident)
        floors = self._floors.get(ident)
        if floors is None:
            floors = self._floors[ident] = (_floor(of_base, of_sub), _floor(of_sub, of_base))
        at_base, at_sub = of_base.index.get(base), of_sub.index.get(sub)
        if at_base is None or at_sub is None or at_sub < floors[0][at_base] or at_base < floors[1][at_sub]:
            raise _Wrong("mix", "one table's state is of a transaction that wrote both, the other's is older")

    def _overlap(self, timeline: Timeline, i: int, begin: float, end: int) -> None:
        author = timeline.transactions[i]
        own = author is not None and begin <= author.returned != NEVER
        if own or (i + 1 < len(timeline.begins) and timeline.begins[i + 1] <= end):
            self.verdict.overlaps += 1


def _only(transaction: Transaction | None) -> tuple[Transaction, ...]:
    return () if transaction is None else (transaction,)


def _floor(one: Timeline, other: Timeline) -> list[int]:
    """For each state of one timeline, the first in the other that may go with it."""
    places = {each.number: i for i, each in enumerate(other.transactions) if each is not None}
    floors, floor = [], 0
    for each in one.transactions:
        if each is not None and each.number in places:
            floor = max(floor, places[each.number])
        floors.append(floor)
    return floors


def judge(
    timelines: Timelines,
    reads: Iterable[tuple[int, Sequence[Any]]],
    conditions: Conditions = Conditions(),
    progress: Callable[[int], None] = lambda count: None,
) -> Verdict:
    """Judge the READ frames of all workers, given with the worker's number."""
    checker = Checker(timelines, conditions)
    for worker, frame in reads:
        begin, end, klass = frame[1], frame[2], frame[3]
        for i in range(4, len(frame), 3):
            checker.read(worker, begin, end, klass, frame[i], frame[i + 1], frame[i + 2])
        progress(checker.verdict.reads)
    return checker.verdict
