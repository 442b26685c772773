"""Statements on mapped tables past the unit of work: a warning, and the class is dropped when they are committed."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from stockpyle.exceptions import StockpyleWarning
from tests.ext.models import Org, User
from tests.ext.worlds import World

USERS: Any = User.__table__
ROW: Any = {"id": 3, "email": "3@a.org", "name": "bulk"}

WRITES: dict[str, Any] = {
    "orm update": lambda s: s.execute(sa.update(User).where(User.id == 1).values(name="bulk")),
    "orm update by key": lambda s: s.execute(sa.update(User), [{"id": 1, "name": "bulk"}]),
    "orm delete": lambda s: s.execute(sa.delete(User).where(User.id == 1)),
    "orm insert": lambda s: s.execute(sa.insert(User), [ROW]),
    "orm insert returning": lambda s: s.scalars(sa.insert(User).returning(User), [ROW]).all(),
    "query update": lambda s: s.query(User).filter_by(id=1).update({"name": "bulk"}),
    "query delete": lambda s: s.query(User).filter_by(id=1).delete(),
    "core update": lambda s: s.execute(USERS.update().where(USERS.c.id == 1).values(name="bulk")),
    "core on the connection": lambda s: s.connection().execute(USERS.delete().where(USERS.c.id == 1)),
    "bulk_insert_mappings": lambda s: s.bulk_insert_mappings(sa.inspect(User), [ROW]),
    "bulk_update_mappings": lambda s: s.bulk_update_mappings(sa.inspect(User), [{"id": 1, "name": "bulk"}]),
    "bulk_save_objects": lambda s: s.bulk_save_objects([User(**ROW)]),
    "text": lambda s: s.execute(sa.text("UPDATE users SET name = 'bulk' WHERE id = 1")),
    "exec_driver_sql": lambda s: s.connection().exec_driver_sql('delete from "users" where id = 1'),
}


def furnish(world: World) -> None:
    """Write two users and an organisation, and read them, and one that is not there, by their keys."""
    world.add(User(id=1, email="1@a.org", name="old"), User(id=2, email="2@a.org", name="old"), Org(id=1, name="a"))
    world.warm(User, *({"id": i} for i in (1, 2, 3)), *({"email": f"{i}@a.org"} for i in (1, 2, 3)))
    world.warm(Org, {"id": 1})


@pytest.mark.parametrize("write", WRITES)
def test_a_committed_statement_drops_the_class(any_world: World, write: str) -> None:
    """The statement warns, naming the class; right after the commit the caches are right, other classes untouched."""
    world = any_world
    furnish(world)
    session = world.Session()
    with pytest.warns(StockpyleWarning, match="User"):
        WRITES[write](session)
    assert world.holds(User, {"id": 2})
    session.commit()
    session.close()
    assert world.locks == []
    assert not world.holds(User, {"id": 2})
    assert world.holds(Org, {"id": 1})
    world.check()
    assert world.holds(User, {"id": 2})


@pytest.mark.parametrize("write", WRITES)
def test_a_statement_that_is_rolled_back_drops_nothing(world: World, write: str) -> None:
    """After a rollback, of the transaction or of a savepoint, the caches hold what they held."""
    furnish(world)
    with world.Session() as session:
        with pytest.warns(StockpyleWarning, match="User"):
            WRITES[write](session)
        session.rollback()
        session.get_one(Org, 1).name = "b"
        session.flush()
        savepoint = session.begin_nested()
        with pytest.warns(StockpyleWarning, match="User"):
            WRITES[write](session)
        savepoint.rollback()
        session.commit()
    assert all(world.holds(User, {"id": i}) for i in (1, 2))
    world.check()


@pytest.mark.parametrize("write", WRITES)
def test_a_statement_beside_a_unit_of_work(world: World, write: str) -> None:
    """A flush that writes the same table does not vouch for a statement, before it, after it or in its hooks."""
    furnish(world)
    flushed = 2 if write in ("orm delete", "query delete", "core on the connection", "exec_driver_sql") else 1

    def hook(session: Session, *_: Any) -> None:
        WRITES[write](session)

    event.listen(world.Session, "before_flush", hook)
    with world.Session() as session:
        session.get_one(User, flushed).name = "flushed"
        with pytest.warns(StockpyleWarning, match="User"):
            session.flush()
        event.remove(world.Session, "before_flush", hook)
        session.commit()
    world.check()


def test_a_cte_that_writes(postgres_world: World) -> None:
    """A statement that only reads around a CTE that writes is a write."""
    world = postgres_world
    furnish(world)
    cte = USERS.update().where(USERS.c.id == 1).values(name="bulk").returning(USERS.c.id).cte("done")
    with world.Session() as session:
        with pytest.warns(StockpyleWarning, match="User"):
            session.execute(sa.select(cte.c.id)).all()
        session.commit()
    world.check()


def test_statements_that_write_nothing_mapped(world: World) -> None:
    """Reads, locking reads, and writes to tables that no class maps warn of nothing and drop nothing."""
    furnish(world)
    world.execute("create table unmapped (id integer)")
    with warnings.catch_warnings(), world.Session() as session:
        warnings.simplefilter("error")
        session.execute(sa.text("insert into unmapped values (1)"))
        session.execute(sa.select(User).with_for_update()).all()
        session.execute(sa.text("select name as updated from users"))
        session.commit()
    assert world.holds(Org, {"id": 1})


def test_statements_before_a_session_joins_the_connection(world: World) -> None:
    """What a connection has written before a session joins it is dropped when the connection commits."""
    world.add(User(id=1, name="old"))
    world.warm(User, {"id": 1})
    with world.engine.connect() as connection:
        connection.execute(sa.update(User.__table__).values(name="new"))
        with world.Session(bind=connection) as session:
            with pytest.warns(StockpyleWarning, match="joined later"):
                session.get(User, 1)
            session.commit()
        connection.commit()
    world.check()
