"""SqlAlchemyStore: mapped objects in their database, the usual source of a chain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from stockpyle.classes import is_mapped, spec_of
from stockpyle.exceptions import ImproperlyConfigured, InvalidKey, MissingDependency, UnsupportedOperation
from stockpyle.keys import Key
from stockpyle.protocols import Outcome, Pending, PubSub
from stockpyle.pubsub.handle import HEARTBEAT, TIMEOUT
from stockpyle.pubsub.wires import Notice
from stockpyle.records import ABSENT, Record
from stockpyle.stores.base import SessionStore, listed
from stockpyle.views.selection import Search

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.orm import Session

    from stockpyle.orm.loading import Loader
    from stockpyle.orm.mapping import MappedSpec

T = TypeVar("T")


class SqlAlchemyStore(SessionStore):
    """Mapped objects in a database, by their primary key, and by every key that their class declares or holds unique.

    Give a database URL or an Engine. Used alone, the store ignores objects that are not mapped. A database in memory
    (``sqlite:///:memory:``) that the store has made itself gets its tables; any other must have them.

    put writes the object's present state in a transaction of the store's own and sets generated keys on it; it
    neither flushes nor commits the session that the object may be in. get returns a detached, fully loaded instance,
    relationships not loaded; with `session` that session's own.
    """

    def __init__(self, uri: Any = None, engine: sa.Engine | None = None) -> None:
        super().__init__()
        try:
            import sqlalchemy
        except ImportError as error:
            raise MissingDependency("SqlAlchemyStore needs SQLAlchemy: pip install 'stockpyle[sqlalchemy]'") from error
        from stockpyle.orm.collations import Collations
        from stockpyle.orm.connections import SourceConnections
        from stockpyle.orm.sessions import listen_to_sessions
        from stockpyle.orm.transactions import start_watching

        start_watching()
        if (uri is None) == (engine is None):
            raise ImproperlyConfigured("give a SqlAlchemyStore either a database URL (uri=) or an Engine (engine=)")
        if isinstance(uri, sqlalchemy.Engine) or hasattr(uri, "sync_engine"):
            uri, engine = None, uri
        self._creates_tables = False
        if engine is None:
            engine, self._creates_tables = _engine_for(uri)
        # an async engine's own sync_engine is let in: the extension has one where no caller can block a loop
        if hasattr(engine, "sync_engine") or (uri is not None and engine.dialect.is_async):
            raise ImproperlyConfigured(
                f"{engine.dialect.driver} is an async driver. A SqlAlchemyStore reads on connections of its own and "
                "needs a plain Engine: make one for the same database with create_engine() and another driver; the "
                "application keeps its AsyncEngine"
            )
        if not isinstance(engine, sqlalchemy.Engine):
            raise ImproperlyConfigured(f"engine must be a SQLAlchemy Engine, not {engine!r}")
        self._owns_engine = uri is not None
        self.engine = engine
        self._connections = SourceConnections(engine, self.name)
        self._collations = Collations()
        self._loaders: dict[type, Loader] = {}
        listen_to_sessions()
        self._schemas: Mapping[str | None, str | None] | None = engine.get_execution_options().get(
            "schema_translate_map"
        )

    # the source

    def accepts(self, klass: type) -> bool:
        """True for mapped classes."""
        return is_mapped(klass)

    def spec(self, klass: type) -> MappedSpec:
        """Return the keys of a mapped class as this database names them."""
        spec: Any = spec_of(klass)
        mapped: MappedSpec = spec.translated(self._schemas)
        return mapped

    def load(self, klass: type, keys: Sequence[Key]) -> list[Record]:
        """See Source.load."""
        if not keys:
            return []
        loader = self._loader(klass)
        with self._connections.reading() as (connection, may_be_cached):
            found = loader.load(connection, keys)
            fillable = may_be_cached()
            records = [found.get(key.ident) for key in keys]
            answers = []
            for key, record in zip(keys, records, strict=True):
                if record is None:
                    certain = fillable and self._collations.absence_is_certain(connection, loader.spec, key)
                    answers.append(Record(loader.spec, ABSENT, fillable=certain))
                else:
                    record.fillable = fillable
                    answers.append(record)
        return answers

    def _loader(self, klass: type) -> Loader:
        loader = self._loaders.get(klass)
        if loader is None or loader.is_outgrown:
            from stockpyle.orm.loading import Loader

            spec = self.spec(klass)
            self._create_tables(spec)
            loader = self._loaders[klass] = Loader(spec, self._collations)
        return loader

    def _create_tables(self, spec: MappedSpec) -> None:
        if self._creates_tables:
            with self._connections.reading() as (connection, _):
                spec.mapper.registry.metadata.create_all(connection)
                if connection.in_transaction():
                    connection.commit()

    @contextmanager
    def write(self, puts: Sequence[Any], deletes: Sequence[Any]) -> Iterator[Pending]:
        """See Source.write."""
        from sqlalchemy import event
        from sqlalchemy.orm import Session

        from stockpyle.orm.connections import commit_failed_for_sure
        from stockpyle.orm.copying import Copies, refuse_pending
        from stockpyle.orm.transactions import watch

        for obj in (*puts, *deletes):
            self._loader(type(obj))
        refuse_pending(puts)
        pending = Pending()
        with self._connections.writing() as connection:
            pending.connection = connection
            written = watch(connection)
            written.clear()
            with Session(bind=connection, autoflush=False, expire_on_commit=False) as session, session.no_autoflush:
                copies = Copies(session, self._loader)
                copies.preload(connection, [*puts, *deletes])
                for obj in puts:
                    copies.copy(obj)
                for obj in deletes:
                    target = copies.row_of(obj)
                    if target is not None:
                        session.delete(target)
                # what the objects were before is known only until the flush has ended
                event.listen(session, "after_flush", lambda *_: written.end_flush())
                session.flush()
                pending.changes = written.changes
                pending.epochs = written.epochs
                self._name_changes(pending, [(obj, copies.copy(obj)) for obj in puts])
                written.clear()
                try:
                    yield pending
                except BaseException:
                    pending.outcome = Outcome.ROLLED_BACK
                    raise
                pending.outcome = Outcome.UNKNOWN
                try:
                    connection.commit()
                except Exception as error:
                    if commit_failed_for_sure(error):
                        pending.outcome = Outcome.ROLLED_BACK
                    raise
                pending.outcome = Outcome.COMMITTED
                copies.give_generated()
        for obj in puts:
            self.seen.add(self.spec(type(obj)))

    def _name_changes(self, pending: Pending, copied: Sequence[tuple[Any, Any]]) -> None:
        """Tell which change is that of which object, and which objects have none."""
        changes = {change.after[0].ident: change for change in pending.changes if change.after}
        for obj, mine in copied:
            identity = self.spec(type(obj)).keys_of(mine)[0]
            change = changes.get(identity.ident)
            if change is None:
                pending.unchanged.append(identity)
            else:
                change.obj = obj

    # the verbs

    def batch_put(self, objs: Iterable[Any]) -> None:
        """Write several objects in one transaction; what is not mapped is ignored."""
        mapped = _mapped_of(listed(objs, "batch_put"))
        if mapped:
            with self.write(mapped, []):
                pass

    def batch_delete(self, objs: Iterable[Any]) -> None:
        """Delete several objects in one transaction; what is not there is no error, what is not mapped is ignored."""
        mapped = _mapped_of(listed(objs, "batch_delete"))
        if mapped:
            with self.write([], mapped):
                pass

    def _fetch_into(self, session: Session, klass: type, keys: Sequence[Mapping[str, Any]]) -> list[Any]:
        from stockpyle.orm.sessions import instances

        spec = self.spec(klass)
        asked = [spec.key(key) for key in keys]
        return instances(session, spec, asked, lambda missing: self._objects(klass, missing), self.engine)

    def _objects(self, klass: type, keys: Sequence[Key]) -> dict[Any, Record | None]:
        unique = {key.ident: key for key in keys}
        records = self.load(klass, list(unique.values()))
        return {ident: None if r.is_absent else r for ident, r in zip(unique, records, strict=True)}

    def _fetch(self, klass: type, keys: Sequence[Mapping[str, Any]]) -> list[Any]:
        if isinstance(klass, type) and not is_mapped(klass):
            return [None] * len(keys)
        spec = self.spec(klass)
        asked = [spec.key(key) for key in keys]
        found = self._objects(klass, [key for key in asked if key is not None])
        records = [None if key is None else found[key.ident] for key in asked]
        hits = sum(record is not None for record in records)
        self.stats.hits += hits
        self.stats.misses += len(records) - hits
        for loaded in {record.spec for record in records if record is not None}:
            self.seen.add(loaded)
        return [None if record is None else record.spec.materialise(record.value) for record in records]

    def search(self, klass: type) -> Search:
        """Return what answers queries of a mapped class, by SQL."""
        if isinstance(klass, type) and not is_mapped(klass):
            raise UnsupportedOperation(f"{self.name} has no objects of {klass.__qualname__}, which is not mapped")
        from stockpyle.views.sql import SqlSearch

        return SqlSearch(lambda: self._loader(klass), self._connections.reading, self._collations)

    def scan(self, klass: type[T]) -> Iterable[T]:
        """Yield every object of a class."""
        yield from self.query(klass)

    def pubsub(
        self,
        *,
        on_lost: Notice | None = None,
        on_restored: Notice | None = None,
        heartbeat: float = HEARTBEAT,
        timeout: float = TIMEOUT,
    ) -> PubSub:
        """Return publish/subscribe by LISTEN and NOTIFY, on connections of its own; UnsupportedOperation elsewhere.

        It needs PostgreSQL, and psycopg or psycopg2. A message has less than 6 kB, see max_size.
        """
        if self.engine.dialect.name != "postgresql":
            return super().pubsub()
        from stockpyle.pubsub.postgres import PostgresPubSub

        return PostgresPubSub(self.engine, self.name, on_lost, on_restored, heartbeat, timeout)

    def release(self) -> None:
        """Give back the connection that this thread may hold."""
        self._connections.release()

    def close(self) -> None:
        """Give back all connections, and dispose of the engine if the store has made it."""
        self._connections.close()
        if self._owns_engine:
            self.engine.dispose()

    def __repr__(self) -> str:
        return f"SqlAlchemyStore({self.engine.url!r})"


def _mapped_of(objs: list[Any]) -> list[Any]:
    for obj in objs:
        if is_mapped(obj):
            raise InvalidKey(f"{obj.__qualname__} is a class: give an instance of it")
    return [obj for obj in objs if is_mapped(type(obj))]


def _engine_for(uri: Any) -> tuple[sa.Engine, bool]:
    import sqlalchemy
    from sqlalchemy.pool import StaticPool

    try:
        url = sqlalchemy.make_url(uri)
    except sqlalchemy.exc.ArgumentError as error:
        raise ImproperlyConfigured(f"{uri!r} is no database URL, such as 'sqlite:///file.db'") from error
    in_memory = url.get_backend_name() == "sqlite" and (
        url.database in (None, "", ":memory:", "file::memory:") or url.query.get("mode") == "memory"
    )
    try:
        if in_memory:
            options: dict[str, Any] = {"connect_args": {"check_same_thread": False}, "poolclass": StaticPool}
            return sqlalchemy.create_engine(url, **options), True
        return sqlalchemy.create_engine(url), False
    except ModuleNotFoundError as error:
        raise MissingDependency(f"the driver of {url!r} is not installed: {error}") from error
    except sqlalchemy.exc.NoSuchModuleError as error:
        raise ImproperlyConfigured(f"{url!r}: {error}") from error
