"""Every way to write through SQLAlchemy, and what it drops.

All of them write the user with id 1, add the one with id 3, or do both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from tests.ext.models import User

USERS: Any = User.__table__
ROW: Any = {"id": 3, "email": "3@a.org", "org_id": None, "login": None, "name": "bulk"}
KEYLESS: Any = {"email": "3@a.org", "name": "bulk"}
NEXT: Any = {"id": 4, "email": "4@a.org", "org_id": None, "login": None, "name": "bulk"}

Dropped = Literal["rows", "class", "nothing"]


@dataclass(frozen=True)
class Way:
    """How to write, what of the class is dropped for it, and whether user 1 is still there afterwards."""

    write: Callable[[Session], Any]
    dropped: Dropped = "rows"
    deletes: bool = False
    only: str | None = None


def upsert(session: Session, *, do: str) -> Any:
    """Insert the e-mail of user 1 again, under another id."""
    insert: Any = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}[session.get_bind().dialect.name]
    statement = insert(User).values(id=9, email="1@a.org", name="upsert")
    if do == "nothing":
        return session.execute(statement.on_conflict_do_nothing(index_elements=["email"]))
    values = {"name": statement.excluded.name, **({"id": 1} if do == "move" else {})}
    statement = statement.on_conflict_do_update(index_elements=["email"], set_=values)
    if do == "return":
        return session.scalars(statement.returning(User), execution_options={"populate_existing": True}).all()
    return session.execute(statement)


def rename(session: Session, **values: Any) -> None:
    """Change user 1 in a unit of work."""
    user = session.get_one(User, 1)
    for name, value in values.items():
        setattr(user, name, value)
    session.flush()


def in_cte(session: Session) -> Any:
    """A statement that only reads around a CTE that writes."""
    cte = USERS.update().where(USERS.c.id == 1).values(name="bulk").returning(USERS.c.id).cte("done")
    return session.execute(sa.select(cte.c.id)).all()


def by_text(text: str, **options: Any) -> Callable[[Session], Any]:
    """Execute a text."""
    return lambda s: s.execute(sa.text(text).execution_options(**options))


update = sa.update(User)
one = update.where(User.id == 1)
some = update.where(User.name == "old", User.email.like("1%"))

ROWS: dict[str, dict[str, Way]] = {
    "a flush: add, changed attributes, delete, merge": {
        "flush, insert": Way(lambda s: (s.add(User(**ROW)), s.flush())[1]),
        "flush, update": Way(lambda s: rename(s, email="3@a.org")),
        "flush, delete": Way(lambda s: (s.delete(s.get_one(User, 1)), s.flush())[1], deletes=True),
        "flush, merge": Way(lambda s: (s.merge(User(id=1, name="bulk")), s.merge(User(**ROW)), s.flush())[2]),
    },
    "a flush that changes a primary key": {
        "flush, a primary key": Way(lambda s: rename(s, id=3), deletes=True),
    },
    "update() with the primary key in its criterion": {
        "update": Way(lambda s: s.execute(one.values(name="bulk"))),
        "update, an alternate key": Way(lambda s: s.execute(one.values(email="3@a.org"))),
        "update, no rows": Way(lambda s: s.execute(update.where(User.id == 77).values(name="bulk")), "nothing"),
    },
    "update() with any other criterion, or that sets an alternate key by SQL": {
        "update, an alternate key by SQL": Way(lambda s: s.execute(one.values(email=sa.literal("3") + "@a.org"))),
        "update, a part of a composite key": Way(lambda s: s.execute(one.values(login="x"))),
        "update, some rows": Way(lambda s: s.execute(some.values(name="bulk"))),
        "update, returning": Way(lambda s: s.execute(some.values(name="bulk").returning(User.name, User.id + 1)).all()),
        "update, returning objects": Way(lambda s: s.scalars(some.values(name="bulk").returning(User)).all()),
        "update, fetch": Way(
            lambda s: s.execute(some.values(name="bulk"), execution_options={"synchronize_session": "fetch"})
        ),
        "update, no synchronisation": Way(
            lambda s: s.execute(some.values(name="bulk"), execution_options={"synchronize_session": False})
        ),
        "update, from a subquery": Way(
            lambda s: s.execute(
                update.where(User.email == sa.select(sa.literal("1@a.org")).scalar_subquery()).values(name="bulk"),
                execution_options={"synchronize_session": False},
            )
        ),
    },
    "update() with a list of rows to change by primary key": {
        "update, by primary key": Way(lambda s: s.execute(update, [{"id": 1, "name": "bulk"}])),
        "update, several by primary key": Way(
            lambda s: s.connection().execute(
                USERS.update().where(USERS.c.id == sa.bindparam("key")),
                [{"key": 1, "email": "3@a.org"}, {"key": 77, "email": None}],
            )
        ),
    },
    "update() that sets a primary key": {
        "update, a primary key": Way(lambda s: s.execute(one.values(id=3)), "class", deletes=True),
    },
    "delete() with any criterion": {
        "delete": Way(lambda s: s.execute(sa.delete(User).where(User.id == 1)), deletes=True),
        "delete, some rows": Way(lambda s: s.execute(sa.delete(User).where(User.email.like("1%"))), deletes=True),
        "delete, returning": Way(
            lambda s: s.execute(sa.delete(User).where(User.email.like("1%")).returning(User.email)).all(), deletes=True
        ),
        "delete, several": Way(
            lambda s: s.connection().execute(
                USERS.delete().where(USERS.c.id == sa.bindparam("key")), [{"key": 1}, {"key": 77}]
            ),
            deletes=True,
        ),
    },
    "insert() of one row, or from a SELECT": {
        "insert": Way(lambda s: s.execute(sa.insert(User), [ROW])),
        "insert, the database's own id": Way(lambda s: s.execute(sa.insert(User).values(KEYLESS))),
        "bulk_insert_mappings, return_defaults": Way(
            lambda s: s.bulk_insert_mappings(sa.inspect(User), [dict(KEYLESS)], return_defaults=True)
        ),
        "insert, from select": Way(
            lambda s: s.execute(
                sa.insert(User).from_select(["email", "name"], sa.select(sa.literal("3@a.org"), sa.literal("x")))
            )
        ),
    },
    "insert() of several rows with all their keys": {
        "insert, several": Way(lambda s: s.execute(sa.insert(User), [ROW, NEXT])),
    },
    "insert() of several rows whose keys the database makes": {
        "insert, several of the database's own id": Way(
            lambda s: s.execute(sa.insert(User), [KEYLESS, {"email": "4@a.org", "name": "x"}]), "class"
        ),
        "insert, several of the database's own id, returning names": Way(
            lambda s: s.execute(
                sa.insert(User).returning(User.name), [KEYLESS, {"email": "4@a.org", "name": "x"}]
            ).all(),
            "class",
        ),
    },
    "the same with .returning(User), or of all its keys": {
        "insert, returning": Way(lambda s: s.scalars(sa.insert(User).returning(User), [ROW]).all()),
        "insert, several, returning": Way(lambda s: s.scalars(sa.insert(User).returning(User), [ROW, NEXT]).all()),
        "insert, several of the database's own id, returning objects": Way(
            lambda s: s.scalars(sa.insert(User).returning(User), [KEYLESS, {"email": "4@a.org", "name": "x"}]).all()
        ),
        "insert, values": Way(lambda s: s.execute(sa.insert(User).values([ROW, NEXT]))),
    },
    "an upsert: on_conflict_do_update, on_conflict_do_nothing": {
        "upsert, update": Way(lambda s: upsert(s, do="update")),
        "upsert, update, returning": Way(lambda s: upsert(s, do="return")),
        "upsert, nothing": Way(lambda s: upsert(s, do="nothing"), "nothing"),
    },
    "an upsert that sets a primary key, INSERT OR REPLACE": {
        "upsert, the primary key": Way(lambda s: upsert(s, do="move"), "class"),
        "insert or replace": Way(
            lambda s: s.execute(sa.insert(User).prefix_with("OR REPLACE").values(**ROW | {"email": "1@a.org"})),
            "class",
            deletes=True,
            only="sqlite",
        ),
    },
    "Query.update, Query.delete": {
        "Query.update": Way(lambda s: s.query(User).filter_by(id=1).update({"name": "bulk"})),
        "Query.delete": Way(lambda s: s.query(User).filter_by(id=1).delete(), deletes=True),
    },
    "bulk_save_objects, bulk_update_mappings, bulk_insert_mappings with all keys": {
        "bulk_insert_mappings": Way(lambda s: s.bulk_insert_mappings(sa.inspect(User), [ROW])),
        "bulk_update_mappings": Way(
            lambda s: s.bulk_update_mappings(sa.inspect(User), [{"id": 1, "email": "3@a.org"}])
        ),
        "bulk_save_objects": Way(lambda s: s.bulk_save_objects([User(**ROW)])),
    },
    "bulk_insert_mappings whose keys the database makes": {
        "bulk_insert_mappings, the database's own id": Way(
            lambda s: s.bulk_insert_mappings(sa.inspect(User), [KEYLESS, KEYLESS | {"email": "4@a.org"}]), "class"
        ),
    },
    "Core statements, through the session or session.connection()": {
        "Core update": Way(lambda s: s.execute(USERS.update().where(USERS.c.id == 1).values(name="bulk"))),
        "Core on the connection": Way(
            lambda s: s.connection().execute(USERS.delete().where(USERS.c.email == "1@a.org")), deletes=True
        ),
    },
    "a CTE that writes": {
        "a writing CTE": Way(in_cte, "class", only="postgresql"),
    },
    "text(), exec_driver_sql()": {
        "text": Way(by_text("UPDATE users SET name = 'bulk' WHERE id = 1"), "class"),
        "exec_driver_sql": Way(
            lambda s: s.connection().exec_driver_sql('delete from "users" where id = 1'), "class", deletes=True
        ),
    },
    "text that says it: execution_options(stockpyle_invalidates=[User])": {
        "text that says what": Way(
            by_text("UPDATE users SET name = 'bulk' WHERE id = 1", stockpyle_invalidates=[User]), "class"
        ),
    },
}
"""By the rows of the table in docs/writes.md."""

WAYS = {name: way for row in ROWS.values() for name, way in row.items()}


def ways(dialect: str | None = None) -> list[str]:
    """Return the names of those that every dialect has, or of those that only one has."""
    return [name for name, way in WAYS.items() if way.only == dialect]
