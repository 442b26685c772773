"""ChainedStore: read down, fill up, write through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from stockpyle.addresses import ConnectionString
from stockpyle.capabilities import PROVIDERS
from stockpyle.classes import spec_of
from stockpyle.coherence.announced import GRACE
from stockpyle.coherence.backplane import Backplane
from stockpyle.coherence.layers import Layer, Unreachable, checked_unreachable
from stockpyle.coherence.publishing import OnWrite, publish_committed, read_back
from stockpyle.coherence.reader import fetch_each
from stockpyle.coherence.verbs import VerbSource
from stockpyle.coherence.writer import LOCK_SECONDS, Writer, drop, related_epochs
from stockpyle.exceptions import ImproperlyConfigured, StoreUnavailable, UnsupportedOperation
from stockpyle.keys import KeySpec
from stockpyle.lifetimes import check_seconds
from stockpyle.masking import displayed
from stockpyle.protocols import Outcome, Pending
from stockpyle.records import Record
from stockpyle.stores._connected import with_text
from stockpyle.stores._levels import TIER, Levels, Route, check_is_store, has
from stockpyle.stores._plane import connected
from stockpyle.stores.base import BaseStore, SessionStore, listed
from stockpyle.views.collection import Entries, Values
from stockpyle.views.counter import Numbers
from stockpyle.views.selection import WHO_CAN, Search
from stockpyle.views.tiers import ThroughTiers

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

T = TypeVar("T")
Deadlines = Mapping[int, Mapping[Layer, float | None]]
"""When each object of a put, by its id(), expires in each layer."""


class ChainedStore(SessionStore):
    """Stores from the fastest to the most durable, as one.

    A read asks them in turn and fills those that missed. A write goes to the source of the class (the last store that
    accepts it), and before it returns every layer above holds what was committed, or nothing. A mapped class has its
    source in a SqlAlchemyStore, never in a cache.

    In a chain a record lives at most a day in a shared tier and 60 seconds in process memory, which other processes'
    commits do not reach without a backplane, and a day with one; a `lifetime` or `lifetime_cb` of the tier's own
    replaces that bound. A ProcessMemoryStore with validate=True misses no commit, and keeps records as long as the
    shared tier.

    backplane: a store that has a pubsub(), or a pub/sub, by which the chains of all processes tell each other what
    they have written; process memory forgets what others have, and keeps nothing while it hears nothing. Then it is the
    source of no class. backplane_channel: which chains these are; by default those with the same prefix.
    backplane_in_transaction: tell it inside the writing transaction, on PostgreSQL. backplane_grace: how many seconds
    a writer then has to bring its commit to the shared tiers, before others remove from them what it has told.

    on_write: "publish" puts what was committed into the tiers, "invalidate" only removes what was there before, so
    that the next reader loads it. lock_seconds: how long the tiers are bypassed for keys whose writer died between
    its commit and its publishing.

    unreachable: what happens to a write when a tier cannot be reached right before the commit. "proceed" commits, reads
    nothing from that tier any more, and has it forget what was changed before it is trusted again; until then other
    processes that can reach it may read there what was replaced. What is still to be delivered is kept in this
    process's memory only. "refuse" raises StoreUnavailable, and nothing is written. By default each tier
    says for itself, and proceeds if it says nothing.
    """

    schemes = ("chain",)
    supports = frozenset({"plain", "mapped"})

    def __init__(
        self,
        stores: Iterable[Any] | None = None,
        *,
        on_write: OnWrite = "publish",
        lock_seconds: float = LOCK_SECONDS,
        unreachable: Unreachable | None = None,
        backplane: Any = None,
        backplane_in_transaction: bool = False,
        backplane_channel: str | None = None,
        backplane_grace: float = GRACE,
    ) -> None:
        super().__init__()
        if on_write not in ("publish", "invalidate"):
            raise ImproperlyConfigured(f'on_write is "publish" or "invalidate", not {on_write!r}')
        check_seconds("lock_seconds", lock_seconds)
        if stores is not None and (isinstance(stores, str | Mapping) or not isinstance(stores, Iterable)):
            raise ImproperlyConfigured(f"a chain is made of a list of stores, not of {displayed(stores)}")
        self.stores: tuple[Any, ...] = tuple(_flatten(stores or ()))
        if not self.stores:
            raise ImproperlyConfigured(
                "a chain needs at least one store, such as ChainedStore([ProcessMemoryStore(), ...])"
            )
        twice = next(
            (store for i, store in enumerate(self.stores) if any(store is other for other in self.stores[:i])), None
        )
        if twice is not None:
            raise ImproperlyConfigured(f"{twice!r} is in this chain twice, and would wait for its own locks")
        offered = frozenset[str]().union(*(getattr(store, "supports", ()) for store in self.stores))
        self.supports = type(self).supports - ({"scan", *PROVIDERS} - offered)
        self.on_write = on_write
        self.lock_seconds = lock_seconds
        self.unreachable = checked_unreachable(unreachable)
        self._levels = Levels(self.stores, with_backplane=backplane is not None)
        self._hits = self._levels.hits(self.stats)
        self.backplane: Backplane | None = None
        """What tells other processes' memory of what is written here; its `stats` count."""
        if backplane is not None:
            self.backplane = connected(
                backplane,
                self._levels,
                lock_seconds,
                in_transaction=backplane_in_transaction,
                channel=backplane_channel,
                grace=backplane_grace,
            )
        elif backplane_in_transaction:
            raise ImproperlyConfigured("backplane_in_transaction=True needs a backplane: give backplane=, too")

    # where things live

    def route(self, klass: type) -> Route:
        """Return the source of a class and the layers above it; UnsupportedOperation if no store accepts it."""
        return self._levels.route(klass)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers that can hold copies."""
        return self._levels.layers

    def spec(self, klass: type) -> KeySpec:
        """Return the keys of a class as its source names them."""
        spec: KeySpec = self.route(klass).spec
        return spec

    # reading

    @cached_property
    def _sessions(self) -> Any:
        # SQLAlchemy need not be there
        from stockpyle.orm import sessions

        return sessions

    def _fetch_into(self, session: Session, klass: type, keys: Sequence[Mapping[str, Any]]) -> list[Any]:
        route, hits = self.route(klass), self._hits
        if not route.spec.mapped:
            raise UnsupportedOperation(f"{klass.__qualname__} is not mapped: it has no instance in a session")
        found: list[Any] = self._sessions.instances(
            session,
            route.spec,
            keys,
            lambda missing: dict(zip([key.ident for key in missing], self._records(route, missing), strict=True)),
            route.engine,
            None if hits is None else lambda key: hits.find(klass, key),
        )
        if hits is not None:
            hits.learn(klass, keys, found)
        return found

    def _one_into(self, session: Session, klass: type, key: Mapping[str, Any]) -> Any:
        route, hits = self.route(klass), self._hits
        if hits is not None and route.spec.mapped:
            own, is_clean = self._sessions.checked_session(session, route.spec, route.engine)
            record: Any = hits.find(klass, key) if is_clean else None
            if record is not None:
                return record.spec.materialise_into(own, record.value)
        return self._fetch_into(session, klass, [key])[0]

    def _fetch(self, klass: type, keys: Sequence[Mapping[str, Any]]) -> list[Any]:
        route = self.route(klass)
        asked = route.spec.keys(keys)
        if all(asked):
            results = self._records(route, asked)
        else:
            known = iter(self._records(route, [key for key in asked if key is not None]))
            results = [None if key is None else next(known) for key in asked]
        missing = results.count(None)
        self.stats.hits += len(results) - missing
        self.stats.misses += missing
        return [None if record is None else record.spec.materialise(record.value) for record in results]

    def _records(self, route: Route, keys: Sequence[Any]) -> list[Record | None]:
        if self.backplane is not None and not self.backplane.started:
            self.backplane.start()
        records = fetch_each(route.layers, route.source, keys)
        last = None
        for record in records:
            if record is not None and record.spec is not last:
                last = record.spec
                self.seen.add(last)
        return records

    def search(self, klass: type) -> Search:
        """Return what answers queries: the source of the class says which objects, the tiers hand them out."""
        source: Any = self.route(klass).source
        store: Any = source.store if isinstance(source, VerbSource) else source
        if not has(store, ["search"]):
            name = getattr(store, "name", type(store).__name__)
            raise UnsupportedOperation(
                f"{name}, the source of {klass.__qualname__} in this chain, cannot be queried: {WHO_CAN}"
            )
        own: Search = store.search(klass)
        return ThroughTiers(own, lambda keys: self._fetch(klass, [key.as_dict() for key in keys]))

    def scan(self, klass: type[T]) -> Iterable[T]:
        """Yield every object of a class."""
        yield from self.query(klass)

    # writing

    def batch_put(self, objs: Iterable[Any]) -> None:
        """Put several objects: in one transaction for each source that has a share of them."""
        routed = [
            (route, own, _deadlines(route, own)) for route, own in self._by_route(listed(objs, "batch_put")).items()
        ]
        for route, own, deadlines in routed:
            self._write(route, own, [], deadlines)

    def batch_delete(self, objs: Iterable[Any]) -> None:
        """Delete several objects; one that is not there is no error."""
        for route, own in self._by_route(listed(objs, "batch_delete")).items():
            self._write(route, [], own, {})

    def _by_route(self, objs: list[Any]) -> dict[Route, list[Any]]:
        routed: dict[Route, list[Any]] = {}
        for obj in objs:
            routed.setdefault(self.route(type(obj)), []).append(obj)
        return routed

    def _write(self, route: Route, puts: list[Any], deletes: list[Any], deadlines: Deadlines) -> None:
        pending: Pending | None = None
        writer: Writer | None = None
        try:
            with route.source.write(puts, deletes) as pending:
                writer = Writer(
                    route.layers,
                    pending.changes,
                    pending.epochs,
                    self.lock_seconds,
                    self.unreachable,
                    self.backplane,
                )
                writer.lock()
                writer.announce(pending.connection)
        except BaseException:
            if writer is not None and pending is not None:
                _settle(writer, pending.outcome)
            raise
        try:
            for spec in {spec_of(type(obj)) for obj in puts}:
                self.seen.add(spec)
            chosen = {
                change.after[0].ident: deadlines[id(change.obj)]
                for change in pending.changes
                if change.after and id(change.obj) in deadlines
            }
            publish_committed(writer, route.source, self.on_write, chosen)
        except BaseException:
            # an interrupt: the write is durable, and no tier may be left without being told, now or later
            writer.publish()
            raise
        if pending.unchanged and self.on_write == "publish":
            read_back(route.layers, route.source, pending.unchanged)

    # as a connection

    def ping(self) -> bool:
        """Return True if all stores that can be asked answer; StoreUnavailable names those that do not."""
        failed: list[Exception] = []
        for store in self.stores:
            if has(store, ["ping"]) and "ping" in getattr(store, "supports", ("ping",)):
                try:
                    store.ping()
                except Exception as error:  # noqa: BLE001  # a user's store may raise anything
                    failed.append(error)
        if not failed:
            return True
        if len(failed) == 1 and isinstance(failed[0], StoreUnavailable):
            raise failed[0]
        raise StoreUnavailable("; ".join(map(str, failed)), self.name, "ping") from failed[0]

    @property
    def database(self) -> str | None:
        """None: each of its stores has its own."""
        return None

    def to_url(self, scheme: str, arguments: Mapping[str, Any]) -> ConnectionString | None:
        """Return ``chain://?stores=...&stores=...``; None if one of the stores has no connection string."""
        each = [getattr(store, "dns", None) for store in self.stores]
        return None if None in each else with_text(ConnectionString(scheme), {**arguments, "stores": each})

    # upkeep

    def release(self) -> None:
        """Give back what this thread holds of every store."""
        self._each_store("release")

    def _collections(self) -> Entries:
        entries: Entries = self._offered("_collections", "collections")
        return entries

    def _values(self) -> Values:
        return next((each._values() for each in reversed(self.stores) if _offers(each, "_collections")), Values())

    def _counters(self) -> Numbers:
        numbers: Numbers = self._offered("_counters", "counters")
        return numbers

    def _offered(self, what: str, name: str) -> Any:
        """What the most durable of the stores offers."""
        for each in reversed(self.stores):
            if _offers(each, what):
                return getattr(each, what)()
        raise UnsupportedOperation(f"no store of this chain keeps {name}")

    def close(self) -> None:
        """Close every store, and the backplane; but not a pub/sub that the chain was given."""
        with ExitStack() as stack:
            stack.callback(self._each_store, "close", "release")
            if self.backplane is not None:
                stack.callback(self.backplane.close)

    def _each_store(self, *methods: str) -> None:
        """Call the first of these methods that a store has; on all stores, even if one of them fails."""
        with ExitStack() as stack:
            for store in reversed(self.stores):
                method = next((each for each in methods if has(store, [each])), None)
                if method is not None:
                    stack.callback(getattr(store, method))

    def clear(self) -> None:
        """Empty every cache of the chain. What is only a source keeps its objects.

        A cache that knows only the six verbs forgets the classes that this chain has put or loaded; it must have
        `invalidate`, or UnsupportedOperation names it.
        """
        with ExitStack() as each:
            if self.backplane is not None:
                each.callback(self.backplane.tell_everything)
            for store, layer in zip(self.stores, self._levels.above, strict=True):
                if layer is not None and has(store, TIER):
                    each.callback(layer.clear, self.unreachable)
            for spec, route in self._levels.routes.items():
                for layer in route.layers:
                    if layer.forgets:
                        each.callback(drop, layer, [spec.epoch], self.lock_seconds, self.unreachable)

    def invalidate(self, klass: type, key: Mapping[str, Any] | None = None) -> None:
        """Drop one object, or all of a class, from every layer above its source, because somebody else changed them."""
        spec = self.spec(klass)
        target = spec.epoch if key is None else spec.key(key)
        if target is None:
            return
        route = self.route(klass)
        targets = [target]
        if not target.is_epoch and not target.is_identity:
            # a tier may hold the object, and not know that this key leads to it
            (record,) = route.source.load(klass, [target])
            identity = None if record.is_absent else record.key(record.spec.identity)
            targets += [identity] if identity is not None else []
        with ExitStack() as each:
            # the last of these is called first
            if self.backplane is not None:
                told = [other for key in targets for other in (related_epochs(key) if key.is_epoch else [key])]
                each.callback(self.backplane.tell, told)
            for layer in route.layers:
                each.callback(drop, layer, targets, self.lock_seconds, self.unreachable)

    def __repr__(self) -> str:
        return f"ChainedStore([{', '.join(map(repr, self.stores))}])"


def _deadlines(route: Route, objs: Iterable[Any]) -> Deadlines:
    return {id(obj): {layer: layer.deadline(obj) for layer in route.layers} for obj in objs}


def _settle(writer: Writer, outcome: Outcome) -> None:
    if outcome is Outcome.COMMITTED:
        writer.publish()
    elif outcome is Outcome.UNKNOWN:
        writer.leave()
    else:
        writer.unlock()


def _flatten(stores: Iterable[Any]) -> Iterator[Any]:
    for store in stores:
        if not isinstance(store, ChainedStore):
            check_is_store(store)
            yield store
        elif store.backplane is None:
            yield from store.stores
        else:
            raise ImproperlyConfigured(
                "a chain inside another one has no backplane of its own: give it to the outer one"
            )


def _offers(store: Any, what: str) -> bool:
    return isinstance(store, BaseStore) and getattr(type(store), what) is not getattr(BaseStore, what)
