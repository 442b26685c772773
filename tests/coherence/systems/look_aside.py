"""The usual pattern: look into the cache, else load and put; delete from the cache after the commit."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from pymemcache.client.base import PooledClient
from pymemcache.exceptions import MemcacheError
from sqlalchemy.orm import Session, sessionmaker

from tests.coherence.systems import Keys, Settings
from tests.coherence.systems.invalidation import LACKS, Sessions, load, name_of


class LookAside:
    """Every key of an object leads to a pickled copy of it."""

    lacks = LACKS
    points: Mapping[str, Callable[[Callable[[], None]], None]] = {}
    errors: tuple[type[Exception], ...] = ()

    def __init__(self, settings: Settings) -> None:
        assert settings.cache is not None
        self._engine = settings.engine
        self._lifetime = int(settings.lifetime)
        self._client = PooledClient(
            settings.cache,
            timeout=settings.timeout,
            connect_timeout=settings.timeout,
            default_noreply=False,
            ignore_exc=False,
        )
        self._sessions = Sessions(self._delete)
        self._hits = 0

    def get(self, klass: type, key: dict[str, Any]) -> Any:
        """See SystemUnderTest."""
        return self.batch_get(klass, [key])[0]

    def batch_get(self, klass: type, keys: Sequence[dict[str, Any]]) -> list[Any]:
        """See SystemUnderTest."""
        names = [name_of(klass, key) for key in keys]
        held: dict[str, bytes] = {}
        with contextlib.suppress(MemcacheError, OSError):
            held = self._client.get_many(names)
        self._hits += sum(name in held for name in names)
        found: dict[str, Any] = {name: pickle.loads(value) for name, value in held.items()}
        missing = {name: (klass, key) for name, key in zip(names, keys, strict=True) if name not in held}
        if missing:
            found |= zip(missing, load(self._engine, list(missing.values())), strict=True)
            fresh = {name: pickle.dumps(found[name]) for name in missing}
            with contextlib.suppress(MemcacheError, OSError):
                self._client.set_many(fresh, expire=self._lifetime)
        return [found[name] for name in names]

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
        with contextlib.suppress(MemcacheError, OSError):
            self._client.delete_many(list(names))

    def counters(self) -> dict[str, int]:
        """See SystemUnderTest."""
        return {"hits": self._hits}

    def watch_debts(self, owed: Callable[[Keys, bool], None], delivered: Callable[[Keys], None]) -> None:
        """See SystemUnderTest. It owes nothing: what it could not delete stays."""
