"""Engines that are alike for all contestants."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import event


def engine_for(url: str) -> sa.Engine:
    """Return an engine; on SQLite a commit does not wait for the disk, whose moods would hide all else."""
    engine = sa.create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _hasten)
    return engine


def _hasten(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=OFF")
