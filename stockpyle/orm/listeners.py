"""The listeners that stockpyle sets on all engines, counted: so it can be told quickly if anybody else listens."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

_own: Counter[str] = Counter()


def listen_to_engines(name: str, listener: Callable[..., Any], **options: Any) -> None:
    """Listen to an event of every engine, as ``sqlalchemy.event.listen(Engine, ...)`` does."""
    event.listen(sa.Engine, name, listener, **options)
    # not before: what is counted too late is taken for somebody else's, and nothing is lost but time
    _own[name] += 1


def somebody_hears_reads(engine: sa.Engine) -> bool:
    """True if an application's own listener, or its log, is to be told of what a Connection of this engine reads."""
    own = _own
    told: Any = engine.dispatch
    asked: Any = engine.dialect.dispatch
    return (
        len(told.before_cursor_execute) != own["before_cursor_execute"]
        or len(told.after_cursor_execute) != own["after_cursor_execute"]
        or len(told.before_execute) != own["before_execute"]
        or len(told.after_execute) != own["after_execute"]
        or len(told.begin) != own["begin"]
        or len(told.rollback) != own["rollback"]
        or len(told.engine_connect) != own["engine_connect"]
        or len(asked.handle_error) != own["handle_error"]
        or len(asked.do_execute) != own["do_execute"]
        or engine.logger.isEnabledFor(logging.INFO)
    )
