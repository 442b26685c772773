"""Writes that SQLAlchemy does not see, on a connection of the driver's own: who makes them tells the cache of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from tests.coherence.bulk import IDS
from tests.coherence.models import ACCOUNT, KEYS_OF, MEMBER, MEMBERS_BADGE, PEOPLE_EMAIL, PEOPLE_ID, PERSON
from tests.coherence.pools import Ask, badge_of, email_of, login_of, nick_of
from tests.coherence.steps import Step

_ACCOUNT_KEYS = "id, email, org, login, nick"


class Outside:
    """A connection, and the keys that its open transaction has written, old and new (`touched`)."""

    def __init__(self, engine: sa.Engine, wid: Callable[..., int]) -> None:
        self._engine = engine
        self._wid = wid
        self._sqlite = engine.dialect.name == "sqlite"
        self._connection: Any = None
        self._number = 0
        self.touched: list[Ask] = []
        module: Any = engine.dialect.loaded_dbapi
        self.errors: tuple[type[Exception], ...] = (module.Error,)

    # the transaction

    def begin(self, number: int) -> None:
        """Begin transaction `number`."""
        if self._connection is None:
            pooled = self._engine.raw_connection()
            self._connection = pooled.driver_connection
            pooled.detach()
            if self._sqlite:
                self._connection.create_function("checker_tx", 0, lambda: self._number)
        self._number, self.touched = number, []
        self._do("BEGIN IMMEDIATE" if self._sqlite else f"SET LOCAL checker.tx = '{number}'")

    def commit(self) -> None:
        """Commit."""
        self._connection.commit()

    def roll_back(self) -> None:
        """Give up, and the connection too if it is broken."""
        if self._connection is not None:
            try:
                self._connection.rollback()
            except self.errors:
                self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        with contextlib.suppress(*self.errors):
            if connection is not None:
                connection.close()

    def _do(self, statement: str) -> list[Any]:
        cursor = self._connection.cursor()
        try:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
        finally:
            cursor.close()

    # what it writes

    def write(self, step: Step) -> None:
        """Write something: the step says what."""
        ways = (self._payload, self._payload, self._move, self._delete, self._insert, self._people, self._badge)
        ways[step.way % len(ways)](step)

    def _payload(self, step: Step) -> None:
        ids = sorted({step.account, step.other} if step.way >> 4 & 1 else {step.account})
        self._update(f"id IN ({', '.join(map(str, ids))})", ("a1", "a2") if step.way >> 5 & 1 else ("b1", "b2"))

    def _update(self, where: str, columns: tuple[str, ...], keys: str = "") -> None:
        base = self._wid(IDS)
        own = ", ".join(f"{name} = {base} + id" for name in ("wid", *columns))
        for when in ("before", "after") if keys else ("after",):
            if when == "after":
                self._do(f"UPDATE accounts SET {own}{keys} WHERE {where}")
                where = f"wid BETWEEN {base} AND {base + IDS - 1}"
            self._touch(where)

    def _touch(self, where: str) -> list[Any]:
        rows = self._do(f"SELECT {_ACCOUNT_KEYS} FROM accounts WHERE {where}")
        for i, email, org, login, nick in rows:
            values = (i, email, (org, login), nick)
            self.touched += [(ACCOUNT, key, value) for key, value in zip(KEYS_OF[ACCOUNT], values, strict=True)]
        return rows

    def _move(self, step: Step) -> None:
        """Give an account another one's e-mail address, or its spelling of the nickname."""
        if step.way >> 4 & 3 == 0:
            self._update(f"id = {step.account}", (), f", nick = {'upper' if step.way >> 6 & 1 else 'lower'}(nick)")
            return
        wanted = email_of(step.other)
        found = {email: i for i, email, *_ in self._touch(f"id = {step.account} OR email = '{wanted}'")}
        own = next((email for email, i in found.items() if i == step.account), None)
        if own is None or own == wanted:
            return
        holder = found.get(wanted)
        if holder is not None:
            self._update(f"id = {holder}", (), f", email = 't{self._wid()}'")
        self._update(f"id = {step.account}", (), f", email = '{wanted}'")
        if holder is not None:
            self._update(f"id = {holder}", (), f", email = '{own}'")

    def _delete(self, step: Step) -> None:
        self._touch(f"id = {step.account}")
        self._do(f"DELETE FROM accounts WHERE id = {step.account}")
        if step.way >> 4 & 1:
            self._insert(step)

    def _insert(self, step: Step) -> None:
        i, wid = step.account, self._wid()
        org, login = login_of(i)
        taken = f"id = {i} OR email = '{email_of(i)}' OR login = '{login}' OR lower(nick) = '{nick_of(i)}'"
        if not self._do(f"SELECT 1 FROM accounts WHERE {taken}"):
            keys = f"{i}, '{email_of(i)}', '{org}', '{login}', '{nick_of(i)}'"
            columns = f"{_ACCOUNT_KEYS}, wid, a1, a2, b1, b2"
            self._do(f"INSERT INTO accounts ({columns}) VALUES ({keys}{f', {wid}' * 5})")
            self._touch(f"id = {i}")

    def _people(self, step: Step) -> None:
        i, wid = step.person, self._wid(2)
        if step.way >> 4 & 1:
            self._do(f"UPDATE people SET wid = {wid}, p1 = {wid}, p2 = {wid} WHERE id = {i}")
        if step.way >> 5 & 1 or not step.way >> 4 & 1:
            wid += 1
            self._do(f"UPDATE members SET mwid = {wid}, m1 = {wid}, m2 = {wid} WHERE id = {i}")
        self._touch_person(i)

    def _touch_person(self, i: int) -> None:
        found = self._do(
            "SELECT people.id, email, badge FROM people LEFT JOIN members ON members.id = people.id "
            f"WHERE people.id = {i}"
        )
        for ident, email, badge in found:
            self.touched += [(PERSON, PEOPLE_ID, ident), (PERSON, PEOPLE_EMAIL, email)]
            if badge is not None:
                self.touched += [(MEMBER, PEOPLE_ID, ident), (MEMBER, PEOPLE_EMAIL, email)]
                self.touched.append((MEMBER, MEMBERS_BADGE, badge))

    def _badge(self, step: Step) -> None:
        badge = badge_of(step.other_person)
        if not self._do(f"SELECT 1 FROM members WHERE badge = '{badge}'"):
            self._touch_person(step.person)
            self._do(f"UPDATE members SET mwid = {self._wid()}, badge = '{badge}' WHERE id = {step.person}")
            self._touch_person(step.person)
