"""What every peer needs that keeps whole objects under each of their keys: names, loads, and what a session touched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker, with_polymorphic
from sqlalchemy.orm.exc import ObjectDeletedError

from tests.coherence.models import CLASSES, KEYS, KEYS_OF, Account, Person

LACKS = frozenset({"into session", "bulk", "refused", "locked"})
"""What the peers do not claim: to hand out a session's own instances that know what it has written, or to hear of what
no unit of work holds; there are no fills that they refuse, nor locks that readers bypass."""

Asked = tuple[type, dict[str, Any]]
"""A class and one of its keys."""


def name_of(klass: type, key: dict[str, Any]) -> str:
    """Return under which name a cache keeps an object; in small letters, as nicks are compared regardless of case."""
    values = ",".join(f"{name}={key[name]}" for name in sorted(key))
    return f"{klass.__name__}:{values}".lower()


def names_of(obj: Any, values: dict[str, Any]) -> set[str]:
    """Return all names of an object with these values, as one of its class or of a base."""
    numbers = [0] if isinstance(obj, Account) else [number for number in KEYS_OF if issubclass(CLASSES[number], Person)]
    found = set()
    for number in numbers:
        for key in KEYS_OF[number]:
            names = KEYS[key].names
            if all(name in values for name in names):
                found.add(name_of(CLASSES[number], {name: values[name] for name in names}))
    return found


def load(engine: sa.Engine, asked: Sequence[Asked]) -> list[Any]:
    """Load objects by their keys, detached; None for each that is not there.

    One SELECT for all keys of a kind, and each in a session of its own, so that no object is older than its SELECT.
    """
    kinds: dict[tuple[type, tuple[str, ...]], list[dict[str, Any]]] = {}
    for klass, key in asked:
        kinds.setdefault((klass, tuple(sorted(key))), []).append(key)
    found: dict[str, Any] = {}
    for (klass, names), keys in kinds.items():
        entity: Any = with_polymorphic(klass, "*") if klass is Person else klass
        columns = [getattr(entity, name) for name in names]
        column = columns[0] if len(columns) == 1 else sa.tuple_(*columns)
        values = [key[names[0]] if len(names) == 1 else tuple(key[name] for name in names) for key in keys]
        with Session(engine, expire_on_commit=False) as session:
            for obj in session.scalars(sa.select(entity).where(column.in_(values))):
                found[name_of(klass, {name: getattr(obj, name) for name in names})] = obj
            session.expunge_all()
    return [found.get(name_of(klass, key)) for klass, key in asked]


def touched_by(session: Session) -> list[str]:
    """Return the names that the session's transaction has touched so far, old and new, in order."""
    return sorted(session.info.get("touched", ()))


def forget(session: Session) -> None:
    """Begin anew."""
    session.info.pop("touched", None)


def note(session: Session, *_: Any) -> None:
    """Before a flush: note under which names each object that is written was and will be kept."""
    touched = session.info.setdefault("touched", set())
    with session.no_autoflush:
        for obj in (*session.new, *session.dirty, *session.deleted):
            now = _values_of(obj)
            before = dict(now)
            for attribute in sa.inspect(obj).attrs:
                if attribute.history.deleted:
                    before[attribute.key] = attribute.history.deleted[0]
            touched.update(names_of(obj, now), names_of(obj, before))


def _values_of(obj: Any) -> dict[str, Any]:
    values = {}
    for attribute in sa.inspect(obj).attrs:
        # what is not loaded yet cannot be any more if another has deleted the row since; the flush will say so
        with contextlib.suppress(KeyError, ObjectDeletedError):
            values[attribute.key] = getattr(obj, attribute.key)
    return values


class Sessions:
    """Makes sessions that, once their transaction is committed, say which names it has touched."""

    def __init__(self, invalidate: Callable[[Iterable[str]], None], class_: type[Session] = Session) -> None:
        self._invalidate = invalidate
        self._class = class_
        self._makers: dict[int, sessionmaker[Session]] = {}

    def maker(self, engine: sa.Engine) -> sessionmaker[Session]:
        """Return the maker of sessions on this engine."""
        made = self._makers.get(id(engine))
        if made is None:
            made = self._makers[id(engine)] = sessionmaker(engine, class_=self._class)
            event.listen(made, "before_flush", note)
            event.listen(made, "after_commit", self._after_commit)
        return made

    def _after_commit(self, session: Session) -> None:
        # the event comes when a savepoint is released, too
        if session.in_nested_transaction():
            return
        names = touched_by(session)
        forget(session)
        if names:
            self._invalidate(names)

    def put(self, engine: sa.Engine, obj: Any) -> None:
        """Write a detached object."""
        with self.maker(engine)() as session:
            session.merge(obj)
            session.commit()
