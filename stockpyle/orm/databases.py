"""Whether a session works on the database that a source reads."""

from __future__ import annotations

import os
import weakref
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.pool import SingletonThreadPool, StaticPool

_told: weakref.WeakSet[Any] = weakref.WeakSet()


def tell_same(target: Any) -> None:
    """Take it from the application that a Session, or a Session class, works on the source's database."""
    _told.add(target)


def is_told_same(session: Session) -> bool:
    """True if the application has said so of this session, or of its class."""
    told = list(_told)
    return session in told or any(isinstance(session, each) for each in told if isinstance(each, type))


def same_database(first: sa.Engine, second: sa.Engine) -> bool:
    """True if two engines reach the same database: backend, host, port and database are equal; drivers may differ."""
    if first.pool is second.pool:
        return True
    if _place(first) is None or first.url.get_backend_name() != second.url.get_backend_name():
        return False
    return _place(first) == _place(second)


_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433, "oracle": 1521}


def _place(engine: sa.Engine) -> tuple[Any, ...] | None:
    url = engine.url
    if url.get_backend_name() == "sqlite":
        in_memory = url.database in (None, "", ":memory:") or isinstance(engine.pool, StaticPool | SingletonThreadPool)
        return None if in_memory else (os.path.realpath(str(url.database)),)
    host = url.host or url.query.get("host") or "localhost"
    return (
        "localhost" if host in ("127.0.0.1", "::1") else host,
        url.port or _PORTS.get(url.get_backend_name()),
        url.database,
    )
