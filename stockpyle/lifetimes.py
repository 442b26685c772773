"""How long a record may serve: what callers say (seconds, timedelta, datetime, None) as a deadline.

A deadline is a time on the store's clock in seconds since the epoch, or None for "without end".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import TIMEOUT_MAX
from typing import Any

from stockpyle.exceptions import ImproperlyConfigured, InvalidLifetime

Lifetime = int | float | timedelta | datetime | None
LifetimeCallback = Callable[[Any], Lifetime]


def deadline_of(lifetime: Lifetime, now: float) -> float | None:
    """Return when something that gets `lifetime` at `now` expires; None is never.

    Numbers are seconds and a timedelta is relative, both to `now`; a datetime is absolute (a naive one
    is local time). Zero or less is a deadline that has passed. Anything else raises InvalidLifetime.
    """
    if lifetime is None:
        return None
    if isinstance(lifetime, timedelta):
        return now + lifetime.total_seconds()
    if isinstance(lifetime, datetime):
        try:
            return lifetime.timestamp()
        except (OverflowError, OSError, ValueError):
            # datetime.max and datetime.min lie outside what the platform's local time can express
            return None if lifetime.year > 1970 else 0.0
    if isinstance(lifetime, int | float) and not isinstance(lifetime, bool):
        if isinstance(lifetime, float) and math.isnan(lifetime):
            raise InvalidLifetime("nan is not a lifetime: give seconds, a timedelta, a datetime or None")
        try:
            seconds = now + lifetime
        except OverflowError:
            # an integer that no float can hold
            seconds = math.inf if lifetime > 0 else -math.inf
        return None if seconds == math.inf else seconds
    raise InvalidLifetime(
        f"{lifetime!r} ({type(lifetime).__name__}) is not a lifetime: give seconds, a timedelta, a datetime or None"
    )


def check_seconds(name: str, seconds: Any, *, none: bool = False) -> None:
    """Raise ImproperlyConfigured if this is no number of seconds that one can wait; None may be one without end."""
    if none and seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= TIMEOUT_MAX:
        raise ImproperlyConfigured(f"{name} is a number of seconds above 0, not {seconds!r}")


def earlier(first: float | None, second: float | None) -> float | None:
    """Return the earlier of two deadlines, None being the latest of all."""
    if first is None:
        return second
    if second is None:
        return first
    return min(first, second)


class LifetimePolicy:
    """A store's own rule: a constant `lifetime`, a `lifetime_cb` that is asked for each object, or none."""

    def __init__(self, lifetime_cb: LifetimeCallback | None = None, lifetime: Lifetime = None) -> None:
        if lifetime_cb is not None and lifetime is not None:
            raise ImproperlyConfigured("give either lifetime_cb or lifetime, not both")
        if lifetime_cb is not None and not callable(lifetime_cb):
            raise ImproperlyConfigured(f"lifetime_cb must be callable, not {lifetime_cb!r}")
        deadline_of(lifetime, 0.0)
        self._callback = lifetime_cb
        self._constant = lifetime

    @staticmethod
    def of(store: object) -> LifetimePolicy:
        """Return a store's own rule, or none for a store without."""
        own = getattr(store, "lifetimes", None)
        return own if isinstance(own, LifetimePolicy) else LifetimePolicy()

    @property
    def configured(self) -> bool:
        """True if the user chose a lifetime, by constant or by callback."""
        return self._callback is not None or self._constant is not None

    @property
    def asks_object(self) -> bool:
        """True if a deadline can only be had with the object in hand."""
        return self._callback is not None

    def deadline(self, obj: Any, now: float) -> float | None:
        """Return the deadline of `obj`; a callback that fails or returns nonsense raises InvalidLifetime."""
        if self._callback is None:
            return deadline_of(self._constant, now)
        name = getattr(self._callback, "__qualname__", None) or repr(self._callback)
        try:
            lifetime = self._callback(obj)
        except Exception as error:
            raise InvalidLifetime(f"lifetime_cb {name} failed for a {type(obj).__qualname__}: {error!r}") from error
        try:
            return deadline_of(lifetime, now)
        except InvalidLifetime as error:
            raise InvalidLifetime(f"lifetime_cb {name} returned for a {type(obj).__qualname__}: {error}") from error
