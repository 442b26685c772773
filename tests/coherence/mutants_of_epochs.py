"""Wrong systems: whole classes, statements that no unit of work holds, and what is told from outside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from stockpyle.codecs import RecordCodec
from stockpyle.coherence.layers import Layer
from stockpyle.coherence.talks import Talk
from stockpyle.coherence.writer import Writer, drop
from stockpyle.keys import Key
from stockpyle.memcached import closing, epochs
from stockpyle.memcached.closing import is_closed
from stockpyle.memcached.tier import MemcachedTier
from stockpyle.orm.executions import Executions
from stockpyle.orm.rows import Rows
from stockpyle.orm.transactions import WrittenObjects, _Frame
from stockpyle.protocols import Change
from stockpyle.records import Alias, Lease, Lock, Record
from stockpyle.redis.tier import RedisTier
from stockpyle.remote.epochs import EPOCH_BYTES
from stockpyle.stores import chained
from tests.coherence.mutation import Real, instead_of

_EPOCHS = "--rows 16 --lock-seconds 2 --hesitate 0.5 --pause 0.1 --steps outside,update_a"
_FILLING = f"{_EPOCHS} --at none/before-fill"
_PUBLISHING = f"{_EPOCHS} --at none/between-tiers"


def _under_the_epoch_of_now(tier: Any, taken: Iterable[Lease | Lock]) -> None:
    keys = [each.key for each in taken if not each.key.is_epoch]
    if isinstance(tier, MemcachedTier):
        epochs: Any = tier.server.call("read", lambda connection: tier._ask_epochs(connection, keys))
    else:
        epochs = tier._ask_epochs(tier._spaces(keys))
    for each in taken:
        each.token.epoch = None if each.key.is_epoch else epochs.usable(each.key.spec.space)


@instead_of(MemcachedTier, "fill", _FILLING)
def fill_under_the_epoch_of_now(real: Real, tier: Any, leased: Sequence[tuple[Lease, Any]]) -> int:
    """A reader looks for the epoch when it fills: a record carries the epoch as it was before its lease."""
    _under_the_epoch_of_now(tier, [lease for lease, _ in leased])
    return int(real(tier, leased))


@instead_of(RedisTier, "fill", f"--system stockpyle-redis {_FILLING}")
def redis_fills_under_the_epoch_of_now(real: Real, tier: Any, leased: Sequence[tuple[Lease, Any]]) -> int:
    """The same on Redis."""
    _under_the_epoch_of_now(tier, [lease for lease, _ in leased])
    return int(real(tier, leased))


@instead_of(MemcachedTier, "publish", _PUBLISHING)
def publish_under_the_epoch_of_now(real: Real, tier: Any, locked: Sequence[tuple[Lock, Any]]) -> None:
    """A writer looks for the epoch when it publishes: a record carries the epoch as it was before its lock."""
    _under_the_epoch_of_now(tier, [lock for lock, _ in locked])
    real(tier, locked)


@instead_of(RecordCodec, "decode", _EPOCHS)
def believe_every_epoch(real: Real, codec: Any, key: Key, data: bytes, epoch: bytes) -> Record | Alias | None:
    """What is of another epoch is believed: it is a miss."""
    found: Record | Alias | None = real(codec, key, data, data[9:25])
    return found


@instead_of(Writer, "lock", "--rows 16 --lock-seconds 2 --hesitate 0.5 --at none/after-lock --steps bulk_text,update_a")
def change_the_epoch_before_the_commit(real: Real, writer: Any, **kw: Any) -> None:
    """A class is dropped before the commit and open again at once: its epoch stays locked until the commit is over."""
    for layer in writer._layers:
        drop(layer, writer._epochs.values())
    writer._epochs = {}
    real(writer, **kw)


_OVERLAPPING = "--rows 16 --hesitate 0.7 --pause 0.2 --at after-lock/before-fill --steps bulk_text,update_a"


@instead_of(epochs, "_epoch", _OVERLAPPING)
def serve_a_class_while_one_of_its_writers_is_left(real: Real, flags: int, data: bytes) -> Any:
    """Marks of a class's writers are taken for an epoch: as long as there is one nothing is read or filled."""
    return bytes(EPOCH_BYTES) if is_closed(flags, len(data)) else real(flags, data)


@instead_of(closing, "take_out", _OVERLAPPING)
def end_for_the_other_writers_of_a_class(
    real: Real, connection: Any, own: Any, *, committed: bool
) -> Talk[list[bytes]]:
    """A writer of a class that ends takes all marks away, and does not mind if another has: it takes out its own."""
    replies = yield from connection.meta([closing.look(text) for text in own])
    found = [text for text, reply in zip(own, replies, strict=True) if (there := closing.seen(reply)) and there.marks]
    yield from connection.meta([b"md %b\r\n" % text for text in found])
    return []


@instead_of(Executions, "about_to_execute", "--rows 16 --steps bulk_text,bulk_core")
def do_not_see_statements(real: Real, followed: Any, context: Any, statement: str) -> str:
    """What no unit of work holds is not seen: its rows, or its class, are dropped."""
    return statement


@instead_of(Rows, "_changes_of", "--rows 16 --steps bulk_email,bulk_keys,bulk_insert,bulk_delete")
def drop_only_the_identities(real: Real, rows: Any, *args: Any, **kw: Any) -> list[Change] | None:
    """Of the rows that a statement has written only the primary keys are dropped: the new alternate keys are, too."""
    changes: list[Change] | None = real(rows, *args, **kw)
    return changes and [replace(each, before=each.before[:1], after=each.after[:1]) for each in changes]


@instead_of(
    Rows,
    "_found_all",
    "--workers 8 --rows 8 --hesitate 0.9 --pause 0.2 --at after-lock/between-tiers --steps bulk_by_key,insert,delete",
)
def publish_what_a_statement_did_not_find(real: Real, rows: Any, number: int) -> bool:
    """A statement that has found no row publishes that there is none: it holds no row's lock."""
    return True


@instead_of(chained, "drop", "--rows 16 --hesitate 0.7 --pause 0.1 --at none/before-fill --steps outside")
def invalidate_only_what_is_there(real: Real, layer: Layer, keys: Iterable[Key], *args: Any) -> None:
    """Where nothing is held nothing is invalidated: a reader's lease must go as well, its record is old."""
    real(layer, [key for key in keys if key.is_epoch or isinstance(layer.look(key), Record | Alias)], *args)


@instead_of(WrittenObjects, "release", "--rows 16 --steps update_a,update_b")
def forget_what_a_savepoint_has_written(real: Real, written: Any, name: str) -> None:
    """What was written since a savepoint is forgotten when that is released: it is the outer part's then."""
    written.roll_back_to(name)


@instead_of(WrittenObjects, "roll_back_to", "--rows 16 --steps undone,update_a")
def forget_what_was_before_a_savepoint(real: Real, written: Any, name: str) -> None:
    """When a savepoint is rolled back, all is forgotten: what was written before it stays."""
    written._frames = [_Frame()]
