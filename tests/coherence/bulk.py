"""What a transaction does past the unit of work: ORM bulk statements, Core statements, and text.

Each row that a statement writes gets a write id of its own: that of the statement plus the row's id. How a step says
its statement, and which rows it takes, is drawn with it (`Step.way`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from tests.coherence.models import (
    ACCOUNT,
    MEMBER,
    MEMBERS_BADGE,
    PEOPLE_EMAIL,
    PEOPLE_ID,
    PERSON,
    WRITES_EACH,
    Account,
    Member,
    Person,
)
from tests.coherence.pools import ORGS, badge_of, email_of, login_of, nick_of
from tests.coherence.steps import Step, Steps

IDS = 128
"""Ids are below this: a statement has so many write ids."""

ACCOUNTS: Any = Account.__table__
PEOPLE: Any = Person.__table__
MEMBERS: Any = Member.__table__

SYNCHRONIZE = ("auto", "evaluate", "fetch", False)
GROUPS = (("a1", "a2"), ("b1", "b2"))


class BulkSteps(Steps):
    """Steps of both kinds. `counted` is told of a statement how many rows it wrote, and how many its result says."""

    def __init__(self, *args: Any, counted: Callable[[str, int, int], None] = lambda *_: None) -> None:
        super().__init__(*args)
        self.counted = counted

    # what the steps are made of

    def _base(self) -> int:
        """Return a number that a row's id is added to for its write id."""
        return self.wid(IDS)

    def _written_by(self, base: int, columns: Sequence[str], ident: Any = Account.id) -> dict[str, Any]:
        return dict.fromkeys(columns, sa.literal(base, sa.BigInteger) + ident)

    def _some(self, step: Step) -> list[int]:
        """Touch one to three accounts, and return their ids."""
        ids = sorted({step.account, step.other, step.person}) if step.way & 1 else [step.account]
        for i in ids:
            self._touch(ACCOUNT, 0, i)
        return ids

    def _rows(self, step: Step) -> sa.ColumnElement[bool]:
        """Return a condition on some rows: by id, by an alternate key, or all of an organisation."""
        ids = self._some(step)
        if step.way % 8 == 6:
            self._touch(ACCOUNT, 1, email_of(step.account))
            return Account.email == email_of(step.account)
        if step.way % 32 == 7:
            return Account.org == login_of(step.account)[0]
        return Account.id == ids[0] if len(ids) == 1 else Account.id.in_(ids)

    def _touch_all(self, rows: Sequence[Any]) -> None:
        for row in rows:
            self._touch(ACCOUNT, 0, row.id)
            self._touch(ACCOUNT, 1, row.email)
            self._touch(ACCOUNT, 2, (row.org, row.login))
            self._touch(ACCOUNT, 3, row.nick)

    def _check(self, name: str, base: int, rowcount: int) -> None:
        """Now and then, compare what the caller was told with what was written."""
        query = sa.select(sa.func.count()).select_from(ACCOUNTS).where(ACCOUNTS.c.wid.between(base, base + IDS - 1))
        if base // WRITES_EACH % 4 == 0:
            self.counted(name, int(self.session.connection().scalar(query) or 0), rowcount)

    def _upsert(self) -> Any:
        return (postgresql if self.session.get_bind().dialect.name == "postgresql" else sqlite).insert

    # updates of payload

    def bulk_update(self, step: Step) -> None:
        """An ORM UPDATE of some rows, which may return them."""
        base = self._base()
        values = self._written_by(base, ("wid", *GROUPS[step.way >> 6 & 1]))
        update = sa.update(Account).where(self._rows(step)).values(values)
        kind = step.way >> 4 & 3
        if kind == 0:
            found = self.session.execute(update.returning(Account.id, Account.email, Account.org, Account.login)).all()
            for row in found:
                self._touch(ACCOUNT, 1, row.email)
                self._touch(ACCOUNT, 2, (row.org, row.login))
            self._check("an UPDATE that returns columns", base, len(found))
        elif kind == 1:
            given = self.session.scalars(update.returning(Account)).all()
            self._touch_all(given)
            self._check("an UPDATE that returns objects", base, len(given))
        else:
            how = SYNCHRONIZE[step.way >> 7 & 3]
            result: Any = self.session.execute(update, execution_options={"synchronize_session": how})
            self._check(f"an UPDATE, synchronised by {how}", base, result.rowcount)

    def bulk_query(self, step: Step) -> None:
        """Query.update."""
        base = self._base()
        values: Any = self._written_by(base, ("wid", *GROUPS[step.way >> 6 & 1]))
        count = self.session.query(Account).filter(self._rows(step)).update(
            values, synchronize_session=SYNCHRONIZE[step.way >> 7 & 3]
        )  # fmt: skip
        self._check("Query.update", base, count)

    def bulk_core(self, step: Step) -> None:
        """A Core UPDATE on the session's connection."""
        base = self._base()
        update = sa.update(ACCOUNTS).where(self._rows(step))
        update = update.values(self._written_by(base, ("wid", *GROUPS[step.way >> 6 & 1]), ACCOUNTS.c.id))
        if step.way >> 4 & 1:
            found = self.session.connection().execute(update.returning(ACCOUNTS)).all()
            self._touch_all(found)
            self._check("a Core UPDATE that returns rows", base, len(found))
        else:
            self._check("a Core UPDATE", base, self.session.connection().execute(update).rowcount)

    def bulk_by_key(self, step: Step) -> None:
        """UPDATE of several rows by their primary keys, each with values of its own."""
        ids, group = self._some(step), GROUPS[step.way >> 6 & 1]
        base = self._base()
        kind = step.way >> 4 & 3
        if kind == 0:
            # who sends values for rows that are gone is told so by an error
            there = self.session.scalars(sa.select(Account.id).where(Account.id.in_(ids))).all()
            rows = [{"id": i, **dict.fromkeys(("wid", *group), base + i)} for i in there]
            if rows:
                self.session.execute(sa.update(Account), rows)
        elif kind == 1:
            there = self.session.scalars(sa.select(Account.id).where(Account.id.in_(ids))).all()
            rows = [{"id": i, **dict.fromkeys(("wid", *group), base + i)} for i in there]
            self.session.bulk_update_mappings(sa.inspect(Account), rows)
        else:
            update = sa.update(ACCOUNTS).where(ACCOUNTS.c.id == sa.bindparam("of"))
            update = update.values({name: sa.bindparam("new") for name in ("wid", *group)})
            self.session.connection().execute(update, [{"of": i, "new": base + i} for i in ids])

    def bulk_text(self, step: Step) -> None:
        """An UPDATE in text, which may say whose rows it changes."""
        ids = ", ".join(map(str, self._some(step)))
        base = self._base()
        own = ", ".join(f"{name} = {base} + id" for name in ("wid", *GROUPS[step.way >> 6 & 1]))
        statement = f"UPDATE accounts SET {own} WHERE id IN ({ids})"
        kind = step.way >> 4 & 3
        if kind == 0:
            self.session.connection().exec_driver_sql(statement)
        elif kind == 1:
            said = sa.text(statement).execution_options(stockpyle_invalidates=[Account])
            self._check("text that says what it changes", base, self.session.execute(said).rowcount)  # type: ignore[attr-defined]
        else:
            self._check("text", base, self.session.execute(sa.text(statement)).rowcount)  # type: ignore[attr-defined]

    # updates of keys

    def bulk_email(self, step: Step) -> None:
        """Give an account another one's e-mail address, in three statements."""
        mine, wanted = step.account, email_of(step.other)
        self._touch(ACCOUNT, 0, mine)
        query = sa.select(ACCOUNTS.c.id, ACCOUNTS.c.email).where(
            sa.or_(ACCOUNTS.c.id == mine, ACCOUNTS.c.email == wanted)
        )
        found = {row.email: row.id for row in self.session.connection().execute(query)}
        own = next((email for email, i in found.items() if i == mine), None)
        if own is None or own == wanted:
            return
        holder = found.get(wanted)
        if holder is not None:
            self._give(step, {Account.id: holder}, email=f"t{self.wid()}")
        self._give(step, {Account.email: own} if step.way >> 6 & 1 else {Account.id: mine}, email=wanted)
        if holder is not None:
            self._give(step, {Account.id: holder}, email=own)
            self._touch(ACCOUNT, 0, holder)
        self._touch(ACCOUNT, 1, own)
        self._touch(ACCOUNT, 1, wanted)

    def _give(self, step: Step, which: dict[Any, Any], **values: Any) -> None:
        base = self._base()
        kind = step.way >> 4 & 3
        conditions = [column == value for column, value in which.items()]
        update = sa.update(ACCOUNTS if kind == 3 else Account).where(*conditions)
        update = update.values({**self._written_by(base, ("wid",), ACCOUNTS.c.id), **values})
        if kind == 0:
            self._touch_all(self.session.execute(update.returning(*ACCOUNTS.c)).all())
        elif kind == 3:
            self.session.connection().execute(update)
        else:
            self.session.execute(update, execution_options={"synchronize_session": SYNCHRONIZE[kind]})

    def bulk_keys(self, step: Step) -> None:
        """Change an alternate key of several accounts: the organisations, or the spelling of the nicknames."""
        ids = self._some(step)
        for i in ids:
            self._touch(ACCOUNT, 2, login_of(i))
            self._touch(ACCOUNT, 3, nick_of(i))
        base = self._base()
        kind = step.way >> 4 & 3
        rows: sa.ColumnElement[bool] = Account.id.in_(ids)
        if kind == 0:
            values: dict[str, Any] = {"nick": (sa.func.upper if step.way >> 6 & 1 else sa.func.lower)(Account.nick)}
        elif kind == 1:
            values = {"org": "away"}
        else:
            rows = Account.org == "away" if kind == 2 else rows
            values = {"org": "o" + sa.cast(Account.id % ORGS, sa.String)}
        update = sa.update(Account).where(rows).values({**self._written_by(base, ("wid",)), **values})
        how = SYNCHRONIZE[step.way >> 7 & 3]
        self.session.execute(update, execution_options={"synchronize_session": "auto" if how == "evaluate" else how})

    def bulk_change_id(self, step: Step) -> None:
        """Give an account another primary key, if it is free."""
        if self._is_taken(Account.id == step.other):
            return
        self._touch(ACCOUNT, 0, step.account)
        self._touch(ACCOUNT, 0, step.other)
        self._give(step, {Account.id: step.account}, id=step.other)

    # rows that come and go

    def _new(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """Return the values of new accounts, where there are none, with the keys that go with their ids if free."""
        wanted: dict[int, dict[str, Any]] = {}
        for i in ids:
            org, login = login_of(i)
            wanted[i] = {"id": i, "email": email_of(i), "org": org, "login": login, "nick": nick_of(i)}
        mine = [sa.func.lower(ACCOUNTS.c.nick).in_([nick_of(i) for i in ids]), ACCOUNTS.c.id.in_(ids)]
        mine += [ACCOUNTS.c.email.in_([email_of(i) for i in ids]), ACCOUNTS.c.login.in_([f"l{i}" for i in ids])]
        taken = self.session.connection().execute(sa.select(ACCOUNTS).where(sa.or_(*mine))).all()
        for i in {row.id for row in taken}:
            wanted.pop(i, None)
        for i, values in wanted.items():
            for row in taken:
                if row.email == values["email"]:
                    values["email"] = f"x{i}"
                if row.login == values["login"]:
                    values["org"], values["login"] = "x", f"x{i}"
                if row.nick.lower() == values["nick"]:
                    values["nick"] = f"x{i}"
        base = self._base()
        for i, values in wanted.items():
            values.update(dict.fromkeys(("wid", "a1", "a2", "b1", "b2"), base + i))
            self._touch(ACCOUNT, 0, i)
            self._touch(ACCOUNT, 1, values["email"])
            self._touch(ACCOUNT, 3, values["nick"])
        return list(wanted.values())

    def bulk_insert(self, step: Step) -> None:
        """Insert accounts where there are none."""
        rows = self._new(self._some(step))
        kind = step.way >> 4 & 7
        if not rows:
            return
        if kind == 0:
            self.session.bulk_insert_mappings(sa.inspect(Account), rows)
        elif kind == 1:
            self.session.bulk_save_objects([Account(**row) for row in rows])
        elif kind == 2:
            given = self.session.scalars(sa.insert(Account).returning(Account, sort_by_parameter_order=True), rows)
            if [each.id for each in given] != [row["id"] for row in rows]:
                self.counted("an INSERT that returns objects in order", len(rows), -1)
        elif kind == 3:
            self.session.connection().execute(sa.insert(ACCOUNTS), rows)
        elif kind == 4:
            self.session.execute(sa.insert(Account).values(rows))
        else:
            self.session.execute(sa.insert(Account), rows)

    def bulk_delete(self, step: Step) -> None:
        """Delete accounts; half the time others come in their place at once."""
        rows = self._rows(step) if step.way % 32 != 7 else Account.id.in_(self._some(step))
        kind = step.way >> 4 & 3
        if kind == 0:
            self._touch_all(self.session.scalars(sa.delete(Account).where(rows).returning(Account)).all())
        elif kind == 1:
            how: Any = SYNCHRONIZE[step.way >> 7 & 3]
            self.session.query(Account).filter(rows).delete(synchronize_session=how)
        elif kind == 2:
            self.session.connection().execute(sa.delete(ACCOUNTS).where(rows))
        else:
            self.session.execute(sa.delete(Account).where(rows))
        if step.way >> 9 & 1:
            self.bulk_insert(step)

    def upsert(self, step: Step) -> None:
        """Insert accounts, or update those that are there: by their ids, or by an e-mail address."""
        insert = self._upsert()
        ids = self._some(step)
        rows = self._new(ids)
        base = self._base()
        if step.way >> 4 & 1:
            # who has the address is updated, whatever its id is
            own = rows[:1] or [self._spare(step.account)]
            own[0]["email"] = email_of(step.other)
            self._touch(ACCOUNT, 1, email_of(step.other))
            put = insert(ACCOUNTS).values(own)
            on = ["email"]
        else:
            new = {row["id"] for row in rows}
            rows += [self._spare(i) for i in ids if i not in new]
            put, on = insert(ACCOUNTS).values(rows), ["id"]
        put = put.on_conflict_do_update(
            index_elements=on, set_=self._written_by(base, ("wid", "b1", "b2"), ACCOUNTS.c.id)
        )
        self.session.execute(put.returning(ACCOUNTS.c.id) if step.way >> 5 & 1 else put)

    def _spare(self, i: int) -> dict[str, Any]:
        """Return an account whose alternate keys no other has."""
        n = self.wid()
        keys = {"id": i, "email": f"s{n}", "org": "s", "login": f"s{n}", "nick": f"s{n}"}
        return {**keys, **dict.fromkeys(("wid", "a1", "a2", "b1", "b2"), n)}

    # joined rows

    def _people(self, step: Step) -> list[int]:
        ids = sorted({step.person, step.other_person}) if step.way & 1 else [step.person]
        for i in ids:
            self._touch(MEMBER, PEOPLE_ID, i)
            self._touch(PERSON, PEOPLE_ID, i)
        return ids

    def bulk_base(self, step: Step) -> None:
        """UPDATE the first table of joined rows."""
        base = self._base()
        if step.way >> 4 & 1:
            update = sa.update(Person).where(Person.id.in_(self._people(step)))
            self.session.execute(update.values(self._written_by(base, ("wid", "p1", "p2"), Person.id)))
        else:
            core = sa.update(PEOPLE).where(PEOPLE.c.id.in_(self._people(step)))
            self.session.connection().execute(core.values(self._written_by(base, ("wid", "p1", "p2"), PEOPLE.c.id)))

    def bulk_sub(self, step: Step) -> None:
        """UPDATE the second."""
        base = self._base()
        ids = self._people(step)
        values = self._written_by(base, ("mwid", "m1", "m2"), MEMBERS.c.id)
        if step.way >> 4 & 1:
            self.session.execute(sa.update(MEMBERS).where(MEMBERS.c.id.in_(ids)).values(values))
        else:
            self.session.connection().execute(sa.update(MEMBERS).where(MEMBERS.c.id.in_(ids)).values(values))

    def bulk_badge(self, step: Step) -> None:
        """Give a member another badge, if it is free."""
        badge = badge_of(step.other_person)
        if self._is_taken(Member.badge == badge):
            return
        ids = self._people(step)[:1]
        self._touch(MEMBER, MEMBERS_BADGE, badge)
        base = self._base()
        update = (
            sa.update(MEMBERS)
            .where(MEMBERS.c.id.in_(ids))
            .values(badge=badge, **self._written_by(base, ("mwid",), MEMBERS.c.id))
        )
        self.session.execute(update.returning(MEMBERS.c.id) if step.way >> 4 & 1 else update)

    def bulk_delete_people(self, step: Step) -> None:
        """Delete people, of whose second table the database takes care; half the time another comes."""
        ids = self._people(step)
        for i in ids:
            self._touch(PERSON, PEOPLE_EMAIL, email_of(i))
            self._touch(MEMBER, MEMBERS_BADGE, badge_of(i))
        if step.way >> 4 & 1:
            self.session.execute(sa.delete(PEOPLE).where(PEOPLE.c.id.in_(ids)))
        else:
            self.session.connection().exec_driver_sql(f"DELETE FROM people WHERE id IN ({', '.join(map(str, ids))})")
        if step.way >> 9 & 1:
            self._bulk_insert_member(ids[0])

    def _bulk_insert_member(self, i: int) -> None:
        email, badge = email_of(i), badge_of(i)
        if self._is_taken(sa.or_(Person.id == i, Person.email == email)) or self._is_taken(Member.badge == badge):
            return
        base, sub = self.wid(), self.wid()
        row = {"id": i, "email": email, "kind": "member", "wid": base, "p1": base, "p2": base}
        row.update(badge=badge, mwid=sub, m1=sub, m2=sub)
        self.session.execute(sa.insert(Member), [row])
