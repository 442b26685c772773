"""Statements that psycopg has prepared on a connection, which a migration may have made useless.

psycopg prepares by itself what it sends often. When a column changes its type, or somebody between it and the server
has dropped what it prepared, each further execution fails, and psycopg prepares nothing anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

_OUTLIVED = ("0A000", "26000")


def may_be_outlived(error: BaseException) -> bool:
    """True if a driver's error may be of what was prepared alone: psycopg tells so by its SQLSTATE."""
    return getattr(error, "sqlstate", None) in _OUTLIVED


@contextmanager
def unprepared(connection: sa.Connection) -> Iterator[None]:
    """Let psycopg prepare nothing on a connection, and use nothing that it has prepared; other drivers are let be."""
    raw: Any = connection.connection.driver_connection
    if not hasattr(raw, "prepare_threshold"):
        yield
        return
    threshold = raw.prepare_threshold
    try:
        raw.prepare_threshold = None
        yield
    finally:
        raw.prepare_threshold = threshold
