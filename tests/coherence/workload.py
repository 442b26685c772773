"""What the workers do, drawn from a seed: reads by every key, and transactions that write in every way there is.

Ids and key values come from small pools, so that readers and writers meet.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from tests.coherence.models import (
    ACCOUNT,
    CLASSES,
    KEYS,
    KEYS_OF,
    MEMBER,
    MEMBERS_BADGE,
    PEOPLE_EMAIL,
    PEOPLE_ID,
    PERSON,
    VOWS,
    Account,
    Member,
    Person,
)

ACCOUNTS_POOL = 64
PEOPLE_POOL = 32
ORGS = 4
HOT = 8
"""So many of each pool are asked for more often than the others."""

BUSY_SECONDS = 6.0
QUIET_SECONDS = 2.0
LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")


def is_quiet(seconds: float) -> bool:
    """True in the phases of a run in which nearly all that happens is reading; seconds since its start."""
    return seconds % (BUSY_SECONDS + QUIET_SECONDS) >= BUSY_SECONDS


Ask = tuple[int, int, Any]
"""A key to read: the numbers of the class and of the key, and its value."""


def key_dict(number: int, value: Any) -> dict[str, Any]:
    """Return a key as stores take it."""
    names = KEYS[number].names
    return {names[0]: value} if len(names) == 1 else dict(zip(names, value, strict=True))


def _email(i: int) -> str:
    return f"e{i}@x.org"


def _login(i: int) -> tuple[str, str]:
    return f"o{i % ORGS}", f"l{i}"


def _has_login(i: int) -> sa.ColumnElement[bool]:
    org, login = _login(i)
    return sa.and_(Account.org == org, Account.login == login)


def _nick(i: int) -> str:
    return f"n{i}"


def _badge(i: int) -> str:
    return f"b{i}"


def _badge_of(member: Member) -> str:
    try:
        return member.badge
    except KeyError as error:
        # SQLAlchemy's way to say that another transaction has put a mere person in the member's place
        raise StaleDataError("the member is gone") from error


class Workload:
    """One worker's choices."""

    def __init__(self, seed: str, steps: str = "all", rows: int = ACCOUNTS_POOL) -> None:
        self.random = random.Random(seed)
        self.weights = dict(_WEIGHTS) if steps == "all" else dict(Counter(steps.split(",")))
        unknown = [name for name in self.weights if name not in STEPS]
        if unknown:
            raise SystemExit(f"no step {unknown[0]!r}: there are {', '.join(STEPS)}")
        of_people = [STEPS.index(name) >= STEPS.index("update_base") for name in self.weights]
        self.classes = (0 if all(of_people) else 60, 15 if any(of_people) else 0, 25 if any(of_people) else 0)
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
            return number, _email(i)
        if number == 2:
            return number, _login(i)
        if number == MEMBERS_BADGE:
            return number, _badge(i)
        nick = _nick(i)
        return number, nick.upper() if self.random.random() < 0.3 else nick

    # writes

    def transaction(self) -> Plan:
        """Choose a transaction."""
        draw = self.random.random
        steps = 1 if draw() < 0.8 else self.random.choice((2, 3))
        plan = Plan(
            level=self.random.choices(LEVELS, (70, 15, 15))[0],
            steps=[self._step() for _ in range(steps)],
            rolls_back=draw() < 0.06,
            flushes=draw() < 0.5,
            into_session=draw() < 0.15,
        )
        if draw() < 0.12:
            plan.savepoint = self._step()
            plan.savepoint_rolls_back = draw() < 0.5
        return plan

    def _step(self) -> Step:
        return Step(
            self.random.choices(list(self.weights), list(self.weights.values()))[0],
            self._some(self.accounts),
            self._some(self.accounts),
            self._some(self.people),
            self._some(self.people),
        )

    def _some(self, pool: int) -> int:
        return self.random.randrange(min(HOT, pool) if self.random.random() < 0.3 else pool)


@dataclass
class Step:
    """One thing that a transaction does, and to which rows."""

    name: str
    account: int
    other: int
    person: int
    other_person: int


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


class Steps:
    """Does steps in a session. `wid` gives new write ids; `touched` collects keys to be read afterwards."""

    def __init__(
        self,
        session: Session,
        wid: Callable[[], int],
        find: Callable[[Session, type, dict[str, Any]], Any],
    ) -> None:
        self.session = session
        self.wid = wid
        self.find = find
        self.touched: list[Ask] = []

    def do(self, step: Step) -> None:
        """Do one."""
        _STEPS[step.name](self, step)

    # accounts

    def _account(self, i: int) -> Any:
        self._touch(ACCOUNT, 0, i)
        return self.find(self.session, Account, {"id": i})

    def _written(self, account: Any) -> int:
        self._touch(ACCOUNT, 1, account.email)
        self._touch(ACCOUNT, 2, (account.org, account.login))
        self._touch(ACCOUNT, 3, account.nick)
        account.wid = wid = self.wid()
        return wid

    def _touch(self, klass: int, number: int, value: Any) -> None:
        self.touched.append((klass, number, value))

    def update_a(self, step: Step) -> None:
        """Write one group of columns."""
        account = self._account(step.account)
        if account is None:
            return self.insert(step)
        account.a1 = account.a2 = self._written(account)
        return None

    def update_b(self, step: Step) -> None:
        """Write the other group."""
        account = self._account(step.account)
        if account is None:
            return self.insert(step)
        account.b1 = account.b2 = self._written(account)
        return None

    def half(self, step: Step) -> None:
        """Write half of a group, which PostgreSQL completes when the transaction commits."""
        account = self._account(step.account)
        if account is None or self.session.get_bind().dialect.name != "postgresql":
            return self.update_a(step)
        account.a1 = self._written(account)
        return None

    def undone(self, step: Step) -> None:
        """Write in a savepoint, and roll it back."""
        with self.session.begin_nested() as nested:
            self.update_a(step)
            self.session.flush()
            nested.rollback()

    def insert(self, step: Step) -> None:
        """Insert an account where there is none, with the key values that go with its id."""
        i = step.account
        if self.session.get(Account, i) is not None:
            return
        wanted = {"email": _email(i), "login": _login(i), "nick": _nick(i)}
        keys = (Account.email == wanted["email"], Account.nick == wanted["nick"], _has_login(i))
        for other in self.session.scalars(sa.select(Account).where(sa.or_(*keys))):
            # what another account has, this one goes without
            wanted["email"] = wanted["email"] if other.email != wanted["email"] else f"x{i}"
            wanted["nick"] = wanted["nick"] if other.nick.lower() != wanted["nick"] else f"x{i}"
            wanted["login"] = wanted["login"] if (other.org, other.login) != wanted["login"] else ("x", f"x{i}")
        org, login = wanted["login"]
        account = Account(id=i, email=wanted["email"], org=org, login=login, nick=wanted["nick"])
        self._touch(ACCOUNT, 0, i)
        wid = self._written(account)
        account.a1 = account.a2 = account.b1 = account.b2 = wid
        self.session.add(account)

    def delete(self, step: Step) -> None:
        """Delete an account."""
        account = self._account(step.account)
        if account is not None:
            self._touch(ACCOUNT, 1, account.email)
            self._touch(ACCOUNT, 3, account.nick)
            self.session.delete(account)

    def delete_and_insert(self, step: Step) -> None:
        """Delete an account, and insert another with its id."""
        account = self._account(step.account)
        if account is None:
            return
        self.session.delete(account)
        self.session.flush()
        self.insert(step)

    def move_email(self, step: Step) -> None:
        """Give an account the e-mail address of another one's number, taking it from whoever has it."""
        self._move(step, "email", _email(step.other))

    def move_nick(self, step: Step) -> None:
        """The same with the key that is compared regardless of case; sometimes only its case changes."""
        nick = _nick(step.other)
        self._move(step, "nick", nick.upper() if step.person % 3 == 0 else nick)

    def _move(self, step: Step, name: str, value: str) -> None:
        account = self._account(step.account)
        if account is None:
            return
        query = sa.select(Account).filter_by(**{name: value})
        holder = self.session.scalars(query).one_or_none()
        own = getattr(account, name)
        if holder is not None and holder is not account:
            # by way of a third value: the database allows no two with the same at any moment
            setattr(holder, name, f"t{self._written(holder)}")
            self.session.flush()
        setattr(account, name, value)
        self._written(account)
        if holder is not None and holder is not account:
            self.session.flush()
            setattr(holder, name, own)
            self._written(holder)
            self._touch(ACCOUNT, 0, holder.id)

    def move_login(self, step: Step) -> None:
        """Give an account another organisation and login, if they are free."""
        account = self._account(step.account)
        if account is None or self._is_taken(_has_login(step.other)):
            return
        self._touch(ACCOUNT, 2, (account.org, account.login))
        account.org, account.login = _login(step.other)
        self._written(account)

    def _is_taken(self, key: sa.ColumnElement[bool]) -> bool:
        return bool(self.session.scalar(sa.select(sa.exists().where(key))))

    def change_id(self, step: Step) -> None:
        """Give an account another primary key, if it is free."""
        account = self._account(step.account)
        if account is None or self._is_taken(Account.id == step.other):
            return
        account.id = step.other
        self._touch(ACCOUNT, 0, step.other)
        self._written(account)

    # joined rows

    def _person(self, i: int) -> Any:
        self._touch(PERSON, PEOPLE_ID, i)
        self._touch(MEMBER, PEOPLE_ID, i)
        return self.find(self.session, Person, {"id": i})

    def _base_written(self, person: Any) -> int:
        self._touch(MEMBER, PEOPLE_EMAIL, person.email)
        person.wid = wid = self.wid()
        return wid

    def _sub_written(self, member: Any) -> int:
        # the second table's columns may be loaded only now, which flushes
        self._touch(MEMBER, MEMBERS_BADGE, _badge_of(member))
        member.mwid = wid = self.wid()
        return wid

    def update_base(self, step: Step) -> None:
        """Write the first table of a joined row."""
        person = self._person(step.person)
        if person is None:
            return self.insert_person(step)
        person.p1 = person.p2 = self._base_written(person)
        return None

    def update_sub(self, step: Step) -> None:
        """Write the second."""
        member = self._person(step.person)
        if member is None:
            return self.insert_person(step)
        if isinstance(member, Member):
            member.m1 = member.m2 = self._sub_written(member)
        return None

    def update_both(self, step: Step) -> None:
        """Write both."""
        self.update_base(step)
        self.update_sub(step)

    def insert_person(self, step: Step) -> None:
        """Insert a member, or one in four times a mere person, where there is nobody."""
        i = step.person
        if self.session.get(Person, i) is not None:
            return
        email = f"x{i}" if self._is_taken(Person.email == _email(i)) else _email(i)
        badge = f"x{i}" if self._is_taken(Member.badge == _badge(i)) else _badge(i)
        wid = self.wid()
        values = {"id": i, "email": email, "wid": wid, "p1": wid, "p2": wid}
        if step.other % 4:
            sub = self.wid()
            person: Person = Member(**values, badge=badge, mwid=sub, m1=sub, m2=sub)
            self._touch(MEMBER, MEMBERS_BADGE, badge)
        else:
            person = Person(**values)
        self._touch(PERSON, PEOPLE_ID, i)
        self._touch(PERSON, PEOPLE_EMAIL, email)
        self.session.add(person)

    def delete_person(self, step: Step) -> None:
        """Delete a person, of both tables if there is a row in both."""
        person = self._person(step.person)
        if person is not None:
            self._touch(PERSON, PEOPLE_EMAIL, person.email)
            self.session.delete(person)

    def move_person_email(self, step: Step) -> None:
        """Swap the e-mail addresses, in the first table, of two persons."""
        person, other = self._person(step.person), self._person(step.other_person)
        if person is None or other is None or person is other:
            return
        mine, theirs = person.email, other.email
        other.email = f"t{self._base_written(other)}"
        self.session.flush()
        person.email = theirs
        self._base_written(person)
        self.session.flush()
        other.email = mine
        self._base_written(other)

    def move_badge(self, step: Step) -> None:
        """Give a member another badge, in the second table, if it is free."""
        member = self._person(step.person)
        if isinstance(member, Member) and not self._is_taken(Member.badge == _badge(step.other_person)):
            self._touch(MEMBER, MEMBERS_BADGE, _badge_of(member))
            member.badge = _badge(step.other_person)
            self._sub_written(member)

    def refused(self, step: Step) -> None:
        """Update something in a transaction that the database then refuses to commit."""
        (self.update_a, self.update_base, self.update_sub)[step.other % 3](step)
        self.session.execute(VOWS.insert().values(id=self.wid(), kept_by=0))


_WEIGHTS = {
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
STEPS = list(_WEIGHTS)
"""All that a transaction may do, first with accounts and then with people."""

_STEPS: dict[str, Callable[[Steps, Step], None]] = {name: getattr(Steps, name) for name in _WEIGHTS}


def initial(wid: Callable[[], int]) -> Sequence[Any]:
    """Return the objects that are there when a run begins."""
    found: list[Any] = []
    for i in range(ACCOUNTS_POOL):
        if i % 5 == 4:
            continue
        org, login = _login(i)
        own = wid()
        found.append(
            Account(id=i, email=_email(i), org=org, login=login, nick=_nick(i), wid=own, a1=own, a2=own, b1=own, b2=own)
        )
    for i in range(PEOPLE_POOL):
        if i % 5 == 3:
            continue
        own = wid()
        values = {"id": i, "email": _email(i), "wid": own, "p1": own, "p2": own}
        if i % 4:
            sub = wid()
            found.append(Member(**values, badge=_badge(i), mwid=sub, m1=sub, m2=sub))
        else:
            found.append(Person(**values))
    return found


__all__ = ["CLASSES", "Ask", "Plan", "Step", "Steps", "Workload", "initial", "is_quiet", "key_dict"]
