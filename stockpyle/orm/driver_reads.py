"""Reads on the driver's own cursor, for statements of which nobody wants to be told.

A Connection of SQLAlchemy's tells listeners and the log of each statement, begins a transaction for it and makes
results of many kinds. For one row of SQLite that takes longer than all else; on PostgreSQL the transaction's BEGIN and
ROLLBACK are two round trips out of three. Where nobody listens, nothing of that can be seen, and one statement needs no
transaction around it: in autocommit it sees the same snapshot. What is unusual in any way is left to a Connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from stockpyle.orm.connections import ALONE, AT_ONCE, CHECKED, SourceConnections
from stockpyle.orm.listeners import somebody_hears_reads
from stockpyle.orm.preparing import may_be_outlived

_DIALECTS = (PGDialect_psycopg, PGDialect_psycopg2, SQLiteDialect_pysqlite)

Rows = list[tuple[Any, ...]]
Description = Sequence[Sequence[Any]]


class DriverReads:
    """Runs SELECTs of one engine."""

    def __init__(self, engine: sa.Engine, connections: SourceConnections) -> None:
        self._engine = engine
        self._connections = connections
        self.dialect = engine.dialect
        self._would_begin = _psycopg_would if type(self.dialect) is PGDialect_psycopg else _psycopg2_would
        plain = type(engine) is sa.Engine and type(self.dialect) in _DIALECTS
        shared = isinstance(engine.pool, StaticPool | SingletonThreadPool)
        self._possible = plain and not shared and not engine.get_execution_options()
        self._postgresql = self.dialect.name == "postgresql"

    @property
    def are_possible(self) -> bool:
        """False if all that is read must be read by a Connection, at least now."""
        return self._possible and self._connections.have_checked and not somebody_hears_reads(self._engine)

    def fetch(self, text: str, parameters: Any, *, describe: bool = False) -> tuple[Rows, Description, bool] | None:
        """Run one SELECT and return its rows, their description if it is asked for, and whether they may be cached.

        None if it must be run by a Connection instead. Raises StoreError, StoreUnavailable and StoreTimeout.
        """
        try:
            return self._fetch(text, parameters, describe)
        except (SQLAlchemyError, OverflowError, UnicodeError) as error:
            raise self._connections.translated(error, "load") from error

    def _fetch(self, text: str, parameters: Any, describe: bool) -> tuple[Rows, Description, bool] | None:
        error_type: Any = self.dialect.loaded_dbapi.Error
        connection: Any = None
        cursor: Any = None
        at_once = False
        try:
            pooled = self._engine.raw_connection()
        except error_type as error:
            raise self._wrapped(error, None, None, self.dialect.is_disconnect(error, None, None)) from error
        try:
            primary = pooled.info.get(CHECKED)
            if primary is None:
                return None
            connection = pooled.dbapi_connection
            if self._postgresql and pooled.info.get(ALONE) and self._would_begin(connection):
                # first: it is switched off when the connection goes back, even if an interrupt comes now
                pooled.info[AT_ONCE] = at_once = True
                connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(text, parameters)
            rows = cursor.fetchall()
            description = cursor.description if describe else ()
            cursor.close()
            return None if rows and type(rows[0]) is not tuple else (rows, description, primary)
        except error_type as error:
            if may_be_outlived(error):
                # a Connection uses nothing that was prepared; and the next who has this one shall not meet it again
                pooled.invalidate(error)
                return None
            lost = self.dialect.is_disconnect(error, connection, cursor)
            if lost and not self._lose(pooled, text, parameters):
                return None
            raise self._wrapped(error, text, parameters, lost) from error
        except Exception:  # noqa: BLE001  # whatever it is, a Connection raises it in the way that SQLAlchemy does
            return None
        except BaseException as error:
            # nobody knows in what state an interrupt has left it
            pooled.invalidate(error)
            raise
        finally:
            if pooled.is_valid:
                self._give_back(pooled, connection, at_once)

    def _give_back(self, pooled: Any, connection: Any, at_once: bool) -> None:
        try:
            # a pool may be told to leave that to whoever has had the connection
            if connection is not None and (not at_once if self._postgresql else connection.in_transaction):
                connection.rollback()
        except Exception as error:  # noqa: BLE001  # it is broken, and whoever comes next gets another
            pooled.invalidate(error)
        else:
            pooled.close()

    def _lose(self, pooled: Any, text: str, parameters: Any) -> bool:
        """Let a Connection find that the database is gone, and empty the pool; False if it is there."""
        own = tuple(parameters) if isinstance(parameters, list) else parameters
        with sa.Connection(self._connections.engine, pooled) as connection:
            try:
                connection.exec_driver_sql(text, own)
            except DBAPIError:
                return True
            connection.invalidate()
        return False

    def _wrapped(self, error: Exception, text: str | None, parameters: Any, lost: bool) -> Exception:
        return DBAPIError.instance(
            text,
            parameters,
            error,
            self.dialect.loaded_dbapi.Error,
            hide_parameters=self._engine.hide_parameters,
            connection_invalidated=lost,
            dialect=self.dialect,
        )


def _psycopg_would(connection: Any) -> bool:
    """True if a connection of psycopg's is in no transaction, and would begin one for a statement."""
    return connection.pgconn.transaction_status == 0 and not connection.autocommit


def _psycopg2_would(connection: Any) -> bool:
    """As of psycopg, but psycopg2 asks the server to change the level, if there is one, with autocommit."""
    idle = connection.info.transaction_status == 0
    return idle and not connection.autocommit and connection.isolation_level is None
