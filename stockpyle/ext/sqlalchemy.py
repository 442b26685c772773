"""The session extension: caches stay right while an application uses its own Session."""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, TypeVar, Union, overload

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction, scoped_session
from sqlalchemy.orm import sessionmaker as _sessionmaker

from stockpyle.coherence.layers import Layer, Unreachable, checked_unreachable
from stockpyle.coherence.publishing import OnWrite
from stockpyle.coherence.verbs import VerbTier
from stockpyle.coherence.writer import LOCK_SECONDS, Writer
from stockpyle.exceptions import ImproperlyConfigured, StockpyleWarning, UnsupportedOperation
from stockpyle.keys import Key
from stockpyle.masking import displayed
from stockpyle.orm.commits import FollowedConnection
from stockpyle.orm.connections import is_own
from stockpyle.orm.databases import is_told_same, same_database, tell_same
from stockpyle.orm.executions import caller_level
from stockpyle.orm.following import follow, start_following
from stockpyle.orm.mapping import own_schemas
from stockpyle.orm.works import Work
from stockpyle.protocols import Change, Outcome, Source, Tier
from stockpyle.stores.chained import ChainedStore
from stockpyle.stores.sqlalchemy import SqlAlchemyStore

ROWS_BY_KEY = 1000

S = TypeVar("S", bound=Session)
Extensions = Union["StockpyleSessionExtension", Sequence["StockpyleSessionExtension"], None]


class StockpyleSessionExtension:
    """Keeps the caches of `store` right for every session it listens to.

    What a session writes is locked in all tiers right before its database commits, and replaced by what was committed
    before ``commit()`` returns; a rollback leaves no trace. One extension serves any number of sessions and threads.

    store is a ChainedStore, or a cache alone. Then what was committed is loaded through the session's own engine.
    on_write="invalidate" only removes, and the next reader loads; by default the chain's own choice holds.
    unreachable="refuse" keeps a commit from happening when a tier cannot be reached, "proceed" lets it happen and has
    the tier forget later what was changed, see ChainedStore; by default the store's own choice holds.
    rows_by_key: a statement past the unit of work (a bulk UPDATE, an upsert) that writes up to so many rows drops just
    those, of which RETURNING tells where its parameters do not; one that writes more drops the whole class. 0 adds no
    RETURNING to any statement.
    """

    def __init__(
        self,
        store: Any,
        *,
        on_write: OnWrite | None = None,
        unreachable: Unreachable | None = None,
        rows_by_key: int = ROWS_BY_KEY,
    ) -> None:
        if isinstance(rows_by_key, bool) or not isinstance(rows_by_key, int) or rows_by_key < 0:
            raise ImproperlyConfigured(f"rows_by_key is a number of rows, 0 or more, not {rows_by_key!r}")
        self.rows_by_key = rows_by_key
        if on_write not in (None, "publish", "invalidate"):
            raise ImproperlyConfigured(f'on_write is "publish" or "invalidate", not {on_write!r}')
        if isinstance(store, SqlAlchemyStore):
            raise ImproperlyConfigured("a SqlAlchemyStore holds no copies to keep right: give the extension a chain")
        self.unreachable = checked_unreachable(unreachable) or checked_unreachable(getattr(store, "unreachable", None))
        start_following()
        self.store = store
        self._chain = store if isinstance(store, ChainedStore) else None
        self._layers = store.layers if isinstance(store, ChainedStore) else (_layer(store),)
        own: Any = getattr(store, "on_write", "publish")
        self.on_write: OnWrite = on_write or own
        self.lock_seconds: float = getattr(store, "lock_seconds", LOCK_SECONDS)
        self._followed: weakref.WeakKeyDictionary[Session, list[FollowedConnection]] = weakref.WeakKeyDictionary()
        self._reached: weakref.WeakKeyDictionary[sa.Engine, bool] = weakref.WeakKeyDictionary()
        self._own_sources: weakref.WeakKeyDictionary[sa.Engine, dict[Any, SqlAlchemyStore]] = (
            weakref.WeakKeyDictionary()
        )
        self._flushes: weakref.WeakKeyDictionary[Session, SessionTransaction | None] = weakref.WeakKeyDictionary()
        """The transaction of the flush that a session is in; None while its before_flush listeners run."""
        self._targets: weakref.WeakSet[Any] = weakref.WeakSet()

    def listen(self, target: Any, *, same_database: bool = False) -> Any:
        """Listen to a sessionmaker, a scoped_session, a Session class or one Session, or to their async counterparts.

        Returns the target. A session that reaches another database than the store's source is ignored, with a warning,
        unless same_database says that it is the same under another address.
        """
        sync = _sync_target(target)
        if isinstance(sync, _sessionmaker):
            # every sessionmaker has a class of its own, which outlives it in its sessions
            sync = sync.class_
        if same_database:
            tell_same(sync)
        if sync not in self._targets:
            self._targets.add(sync)
            for name in _SESSION_EVENTS:
                # an application's own listeners may change what a flush has written, or raise
                insert = name in ("after_flush", "after_commit")
                event.listen(sync, name, getattr(self, f"_{name}"), insert=insert)
        return target

    # what the listeners of the connection ask

    def works(self, engine: sa.Engine, changes: Sequence[Change], epochs: Sequence[Key]) -> list[Work]:
        """Return a writer for each group of tiers that these changes concern."""
        groups: dict[tuple[Source, tuple[Layer, ...]], tuple[list[Change], list[Key]]] = {}
        for change in changes:
            groups.setdefault(self._route(engine, change.spec.klass), ([], []))[0].append(change)
        for epoch in epochs:
            groups.setdefault(self._route(engine, epoch.spec.klass), ([], []))[1].append(epoch)
        backplane = None if self._chain is None else self._chain.backplane
        return [
            Work(Writer(layers, own, own_epochs, self.lock_seconds, self.unreachable, backplane), source, self.on_write)
            for (source, layers), (own, own_epochs) in groups.items()
        ]

    def _route(self, engine: sa.Engine, klass: type) -> tuple[Source, tuple[Layer, ...]]:
        if self._chain is not None:
            try:
                route = self._chain.route(klass)
            except UnsupportedOperation:
                pass
            else:
                return route.source, route.layers
        return self._own_source(engine), self._layers

    def _own_source(self, engine: sa.Engine) -> SqlAlchemyStore:
        # an application may derive an engine for every request; of their options only the schemas matter here
        root, schemas = _root(engine), own_schemas(engine.get_execution_options().get("schema_translate_map"))
        sources = self._own_sources.setdefault(root, {})
        which = tuple(sorted(schemas.items(), key=repr))
        source = sources.get(which)
        if source is None:
            own = root.execution_options(schema_translate_map=schemas) if schemas else root
            source = sources[which] = SqlAlchemyStore(engine=own)
        return source

    # the session's events

    def _after_begin(self, session: Session, transaction: Any, connection: sa.Connection) -> None:
        if is_own(connection) or not self._reaches(session, connection.engine):
            return
        followed = follow(connection, self)
        followed.session = weakref.ref(session)
        mine = self._followed.setdefault(session, [])
        if followed not in mine:
            mine.append(followed)
        followed.statements.flushing = self._flushes.get(session) is not None

    def _before_flush(self, session: Session, context: Any, instances: Any) -> None:
        self._flushes[session] = None
        for followed in self._followed.get(session, ()):
            followed.statements.flush_failed()

    def _after_transaction_create(self, session: Session, transaction: SessionTransaction) -> None:
        # a flush, like a bulk_ method, begins an inner transaction that is no savepoint
        if session in self._flushes and transaction.parent is not None and not transaction.nested:
            self._flushes[session] = transaction
            for followed in self._followed.get(session, ()):
                followed.statements.flushing = True

    def _after_flush(self, session: Session, context: Any) -> None:
        self._flushes.pop(session, None)
        for followed in self._followed.get(session, ()):
            followed.statements.end_flush(session.dirty)

    def _after_commit(self, session: Session) -> None:
        for followed in self._followed.get(session, ()):
            # a transaction that the session has only joined may have failed before
            if followed.outcome is Outcome.UNKNOWN and not followed.lost:
                followed.outcome = Outcome.COMMITTED

    def _after_transaction_end(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is not None:
            if self._flushes.get(session) is transaction:
                # it was no flush, but a bulk_ method in a before_flush listener; or the flush has failed
                self._flushes[session] = None
                for followed in self._followed.get(session, ()):
                    followed.statements.end_flush()
            return
        self._flushes.pop(session, None)
        mine = self._followed.pop(session, ())
        if len(mine) == 1:
            _end(mine[0])
            return
        with ExitStack() as stack:
            # an interrupt while one database's commit is settled must not let another's be forgotten
            for followed in reversed(mine):
                stack.callback(_end, followed)

    def _reaches(self, session: Session, engine: sa.Engine) -> bool:
        reached = self._reached.get(engine)
        if not reached and is_told_same(session):
            reached = self._reached[engine] = True
        if reached is None:
            source = self._source_engine()
            reached = self._reached[engine] = source is None or same_database(source, engine)
            if not reached:
                warnings.warn(
                    f"a session on {engine.url!r} is ignored: the cache's source is {source and source.url!r}. If "
                    "both are the same database, say so: ext.listen(..., same_database=True)",
                    StockpyleWarning,
                    stacklevel=caller_level(),
                )
        return reached

    def _source_engine(self) -> sa.Engine | None:
        stores = () if self._chain is None else self._chain.stores
        return next((store.engine for store in reversed(stores) if isinstance(store, SqlAlchemyStore)), None)


_SESSION_EVENTS = (
    "after_begin",
    "before_flush",
    "after_transaction_create",
    "after_flush",
    "after_commit",
    "after_transaction_end",
)


def _end(followed: FollowedConnection) -> None:
    followed.session, followed.statements.flushing = None, False
    if followed.outcome is not Outcome.OPEN:
        followed.settle(followed.outcome, load=followed.is_back_in_pool)
    elif followed.is_back_in_pool:
        followed.forget()


def _root(engine: sa.Engine) -> sa.Engine:
    """The engine from which this one was derived by execution_options(), or itself."""
    while (proxied := getattr(engine, "_proxied", None)) is not None:
        engine = proxied
    return engine


def _layer(store: Any) -> Layer:
    if isinstance(store, type):
        raise ImproperlyConfigured(f"{store.__name__} is a class: give a store, such as {store.__name__}()")
    if isinstance(store, Tier):
        return Layer(store)
    if not callable(getattr(store, "batch_delete", None)):
        raise ImproperlyConfigured(f"{displayed(store)} is no store")
    return Layer(VerbTier(store))


def _sync_target(target: Any) -> Any:
    """The Session, Session class or sessionmaker whose events tell of what `target` does."""
    # its import needs greenlet, which only those have who use it
    aio: Any = sys.modules.get("sqlalchemy.ext.asyncio")
    if aio is not None:
        if isinstance(target, aio.async_sessionmaker):
            made = target.kw.get("sync_session_class") or target.class_.sync_session_class
            return _own_class(target.kw, "sync_session_class", made)
        if isinstance(target, aio.AsyncSession):
            return target.sync_session
        if isinstance(target, type) and issubclass(target, aio.AsyncSession):
            return _own_sync_class(target)
        if isinstance(target, aio.async_scoped_session):
            return _sync_target(target.session_factory)
    if isinstance(target, scoped_session):
        return _sync_target(target.session_factory)
    if isinstance(target, _sessionmaker | Session) or (isinstance(target, type) and issubclass(target, Session)):
        return target
    raise ImproperlyConfigured(f"listen() takes a sessionmaker, a Session class or a Session, not {target!r}")


def _own_class(options: dict[str, Any], name: str, made: type[Session]) -> type[Session]:
    # listening to the class that everybody shares would listen to everybody
    own = type(made.__name__, (made,), {})
    options[name] = own
    return own


def _own_sync_class(target: Any) -> type[Session]:
    own = type(target.sync_session_class.__name__, (target.sync_session_class,), {})
    target.sync_session_class = own
    return own


@overload
def sessionmaker(bind: Any = None, *, class_: type[S], extension: Extensions = None, **kw: Any) -> _sessionmaker[S]: ...
@overload
def sessionmaker(bind: Any = None, *, extension: Extensions = None, **kw: Any) -> _sessionmaker[Session]: ...
def sessionmaker(bind: Any = None, *, class_: Any = Session, extension: Extensions = None, **kw: Any) -> Any:
    """SQLAlchemy's sessionmaker, with `extension` listening to the sessions it makes."""
    made = _sessionmaker(bind, class_=class_, **kw)
    if extension is None:
        return made
    for each in extension if isinstance(extension, Sequence) else [extension]:
        if not isinstance(each, StockpyleSessionExtension):
            raise ImproperlyConfigured(
                f"extension is a StockpyleSessionExtension, not {each!r}: StockpyleSessionExtension(store=...)"
            )
        each.listen(made)
    return made


__all__ = ["StockpyleSessionExtension", "sessionmaker"]
