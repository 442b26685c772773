"""What redis-py raises, as stockpyle's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stockpyle.exceptions import StockpyleError, StoreTimeout, StoreUnavailable


@contextmanager
def failures(name: str, store: str, operation: str) -> Iterator[None]:
    """Raise StoreTimeout or StoreUnavailable, naming the server, the store and the operation, for redis-py's errors."""
    try:
        yield
    except Exception as error:
        failure = failure_of(error, name, store, operation)
        if failure is None:
            raise
        raise failure from error


def failure_of(error: Exception, name: str, store: str, operation: str) -> StoreUnavailable | None:
    """Return what is raised for an error of redis-py's; None for one that is not about the server."""
    import redis

    if isinstance(error, StockpyleError):
        return None
    if isinstance(error, redis.exceptions.TimeoutError | TimeoutError):
        return StoreTimeout(f"Redis at {name} did not answer in time", store, operation)
    if isinstance(error, redis.exceptions.RedisError | OSError):
        message = f"Redis at {name} cannot be used: {type(error).__name__}: {error}"
        return StoreUnavailable(message, store, operation)
    return None
