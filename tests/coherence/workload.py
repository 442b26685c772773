"""What the workers do, drawn from a seed: reads by every key, and transactions that write in every way there is."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tests.coherence.models import ACCOUNT, KEYS_OF, MEMBER, MEMBERS_BADGE, PEOPLE_EMAIL, PEOPLE_ID, PERSON
from tests.coherence.pools import ACCOUNTS_POOL, HOT, PEOPLE_POOL, badge_of, email_of, login_of, nick_of
from tests.coherence.steps import Step

BUSY_SECONDS = 6.0
QUIET_SECONDS = 2.0
COSTLY_SECONDS = 3.0
"""Of two writers of one class at a time, the later one's lock on its epoch runs out by itself, before it is quiet."""

OUTSIDE = "outside"
"""The step that SQLAlchemy does not see."""

LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")


def is_quiet(seconds: float) -> bool:
    """True in the phases of a run in which nearly all that happens is reading; seconds since its start."""
    return seconds % (BUSY_SECONDS + QUIET_SECONDS) >= BUSY_SECONDS


def past_at(seconds: float) -> frozenset[str]:
    """Return which steps past the unit of work are due: in every second busy phase; and early in it all of them."""
    phase, into = divmod(seconds, BUSY_SECONDS + QUIET_SECONDS)
    if phase % 2 == 0 or is_quiet(seconds):
        return frozenset()
    return PAST if into < COSTLY_SECONDS else PAST - COSTLY


@dataclass
class Plan:
    """A transaction of a session."""

    level: str
    steps: list[Step]
    rolls_back: bool
    flushes: bool
    into_session: bool
    savepoint: Step | None = None
    savepoint_rolls_back: bool = False


_FLUSHED = {
    "update_a": 26,
    "update_b": 20,
    "half": 6,
    "undone": 4,
    "insert": 8,
    "delete": 5,
    "delete_and_insert": 3,
    "move_email": 8,
    "move_nick": 5,
    "move_login": 5,
    "change_id": 4,
    "update_base": 9,
    "update_sub": 9,
    "update_both": 4,
    "insert_person": 4,
    "delete_person": 3,
    "move_person_email": 4,
    "move_badge": 4,
    "refused": 5,
}
"""What the unit of work writes, and how often."""

_PAST = {
    "bulk_update": 6,
    "bulk_query": 2,
    "bulk_core": 3,
    "bulk_by_key": 3,
    "bulk_text": 2,
    "bulk_email": 4,
    "bulk_keys": 3,
    "bulk_change_id": 1,
    "bulk_insert": 3,
    "bulk_delete": 3,
    "upsert": 3,
    "bulk_base": 3,
    "bulk_sub": 3,
    "bulk_badge": 2,
    "bulk_delete_people": 1,
    OUTSIDE: 12,
}
"""What is written past it."""

PAST = frozenset(_PAST)
COSTLY = frozenset({"bulk_text", "bulk_change_id", "bulk_delete_people", OUTSIDE})
"""Those that empty the cache of a class."""

STEPS = [*_FLUSHED, *_PAST]
"""All that a transaction may do."""

_OF_PEOPLE = (
    "update_base",
    "update_sub",
    "update_both",
    "move_badge",
    "bulk_base",
    "bulk_sub",
    "bulk_badge",
    "refused",
)


def _is_of_people(name: str) -> bool:
    return name in _OF_PEOPLE or "person" in name or "people" in name


class Workload:
    """One worker's choices."""

    def __init__(self, seed: str, steps: str = "all", rows: int = ACCOUNTS_POOL) -> None:
        self.random = random.Random(seed)
        self.chosen: dict[str, float] | None = None if steps in ("all", "flushed") else dict(Counter(steps.split(",")))
        self.all = steps == "all"
        weights = self.chosen or {**_FLUSHED, **(_PAST if self.all else {})}
        unknown = [name for name in weights if name not in STEPS]
        if unknown:
            raise SystemExit(f"no step {unknown[0]!r}: there are {', '.join(STEPS)}")
        of_people = [_is_of_people(name) for name in weights if name != OUTSIDE]
        some = any(of_people) or not of_people
        self.classes = (0 if of_people and all(of_people) else 60, 15 if some else 0, 25 if some else 0)
        self.accounts = rows
        self.people = max(2, rows * PEOPLE_POOL // ACCOUNTS_POOL)

    # reads

    def asks(self, count: int) -> tuple[int, list[tuple[int, Any]]]:
        """Choose a class, and keys of it: their numbers and values."""
        klass = self.random.choices((ACCOUNT, PERSON, MEMBER), self.classes)[0]
        numbers = KEYS_OF[klass]
        return klass, [self.value(self.random.choice(numbers)) for _ in range(count)]

    def value(self, number: int) -> tuple[int, Any]:
        """Choose a value of a key."""
        pool = self.accounts if number < PEOPLE_ID else self.people
        i = self.random.randrange(min(HOT, pool) if self.random.random() < 0.35 else pool)
        if number in (0, PEOPLE_ID):
            return number, i
        if number in (1, PEOPLE_EMAIL):
            return number, email_of(i)
        if number == 2:
            return number, login_of(i)
        if number == MEMBERS_BADGE:
            return number, badge_of(i)
        nick = nick_of(i)
        return number, nick.upper() if self.random.random() < 0.3 else nick

    # writes

    def transaction(self, past: Collection[str] = ()) -> Plan:
        """Choose a transaction; unless steps were chosen, of those past the unit of work one of these."""
        draw = self.random.random
        weights = self.chosen or {**_FLUSHED, **{name: _PAST[name] for name in _PAST if self.all and name in past}}
        steps = [self._step(weights)]
        # what is outside SQLAlchemy is a transaction by itself
        within = {name: weight for name, weight in weights.items() if name != OUTSIDE}
        if steps[0].name != OUTSIDE and draw() >= 0.8:
            steps += [self._step(within) for _ in range(self.random.choice((1, 2)))]
        plan = Plan(
            level=self.random.choices(LEVELS, (70, 15, 15))[0],
            steps=steps,
            rolls_back=draw() < 0.06,
            flushes=draw() < 0.5,
            into_session=draw() < 0.15,
        )
        if within and draw() < 0.12:
            plan.savepoint = self._step(within)
            plan.savepoint_rolls_back = draw() < 0.5
        return plan

    def _step(self, weights: Mapping[str, float]) -> Step:
        return Step(
            self.random.choices(list(weights), list(weights.values()))[0],
            self._some(self.accounts),
            self._some(self.accounts),
            self._some(self.people),
            self._some(self.people),
            self.random.randrange(1 << 12),
        )

    def _some(self, pool: int) -> int:
        return self.random.randrange(min(HOT, pool) if self.random.random() < 0.3 else pool)
