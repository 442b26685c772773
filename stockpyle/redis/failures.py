"""What redis-py raises, as stockpyle's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stockpyle.exceptions import StockpyleError, StoreTimeout, StoreUnavailable


@contextmanager
def failures(name: str, store: str, operation: str) -> Iterator[None]:
    """Raise StoreTimeout or StoreUnavailable, naming the server, the store and the operation, for redis-py's errors."""
    import redis

    try:
        yield
    except StockpyleError:
        raise
    except (redis.exceptions.TimeoutError, TimeoutError) as error:
        raise StoreTimeout(f"Redis at {name} did not answer in time", store, operation) from error
    except (redis.exceptions.RedisError, OSError) as error:
        message = f"Redis at {name} cannot be used: {type(error).__name__}: {error}"
        raise StoreUnavailable(message, store, operation) from error
