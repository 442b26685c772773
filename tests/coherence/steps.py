"""What a transaction does through the unit of work, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from tests.coherence.models import (
    ACCOUNT,
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
from tests.coherence.pools import Ask, badge_of, email_of, login_of, nick_of


@dataclass
class Step:
    """One thing that a transaction does, and to which rows."""

    name: str
    account: int
    other: int
    person: int
    other_person: int
    way: int = 0
    """In which of several ways."""


class Steps:
    """Does steps in a session; `touched` collects keys to be read afterwards.

    wid: gives the first of so many new write ids.
    """

    def __init__(
        self,
        session: Session,
        wid: Callable[..., int],
        find: Callable[[Session, type, dict[str, Any]], Any],
    ) -> None:
        self.session = session
        self.wid = wid
        self.find = find
        self.touched: list[Ask] = []

    def do(self, step: Step) -> None:
        """Do one."""
        getattr(self, step.name)(step)

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
        wanted = {"email": email_of(i), "login": login_of(i), "nick": nick_of(i)}
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
        self._move(step, "email", email_of(step.other))

    def move_nick(self, step: Step) -> None:
        """The same with the key that is compared regardless of case; sometimes only its case changes."""
        nick = nick_of(step.other)
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
        account.org, account.login = login_of(step.other)
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
        self._touch(MEMBER, MEMBERS_BADGE, _badge_held_by(member))
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
        email = f"x{i}" if self._is_taken(Person.email == email_of(i)) else email_of(i)
        badge = f"x{i}" if self._is_taken(Member.badge == badge_of(i)) else badge_of(i)
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
        if isinstance(member, Member) and not self._is_taken(Member.badge == badge_of(step.other_person)):
            self._touch(MEMBER, MEMBERS_BADGE, _badge_held_by(member))
            member.badge = badge_of(step.other_person)
            self._sub_written(member)

    def refused(self, step: Step) -> None:
        """Update something in a transaction that the database then refuses to commit."""
        (self.update_a, self.update_base, self.update_sub)[step.other % 3](step)
        self.session.execute(VOWS.insert().values(id=self.wid(), kept_by=0))


def _has_login(i: int) -> sa.ColumnElement[bool]:
    org, login = login_of(i)
    return sa.and_(Account.org == org, Account.login == login)


def _badge_held_by(member: Member) -> str:
    try:
        return member.badge
    except KeyError as error:
        # SQLAlchemy's way to say that another transaction has put a mere person in the member's place
        raise StaleDataError("the member is gone") from error
