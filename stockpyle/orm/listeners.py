"""The listeners that stockpyle sets on all engines, counted: so it can be told quickly if anybody else listens."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

_EVENTS = (
    "before_execute",
    "after_execute",
    "before_cursor_execute",
    "after_cursor_execute",
    "begin",
    "rollback",
    "engine_connect",
    "handle_error",
    "do_execute",
)
"""What a Connection tells of while it reads, and what somebody may change there."""

_own = 0


def listen_to_engines(name: str, listener: Callable[..., Any], **options: Any) -> None:
    """Listen to an event of every engine, as ``sqlalchemy.event.listen(Engine, ...)`` does."""
    global _own
    event.listen(sa.Engine, name, listener, **options)
    # not before: what is counted too late is taken for somebody else's, and nothing is lost but time
    _own += name in _EVENTS


def somebody_hears_reads(engine: sa.Engine) -> bool:
    """True if an application's own listener, or its log, is to be told of what a Connection of this engine reads."""
    told: Any = engine.dispatch
    asked: Any = engine.dialect.dispatch
    # ours are never removed, so that no list is shorter than they are
    listeners = (
        len(told.before_execute)
        + len(told.after_execute)
        + len(told.before_cursor_execute)
        + len(told.after_cursor_execute)
        + len(told.begin)
        + len(told.rollback)
        + len(told.engine_connect)
        + len(asked.handle_error)
        + len(asked.do_execute)
    )
    if listeners != _own or engine.logger.isEnabledFor(logging.INFO):
        return True
    # somebody may listen to all Connections, instead of to engines
    return bool(getattr(sa.Connection, "_has_events", True))
