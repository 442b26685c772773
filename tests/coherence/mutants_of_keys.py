"""Wrong systems: the steps of readers and writers as they touch single keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from stockpyle.coherence import reader
from stockpyle.coherence.writer import Writer
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension
from stockpyle.keys import Key
from stockpyle.memcached.tier import MemcachedTier
from stockpyle.orm.collations import Collations
from stockpyle.orm.commits import FollowedConnection
from stockpyle.orm.mapping import spec_of_mapped
from stockpyle.orm.transactions import WrittenObjects
from stockpyle.orm.works import Work
from stockpyle.protocols import Outcome
from stockpyle.records import ABSENT, Lease, Lock, Record
from stockpyle.redis.scripts import LEASE, PUBLISH, SWAP
from stockpyle.redis.server import RedisServer
from stockpyle.stores import ChainedStore
from tests.coherence.mutation import Real, instead_of

_DYING = (
    "--workers 8 --rows 24 --lock-seconds 4 --faults kill-after-commit --rate 80 --hesitate 0 "
    "--steps update_base,update_sub"
)
_LATE = "--rows 4 --hesitate 0.7 --at none/between-tiers --steps update_a,update_b"
_REDIS = "--system stockpyle-redis"

# the cache's own steps

_ANYWAY = """
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2]) end
return 1
"""


@instead_of(
    MemcachedTier, "_swap_for", "--rows 16 --hesitate 0.7 --pause 0.1 --at none/before-fill --steps update_base"
)
def fill_without_a_lease(real: Real, tier: Any, connection: Any, own: Lease | Lock, item: Any) -> bytes:
    """A reader puts what it has loaded whatever has become of its lease: nothing is put but "if unchanged"."""
    if isinstance(own, Lease) and item is not None:
        return bytes(item.command(tier._text(own.key)))
    return bytes(real(tier, connection, own, item))


@instead_of(MemcachedTier, "_swap_for", _LATE)
def publish_without_comparing(real: Real, tier: Any, connection: Any, own: Lease | Lock, item: Any) -> bytes:
    """A writer puts what it has loaded whatever has become of its lock: it puts in place of *its own* locks only."""
    if isinstance(own, Lock) and item is not None:
        return bytes(item.command(tier._text(own.key)))
    return bytes(real(tier, connection, own, item))


@instead_of(MemcachedTier, "unlock", f"{_DYING},refused")
def unlock_without_comparing(real: Real, tier: Any, locks: Sequence[Lock]) -> None:
    """A rollback removes whatever stands under its keys: it removes its own locks, and no more."""
    commands = [b"md %b\r\n" % tier._text(lock.key) for lock in locks]
    tier.server.call("unlock", lambda connection: connection.meta(commands))


@instead_of(MemcachedTier, "lock", _DYING)
def remove_a_contended_lock(real: Real, tier: Any, keys: Sequence[Key], *args: Any, **kw: Any) -> list[Lock]:
    """A writer forgets that its lock has replaced another's, and removes it: on joined rows it is left to run out."""
    return [replace(lock, contended=False) for lock in real(tier, keys, *args, **kw)]


def _in_any_case(real: Real, server: Any, commands: Any, which: Callable[..., bool]) -> list[Any]:
    done: list[Any] = real(server, [(_ANYWAY, *each[1:]) if which(*each) else each for each in commands])
    return done


@instead_of(
    RedisServer, "run", f"{_REDIS} --rows 16 --hesitate 0.7 --pause 0.1 --at none/before-fill --steps update_base"
)
def redis_fills_without_a_lease(real: Real, server: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """What is "if unchanged" a reader's on Redis is done in any case."""
    ask: list[Any] = real(
        server, [(_ANYWAY if each[0] is SWAP and each[2][:1] == LEASE else each[0], *each[1:]) for each in commands]
    )
    return ask


@instead_of(RedisServer, "run", f"{_REDIS} {_LATE}")
def redis_publishes_without_comparing(real: Real, server: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """What is "if unchanged" a writer's on Redis is done in any case."""
    ask: list[Any] = real(
        server, [(_ANYWAY if each[0] is PUBLISH and each[3] else each[0], *each[1:]) for each in commands]
    )
    return ask


@instead_of(RedisServer, "_arrives", f"{_REDIS} --rows 16 --faults restart-cache --rate 200 --steps update_a")
def redis_believes_what_was_saved(real: Real, server: Any, connection: Any) -> None:
    """What a Redis has kept over a restart is believed: it may be older than what was there."""
    connection.on_connect()


# a writer's steps


@instead_of(Writer, "lock", _LATE)
def put_after_commit(real: Real, writer: Any, *args: Any, **kw: Any) -> None:
    """Nothing is locked, and what is loaded after the commit is simply put: a lock comes before the commit."""
    writer._locks = [(layer, [Lock(key) for key in writer._keys_for(layer).values()]) for layer in writer._layers]

    def put(layer: Any, locks: list[Lock], records: Any, bounded: Any) -> None:
        values, _ = writer._values_for(layer, {lock.key.ident: lock for lock in locks}, records, bounded)
        layer.tier._replace({lock.key: values.get(id(lock)) for lock in locks if not lock.key.is_epoch})

    writer._publish = put
    writer.unlock = writer.leave = lambda: None


@instead_of(
    Writer, "leave", "--workers 4 --rows 24 --hesitate 0 --faults cut-commit --rate 270 --steps update_a,update_b"
)
def unlock_on_an_unknown_outcome(real: Real, writer: Any) -> None:
    """A commit without an answer is taken for a rollback: it may have happened, so the locks stay."""
    writer.unlock()


@instead_of(
    WrittenObjects,
    "_add",
    "--workers 6 --rows 6 --hesitate 0.8 --at after-lock/between-tiers --steps update_base,update_sub",
)
def publish_rows_of_two_tables(real: Real, written: Any, kind: str, target: Any) -> list[str]:
    """A joined object is published by whoever has written one of its rows: no single row's lock covers it."""
    tables: list[str] = real(written, kind, target)
    if kind != "delete" and len(tables) > 1 and written._frames[-1].changes:
        written._frames[-1].changes[-1].unprotected = ()
    return tables


class _Loaded:
    """In place of a source: what was loaded from it too early."""

    def __init__(self, records: Iterable[Record]) -> None:
        found = [(record.key(record.spec.identity), record) for record in records if not record.is_absent]
        self._records = {key.ident: record for key, record in found if key is not None}

    def load(self, klass: type, keys: Sequence[Key]) -> list[Record]:
        """Return it."""
        return [self._records.get(key.ident) or Record(key.spec, ABSENT, fillable=False) for key in keys]


def _identities(work: Work) -> dict[type, list[Key]]:
    found: dict[type, list[Key]] = {}
    for change in work.writer._changes:
        found.setdefault(change.spec.klass, []).extend((*change.before[:1], *change.after[:1]))
    return found


@instead_of(FollowedConnection, "_works_for_written", "")
def load_before_the_lock(real: Real, followed: Any, **kw: Any) -> list[Work]:
    """What a writer publishes it has loaded before it locked and committed: it loads again after the commit."""
    works: list[Work] = real(followed, **kw)
    for work in works:
        early = [work.source.load(klass, keys) for klass, keys in _identities(work).items()]
        work.source = _Loaded(record for records in early for record in records)  # type: ignore[assignment]
    return works


@instead_of(FollowedConnection, "_works_for_written", "--steps half,update_a")
def publish_what_the_transaction_read(real: Real, followed: Any, **kw: Any) -> list[Work]:
    """What is published was read inside the transaction: nothing that was may be, a trigger may still change it."""
    works: list[Work] = real(followed, **kw)
    for work in works:
        source: Any = work.source
        early = [source._loader(each).load(followed.connection(), keys) for each, keys in _identities(work).items()]
        work.source = _Loaded(record for records in early for record in records.values())  # type: ignore[assignment]
    return works


@instead_of(FollowedConnection, "__init__", "--rows 8 --steps half,update_a,update_b")
def publish_the_sessions_state(real: Real, followed: Any, connection: Any) -> None:
    """What the session holds in memory is published: it never is, its other columns may be older than the row."""
    real(followed, connection)
    states: list[Record] = []
    end_flush = followed.statements.end_flush

    def ended(dirty: Iterable[Any] = ()) -> None:
        objs = [target for kind, target in followed.written._flushed if kind != "delete"]
        end_flush(dirty)
        specs = [(spec_of_mapped(type(obj)), obj) for obj in objs]
        states.extend(Record(spec, spec.dehydrate(obj)) for spec, obj in specs)

    def works_for_written(**kw: Any) -> list[Work]:
        works = FollowedConnection._works_for_written(followed, **kw)
        return [replace(work, source=_Loaded(states)) for work in works]

    followed.statements.end_flush = ended
    followed._works_for_written = works_for_written


@instead_of(StockpyleSessionExtension, "_after_commit", "")
def publish_on_savepoint_release(real: Real, extension: Any, session: Any) -> None:
    """The release of a savepoint is taken for the commit: a writer locks right before the database commits."""
    real(extension, session)
    if session.in_nested_transaction():
        for followed in extension._followed.get(session, ()):
            followed.lock()
            followed.settle(Outcome.COMMITTED, load=True)


@instead_of(
    WrittenObjects,
    "roll_back_to",
    "--workers 8 --rows 8 --hesitate 0.8 --at after-lock/after-step,between-tiers --steps update_a,undone",
)
def keep_pending_work_over_a_rollback(real: Real, written: Any, name: str) -> None:
    """What a rolled-back savepoint has written is published all the same: none of its rows is locked any more."""


# a reader's steps


@instead_of(
    reader._Fetch,
    "_learn_identities",
    "--workers 6 --rows 48 --hesitate 0.7 --pause 0.2 --at none/after-load --steps update_base",
)
def fill_the_first_load(real: Real, fetch: Any, loaded: Any, asked: Any, answers: Any, source: Any) -> None:
    """What an alternate key has led to is filled as it is: a record is filled from a load under its own lease."""
    return real(fetch, loaded, asked, answers, _Loaded(loaded.values()))


@instead_of(
    ChainedStore, "_one_into", "--database sqlite --rows 8 --hesitate 0.5 --at in-session --steps insert,delete"
)
def fill_from_the_users_connection(real: Real, chain: Any, session: Any, klass: type, key: Any) -> Any:
    """What a session asks for is loaded, and filled, in its own transaction, whose snapshot may be old."""
    connections = chain.route(klass).source._connections
    connections.reading = lambda: nullcontext((session.connection(), lambda: True))
    try:
        return real(chain, session, klass, key)
    finally:
        del connections.reading


@instead_of(
    reader, "_is_hit", "--workers 6 --rows 6 --hesitate 0.5 --at none/before-read --steps move_email,move_login"
)
def believe_an_alias(real: Real, record: Record, key: Key, *, by_alias: bool) -> bool:
    """What an alias leads to is handed out unseen: the record must have the asked-for values itself."""
    return bool(real(record, key, by_alias=False))


@instead_of(Collations, "absence_is_certain", "--database sqlite --steps insert,delete,move_nick")
def keep_absent_on_any_column(real: Real, collations: Any, connection: Any, spec: Any, key: Key) -> bool:
    """That there is nothing is kept for a case-insensitive column: the row may be found under another spelling."""
    return True
