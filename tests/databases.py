"""What tests of mapped classes share: the statements that an engine sends, counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from stockpyle.stores.chained import ChainedStore
from stockpyle.stores.memory import ProcessMemoryStore
from stockpyle.stores.sqlalchemy import SqlAlchemyStore


class Traffic:
    """Everything an engine has sent: statements, and the ends of its transactions."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.begins = self.commits = self.rollbacks = 0

    def of(self, verb: str) -> list[str]:
        """Return the statements that start with a word."""
        return [statement for statement in self.statements if statement.lstrip().upper().startswith(verb)]


@contextmanager
def traffic(engine: sa.Engine) -> Iterator[Traffic]:
    """Record what the engine sends inside the block."""
    seen = Traffic()

    def execute(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        seen.statements.append(statement)

    def begin(conn: Any) -> None:
        seen.begins += 1

    def commit(conn: Any) -> None:
        seen.commits += 1

    def rollback(conn: Any) -> None:
        seen.rollbacks += 1

    listeners = {"before_cursor_execute": execute, "begin": begin, "commit": commit, "rollback": rollback}
    for name, listener in listeners.items():
        event.listen(engine, name, listener)
    try:
        yield seen
    finally:
        for name, listener in listeners.items():
            event.remove(engine, name, listener)


def save(engine: sa.Engine, objs: Iterable[Any]) -> None:
    """Write objects past stockpyle."""
    with Session(engine) as session:
        session.add_all(objs)
        session.commit()


def chain_on(engine: sa.Engine) -> ChainedStore:
    """Return process memory above the database."""
    return ChainedStore([ProcessMemoryStore(), SqlAlchemyStore(engine=engine)])


def get_cached(chain: ChainedStore, engine: sa.Engine, klass: type, key: dict[str, Any], **options: Any) -> Any:
    """Get an object that a first get has filled into memory, and see that no statement is sent for it."""
    assert chain.get(klass, key) is not None
    with traffic(engine) as seen:
        found = chain.get(klass, key, **options)
    assert seen.statements == []
    return found
