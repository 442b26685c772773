"""dogpile.cache: regions on memcached, `get_or_create`, and `delete` after the commit.

https://dogpilecache.sqlalchemy.org/en/latest/usage.html and .../api.html (the pylibmc backend; `distributed_lock`, for
several processes that talk to one memcached; `get_or_create_multi`; `delete_multi`). The deletion hangs on the
session's `after_commit`, as in .../recipes.html, "Asynchronous Data Updates with ORM Events". SQLAlchemy's own example
of dogpile caching (https://docs.sqlalchemy.org/en/20/orm/examples.html, `FromCache`) makes the same call with a name
that it derives from the statement; here the names are the objects' keys, so that all of them can be deleted.

It does not claim that a value that is created while its key is deleted stays out of the cache: its locks are for having
one creator at a time. None is cached, as by default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pylibmc
import sqlalchemy as sa
from dogpile.cache import make_region
from sqlalchemy.orm import Session, sessionmaker

from tests.coherence.systems import Keys, Settings
from tests.coherence.systems.invalidation import LACKS, Sessions, load, name_of


def distributed(settings: Settings) -> Dogpile:
    """With one creator at a time of a value among all processes."""
    return Dogpile(settings, {"distributed_lock": True, "lock_timeout": max(1, int(settings.lock_seconds))})


def local(settings: Settings) -> Dogpile:
    """With one creator at a time of a value in each process, which is the default."""
    return Dogpile(settings, {})


class Dogpile:
    """A region of dogpile.cache."""

    lacks = LACKS
    points: Mapping[str, Callable[[Callable[[], None]], None]] = {}
    errors: tuple[type[Exception], ...] = (pylibmc.Error,)

    def __init__(self, settings: Settings, options: dict[str, Any]) -> None:
        assert settings.cache is not None
        self._engine = settings.engine
        lifetime = int(settings.lifetime)
        self._region = make_region().configure(
            "dogpile.cache.pylibmc",
            expiration_time=lifetime,
            arguments={
                "url": ["{}:{}".format(*settings.cache)],
                "binary": True,
                "behaviors": {"tcp_nodelay": True, "ketama": True},
                # as the documentation has it: more than the expiration time
                "memcached_expire_time": lifetime + 5,
                **options,
            },
        )
        self._sessions = Sessions(self._delete)
        self._hits = 0

    def get(self, klass: type, key: dict[str, Any]) -> Any:
        """See SystemUnderTest."""
        self._hits += 1

        def create() -> Any:
            self._hits -= 1
            return load(self._engine, [(klass, key)])[0]

        return self._region.get_or_create(name_of(klass, key), create)

    def batch_get(self, klass: type, keys: Sequence[dict[str, Any]]) -> list[Any]:
        """See SystemUnderTest."""
        asked = {name_of(klass, key): key for key in keys}
        names = [name_of(klass, key) for key in keys]

        def create(*missing: str) -> list[Any]:
            self._hits -= sum(name in missing for name in names)
            return load(self._engine, [(klass, asked[name]) for name in missing])

        self._hits += len(names)
        return list(self._region.get_or_create_multi(names, create))

    def put(self, obj: Any) -> None:
        """See SystemUnderTest."""
        self._sessions.put(self._engine, obj)

    def get_into(self, session: Session, klass: type, key: dict[str, Any]) -> Any:
        """See SystemUnderTest."""
        raise NotImplementedError

    def sessionmaker(self, engine: sa.Engine) -> sessionmaker[Session]:
        """See SystemUnderTest."""
        return self._sessions.maker(engine)

    def _delete(self, names: Iterable[str]) -> None:
        self._region.delete_multi(list(names))

    def counters(self) -> dict[str, int]:
        """See SystemUnderTest."""
        return {"hits": self._hits}

    def watch_debts(self, owed: Callable[[Keys, bool], None], delivered: Callable[[Keys], None]) -> None:
        """See SystemUnderTest. It owes nothing: what it could not remove stays."""
