"""The database's own record of what was committed, and in which order.

Triggers write every version of every row, in the transaction that makes it, into a log: so a state is in the log
exactly if it was committed, whatever became of the worker. The log's numbers are taken after the row, or the unique
value, was locked: of two transactions that touch one row or one key, the second takes its numbers after the first
has committed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from tests.coherence.models import TABLES, WRITES_EACH, Base, State, TableLayout

_LOG = sa.Table(
    "write_log",
    sa.MetaData(),
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("tx", sa.BigInteger, nullable=False),
    sa.Column("tab", sa.SmallInteger, nullable=False),
    sa.Column("old", sa.BigInteger),
    sa.Column("new", sa.BigInteger),
    sa.Column("state", sa.Text),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True)
class Entry:
    """One write of one row. old is the write id before, None for an insert; new and state are None for a delete."""

    seq: int
    tx: int
    table: int
    old: int | None
    new: int | None
    state: State | None


WRITES = "workload_writes"
"""The execution option of connections on which the workload's own sessions write."""


class Transactions:
    """Tells the database which transaction of the workload writes: `number`, while it is not 0.

    everywhere: it writes on whatever connection begins next, not only on the workload's own.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self.number = 0
        self.everywhere = False
        self._sqlite = engine.dialect.name == "sqlite"
        if self._sqlite:
            event.listen(engine, "connect", self._on_connect)
        event.listen(engine, "begin", self._on_begin)
        event.listen(engine, "commit", self._on_commit)

    def _on_connect(self, dbapi_connection: Any, record: Any) -> None:
        # SQLAlchemy's own recipe for transactions that begin with BEGIN, and so for savepoints
        dbapi_connection.isolation_level = None
        dbapi_connection.execute("PRAGMA synchronous = OFF")
        dbapi_connection.execute("PRAGMA foreign_keys = ON")
        dbapi_connection.create_function("checker_tx", 0, lambda: self._logged)

    _logged = 0

    def _on_begin(self, connection: sa.Connection) -> None:
        writes = self.number and (self.everywhere or connection.get_execution_options().get(WRITES))
        if self._sqlite:
            if writes:
                self._logged = self.number
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
        elif writes:
            # a SET takes no snapshot
            connection.exec_driver_sql(f"SET LOCAL checker.tx = '{self.number}'")

    def _on_commit(self, connection: sa.Connection) -> None:
        # what the system under test does on other connections after the commit is not the transaction's
        self.number = 0
        self.everywhere = False


def create(engine: sa.Engine) -> None:
    """Create all tables, with the log and what writes it."""
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            Base.metadata.create_all(connection)
            _LOG.create(connection)
            statements = [each for number, table in enumerate(TABLES) for each in _for_sqlite(number, table)]
        else:
            connection.exec_driver_sql(
                "CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
            )
            Base.metadata.create_all(connection)
            _LOG.create(connection)
            statements = [each for number, table in enumerate(TABLES) for each in _for_postgresql(number, table)]
            statements += _FINISH
        for statement in statements:
            connection.exec_driver_sql(statement)


def _for_sqlite(number: int, table: TableLayout) -> Iterator[str]:
    wid = table.columns[0]
    state = f"json_array({', '.join(f'NEW.{column}' for column in table.columns)})"
    for verb, old, new, value in [
        ("INSERT", "NULL", f"NEW.{wid}", state),
        ("UPDATE", f"OLD.{wid}", f"NEW.{wid}", state),
        ("DELETE", f"OLD.{wid}", "NULL", "NULL"),
    ]:
        yield (
            f"CREATE TRIGGER log_{table.name}_{verb} AFTER {verb} ON {table.name} BEGIN INSERT INTO write_log "
            f"(tx, tab, old, new, state) VALUES (checker_tx(), {number}, {old}, {new}, {value}); END"
        )


def _for_postgresql(number: int, table: TableLayout) -> Iterator[str]:
    wid = table.columns[0]
    columns = ", ".join(f"NEW.{column}" for column in table.columns)
    yield (
        f"CREATE FUNCTION log_{table.name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"INSERT INTO write_log (tx, tab, old, new, state) VALUES ("
        f"COALESCE(NULLIF(current_setting('checker.tx', true), ''), '0')::bigint, {number}, OLD.{wid}, NEW.{wid}, "
        f"CASE WHEN TG_OP <> 'DELETE' THEN json_build_array({columns})::text END); RETURN NULL; END $$"
    )
    yield (
        f"CREATE TRIGGER log_{table.name} AFTER INSERT OR UPDATE OR DELETE ON {table.name} "
        f"FOR EACH ROW EXECUTE FUNCTION log_{table.name}()"
    )


_FINISH = [
    "CREATE FUNCTION finish_account() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    f"UPDATE accounts SET wid = wid + {WRITES_EACH // 2}, a1 = wid + {WRITES_EACH // 2}, a2 = wid + {WRITES_EACH // 2} "
    "WHERE id = NEW.id AND a1 <> a2; RETURN NULL; END $$",
    "CREATE CONSTRAINT TRIGGER finish_account AFTER INSERT OR UPDATE ON accounts DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW WHEN (NEW.a1 <> NEW.a2) EXECUTE FUNCTION finish_account()",
]
"""What a transaction leaves half done, PostgreSQL itself finishes when it commits: nothing read before tells how."""


def read_log(connection: sa.Connection) -> list[Entry]:
    """Return all that was committed, in the log's order."""
    rows = connection.execute(sa.select(*_LOG.c).order_by(_LOG.c.seq))
    return [
        Entry(seq, tx, table, old, new, None if state is None else tuple(json.loads(state)))
        for seq, tx, table, old, new, state in rows
    ]


class Witness:
    """Notes when a transaction was first seen to be committed, by looking into the log now and then."""

    LATE = 2_000
    """How many numbers a transaction may come late."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._highest = 0
        self._recent: set[int] = set()

    def look(self) -> Iterable[int]:
        """Return the transactions seen for the first time."""
        query = sa.select(_LOG.c.seq, _LOG.c.tx).where(_LOG.c.seq > self._highest - self.LATE)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        fresh = [(seq, tx) for seq, tx in rows if seq not in self._recent]
        self._highest = max([self._highest, *(seq for seq, _ in rows)])
        self._recent = {seq for seq, _ in rows if seq > self._highest - self.LATE}
        return {tx for _, tx in fresh}
