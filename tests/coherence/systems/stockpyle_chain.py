"""stockpyle: a chain of a shared cache and the database, and the database alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from stockpyle.coherence.debts import Debt, Debts
from stockpyle.coherence.layers import Layer
from stockpyle.coherence.writer import Writer
from stockpyle.exceptions import StockpyleError
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension
from stockpyle.ext.sqlalchemy import sessionmaker as stockpyle_sessionmaker
from stockpyle.keys import Key
from stockpyle.records import Lock
from stockpyle.stores import ChainedStore, ProcessMemoryStore, SqlAlchemyStore
from tests.coherence.models import ALL_ACCOUNTS, ALL_PEOPLE, KEYS, MEMBERS_BADGE, TABLES, Account
from tests.coherence.systems import IN_MEMORY, Keys, Settings


def shared(settings: Settings) -> Chain:
    """A memcached in front of the database. Process memory is left out: other processes' commits do not reach it."""
    return Chain(settings, [_memcached(settings)])


def on_redis(settings: Settings) -> Chain:
    """A Redis in front of the database."""
    return Chain(settings, [_redis(settings)])


def memory_over_memcached(settings: Settings) -> Chain:
    """Each process's own memory in front of the memcached that all share."""
    return Chain(settings, [_memory("stockpyle-memory"), _memcached(settings)])


def memory_over_redis(settings: Settings) -> Chain:
    """Each process's own memory in front of the Redis that all share."""
    return Chain(settings, [_memory("stockpyle-memory-redis"), _redis(settings)])


def validated_over_memcached(settings: Settings) -> Chain:
    """The same, but memory asks the shared memcached at each hit whether that is right: it may never be older."""
    return Chain(settings, [ProcessMemoryStore(validate=True), _memcached(settings)])


def validated_over_redis(settings: Settings) -> Chain:
    """The same over a Redis."""
    return Chain(settings, [ProcessMemoryStore(validate=True), _redis(settings)])


def backplane_over_memcached(settings: Settings) -> Chain:
    """Memory that is told of others' commits by PostgreSQL, with the commit: also of those whose writers are killed."""
    backplane = SqlAlchemyStore(engine=settings.engine).pubsub(heartbeat=1, timeout=1)
    tiers = [ProcessMemoryStore(), _memcached(settings)]
    return Chain(settings, tiers, backplane=backplane, backplane_in_transaction=True)


def backplane_over_redis(settings: Settings) -> Chain:
    """Memory that is told of others' commits by the Redis below it; but not of those whose writers are killed."""
    redis = _redis(settings)
    return Chain(
        settings, [_memory("stockpyle-backplane-redis"), redis], backplane=redis.pubsub(heartbeat=1, timeout=1)
    )


def _memory(system: str) -> ProcessMemoryStore:
    return ProcessMemoryStore(lifetime=IN_MEMORY[system])


def _memcached(settings: Settings) -> Any:
    from stockpyle.stores import MemcacheStore

    assert settings.cache is not None
    return MemcacheStore(servers=["{}:{}".format(*settings.cache)], **_of_a_server(settings))


def _redis(settings: Settings) -> Any:
    from stockpyle.stores import RedisStore

    assert settings.cache is not None
    return RedisStore("redis://{}:{}/0".format(*settings.cache), **_of_a_server(settings))


def _of_a_server(settings: Settings) -> dict[str, Any]:
    return {
        "timeout": settings.timeout,
        "connect_timeout": settings.timeout,
        "lease_seconds": settings.lock_seconds,
        "lifetime": settings.lifetime,
        "unreachable": settings.unreachable,
    }


def source_only(settings: Settings) -> Chain:
    """No cache at all: what the checker finds here is its own mistake."""
    return Chain(settings, [])


class Chain:
    """A ChainedStore and its session extension."""

    errors: tuple[type[Exception], ...] = (StockpyleError,)

    def __init__(self, settings: Settings, tiers: Sequence[Any], **options: Any) -> None:
        self.tiers = tiers
        stores = [*tiers, SqlAlchemyStore(engine=settings.engine)]
        self.chain = ChainedStore(stores, lock_seconds=settings.lock_seconds, **options)
        self.extension = StockpyleSessionExtension(self.chain)
        self.lacks = frozenset() if tiers else frozenset({"cache", "refused", "locked"})
        self.get = self.chain.get
        self.batch_get = self.chain.batch_get
        self.put = self.chain.put
        self.invalidate = self.chain.invalidate

    points: Mapping[str, Callable[[Callable[[], None]], None]] = {
        "after-lock": lambda reached: call_after(Writer, "lock", reached),
        "between-tiers": lambda reached: call_before(Writer, "publish", reached),
        "before-unlock": lambda reached: call_before(Writer, "unlock", reached),
        "before-read": lambda reached: call_before(Layer, "read", reached),
        "after-load": lambda reached: call_after(SqlAlchemyStore, "load", reached),
        "before-fill": lambda reached: call_before(Layer, "fill", reached),
    }

    def get_into(self, session: Session, klass: type, key: dict[str, Any]) -> Any:
        """See SystemUnderTest."""
        return self.chain.get(klass, key, session=session)

    def sessionmaker(self, engine: sa.Engine) -> sessionmaker[Session]:
        """See SystemUnderTest."""
        return stockpyle_sessionmaker(engine, extension=self.extension)

    def counters(self) -> dict[str, int]:
        """See SystemUnderTest."""
        total = dict.fromkeys(("hits", "refused", "locked", "fills", "errors", "owed", "delivered"), 0)
        for tier in self.tiers:
            for name in total:
                total[name] += getattr(tier.stats, name)
        if len(self.tiers) > 1:
            total["hits in memory"] = self.tiers[0].stats.hits
        return total

    def watch_debts(self, owed: Callable[[Keys, bool], None], delivered: Callable[[Keys], None]) -> None:
        """See SystemUnderTest."""
        lock, owe, settle = Layer.lock, Debts.owe, Debts.settle

        def lock_and_tell(layer: Layer, *args: Any, **kw: Any) -> list[Lock]:
            locks = lock(layer, *args, **kw)
            if missing := [each.key for each in locks if each.owed]:
                owed(_named(missing), True)
            return locks

        def owe_and_tell(debts: Debts, new: Sequence[Debt]) -> int:
            owed(_named(debt.key for debt in new), False)
            return owe(debts, new)

        def settle_and_tell(debts: Debts, paid: Sequence[Debt]) -> int:
            gone = [debt.key for debt in paid if debts._owed.get(debt.ident) is debt]
            settled = settle(debts, paid)
            delivered(_named(gone))
            return settled

        for owner, name, told in [
            (Layer, "lock", lock_and_tell),
            (Debts, "owe", owe_and_tell),
            (Debts, "settle", settle_and_tell),
        ]:
            setattr(owner, name, told)


_NUMBERS = {(TABLES[key.table].name, tuple(sorted(key.names))): number for number, key in enumerate(KEYS)}
_NUMBERS["people", ("Member.badge",)] = MEMBERS_BADGE


def _named(keys: Iterable[Key | None]) -> list[tuple[int, Any]]:
    named: list[tuple[int, Any]] = []
    for key in keys:
        if key is None:
            raise AssertionError("nobody clears the cache, so nobody can owe that")
        if key.is_epoch:
            named.append((ALL_ACCOUNTS if key.spec.klass is Account else ALL_PEOPLE, None))
            continue
        space, names, values = key.ident
        number = _NUMBERS[space, names]
        by_name = dict(zip(names, values, strict=True))
        named.append((number, values[0] if len(values) == 1 else tuple(by_name[name] for name in KEYS[number].names)))
    return named


def call_after(owner: Any, name: str, reached: Callable[[], None]) -> None:
    """Have this function called after each call of a method."""
    method = getattr(owner, name)

    def called(*args: Any, **kw: Any) -> Any:
        result = method(*args, **kw)
        reached()
        return result

    setattr(owner, name, called)


def call_before(owner: Any, name: str, reached: Callable[[], None]) -> None:
    """Have this function called before each call of a method."""
    method = getattr(owner, name)

    def called(*args: Any, **kw: Any) -> Any:
        reached()
        return method(*args, **kw)

    setattr(owner, name, called)
