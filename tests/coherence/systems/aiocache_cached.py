"""aiocache: `@cached` on memcached, `multi_get` and `multi_set` for several, and `delete` after the commit.

https://aiocache.aio-libs.org/en/latest/decorators.html and .../caches.html (MemcachedCache, PickleSerializer, as in
examples/python_object.py, `skip_cache_func`). Its locks (.../locking.html) are, in its own words, not intended for
consistency; `@cached_stampede` waits for other coroutines of the process, of which there are none here. `@multi_cached`
is not used: with what it has loaded it also puts back what it has found (0.12.3), so that a value deleted in between
returns, and the figures would be much worse.

It does not claim that a value that is loaded while its key is deleted stays out of the cache. None is not cached: a
value of None counts as missing. Its loop runs in the worker's only thread, one call at a time; what it loads comes from
an ordinary session, as nothing else waits meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from aiocache import Cache, cached
from aiocache.serializers import PickleSerializer
from sqlalchemy.orm import Session, sessionmaker

from tests.coherence.systems import Keys, Settings
from tests.coherence.systems.invalidation import LACKS, Sessions, load, name_of


class Aiocache:
    """Decorated functions that load by name."""

    lacks = LACKS
    points: Mapping[str, Callable[[Callable[[], None]], None]] = {}
    errors: tuple[type[Exception], ...] = (OSError, asyncio.TimeoutError)

    def __init__(self, settings: Settings) -> None:
        assert settings.cache is not None
        self._engine = settings.engine
        host, port = settings.cache
        self._lifetime = int(settings.lifetime)
        self._hits = 0

        @cached(
            ttl=self._lifetime,
            key_builder=lambda function, name, klass, key: name,
            skip_cache_func=lambda obj: obj is None,
            cache=Cache.MEMCACHED,
            endpoint=host,
            port=port,
            serializer=PickleSerializer(),
        )
        async def one(name: str, klass: type, key: dict[str, Any]) -> Any:
            self._hits -= 1
            return load(self._engine, [(klass, key)])[0]

        self._one = one
        self._cache = one.cache
        self._sessions = Sessions(self._delete)

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
        held = dict(zip(asked, await self._cache.multi_get(list(asked)), strict=True))
        missing = [name for name, obj in held.items() if obj is None]
        if missing:
            loaded = load(self._engine, [(klass, asked[name]) for name in missing])
            fresh = {name: obj for name, obj in zip(missing, loaded, strict=True) if obj is not None}
            if fresh:
                await self._cache.multi_set(list(fresh.items()), ttl=self._lifetime)
            held |= fresh
        names = [name_of(klass, key) for key in keys]
        self._hits += sum(name not in missing for name in names)
        return [held[name] for name in names]

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
        async def delete() -> None:
            await asyncio.gather(*(self._cache.delete(name) for name in names))

        self._loop.run_until_complete(delete())

    def counters(self) -> dict[str, int]:
        """See SystemUnderTest."""
        return {"hits": self._hits}

    def watch_debts(self, owed: Callable[[Keys, bool], None], delivered: Callable[[Keys], None]) -> None:
        """See SystemUnderTest. It owes nothing: what it could not remove stays."""
