"""cashews: `@cache` on Redis, `get_many` and `set_many` for several, and deletions in `cache.transaction()`.

https://github.com/Krukov/cashews (Readme.md: "Redis", "Simple cache", "Basic API", "Transactional"). Redis is its only
cache that processes share over a network. The transaction is its own example: the database's commit within
`cache.transaction()`, whose default mode takes a lock on each key that it is going to change, and which deletes when
the block is left, so after the commit. The client-side cache is off: it would only be older.

It does not claim that a value that is loaded while its key is deleted stays out of the cache: the locks are between
transactions, and `@cache` takes none (`lock=True` takes one, between readers). None is cached, as by default. Its loop
runs in the worker's only thread, one call at a time; what it loads comes from an ordinary session, as nothing else
waits meanwhile.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from cashews import Cache, LockedError
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker

from tests.coherence.systems import REDIS, Keys, Settings
from tests.coherence.systems.invalidation import LACKS, forget, load, name_of, note, touched_by

_MISSING = object()


class Cashews:
    """A decorated function that loads by name."""

    lacks = LACKS
    points: Mapping[str, Callable[[Callable[[], None]], None]] = {}
    errors: tuple[type[Exception], ...] = (LockedError,)

    def __init__(self, settings: Settings) -> None:
        if REDIS not in os.environ:
            raise SystemExit(f"cashews needs a Redis: put its URL into {REDIS}, or run `make compare`, which has one")
        self._engine = settings.engine
        self._lifetime = int(settings.lifetime)
        self._hits = 0
        self._cache = cache = Cache()
        cache.setup(os.environ[REDIS])
        self._makers: dict[int, sessionmaker[Session]] = {}

        @cache(ttl=self._lifetime, key="{name}")
        async def one(name: str, klass: type, key: dict[str, Any]) -> Any:
            self._hits -= 1
            return load(self._engine, [(klass, key)])[0]

        self._one = one

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def get(self, klass: type, key: dict[str, Any]) -> Any:
        """See SystemUnderTest."""
        self._hits += 1
        return self._loop.run_until_complete(self._one(name_of(klass, key), klass, key))

    def batch_get(self, klass: type, keys: Sequence[dict[str, Any]]) -> list[Any]:
        """See SystemUnderTest."""
        return self._loop.run_until_complete(self._batch_get(klass, keys))

    async def _batch_get(self, klass: type, keys: Sequence[dict[str, Any]]) -> list[Any]:
        asked = {name_of(klass, key): key for key in keys}
        held = dict(zip(asked, await self._cache.get_many(*asked, default=_MISSING), strict=True))
        missing = [name for name, obj in held.items() if obj is _MISSING]
        if missing:
            loaded = load(self._engine, [(klass, asked[name]) for name in missing])
            fresh = dict(zip(missing, loaded, strict=True))
            await self._cache.set_many(fresh, expire=self._lifetime)
            held |= fresh
        names = [name_of(klass, key) for key in keys]
        self._hits += sum(name not in missing for name in names)
        return [held[name] for name in names]

    def put(self, obj: Any) -> None:
        """See SystemUnderTest."""
        with self.sessionmaker(self._engine)() as session:
            session.merge(obj)
            session.commit()

    def get_into(self, session: Session, klass: type, key: dict[str, Any]) -> Any:
        """See SystemUnderTest."""
        raise NotImplementedError

    def sessionmaker(self, engine: sa.Engine) -> sessionmaker[Session]:
        """See SystemUnderTest."""
        made = self._makers.get(id(engine))
        if made is None:
            made = self._makers[id(engine)] = sessionmaker(engine, class_=_Session, info={"commit": self._commit})
            event.listen(made, "before_flush", note)
        return made

    def _commit(self, session: Session, commit: Callable[[], None]) -> None:
        async def within() -> None:
            async with self._cache.transaction():
                session.flush()
                names = touched_by(session)
                if names:
                    await self._cache.delete_many(*names)
                commit()
                forget(session)

        self._loop.run_until_complete(within())

    def counters(self) -> dict[str, int]:
        """See SystemUnderTest."""
        return {"hits": self._hits}

    def watch_debts(self, owed: Callable[[Keys, bool], None], delivered: Callable[[Keys], None]) -> None:
        """See SystemUnderTest. It owes nothing: what it could not remove stays."""


class _Session(Session):
    """A session whose commit is within a transaction of the cache."""

    def commit(self) -> None:
        """Commit."""
        self.info["commit"](self, super().commit)
