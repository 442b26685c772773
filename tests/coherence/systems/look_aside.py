"""The usual pattern: look into the cache, else load and put; delete from the cache after the commit."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from pymemcache.client.base import PooledClient
from pymemcache.exceptions import MemcacheError
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker, with_polymorphic

from tests.coherence.models import CLASSES, KEYS, KEYS_OF, Account, Person
from tests.coherence.systems import Keys, Settings


class LookAside:
    """Every key of an object leads to a pickled copy of it."""

    lacks = frozenset({"into session", "refused", "locked"})
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
        self._makers: dict[int, sessionmaker[Session]] = {}
        self._hits = 0

    def get(self, klass: type, key: dict[str, Any]) -> Any:
        """See SystemUnderTest."""
        return self.batch_get(klass, [key])[0]

    def batch_get(self, klass: type, keys: Sequence[dict[str, Any]]) -> list[Any]:
        """See SystemUnderTest."""
        names = [_name(klass, key) for key in keys]
        held: dict[str, bytes] = {}
        with contextlib.suppress(MemcacheError, OSError):
            held = self._client.get_many(names)
        self._hits += sum(name in held for name in names)
        found: dict[str, Any] = {name: pickle.loads(value) for name, value in held.items()}
        missing = [(name, key) for name, key in zip(names, keys, strict=True) if name not in held]
        if missing:
            with Session(self._engine, expire_on_commit=False) as session:
                entity: Any = klass if klass is Account else with_polymorphic(klass, "*")
                for name, key in missing:
                    wanted = [getattr(entity, attribute) == value for attribute, value in key.items()]
                    found[name] = session.scalars(sa.select(entity).where(*wanted)).one_or_none()
                session.expunge_all()
            fresh = {name: pickle.dumps(found[name]) for name, _ in missing}
            with contextlib.suppress(MemcacheError, OSError):
                self._client.set_many(fresh, expire=self._lifetime)
        return [found[name] for name in names]

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
            made = self._makers[id(engine)] = sessionmaker(engine)
            event.listen(made, "before_flush", self._collect)
            event.listen(made, "after_commit", self._delete)
        return made

    def _collect(self, session: Session, *_: Any) -> None:
        """Note under which keys each object that is written was and will be kept."""
        touched = session.info.setdefault("touched", set())
        with session.no_autoflush:
            for obj in (*session.new, *session.dirty, *session.deleted):
                now = {attribute.key: getattr(obj, attribute.key) for attribute in sa.inspect(obj).attrs}
                before = dict(now)
                for attribute in sa.inspect(obj).attrs:
                    if attribute.history.deleted:
                        before[attribute.key] = attribute.history.deleted[0]
                touched.update(_names(obj, now), _names(obj, before))

    def _delete(self, session: Session) -> None:
        if session.in_nested_transaction():
            return
        touched = session.info.pop("touched", set())
        with contextlib.suppress(MemcacheError, OSError):
            self._client.delete_many(list(touched))

    def counters(self) -> dict[str, int]:
        """See SystemUnderTest."""
        return {"hits": self._hits}

    def watch_debts(self, owed: Callable[[Keys, bool], None], delivered: Callable[[Keys], None]) -> None:
        """See SystemUnderTest. It owes nothing: what it could not delete stays."""


def _name(klass: type, key: dict[str, Any]) -> str:
    names = ",".join(f"{name}={key[name]}" for name in sorted(key))
    return f"{klass.__name__}:{names}".lower()


def _names(obj: Any, values: dict[str, Any]) -> set[str]:
    """Under which names an object with these values may be kept, as one of its class or of a base."""
    numbers = [0] if isinstance(obj, Account) else [number for number in KEYS_OF if issubclass(CLASSES[number], Person)]
    found = set()
    for number in numbers:
        for key in KEYS_OF[number]:
            if all(name in values for name in KEYS[key].names):
                found.add(_name(CLASSES[number], {name: values[name] for name in KEYS[key].names}))
    return found
