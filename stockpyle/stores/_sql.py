"""What a store in a SQL database has besides objects: the verbs of its backend."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stockpyle.stores._connected import command_of
from stockpyle.stores.base import listed

if TYPE_CHECKING:
    import sqlalchemy as sa

    from stockpyle.orm.commands import SqlCommands


class SqlVerbs:
    """ping, connect, execute and execute_transaction, by the `_commands` that a store makes of its engine."""

    _commands: SqlCommands

    path_is_database = True
    """Of a database that is a file, the path is its name."""

    timeout = 5.0
    """Seconds that a ping may take; set it on the store for another."""

    def ping(self) -> bool:
        """Return True if the database answers within `timeout` seconds; StoreUnavailable, or StoreTimeout, if not."""
        return self._commands.ping(self.timeout)

    def connect(self) -> sa.Connection:
        """Return a new Connection of the engine. It is the caller's, who closes it."""
        return self._commands.connect()

    def execute(self, *command: Any) -> Any:
        """Run a statement in a transaction of its own, and return its rows, or how many rows it has changed.

        ``execute("UPDATE users SET name = :name", {"name": "Ann"})``: a statement is text, or whatever SQLAlchemy
        executes. No cache is told of what it changes: for that, write through a chain, or through a session that the
        extension listens to, or call the chain's `invalidate`.
        StoreError if the database refuses it; StoreUnavailable if it cannot be reached: how long it may take is the
        driver's business.
        """
        return self._commands.execute("execute", [command_of(command)])[0]

    def execute_transaction(self, commands: Iterable[Any]) -> list[Any]:
        """Run several statements, each a text or a tuple as `execute` takes it, in one transaction; all or none."""
        return self._commands.execute(
            "execute_transaction", [command_of(each) for each in listed(commands, "execute_transaction")]
        )
