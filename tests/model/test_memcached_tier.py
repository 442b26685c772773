"""The protocol on memcached, command by command, in every order there is; nobody is handed what was replaced before.

test_protocol.py takes each call of a tier for one step, which it is in process memory. On memcached a call is several
commands, and other clients are served between any two of them: here each command is a step.

Together the scenarios have two writers (`two_writers`), two readers (`two_readers`), two keys that name one object (all
of them: every writer locks both; `two_readers` asks by both, and one moves in `moved_key`), an object that is absent
(`insertion`, `deletion`), a rollback (`rollback`), and at every point of these a crash, an expiry and an eviction
(`two_writers`, `rollback`, `two_readers`, `insertion`). `all_of_it` has all of that at once.

Scenarios that are too large to be searched whole say `switches=SWITCHES`: of them those schedules are searched in which
an actor that could go on is interrupted at most so often; faults, and the beginnings of reads, are not counted.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from stockpyle.codecs import Kind
from stockpyle.coherence.layers import Layer
from stockpyle.coherence.talks import Talk
from stockpyle.coherence.validated import ValidatedLayer
from stockpyle.keys import Key
from stockpyle.memcached import closing, locking
from stockpyle.memcached import epochs as epochs_module
from stockpyle.memcached import reading as reading_module
from stockpyle.memcached import tier as tier_module
from stockpyle.memcached.epochs import Epochs
from stockpyle.memcached.locking import is_lock
from stockpyle.memcached.tier import MemcachedTier
from stockpyle.memcached.wire import Connection
from stockpyle.records import Lease, Lock
from stockpyle.remote.epochs import CLOSED, EPOCH_BYTES
from tests.model.histories import Explored, explore
from tests.model.processes import ALL, EPOCH, ID, SPEC, A, B, key_of, no_chance, text_of
from tests.model.world import World

__all__ = ["no_chance"]

SWITCHES = 2
MARK = 12
"""As many bytes are a mark on an epoch, with the time of its end."""
KEYS = [text_of(key_of(ID)), text_of(key_of(A))]
ANY_FAULT: Mapping[str, Any] = {"crashes": True, "expires": True, "evicts": KEYS}
SHARED: Mapping[str, Any] = {"row_locks": False, "publish": False}


def all_of_it() -> World:
    """Somebody inserts the row and commits, another rolls back, two read it by a key each; any one fault."""
    world = World(row=None, switches=SWITCHES, **ANY_FAULT)
    world.writes()
    world.writes(commits=False)
    world.reads(ID)
    world.reads(A)
    return world


def two_writers() -> World:
    """Two commits and a reader; any one fault."""
    world = World(**ANY_FAULT)
    world.writes()
    world.writes()
    world.reads(ID, ID)
    return world


def rollback() -> World:
    """A commit, a rollback and a reader; any one fault."""
    world = World(**ANY_FAULT)
    world.writes()
    world.writes(commits=False)
    world.reads(ID, ID)
    return world


def two_readers() -> World:
    """A commit, and two readers, by a key each; any one fault."""
    world = World(**ANY_FAULT)
    world.writes()
    world.reads(ID)
    world.reads(A)
    return world


def insertion() -> World:
    """The row is inserted while it is looked for by either key; any one fault."""
    world = World(row=None, **ANY_FAULT)
    world.writes()
    world.reads(ID)
    world.reads(A)
    return world


def deletion() -> World:
    """The row, which is cached, is deleted and inserted again; the writers may die."""
    world = World(warm=[A], crashes=True)
    world.writes(None)
    world.writes()
    world.reads(ID)
    return world


def moved_key() -> World:
    """The row's alternate key moves and moves back, while it is read by both."""
    world = World()
    world.writes("b")
    world.writes("a")
    world.reads(B, A)
    return world


def no_row_lock() -> World:
    """Two commits that exclude each other nowhere, and a reader; the writers may die."""
    world = World(crashes=True, switches=SWITCHES, **SHARED)
    world.writes()
    world.writes()
    world.reads(ID, ID)
    return world


def one_row_lock() -> World:
    """A commit whose keys no row lock protects, one whose keys are protected, and a reader; the writers may die."""
    world = World(crashes=True)
    world.writes(loose=True)
    world.writes()
    world.reads(ID, ID)
    return world


def whole_class() -> World:
    """A commit of which only the class is known, one of the row, and a reader; the writers may die."""
    world = World(crashes=True)
    world.changes_class()
    world.writes()
    world.reads(ID, ID)
    return world


def two_whole_classes() -> World:
    """Two commits of which only the class is known, and a reader of the cached row; the writers may die."""
    world = World(crashes=True, warm=[ID], **SHARED)
    world.changes_class()
    world.changes_class()
    world.reads(ID, ID)
    return world


def three_whole_classes() -> World:
    """Three commits of which only the class is known, and a reader of the cached row; one of the writers may die."""
    world = World(crashes=True, dies=0, warm=[ID], switches=SWITCHES, **SHARED)
    for _ in range(3):
        world.changes_class()
    world.reads(ID, ID)
    return world


def whole_class_rolls_back() -> World:
    """A commit and a rollback of which only the class is known, a commit of the row, and a reader; writers may die."""
    world = World(crashes=True, warm=[ID], switches=SWITCHES)
    world.changes_class()
    world.changes_class(commits=False)
    world.writes()
    world.reads(ID, ID)
    return world


def slow_whole_classes() -> World:
    """Two commits of which only the class is known, and a reader; the writers may die, and time may pass."""
    world = World(crashes=True, warm=[ID], waits=True, switches=SWITCHES, **SHARED)
    world.changes_class()
    world.changes_class()
    world.reads(ID, ID)
    return world


def lost_lock_of_a_class() -> World:
    """Two commits of which only the class is known, and a reader of the cached row; their lock is lost, or runs out."""
    world = World(warm=[ID], evicts=[EPOCH], expires=True, switches=SWITCHES, **SHARED)
    world.changes_class()
    world.changes_class()
    world.reads(ID, ID)
    return world


def restart_under_whole_classes() -> World:
    """Two commits of which only the class is known, and a reader; the server begins anew once."""
    world = World(warm=[ID], restarts=True, glued=[ALL], switches=SWITCHES, **SHARED)
    world.changes_class()
    world.changes_class()
    world.reads(ID, ID)
    return world


def dead_writer_of_a_class() -> World:
    """A writer of a class dies; others come and go until its lock must have run out, whatever they do."""
    world = World(crashes=True, warm=[ID], dies=0, outlives=True, switches=SWITCHES, **SHARED)
    world.changes_class()
    world.changes_class()
    world.changes_class(commits=False)
    world.reads(ID)
    return world


def clearings() -> World:
    """Everything is cleared, by two, while a commit is known by its class, and the cached row is read."""
    world = World(warm=[ID], crashes=True, switches=SWITCHES)
    world.clears()
    world.clears()
    world.changes_class()
    world.reads(ID, ID)
    return world


def by_hand() -> World:
    """The class is invalidated, while the row, which is cached, is written and read; the writers may die."""
    world = World(warm=[ID], crashes=True)
    world.invalidates(SPEC.epoch)
    world.writes()
    world.reads(ID, ID)
    return world


def everything_by_hand() -> World:
    """Everything is cleared, while the row, which is cached, is written and read; the writers may die."""
    world = World(warm=[ID], crashes=True)
    world.clears()
    world.writes()
    world.reads(ID, ID)
    return world


def lost_epochs() -> World:
    """Two commits and a reader of the cached row; one of the epochs is evicted."""
    world = World(warm=[ID], evicts=[EPOCH, ALL], switches=SWITCHES)
    world.writes()
    world.writes()
    world.reads(ID)
    return world


def lost_epoch_of_a_class() -> World:
    """A commit of which only the class is known, one of the row, and a reader; the class's epoch is evicted."""
    world = World(warm=[ID], evicts=[EPOCH])
    world.changes_class()
    world.writes()
    world.reads(ID)
    return world


def empty_server() -> World:
    """A commit and two readers; nobody has used the server before."""
    world = World(cold=True, switches=SWITCHES)
    world.writes()
    world.reads(ID, ID)
    world.reads(ID)
    return world


def restart() -> World:
    """A commit and a reader; the server begins anew once, and its CAS ids come again."""
    world = World(restarts=True)
    world.writes()
    world.reads(ID, ID)
    return world


def lost_lock() -> World:
    """One writer loses its lock, and the next, which has not begun by then, dies; a reader."""
    world = World(crashes=True, evicts=KEYS[:1], faults=2, dies=1)
    world.writes()
    world.writes()
    world.reads(ID, ID, ID)
    return world


def restart_under_rollback() -> World:
    """The server begins anew under a writer that rolls back, and the next, which has not begun by then, dies."""
    world = World(crashes=True, restarts=True, faults=2, dies=1, glued=[ALL, EPOCH], switches=SWITCHES)
    world.writes(commits=False)
    world.writes()
    world.reads(ID, ID)
    return world


def validated_copy() -> World:
    """A commit, and a process that keeps a validated copy of the row, which is cached; any one fault."""
    world = World(warm=[ID], **ANY_FAULT)
    world.writes()
    world.reads_validated(ID, ID, ID)
    return world


def validated_by_alias() -> World:
    """The row's alternate key moves and moves back, while a process reads by both, with validated copies."""
    world = World(warm=[A], switches=SWITCHES)
    world.writes("b")
    world.writes("a")
    world.reads_validated(A, B, A, ID)
    return world


def validated_absence() -> World:
    """The row is inserted while a process has copies of what is known: that there is none, by either key."""
    world = World(row=None, warm=[ID, A], **ANY_FAULT)
    world.writes()
    world.reads_validated(ID, A, A, ID)
    return world


def validated_deletion() -> World:
    """The row is deleted and inserted again, under a process with a copy that it has by an alias; writers may die."""
    world = World(warm=[A], crashes=True, switches=SWITCHES)
    world.writes(None)
    world.writes()
    world.reads_validated(A, A, A)
    return world


def validated_class() -> World:
    """A commit of which only the class is known, and one of the row, under a process with a copy; writers may die."""
    world = World(warm=[ID], crashes=True, **SHARED)
    world.changes_class()
    world.writes()
    world.reads_validated(ID, ID)
    return world


def validated_lost_epochs() -> World:
    """A commit of which only the class is known, under a process with a copy; one of the epochs is evicted."""
    world = World(warm=[ID], evicts=[EPOCH, ALL])
    world.changes_class()
    world.reads_validated(ID, ID, ID)
    return world


def validated_restart() -> World:
    """A commit, under a process with a copy; the server begins anew once, and the copy's CAS id may come again."""
    world = World(warm=[ID], restarts=True, glued=[ALL, EPOCH], switches=SWITCHES)
    world.writes()
    world.reads(ID)
    world.reads_validated(ID, ID)
    return world


SCENARIOS = [
    all_of_it,
    two_writers,
    rollback,
    two_readers,
    insertion,
    deletion,
    moved_key,
    no_row_lock,
    one_row_lock,
    whole_class,
    two_whole_classes,
    three_whole_classes,
    whole_class_rolls_back,
    slow_whole_classes,
    lost_lock_of_a_class,
    restart_under_whole_classes,
    dead_writer_of_a_class,
    clearings,
    by_hand,
    everything_by_hand,
    lost_epochs,
    lost_epoch_of_a_class,
    empty_server,
    restart,
    lost_lock,
    restart_under_rollback,
    validated_copy,
    validated_by_alias,
    validated_absence,
    validated_deletion,
    validated_class,
    validated_lost_epochs,
    validated_restart,
]

Scenario = Callable[[], World]


def search(scenario: Scenario) -> Explored:
    """Explore a scenario."""
    world = scenario()
    # a state has no cycles, and there are many
    gc.disable()
    try:
        return explore(world.start(), world.successors)
    finally:
        gc.enable()
        world.histories.close()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_no_schedule_hands_out_a_stale_value(scenario: Scenario) -> None:
    """In every order of memcached's commands, and with the scenario's one fault anywhere, nothing stale is read."""
    explored = search(scenario)
    assert not explored.wrong, explored
    assert explored.states > 500, "too few states to mean anything"


# the check can fail: each of these breaks one rule, and has to be found

real_lock, real_take, real_swap_for = MemcachedTier.lock, tier_module.take, MemcachedTier._swap_for
real_fill, real_publish = MemcachedTier.fill, MemcachedTier.publish
real_epoch, real_seen, real_take_out = epochs_module._epoch, closing.seen, closing.take_out
real_of, real_meta, real_name_run = Epochs.of, Connection.meta, Connection._name_run


def without_cas(command: bytes) -> bytes:
    """The command, whatever it is that stands under the key."""
    return re.sub(rb"\A(m[sd] [^\r]*) C\d+", rb"\1", command)


def fill_without_cas(self: Any, connection: Any, own: Lease | Lock, item: Any) -> bytes:
    """Fill whatever has happened to the lease."""
    command = real_swap_for(self, connection, own, item)
    return without_cas(command) if isinstance(own, Lease) else command


def publish_without_cas(self: Any, connection: Any, own: Lease | Lock, item: Any) -> bytes:
    """Publish whatever has happened to the lock."""
    command = real_swap_for(self, connection, own, item)
    return without_cas(command) if isinstance(own, Lock) else command


def remove_without_cas(self: Any, connection: Any, texts: Sequence[bytes]) -> Talk[None]:
    """Look, and remove whatever has come since."""
    looks = yield from connection.meta([b"mg %b f s c\r\n" % text for text in texts])
    there = [text for text, look in zip(texts, looks, strict=True) if look.done and not is_lock(look)]
    yield from connection.meta([b"md %b\r\n" % text for text in there])


def remove_without_looking(self: Any, connection: Any, texts: Sequence[bytes]) -> Talk[None]:
    """Remove what stands in the place of one's own lock, even if it is another's lock."""
    yield from connection.meta([b"md %b\r\n" % text for text in texts])


def remove_nothing(self: Any, connection: Any, texts: Sequence[bytes]) -> Talk[None]:
    """Leave what stands in the place of one's own lock, though it may have been loaded before the commit."""
    yield


def unlock_without_cas(self: Any, locks: Sequence[Lock]) -> None:
    """Remove whatever there is in the lock's place."""
    commands = [b"md %b\r\n" % self._text(lock.key) for lock in locks]
    self.server.call("unlock", lambda connection: connection.meta(commands))


def lock_nothing(self: Any, keys: Sequence[Key], seconds: float, **_: Any) -> list[Lock]:
    """Lock keys of which nobody has heard."""
    locks = real_lock(self, [Key(key.spec, key.definition, ("nobody's",)) for key in keys], seconds)
    return [replace(lock, key=key) for lock, key in zip(locks, keys, strict=True)]


def forget_contention(self: Any, keys: Sequence[Key], seconds: float, **loose: Any) -> list[Lock]:
    """Lock, and do not remember that another's lock was replaced."""
    return [replace(lock, contended=False) for lock in real_lock(self, keys, seconds, **loose)]


def look_before_replacing(
    connection: Any, where: str, epochs: Any, firm: Any, loose: Any, marks: Any, lasts: int
) -> Talk[Any]:
    """Look if there is another's lock, and replace whatever has come since."""
    looks = yield from connection.meta([b"mg %b f s c\r\n" % text for text in loose])
    over = {text: look.done and is_lock(look) for text, look in zip(loose, looks, strict=True)}
    held = yield from real_take(connection, where, epochs, [*firm, *loose], [], marks, lasts)
    return {text: (cas, over.get(text, False)) for text, (cas, _) in held.items()}


def in_the_latest_epoch(self: Any, held: Sequence[tuple[Any, Any]]) -> None:
    """Read the epochs when what was loaded is written, not before it is loaded."""
    for each, _ in held:
        epochs = self._epochs([each.key])
        commands = epochs.commands()
        epochs.learn_replies(self.server.call("epochs", partial(real_meta, commands=commands)))
        each.token.epoch = epoch if isinstance(epoch := epochs.of(each.key.spec.space), bytes) else None


def fill_in_the_latest_epoch(self: Any, leased: Sequence[tuple[Lease, Any]]) -> int:
    """Fill into the epoch of now what was loaded in another."""
    in_the_latest_epoch(self, leased)
    return real_fill(self, leased)


def publish_in_the_latest_epoch(self: Any, locked: Sequence[tuple[Lock, Any]]) -> None:
    """Publish into the epoch of now what was loaded in another."""
    in_the_latest_epoch(self, [each for each in locked if not each[0].key.is_epoch])
    real_publish(self, locked)


def one_epoch(self: Epochs, space: str) -> Any:
    """Compare nothing: all records have the same epoch, unless somebody is about to change it."""
    epoch = real_of(self, space)
    return epoch if epoch is CLOSED else bytes(2 * EPOCH_BYTES)


def one_run(self: Connection, name: str, key: bytes) -> bytes:
    """Compare no runs: the CAS ids of any are good."""
    real_name_run(self, name, key)
    return b"the only run"


def swap_lease_without_cas(self: Connection, commands: Sequence[bytes]) -> Any:
    """Take a lease in place of something useless, whatever it has become."""
    lease = re.compile(rb"ms \S+ 0 C\d+ F%d " % Kind.LEASE)
    return real_meta(self, [without_cas(each) if lease.match(each) else each for each in commands])


def take_out_all(connection: Connection, own: Mapping[bytes, bytes], *, committed: bool) -> Talk[list[bytes]]:
    """End for all who have locked a class."""
    yield from real_meta(connection, [b"md %b\r\n" % text for text in own])
    return []


def serve_while_others_write(flags: int, data: bytes) -> Any:
    """Take the marks of a class's writers for an epoch like any other, if there are several."""
    return b"%08d" % 0 if len(data) > MARK else real_epoch(flags, data)


def serve_while_one_is_left(flags: int, data: bytes) -> Any:
    """Take the last mark of a class's writers for an epoch like any other."""
    return b"%08d" % 0 if closing.is_closed(flags, len(data)) else real_epoch(flags, data)


def keep_the_old_epoch(self: Connection, commands: Sequence[bytes]) -> Any:
    """Leave the same epoch each time that a class is opened."""
    ends = re.compile(rb"md %b (C\d+)" % re.escape(EPOCH))
    swap = rb"ms %b 8 F5 T0 \1\r\nconstant" % EPOCH
    return real_meta(self, [ends.sub(swap, each) for each in commands])


def renew_all(reply: Any) -> Any:
    """Let the others' marks live anew whenever they are written down."""
    found = real_seen(reply)
    return found and replace(found, marks=found.marks and dict.fromkeys(found.marks, 31))


def drop_old_marks(reply: Any) -> Any:
    """Take out others' marks before they have run out."""
    found = real_seen(reply)
    return found and replace(found, marks=found.marks and {m: left for m, left in found.marks.items() if left > 15})


def swap_marks_without_cas(self: Connection, commands: Sequence[bytes]) -> Any:
    """Add one's mark to those that one has seen, whoever has come since."""
    put = re.compile(rb"ms %b " % re.escape(EPOCH))
    return real_meta(self, [without_cas(each) if put.match(each) else each for each in commands])


def leave_what_came(connection: Connection, own: Mapping[bytes, bytes], *, committed: bool) -> Talk[list[bytes]]:
    """Leave the epoch that has come in the place of a lost mark, though the class has changed since."""
    return real_take_out(connection, own, committed=False)


def serve_unvalidated(self: ValidatedLayer, keys: Sequence[Key], *, lease: bool) -> Any:
    """Hand out copies as they are."""
    return Layer.read(self, keys, lease=lease)


def revision_without_epoch(epoch: bytes | None, cas: int) -> bytes | None:
    """Tell copies by the CAS id alone."""
    return None if epoch is None else cas.to_bytes(8, "big")


def revision_without_cas(epoch: bytes | None, cas: int) -> bytes | None:
    """Tell copies by the epoch alone."""
    return epoch


@pytest.mark.parametrize(
    ("scenario", "where", "name", "mutant"),
    [
        (validated_copy, ValidatedLayer, "read", serve_unvalidated),
        (validated_by_alias, ValidatedLayer, "read", serve_unvalidated),
        (validated_absence, ValidatedLayer, "read", serve_unvalidated),
        (validated_copy, reading_module, "_revision", revision_without_cas),
        (validated_absence, reading_module, "_revision", revision_without_cas),
        (validated_class, reading_module, "_revision", revision_without_epoch),
        (validated_restart, reading_module, "_revision", revision_without_epoch),
        (two_writers, MemcachedTier, "_swap_for", fill_without_cas),
        (two_writers, MemcachedTier, "_swap_for", publish_without_cas),
        (lost_lock, MemcachedTier, "_remove_unless_locked", remove_without_cas),
        (two_writers, MemcachedTier, "_remove_unless_locked", remove_without_looking),
        (two_writers, MemcachedTier, "_remove_unless_locked", remove_nothing),
        (rollback, MemcachedTier, "unlock", unlock_without_cas),
        (two_writers, MemcachedTier, "lock", lock_nothing),
        (no_row_lock, MemcachedTier, "lock", forget_contention),
        (two_whole_classes, closing, "take_out", take_out_all),
        (whole_class, epochs_module, "_epoch", serve_while_one_is_left),
        (two_whole_classes, epochs_module, "_epoch", serve_while_others_write),
        (two_whole_classes, Connection, "meta", keep_the_old_epoch),
        (two_whole_classes, Connection, "meta", swap_marks_without_cas),
        (lost_lock_of_a_class, closing, "take_out", leave_what_came),
        (slow_whole_classes, closing, "seen", drop_old_marks),
        (no_row_lock, tier_module, "take", look_before_replacing),
        (whole_class, MemcachedTier, "fill", fill_in_the_latest_epoch),
        (whole_class, MemcachedTier, "publish", publish_in_the_latest_epoch),
        (whole_class, Epochs, "of", one_epoch),
        (restart_under_rollback, Connection, "_name_run", one_run),
        (by_hand, Connection, "meta", swap_lease_without_cas),
    ],
    ids=lambda what: getattr(what, "__name__", what),
)
def test_a_broken_rule_is_found(
    scenario: Scenario, where: Any, name: str, mutant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one rule of the tier broken, some schedule hands out a stale value, and the check shows it."""
    monkeypatch.setattr(where, name, mutant)
    explored = search(scenario)
    assert "STALE" in explored.wrong, explored
    assert explored.schedule


@pytest.mark.parametrize("scenario", [two_whole_classes, slow_whole_classes, whole_class_rolls_back])
def test_who_gives_up_at_once(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers of a class that give up as soon as somebody has come in between leave nothing stale either."""
    monkeypatch.setattr(locking, "ATTEMPTS", 1)
    monkeypatch.setattr(tier_module, "ATTEMPTS", 1)
    monkeypatch.setattr(closing, "ATTEMPTS", 1)
    explored = search(scenario)
    assert not explored.wrong, explored


def test_a_mark_that_never_runs_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead writer's mark that others keep alive by coming and going is seen."""
    monkeypatch.setattr(closing, "seen", renew_all)
    assert "KEPT ALIVE" in search(dead_writer_of_a_class).wrong


@pytest.mark.parametrize("name", ["read", "fill", "lock", "publish", "unlock"])
def test_a_failure_is_not_hidden(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tier that fails, and is bypassed from then on, does not count as one that hands out nothing stale."""

    def fail(*args: Any, **options: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(MemcachedTier, name, fail)
    with pytest.raises(AssertionError, match="errors=1"):
        search(rollback)


def test_the_documented_gap_is_found() -> None:
    """A lock that is lost together with its writer's life inside the commit is the gap there is, and is seen."""

    def scenario() -> World:
        world = World(crashes=True, expires=True, faults=2)
        world.writes()
        world.reads(ID, ID)
        return world

    explored = search(scenario)
    assert "STALE" in explored.wrong, explored
    assert "TIME PASSES" in explored.schedule
    assert any(step.endswith("CRASHES") for step in explored.schedule)
