"""Callers' sessions: what their open transactions have written, and records as instances of theirs.

What a session's own transaction has written, others do not see yet: only the session can answer for it. Which
tables it has written, its connections' statements tell, whether an extension listens to the session or not.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.orm.attributes import instance_state

from stockpyle.exceptions import ImproperlyConfigured, NonUniqueKeyError
from stockpyle.keys import Ident, Key, KeyDefinition
from stockpyle.orm.cascades import referring_at_all
from stockpyle.orm.connections import note_failed_end, restore
from stockpyle.orm.criteria import criterion
from stockpyle.orm.databases import is_told_same, same_database
from stockpyle.orm.listeners import listen_to_engines
from stockpyle.orm.mapping import MappedSpec
from stockpyle.orm.registries import name_of
from stockpyle.orm.statements import EVERY_TABLE, tables_written
from stockpyle.records import Record

T = TypeVar("T")
Find = Callable[[list[Key]], Mapping[Any, "Record | None"]]
Hit = Callable[[Mapping[str, Any]], "Record | None"]

FEW_KEYS = 100
"""How many keys one query through a session asks for."""


def instances(
    session: Any,
    spec: MappedSpec,
    keys: Sequence[Mapping[str, Any]],
    find: Find,
    source: sa.Engine | None,
    hit: Hit | None = None,
) -> list[Any]:
    """Return the session's instances for `keys`.

    find returns records by the idents of keys; hit that of a single key, if it is at hand. What the session's own
    transaction has written, or is about to, is asked of the session, not of a cache. A session on another database
    than the source's is refused: it would write one's rows into the other.
    """
    own, is_clean = checked_session(session, spec, source)
    if not is_clean:
        return _in_order(spec, keys, lambda asked: _query(own, spec, asked))
    records = [None] * len(keys) if hit is None else [hit(key) for key in keys]
    rest = iter(_in_order(spec, [key for key, each in zip(keys, records, strict=True) if each is None], find))
    return [_instance(own, next(rest) if each is None else each) for each in records]


def checked_session(session: Any, spec: MappedSpec, source: sa.Engine | None) -> tuple[Session, bool]:
    """Return the Session itself, and if caches may answer for it: its transaction has written nothing of the class.

    Raises ImproperlyConfigured for one on another database than the source's, TypeError for what is no session.
    """
    own = session if type(session) is Session else _own_session(session)
    if source is not None:
        _refuse_other_database(own, spec, source)
    return own, not _has_written(own, spec)


def _in_order(
    spec: MappedSpec, keys: Sequence[Mapping[str, Any]], find: Callable[[list[Key]], Mapping[Any, T]]
) -> list[T | None]:
    if not keys:
        return []
    asked = [spec.key(key) for key in keys]
    unique = {key.ident: key for key in asked if key is not None}
    found = find(list(unique.values())) if unique else {}
    return [None if key is None else found.get(key.ident) for key in asked]


def _refuse_other_database(session: Session, spec: MappedSpec, source: sa.Engine) -> None:
    bind = session.get_bind(spec.mapper)
    if bind is source:
        return
    engine = bind.engine
    if not (same_database(source, engine) or is_told_same(session)):
        raise ImproperlyConfigured(
            f"the session works on {engine.url!r}, but {spec.klass.__name__} is read from {source.url!r}. If both are "
            "the same database, say so: StockpyleSessionExtension(...).listen(..., same_database=True)"
        )


def _own_session(given: Any) -> Session:
    """Return the Session itself, which events and weak references know, for one that stands for it.

    Raises TypeError for what is no session.
    """
    found = given() if isinstance(given, scoped_session) else given
    found = getattr(found, "sync_session", found)
    if not isinstance(found, Session):
        raise TypeError(f"session= takes a Session, not {given!r}")
    return found


def _instance(session: Session, record: Record | None) -> Any:
    target: Any = None if record is None else record.spec
    return None if record is None else target.materialise_into(session, record.value)


def _query(session: Session, spec: MappedSpec, asked: Sequence[Key]) -> dict[Ident, Any]:
    found: dict[Ident, Any] = {}
    for definition in dict.fromkeys(key.definition for key in asked):
        own = [key for key in asked if key.definition is definition]
        for start in range(0, len(own), FEW_KEYS):
            found.update(_query_chunk(session, spec, definition, own[start : start + FEW_KEYS]))
    return found


def _query_chunk(session: Session, spec: MappedSpec, definition: KeyDefinition, keys: list[Key]) -> dict[Ident, Any]:
    found: dict[Ident, Any] = {}
    others = []
    idents = {key.ident for key in keys}
    dialect = session.get_bind(spec.mapper).dialect.name
    statement: sa.Select[Any] = sa.select(spec.klass).where(criterion(spec, definition, keys, dialect))
    for instance in session.scalars(statement).unique():
        own = spec.key_of(instance, definition)
        if own is None or own.ident not in idents or own.ident in found:
            others.append(instance)
        else:
            found[own.ident] = instance
    if others and len(keys) == 1:
        if found or len(others) > 1:
            raise NonUniqueKeyError(spec.klass, keys[0].as_dict())
        return {keys[0].ident: others[0]}
    # an instance with unflushed changes, or found under another spelling: the database tells which key it answers
    unanswered = [key for key in keys if key.ident not in found]
    if others:
        for key in unanswered:
            found.update(_query_chunk(session, spec, definition, [key]))
    elif found and unanswered:
        found.update(_query_chunk(session, spec, definition, unanswered))
    return found


# what sessions have written


def _has_written(session: Session, spec: MappedSpec) -> bool:
    if not _is_flushed(session):
        base = spec.base.class_
        unflushed = {type(obj) for obj in (*session.new, *session.deleted, *session.dirty)}
        if any(issubclass(klass, base) or _refers_to(klass, base) for klass in unflushed):
            return True
    connections: Iterable[Any] = _connections.get(session) or ()
    if not connections:
        # it may be about to join a transaction, in which others have written
        bind = session.get_bind(spec.mapper)
        connections = () if isinstance(bind, sa.Engine) else (bind,)
    written = {name for connection in connections for name in getattr(connection, _TABLES, ())}
    if not written:
        return False
    own = {name_of(table) for each in spec.hierarchy for table in each.mapper.tables}
    written |= referring_at_all(written)
    return EVERY_TABLE in written or not own.isdisjoint(written)


def _refers_to(klass: type, base: type) -> bool:
    """True if a flush of an object of this class may write rows of the other: by a relationship."""
    relationships: Any = sa.inspect(klass).relationships
    return any(issubclass(base, each.mapper.class_) or issubclass(each.mapper.class_, base) for each in relationships)


def _is_flushed(session: Session) -> bool:
    """True if it is known that the session has nothing to flush; to go through its collections takes longer."""
    is_clean: Callable[[], bool] | None = getattr(session, "_is_clean", None)
    return is_clean is not None and is_clean()


def tables_written_on(connection: sa.Connection) -> set[str]:
    """Return the names of the tables that the open transaction of a connection has written."""
    return set(getattr(connection, _TABLES, ()))


def note_written(connection: sa.Connection, specs: Iterable[MappedSpec]) -> None:
    """Note that the open transaction of a connection has written objects of these classes."""
    names = {name_of(table) for spec in specs for table in spec.mapper.tables}
    _note_tables(connection, names)


def _note_tables(connection: sa.Connection, names: Iterable[str]) -> None:
    known: set[str] | None = getattr(connection, _TABLES, None)
    if known is None:
        setattr(connection, _TABLES, set(names))
    else:
        known.update(names)


def has_flushed(session: Session, obj: Any) -> bool:
    """True if the open transaction of `session` has written this object: it may hold the lock of its row."""
    mark = _flushed.get(session)
    return mark is not None and getattr(instance_state(obj), _FLUSHED, None) is mark


_connections: weakref.WeakKeyDictionary[Session, weakref.WeakSet[sa.Connection]] = weakref.WeakKeyDictionary()
_flushed: weakref.WeakKeyDictionary[Session, object] = weakref.WeakKeyDictionary()
_FLUSHED = "_stockpyle_flushed"
"""The attribute of an object's state that is the mark, in _flushed, of the transaction that has written it last."""
_TABLES = "_stockpyle_tables"
"""The attribute of a Connection that is the names of the tables which its open transaction has written."""
_mutex = threading.Lock()
_listening = False


def listen_to_sessions() -> None:
    """Follow from now on what every session of this process writes.

    Once, at set-up, and on the classes: SQLAlchemy's lists of listeners must not change under other threads.
    """
    global _listening
    with _mutex:
        if not _listening:
            for name, listener in _SESSION_EVENTS.items():
                event.listen(Session, name, listener)
            listen_to_engines("after_cursor_execute", _executed)
            for end in ("commit", "rollback", "commit_twophase", "rollback_twophase"):
                listen_to_engines(end, _ended)
            listen_to_engines("handle_error", note_failed_end)
            event.listen(sa.Pool, "reset", restore)
            _listening = True


def _after_begin(session: Session, transaction: Any, connection: sa.Connection) -> None:
    _connections.setdefault(session, weakref.WeakSet()).add(connection)


def _after_flush(session: Session, context: Any) -> None:
    mark = _flushed.get(session)
    if mark is None:
        mark = _flushed[session] = object()
    for obj in (*session.new, *session.dirty, *session.deleted):
        setattr(instance_state(obj), _FLUSHED, mark)


def _after_transaction_end(session: Session, transaction: Any) -> None:
    if transaction.parent is None:
        _connections.pop(session, None)
        _flushed.pop(session, None)


def _executed(
    connection: sa.Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> None:
    tables = tables_written(context, statement)
    if tables:
        _note_tables(connection, tables)


def _ended(connection: sa.Connection, *_: Any) -> None:
    connection.__dict__.pop(_TABLES, None)


_SESSION_EVENTS: dict[str, Callable[..., None]] = {
    "after_begin": _after_begin,
    "after_flush": _after_flush,
    "after_transaction_end": _after_transaction_end,
}
