"""The logger, for where nothing may be raised, and for what may happen with every record."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Hashable
from typing import Any

QUIET_SECONDS = 60.0
"""How long after a message of a kind the next one is due."""


class _Unfailing(logging.LoggerAdapter):  # type: ignore[type-arg]  # it has no parameter before Python 3.11
    """Raises nothing: an application's own filter or handler must not make a durable commit look like a failed one."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        with contextlib.suppress(Exception):
            super().log(level, msg, *args, **{**kwargs, "stacklevel": kwargs.get("stacklevel", 1) + 1})


logger = _Unfailing(logging.getLogger("stockpyle"), {})


class Seldom:
    """Logs the first message about something, and of those that follow within a minute only the number.

    clock: seconds from anywhere.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[Hashable, tuple[float, int]] = {}
        """When the next message is due, and how many were left out since the last."""

    def log(
        self, level: int, about: Hashable, msg: str, *args: object, exc_info: bool | Exception | None = None
    ) -> None:
        """Log it, or count it. No mutex: two threads may log the same, but a fork finds nothing locked."""
        now = self._clock()
        due, left_out = self._told.get(about, (now, 0))
        if now < due:
            self._told[about] = due, left_out + 1
            return
        self._told[about] = now + QUIET_SECONDS, 0
        if left_out:
            msg, args = f"{msg} (and %d more since the last such message)", (*args, left_out)
        logger.log(level, msg, *args, exc_info=exc_info, stacklevel=2)
