"""The logger, for where nothing may be raised."""

from __future__ import annotations

import contextlib
import logging
from typing import Any


class _Unfailing(logging.LoggerAdapter):  # type: ignore[type-arg]  # it has no parameter before Python 3.11
    """Raises nothing: an application's own filter or handler must not make a durable commit look like a failed one."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        with contextlib.suppress(Exception):
            super().log(level, msg, *args, **{**kwargs, "stacklevel": 2})


logger = _Unfailing(logging.getLogger("stockpyle"), {})
