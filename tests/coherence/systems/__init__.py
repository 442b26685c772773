"""Caches that can be put under the checker, each behind the same small face."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

SYSTEMS = {
    "stockpyle": "tests.coherence.systems.stockpyle_chain:shared",
    "stockpyle-redis": "tests.coherence.systems.stockpyle_chain:on_redis",
    "stockpyle-memory": "tests.coherence.systems.stockpyle_chain:memory_over_memcached",
    "stockpyle-memory-redis": "tests.coherence.systems.stockpyle_chain:memory_over_redis",
    "stockpyle-validated": "tests.coherence.systems.stockpyle_chain:validated_over_memcached",
    "stockpyle-validated-redis": "tests.coherence.systems.stockpyle_chain:validated_over_redis",
    "stockpyle-backplane": "tests.coherence.systems.stockpyle_chain:backplane_over_memcached",
    "stockpyle-backplane-redis": "tests.coherence.systems.stockpyle_chain:backplane_over_redis",
    "source": "tests.coherence.systems.stockpyle_chain:source_only",
    "look-aside": "tests.coherence.systems.look_aside:LookAside",
    "dogpile.cache": "tests.coherence.systems.dogpile_cache:distributed",
    "dogpile.cache-local": "tests.coherence.systems.dogpile_cache:local",
    "aiocache": "tests.coherence.systems.aiocache_cached:Aiocache",
    "cashews": "tests.coherence.systems.cashews_cache:Cashews",
    "advanced-alchemy": "tests.coherence.systems.advanced_alchemy_cache:AdvancedAlchemy",
}
"""What --system takes: a module, and the callable in it that takes Settings and returns a SystemUnderTest."""

ON_REDIS = frozenset(
    {"stockpyle-redis", "stockpyle-memory-redis", "stockpyle-validated-redis", "stockpyle-backplane-redis"}
)
"""The systems whose cache is a Redis, on which a run then works its faults."""

IN_MEMORY = {
    "stockpyle-memory": 1.0,
    "stockpyle-memory-redis": 1.0,
    "stockpyle-backplane": 4.0,
    "stockpyle-backplane-redis": 4.0,
}
"""The systems in which each process keeps copies of its own that others' commits do not reach: for how many seconds.

Or reach later: over a backplane with a heartbeat of a second, and another to answer, while servers hang for a second.
On Redis, where a writer that is killed after its commit has told nobody, copies live no longer than that.

A memory tier that may never be older than the shared one does not belong here: it is judged as if it were none.
"""

REDIS = "COHERENCE_REDIS"
"""The environment variable with the URL of a Redis, for the systems that share nothing else between processes."""


@dataclass(frozen=True)
class Settings:
    """What a worker gives the system that it tests."""

    engine: sa.Engine
    cache: tuple[str, int] | None
    """Host and port of the shared cache."""
    lock_seconds: float = 3.0
    lifetime: float = 10.0
    """Seconds that a record may live."""
    timeout: float = 0.4
    """Seconds to wait for the cache."""
    unreachable: str = "refuse"


Keys = Sequence[tuple[int, Any]]
"""The numbers of keys, as models.KEYS has them, and their values."""


class SystemUnderTest(Protocol):
    """A cache in front of a database, as the workload uses it."""

    lacks: frozenset[str]
    """Of "cache" (a tier that processes share), "put", "into session", "bulk" (to hear of writes past the unit of
    work), "refused", "locked": what it cannot do, or cannot count."""
    points: Mapping[str, Callable[[Callable[[], None]], None]]
    """Named points of its paths, of reading and of writing: each takes a function to be called there."""
    errors: tuple[type[Exception], ...]
    """What it may raise if the database or the cache fails, besides SQLAlchemy's own errors."""

    def get(self, klass: type, key: dict[str, Any]) -> Any:
        """Return a mapped object by one of its keys, or None."""
        ...

    def batch_get(self, klass: type, keys: Sequence[dict[str, Any]]) -> list[Any]:
        """Return several."""
        ...

    def put(self, obj: Any) -> None:
        """Write a detached object in a transaction of the system's own."""
        ...

    def get_into(self, session: Session, klass: type, key: dict[str, Any]) -> Any:
        """Return a session's own instance, read through the cache."""
        ...

    def invalidate(self, klass: type, key: dict[str, Any] | None) -> None:
        """Drop an object, or all of a class, that somebody has changed whom the cache did not hear.

        Not asked of a system that lacks "bulk".
        """
        ...

    def sessionmaker(self, engine: sa.Engine) -> sessionmaker[Session]:
        """Return what makes sessions whose commits the cache hears of."""
        ...

    def counters(self) -> dict[str, int]:
        """Return `hits` in the shared tier, `refused` fills and reads that bypassed a lock (`locked`) so far."""
        ...

    def watch_debts(self, owed: Callable[[Keys, bool], None], delivered: Callable[[Keys], None]) -> None:
        """Call `owed` with the keys that a commit could not tell the cache of, before or (True) even lock before it.

        And `delivered`, from any thread, with the keys about which the cache then has been told all that it was owed.
        """
        ...


def find(name: str) -> Callable[[Settings], SystemUnderTest]:
    """Return what makes the system of this name."""
    if name not in SYSTEMS:
        raise SystemExit(f"no system {name!r}: there are {', '.join(SYSTEMS)}")
    module, _, attribute = SYSTEMS[name].partition(":")
    made: Callable[[Settings], SystemUnderTest] = getattr(importlib.import_module(module), attribute)
    return made
