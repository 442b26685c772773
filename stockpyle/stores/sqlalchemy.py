"""SqlAlchemyStore: mapped objects in their database, the usual source of a chain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from stockpyle.addresses import ConnectionString
from stockpyle.classes import is_mapped, spec_of
from stockpyle.coherence.outcomes import committed
from stockpyle.exceptions import ImproperlyConfigured, InvalidKey, MissingDependency, UnsupportedOperation
from stockpyle.keys import Key
from stockpyle.masking import displayed, masked
from stockpyle.parameters import text_of
from stockpyle.protocols import Pending, PubSub
from stockpyle.pubsub.handle import HEARTBEAT, TIMEOUT
from stockpyle.pubsub.wires import Notice
from stockpyle.records import ABSENT, Record
from stockpyle.stores._sql import SqlVerbs
from stockpyle.stores.base import SessionStore, listed
from stockpyle.views.selection import Search

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.orm import Session

    from stockpyle.orm.direct import DirectLoader, Object
    from stockpyle.orm.loading import Loader
    from stockpyle.orm.mapping import MappedSpec

T = TypeVar("T")


DIALECTS = ("postgresql", "sqlite", "mysql", "mariadb", "oracle", "mssql")


class SqlAlchemyStore(SqlVerbs, SessionStore):
    """Mapped objects in a database, by their primary key, and by every key that their class declares or holds unique.

    Give a database URL or an Engine. Used alone, the store ignores objects that are not mapped. A database in memory
    (``sqlite:///:memory:``) that the store has made itself gets its tables; any other must have them.

    put writes the object's present state in a transaction of the store's own and sets generated keys on it; it
    neither flushes nor commits the session that the object may be in. get returns a detached, fully loaded instance,
    relationships not loaded; with `session` that session's own.

    As a connection string it is SQLAlchemy's own URL, as it is, with all its parameters; "sqlalchemy+" may stand before
    it, and must before the name of a dialect that is not SQLAlchemy's own.
    """

    schemes = ("sqlalchemy", *DIALECTS)
    supports = frozenset({"mapped", "shared"})

    def __init__(self, uri: Any = None, engine: sa.Engine | None = None) -> None:
        super().__init__()
        try:
            import sqlalchemy
        except ImportError as error:
            raise MissingDependency("SqlAlchemyStore needs SQLAlchemy: pip install 'stockpyle[sqlalchemy]'") from error

        # some of it only for the first load, put and query: a child that was forked while another thread is in the
        # middle of an import waits for it for ever
        from stockpyle.orm import copying, direct, loading, packing  # noqa: F401
        from stockpyle.orm.collations import Collations
        from stockpyle.orm.commands import SqlCommands
        from stockpyle.orm.connections import SourceConnections
        from stockpyle.orm.driver_reads import DriverReads
        from stockpyle.orm.engines import engine_for
        from stockpyle.orm.mapping import own_schemas
        from stockpyle.orm.sessions import listen_to_sessions
        from stockpyle.orm.transactions import start_watching
        from stockpyle.views import sql  # noqa: F401

        start_watching()
        if (uri is None) == (engine is None):
            raise ImproperlyConfigured("give a SqlAlchemyStore either a database URL (uri=) or an Engine (engine=)")
        if isinstance(uri, sqlalchemy.Engine) or hasattr(uri, "sync_engine"):
            uri, engine = None, uri
        self._creates_tables = False
        if engine is None:
            engine, self._creates_tables = engine_for(uri)
        # an async engine's own sync_engine is let in: the extension has one where no caller can block a loop
        if hasattr(engine, "sync_engine") or (uri is not None and engine.dialect.is_async):
            raise ImproperlyConfigured(
                f"{engine.dialect.driver} is an async driver. A SqlAlchemyStore reads on connections of its own and "
                "needs a plain Engine: make one for the same database with create_engine() and another driver; the "
                "application keeps its AsyncEngine"
            )
        if not isinstance(engine, sqlalchemy.Engine):
            raise ImproperlyConfigured(f"engine must be a SQLAlchemy Engine, not {displayed(engine)}")
        self._owns_engine = uri is not None
        self.engine = engine
        self._connections = SourceConnections(engine, self.name)
        self._commands = SqlCommands(engine, self._connections, self.name)
        self._collations = Collations()
        self._reads = DriverReads(engine, self._connections)
        self._loaders: dict[type, DirectLoader] = {}
        listen_to_sessions()
        self._schemas = own_schemas(engine.get_execution_options().get("schema_translate_map"))
        if engine.dialect.name != "postgresql":
            self.supports = type(self).supports - {"pubsub"}

    # as a connection

    @classmethod
    def from_url(cls, url: ConnectionString) -> dict[str, Any]:
        """See BaseStore.from_url."""
        dialect = url.scheme if url.scheme.partition("+")[0] in DIALECTS else url.inner
        objects, rest = url.take(
            {name: None for name, value in url.params.items() if value is None or text_of(value) is None}
        )
        if not dialect or (not rest.rest and "uri" in rest.params):
            if rest.rest or not url.params:
                raise url.wrong("it names no database: write sqlalchemy+postgresql://..., for example")
            return url.params
        return {"uri": replace(rest, scheme=dialect).written(text_of), **objects}

    def to_url(self, scheme: str, arguments: Mapping[str, Any]) -> ConnectionString | None:
        """See BaseStore.to_url."""
        url = ConnectionString.parse(self.engine.url.render_as_string(hide_password=False))
        own = url.scheme.partition("+")[0] in DIALECTS
        return url if own else replace(url, scheme=f"sqlalchemy+{url.scheme}")

    @property
    def database(self) -> str | None:
        """The name of the database, or the path of its file; None for one in memory."""
        return self.engine.url.database

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
        direct = self._direct(klass)
        seen = direct.find(keys)
        if seen is not None:
            told = _records(direct, keys, *seen)
            if told is not None:
                return told
        loader = direct.loader
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
        return self._direct(klass).loader

    def _direct(self, klass: type) -> DirectLoader:
        direct = self._known(klass)
        if direct is None:
            from stockpyle.orm.direct import DirectLoader
            from stockpyle.orm.loading import Loader

            spec = self.spec(klass)
            self._create_tables(spec)
            loader = Loader(spec, self._collations)
            direct = self._loaders[klass] = DirectLoader(loader, self._reads, self._collations)
        return direct

    def _known(self, klass: type) -> DirectLoader | None:
        """What reads a class that was read before, unless it was mapped anew or has new subclasses."""
        try:
            direct = self._loaders.get(klass)
        except TypeError:
            # something unhashable, hence no class
            return None
        if direct is None:
            return None
        loader = direct.loader
        return direct if vars(klass).get("__mapper__") is loader.spec.mapper and not loader.is_outgrown else None

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
                with committed(pending, connection.commit, commit_failed_for_sure):
                    yield pending
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

        return instances(session, self.spec(klass), keys, lambda missing: self._objects(klass, missing), self.engine)

    def _objects(self, klass: type, keys: Sequence[Key]) -> dict[Any, Record | None]:
        unique = {key.ident: key for key in keys}
        records = self.load(klass, list(unique.values()))
        return {ident: None if r.is_absent else r for ident, r in zip(unique, records, strict=True)}

    def _fetch(self, klass: type, keys: Sequence[Mapping[str, Any]]) -> list[Any]:
        direct = self._readable(klass)
        if direct is None:
            return [None] * len(keys)
        found = self._objects_of_each(direct, keys)
        hits = len(found) - found.count(None)
        self.stats.hits += hits
        self.stats.misses += len(found) - hits
        specs = {each[0] for each in found if each is not None}
        for spec in specs:
            self.seen.add(spec)
        if len(specs) == 1 and hits == len(found):
            return spec.materialise_all([each[1] for each in found if each is not None])
        return [None if each is None else each[0].materialise(each[1]) for each in found]

    def _fetch_one(self, klass: type, asked: Mapping[str, Any]) -> Any:
        direct = self._readable(klass)
        key = None if direct is None else direct.loader.spec.key(asked)
        found = None if direct is None or key is None else self._objects_of(direct, [key])[0]
        if found is None:
            self.stats.misses += direct is not None
            return None
        self.stats.hits += 1
        spec, row = found
        self.seen.add(spec)
        return spec.materialise(row)

    def _readable(self, klass: type) -> DirectLoader | None:
        """What reads a class; None for a plain one, of which there are no rows."""
        direct = self._known(klass)
        if direct is None and (not isinstance(klass, type) or is_mapped(klass)):
            return self._direct(klass)
        return direct

    def _objects_of_each(self, direct: DirectLoader, asked: Sequence[Mapping[str, Any]]) -> list[Object | None]:
        keys = direct.loader.spec.keys(asked)
        own = [key for key in keys if key is not None]
        seen = direct.find(own) if own and len(own) == len(keys) else None
        if seen is not None:
            return seen[0]
        unique = {key.ident: key for key in own}
        found = dict(zip(unique, self._objects_of(direct, list(unique.values())), strict=True))
        return [None if key is None else found[key.ident] for key in keys]

    def _objects_of(self, direct: DirectLoader, keys: list[Key]) -> list[Object | None]:
        seen = direct.find(keys) if len(keys) == 1 else None
        if seen is not None:
            return seen[0]
        records: list[Any] = self.load(direct.loader.spec.klass, keys)
        return [None if record.is_absent else (record.spec, record.value) for record in records]

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
        return f"SqlAlchemyStore({masked(self.engine.url.render_as_string(hide_password=False))})"


def _records(
    direct: DirectLoader, keys: Sequence[Key], found: Sequence[Object | None], fillable: bool
) -> list[Record] | None:
    """The records of what was found; None if only the database can tell of what was not."""
    records = []
    for key, each in zip(keys, found, strict=True):
        if each is not None:
            records.append(Record(*each, fillable=fillable))
        else:
            certain = direct.absence_is_certain(key)
            if certain is None:
                return None
            records.append(Record(direct.loader.spec, ABSENT, fillable=fillable and certain))
    return records


def _mapped_of(objs: list[Any]) -> list[Any]:
    for obj in objs:
        if is_mapped(obj):
            raise InvalidKey(f"{obj.__qualname__} is a class: give an instance of it")
    return [obj for obj in objs if is_mapped(type(obj))]
