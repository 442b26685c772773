"""What was true when: for every key, the states that it led to, one after another, and when each could be seen.

Of a transaction the histories tell two times: when its commit was about to be sent, and when that had returned. It
became visible somewhere in between. So the state that it wrote may be seen from the first of these times on, and must
not be seen any more once a later transaction on the same key has returned.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.coherence.audit import Entry
from tests.coherence.models import ALL_ACCOUNTS, ALL_PEOPLE, KEYS, TABLES, State, keys_of_state

NEVER = float("inf")
ALWAYS = float("-inf")
ABSENT = 0
"""The write id that stands for: there is no such row."""


KeyName = tuple[int, Any]
"""The number of a key, and its value as `models.key_value` gives it."""


@dataclass(slots=True)
class Transaction:
    """What the histories tell of one transaction. Times in nanoseconds.

    begin: before its commit was sent. returned: when it had returned to its worker, if it did. witnessed: when
    somebody was first seen to have seen what it wrote. died: when its worker ended before that, if so. owed: the
    keys that could not be locked, and when the cache was told of each; NEVER if it was not. unpublished: the same of
    keys that were locked, and after the commit the cache was out of reach. failed: its commit has raised. outside:
    nobody heard of it but its worker, who then told the cache, and only after that has it returned.
    """

    number: int
    begin: float
    worker: int = -1
    returned: float = NEVER
    witnessed: float = NEVER
    died: float = NEVER
    failed: str = ""
    outside: bool = False
    owed: dict[KeyName, float] = field(default_factory=dict)
    unpublished: dict[KeyName, float] = field(default_factory=dict)

    @property
    def known(self) -> float:
        """From when on nobody may be handed anything older: it has returned, or without an answer was seen."""
        return self.returned if self.returned != NEVER else self.witnessed


class BrokenHistory(Exception):
    """The histories and the log contradict each other: nothing can be judged."""


@dataclass
class Timeline:
    """The states of one key, in order. Index 0: before the first, there was nothing.

    name: the key. wids: the write id of each, or ABSENT. transactions: who made it. begins: from when on it may be
    seen. ends: until when. index: where each write id is.
    """

    name: KeyName = (-1, None)
    wids: list[int] = field(default_factory=lambda: [ABSENT])
    transactions: list[Transaction | None] = field(default_factory=lambda: [None])
    begins: list[float] = field(default_factory=lambda: [ALWAYS])
    ends: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)
    index: dict[int, int] = field(default_factory=dict)

    def append(self, wid: int, transaction: Transaction) -> None:
        """Add the next state."""
        if wid:
            self.index[wid] = len(self.wids)
        self.wids.append(wid)
        self.transactions.append(transaction)
        self.begins.append(transaction.begin)

    def finish(self) -> None:
        """Find out when each state ended, at the latest: when the first of all later transactions was known."""
        end, begin = NEVER, NEVER
        ends, later = [], []
        for i in reversed(range(len(self.wids))):
            ends.append(end)
            begin = min(begin, self.begins[i])
            later.append(begin)
            transaction = self.transactions[i]
            if transaction is not None:
                end = min(end, transaction.known)
        self.ends, self.later = ends[::-1], later[::-1]

    def first_not_over(self, time: float) -> int:
        """Return the index of the first state that may have lasted until `time`."""
        return bisect_left(self.ends, time)


EMPTY = Timeline()
EMPTY.finish()


@dataclass
class Timelines:
    """All keys and all states of a run."""

    states: dict[int, State] = field(default_factory=dict)
    tables: dict[int, int] = field(default_factory=dict)
    author: dict[int, Transaction] = field(default_factory=dict)
    inner: dict[int, Transaction] = field(default_factory=dict)
    """States that their own transaction replaced before it committed."""
    keys: dict[KeyName, Timeline] = field(default_factory=dict)
    commits: int = 0

    def of(self, number: int, value: Any) -> Timeline:
        """Return the states of a key."""
        return self.keys.get((number, value), EMPTY)


def build(log: Iterable[Entry], transactions: Mapping[int, Transaction]) -> Timelines:
    """Put the log's writes in order, transaction by transaction."""
    own: dict[int, list[Entry]] = {}
    for entry in log:
        own.setdefault(entry.tx, []).append(entry)
    made = Timelines()
    for number, entries in sorted(own.items(), key=lambda item: item[1][-1].seq):
        transaction = transactions.get(number)
        if transaction is None:
            raise BrokenHistory(f"the database has committed transaction {number}, and no worker says that it sent it")
        _add(made, transaction, entries)
    for timeline in made.keys.values():
        timeline.finish()
    made.commits = len(own)
    return made


def _add(made: Timelines, transaction: Transaction, entries: list[Entry]) -> None:
    before: dict[int, int | None] = {}
    """What each row that the transaction leaves was before it, by write id."""
    gone: list[int] = []
    for entry in entries:
        old = before.pop(entry.old, entry.old) if entry.old is not None else None
        if entry.old is not None and entry.old != old:
            made.inner[entry.old] = transaction
        if entry.new is None:
            if old is not None:
                gone.append(old)
            continue
        if entry.new == entry.old or entry.new in made.states:
            raise BrokenHistory(f"write id {entry.new} was used twice, by transaction {transaction.number}: {entries}")
        assert entry.state is not None
        made.states[entry.new] = entry.state
        made.tables[entry.new] = entry.table
        made.author[entry.new] = transaction
        before[entry.new] = old
    held: dict[KeyName, int] = {}
    for wid in before:
        for key in keys_of_state(made.tables[wid], made.states[wid]):
            held[key] = wid
    left = [old for old in (*before.values(), *gone) if old is not None]
    for old in left:
        for key in keys_of_state(made.tables[old], made.states[old]):
            held.setdefault(key, ABSENT)
    for key, wid in held.items():
        timeline = made.keys.get(key)
        if timeline is None:
            timeline = made.keys[key] = Timeline(key)
        timeline.append(wid, transaction)


def name_of(key: KeyName) -> str:
    """How a report calls a key."""
    number, value = key
    if number >= len(KEYS):
        return {ALL_ACCOUNTS: "all accounts", ALL_PEOPLE: "all people"}[number]
    layout = KEYS[number]
    return f"{TABLES[layout.table].name}.{','.join(layout.names)} = {value!r}"
