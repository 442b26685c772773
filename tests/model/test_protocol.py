"""The protocol of readers and writers, run as it is in every order there is.

The readers are `fetch`, the writers `Writer` and `publish_committed`, the tier is a ProcessMemoryStore: production
code throughout. Only the database is simulated: one row with a history of versions, and its lock. No reader may be
handed what the row was before the last commit that had returned when it began.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from stockpyle.classes import spec_of
from stockpyle.coherence import reader as reader_module
from stockpyle.coherence.guards import Guards
from stockpyle.coherence.layers import Layer
from stockpyle.coherence.publishing import publish_committed
from stockpyle.coherence.reader import fetch
from stockpyle.coherence.writer import Writer
from stockpyle.keys import Key
from stockpyle.protocols import Change
from stockpyle.records import ABSENT, Alias, Busy, Lease, Lock, Record, Sentinel
from stockpyle.stores import ProcessMemoryStore
from stockpyle.stores._holding import Holding
from stockpyle.stores._slots import Entry, LeaseSlot, Space
from stockpyle.stores._table import MemoryTable
from tests.model.explorer import Actor, World, Wrong, always, explore

Locked = Sequence[tuple[Lock, Record | Alias | None]]
Scenario = Callable[[], "Table"]
Leased = Sequence[tuple[Lease, Record | Alias | None]]


class Row:
    """One version of the only row."""

    __stockpyle_keys__ = ("id", "email")

    def __init__(self, version: int, email: str) -> None:
        self.id = 1
        self.version = version
        self.email = email


SPEC = spec_of(Row)
EMAIL = SPEC.definitions[1]
LATEST = 1040.0
"""When all leases and locks of the beginning have run out."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Table(World):
    """The row in its database, a tier, and the actors' steps between them."""

    def __init__(self, *, tiers: int = 1, row_locks: bool = True, publish: bool = True) -> None:
        super().__init__()
        self.clock = Clock()
        self.stores = [ProcessMemoryStore(clock=self.clock) for _ in range(tiers)]
        self.tiers = [Stepping(self, store, f"tier {i}") for i, store in enumerate(self.stores)]
        self.layers = [Layer(tier) for tier in self.tiers]
        self.row_locks = row_locks
        self.on_write = "publish" if publish else "invalidate"
        self.history = [Row(0, "a")]
        self.row_owner: str | None = None
        self.joined = False
        """True if the next step of who is running belongs to the last one."""
        self.settled = 0
        self.committed: dict[str, int] = {}

    def fingerprint(self) -> Hashable:
        """Return what the tiers hold, the row's versions, its owner, what has settled, and what the actors know."""
        memory: list[Hashable] = []
        names: dict[int, Hashable] = {}
        for i, store in enumerate(self.stores):
            for space, held in sorted(store._table._spaces.items()):
                for ident, slot in [
                    *sorted(held.items()),
                    *sorted(held.locks.items()),
                    *enumerate(held.closed_by),
                ]:
                    is_alias = isinstance(slot, Entry) and slot.ident != ident
                    if not is_alias:
                        names[id(slot)] = i, space, ident
                    memory.append((i, space, ident, ("alias", slot.ident) if is_alias else plain_slot(slot)))
        unsettled = [each for each in self.committed.items() if each[1] > self.settled]
        emails = [row.email for row in self.history]
        rest = self.clock.now, self.row_owner, self.settled, self.faults_left, *emails, *unsettled
        actors = [(actor.next, actor.state, plain(actor.seen, names)) for actor in self.actors]
        return *memory, *rest, *actors

    def crashed(self, actor: Actor) -> None:
        """A dead process's database connection breaks: its row lock goes; what it had committed stays."""
        if self.row_owner == actor.name:
            self.row_owner = None
        self.settled = max(self.settled, self.committed.get(actor.name, 0))

    def note(self, answer: Any) -> Any:
        """Let the running actor have seen this."""
        self.me.seen.append(answer)
        return answer

    def check(self) -> None:
        """Fail if a guard has kept the failure of its tier from whoever has used it."""
        for layer, tier in zip(self.layers, self.tiers, strict=True):
            assert (layer.stats.errors, layer.stats.owed) == (0, 0), layer.stats
            assert all(guard.trusted for guard in tier.guards.parts)

    def step(self, what: str, ready: Callable[[], bool] = always) -> None:
        """See World.step. What has just begun, and nobody could see yet, goes on at once."""
        if self.joined and not self.ended:
            self.joined = False
        else:
            super().step(what, ready)

    # the source

    def accepts(self, klass: type) -> bool:
        """See Source.accepts."""
        return klass is Row

    def load(self, klass: type, keys: Sequence[Key]) -> list[Record]:
        """See Source.load."""
        self.step("loads")
        row = self.history[-1]
        found = [Record(SPEC, row) for _ in keys]
        return self.note([r if r.answers(key) else Record(SPEC, ABSENT) for r, key in zip(found, keys, strict=True)])

    # the actors

    def reads(self, *keys: dict[str, Any], times: int = 2) -> None:
        """Add a reader of these keys."""
        name = f"r{len(self.actors)}"

        def run() -> None:
            for turn in range(times):
                for place, asked in enumerate(keys):
                    # what was read before decides about nothing any more, but how often does
                    self.me.seen[:] = [turn, place]
                    self.step("begins")
                    self.joined = True
                    key = SPEC.key(asked)
                    assert key is not None
                    floor = self.note(self.settled)
                    record = fetch(self.layers, self, [key])[key.ident]
                    self.check()
                    got = record.value.version if record is not None else None
                    if got not in {row.version if key in SPEC.keys_of(row) else None for row in self.history[floor:]}:
                        raise Wrong(f"STALE: {asked} gave version {got} after version {floor} had settled")

        self.add(name, run)

    def writes(
        self, email: str = "a", *, commits: bool = True, can_crash: bool = False, names_keys: bool = True
    ) -> None:
        """Add a writer that gives the row this e-mail address; all tiers may know of it is the class."""
        name = f"w{len(self.actors)}"

        def run() -> None:
            self.step("changes the row", lambda: self.row_owner is None)
            self.joined = True
            if self.row_locks:
                self.row_owner = name
            old = self.history[-1]
            self.note(old.email)
            before, after = tuple(SPEC.keys_of(old)), tuple(SPEC.keys_of(Row(0, email)))
            # a writer that holds no row lock and publishes all the same is what must be found out
            loose = () if self.row_locks or self.on_write == "publish" else (*before, *after)
            if names_keys:
                writer = Writer(self.layers, [Change(SPEC, before, after, loose)])
            else:
                writer = Writer(self.layers, [], [SPEC.epoch])
            writer.lock()
            self.step("commits" if commits else "rolls back")
            if commits:
                self.history.append(Row(len(self.history), email))
                self.committed[name] = len(self.history) - 1
            self.row_owner = None
            if commits:
                publish_committed(writer, self, self.on_write)
                self.settled = max(self.settled, self.committed[name])
            else:
                writer.unlock()
            self.check()

        self.add(name, run, can_crash=can_crash)

    def time_passes(self) -> None:
        """All leases and locks run out, before their owners have ended."""
        self.clock.now = LATEST

    def evict(self) -> None:
        """The tier forgets every record."""
        for store in self.stores:
            store.clear()


def plain_slot(slot: Any) -> Hashable:
    """Return what is held in a tier, but for whose it is: tokens are known by the place they are held in."""
    if isinstance(slot, Entry):
        return plain(slot.record, {})
    if isinstance(slot, LeaseSlot):
        return "lease", slot.expires
    return None if slot is None else ("lock", slot.expires, slot.number != slot.space.number)


def plain(seen: Any, names: Mapping[int, Hashable]) -> Hashable:
    """Return what an actor has seen; a lease or a lock that is held no more is as good as any other such."""
    if isinstance(seen, list):
        return tuple([plain(each, names) for each in seen])
    if isinstance(seen, Record | Alias):
        assert seen.deadline is None or seen.deadline > LATEST, "a deadline decides about nothing"
    if isinstance(seen, Record):
        return "record", None if seen.is_absent else (seen.value.version, seen.value.email)
    if isinstance(seen, Alias):
        return "alias", seen.identity.ident
    if isinstance(seen, Lease):
        return "lease", seen.key.ident, names.get(id(seen.token))
    if isinstance(seen, Lock):
        return "lock", seen.key.ident, seen.contended, names.get(id(seen.token))
    if isinstance(seen, Busy):
        return "busy"
    assert isinstance(seen, str | int | Sentinel), seen
    return seen


class Stepping:
    """A tier with a step before each call."""

    def __init__(self, world: Table, store: ProcessMemoryStore, name: str) -> None:
        self.world = world
        self.store = store
        self.name = name
        self.clock = world.clock
        self.guards = Guards(self, clock=self.clock, courier=None)

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> Any:
        """See Tier.read."""
        self.world.step(f"reads {self.name}")
        return self.world.note(self.store.read(keys, lease=lease))

    def fill(self, leased: Leased) -> int:
        """See Tier.fill."""
        self.world.step(f"fills {self.name}")
        return int(self.world.note(self.store.fill(leased)))

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> Any:
        """See Tier.lock."""
        self.world.step(f"locks {self.name}")
        return self.world.note(self.store.lock(keys, seconds, without_row_lock=without_row_lock))

    def publish(self, locked: Locked) -> None:
        """See Tier.publish."""
        self.world.step(f"publishes {self.name}")
        self.store.publish(locked)

    def unlock(self, locks: Sequence[Lock]) -> None:
        """See Tier.unlock."""
        self.world.step(f"unlocks {self.name}")
        self.store.unlock(locks)


ID, A, B = {"id": 1}, {"email": "a"}, {"email": "b"}


def two_writers() -> Table:
    """Two commits of one row and a reader."""
    world = Table()
    world.writes()
    world.writes()
    world.reads(ID)
    return world


def commit_and_rollback() -> Table:
    """A commit whose writer may die anywhere, a rollback and a reader."""
    world = Table()
    world.writes(can_crash=True)
    world.writes(commits=False)
    world.reads(ID)
    return world


def two_readers() -> Table:
    """A commit and two readers."""
    world = Table()
    world.writes()
    world.reads(ID)
    world.reads(ID)
    return world


def crash() -> Table:
    """Two commits, either of which may die anywhere, and a reader."""
    world = Table()
    world.writes(can_crash=True)
    world.writes(can_crash=True)
    world.reads(ID)
    return world


def eviction() -> Table:
    """Two commits, a reader, and a tier that forgets its records once."""
    world = two_writers()
    world.faults["EVICTION"] = world.evict
    return world


def slow_writers() -> Table:
    """Two commits and a reader, all leases and locks running out once at any time."""
    world = two_writers()
    world.faults["TIME PASSES"] = world.time_passes
    return world


def moved_key() -> Table:
    """The row's alternate key moves and moves back, while it is read by both."""
    world = Table()
    world.writes("b")
    world.writes("a")
    world.reads(B, A, B, times=1)
    return world


def cold_alternate_key() -> Table:
    """The row is written in place and only invalidated, while it is read by alternate and by identity."""
    world = Table(publish=False)
    world.writes()
    world.reads(A, ID, times=1)
    world.reads(A, times=1)
    return world


def no_row_lock() -> Table:
    """Two commits that exclude each other nowhere, and a reader."""
    world = Table(row_locks=False, publish=False)
    world.writes()
    world.writes()
    world.reads(ID)
    return world


def no_row_lock_crash() -> Table:
    """The same, one of the writers dying anywhere."""
    world = Table(row_locks=False, publish=False)
    world.writes(can_crash=True)
    world.writes(can_crash=True)
    world.reads(ID)
    return world


def whole_class() -> Table:
    """One commit of which only the class is known, one of the row, either dying anywhere, and a reader."""
    world = Table(row_locks=False, publish=False)
    world.writes(can_crash=True, names_keys=False)
    world.writes(can_crash=True)
    world.reads(ID)
    return world


def two_whole_classes() -> Table:
    """Two commits of which only the class is known, either dying anywhere, and a reader."""
    world = Table(row_locks=False, publish=False)
    world.writes(can_crash=True, names_keys=False)
    world.writes(can_crash=True, names_keys=False)
    world.reads(ID)
    return world


def three_whole_classes() -> Table:
    """Three commits of which only the class is known, any of which may die anywhere, and a reader."""
    world = Table(row_locks=False, publish=False)
    world.writes(can_crash=True, names_keys=False)
    world.writes(names_keys=False)
    world.writes(names_keys=False)
    world.reads(ID)
    return world


def whole_class_rolls_back() -> Table:
    """A commit and a rollback of which only the class is known, a commit of the row, and a reader."""
    world = Table(row_locks=False, publish=False)
    world.writes(can_crash=True, names_keys=False)
    world.writes(commits=False, names_keys=False)
    world.writes()
    world.reads(ID)
    return world


def slow_whole_classes() -> Table:
    """Two commits of which only the class is known, and a reader, all locks running out once at any time."""
    world = Table(row_locks=False, publish=False)
    world.writes(names_keys=False)
    world.writes(names_keys=False)
    world.reads(ID)
    world.faults["TIME PASSES"] = world.time_passes
    return world


def two_tiers() -> Table:
    """Two commits through two tiers and a reader."""
    world = Table(tiers=2)
    world.writes()
    world.writes(commits=False)
    world.reads(ID)
    return world


SCENARIOS = [
    two_writers,
    commit_and_rollback,
    two_readers,
    crash,
    eviction,
    slow_writers,
    moved_key,
    cold_alternate_key,
    no_row_lock,
    no_row_lock_crash,
    whole_class,
    two_whole_classes,
    three_whole_classes,
    whole_class_rolls_back,
    slow_whole_classes,
    two_tiers,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_no_schedule_hands_out_a_stale_value(scenario: Scenario) -> None:
    """In every order of steps, and with the scenario's one fault anywhere, no reader is handed an older version."""
    explored = explore(scenario)
    assert not explored.wrong, explored
    assert explored.states > 200, "too few states to mean anything"


# the check can fail: each of these breaks one rule, and has to be found


def fill_without_lease(self: MemoryTable, leased: Leased) -> int:
    """Fill whatever has happened to the lease."""
    for lease, value in leased:
        index, at = self._space(lease.key).place(lease.key)
        self._held.remove(index, at)
        if value is not None:
            self._set(index, at, value)
    return len(leased)


def publish_without_comparing(self: MemoryTable, locked: Locked) -> None:
    """Publish whatever has happened to the lock."""
    for lock, value in locked:
        space = self._space(lock.key)
        space.locks.pop(lock.key.ident, None)
        index, at = space.place(lock.key)
        self._held.remove(index, at)
        if value is not None:
            self._set(index, at, value)


def unlock_without_comparing(self: MemoryTable, locks: Sequence[Lock]) -> None:
    """Remove whatever there is in the lock's place."""
    for lock in locks:
        space = self._space(lock.key)
        space.locks.pop(lock.key.ident, None)
        self._held.remove(*space.place(lock.key))


def lock_nothing(self: MemoryTable, keys: Sequence[Key], seconds: float, **_: Any) -> list[Lock]:
    """Leave what is there, as a cache does that only puts after the commit."""
    return [Lock(key, object()) for key in keys]


def forget_contention(self: MemoryTable, keys: Sequence[Key], seconds: float, **loose: Any) -> list[Lock]:
    """Lock, and do not remember that another's lock was replaced."""
    return [replace(lock, contended=False) for lock in real_lock(self, keys, seconds, **loose)]


def open_for_all(self: Space, lock: object) -> None:
    """End for all who have locked a class."""
    self.closed_by = []


def closed_by_one_only(self: Space, now: float) -> bool:
    """Let readers in while several writers have locked a class."""
    return len(self.closed_by) == 1


def publish_only_what_is_locked(self: MemoryTable, locked: Locked) -> None:
    """Do not drop a class after a commit if the lock on it is gone."""
    real_publish(self, [each for each in locked if each[0].token in self._space(each[0].key).closed_by])


def keep_leases_of_the_class(self: Holding, space: Space) -> None:
    """Invalidate a class, and let those who are loading fill what they load."""
    leases = [slot for _, slot in space.items() if isinstance(slot, LeaseSlot)]
    real_drop(self, space)
    for lease in leases:
        lease.index.slots[lease.at] = lease


def fill_the_first_load(self: Any, loaded: Any, asked: Any, answers: Any, source: Any) -> None:
    """Fill under an identity what was loaded before the identity's lease was taken."""

    class First:
        def load(self, klass: type, keys: Sequence[Key]) -> list[Record]:
            return list(loaded.values())

    real_learn(self, loaded, asked, answers, First())


def no_strays(locks: Any, records: Any) -> list[Key]:
    """Do not look for keys of the committed rows that nobody has locked."""
    return []


def lock_identities_only(self: Writer, layer: Layer) -> dict[Any, Key]:
    """Leave alternate keys unlocked."""
    return {ident: key for ident, key in real_keys_for(self, layer).items() if key.is_identity}


PUT_AFTER_COMMIT = {"lock": lock_nothing, "publish": publish_without_comparing, "fill": fill_without_lease}
real_lock, real_drop, real_publish = MemoryTable.lock, Holding.drop, MemoryTable.publish
real_learn, real_keys_for = reader_module._Fetch._learn_identities, Writer._keys_for


@pytest.mark.parametrize(
    ("scenario", "where", "mutants"),
    [
        (two_writers, MemoryTable, {"fill": fill_without_lease}),
        (whole_class, MemoryTable, {"fill": fill_without_lease}),
        (two_writers, MemoryTable, {"publish": publish_without_comparing}),
        (commit_and_rollback, MemoryTable, {"unlock": unlock_without_comparing}),
        (crash, MemoryTable, {"lock": lock_nothing}),
        (two_readers, MemoryTable, PUT_AFTER_COMMIT),
        (no_row_lock_crash, MemoryTable, {"lock": forget_contention}),
        (two_whole_classes, Space, {"open": open_for_all}),
        (two_whole_classes, Space, {"is_closed": closed_by_one_only}),
        (slow_whole_classes, MemoryTable, {"publish": publish_only_what_is_locked}),
        (two_whole_classes, Holding, {"drop": keep_leases_of_the_class}),
        (cold_alternate_key, reader_module._Fetch, {"_learn_identities": fill_the_first_load}),
        (moved_key, Writer, {"_keys_for": lock_identities_only, "_strays": staticmethod(no_strays)}),
    ],
    ids=lambda what: getattr(what, "__name__", None) or "+".join(mutant.__name__ for mutant in what.values()),
)
def test_a_broken_rule_is_found(
    scenario: Scenario, where: type, mutants: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one rule of the protocol broken, some schedule hands out a stale value, and the check shows it."""
    for name, mutant in mutants.items():
        monkeypatch.setattr(where, name, mutant)
    explored = explore(scenario)
    assert "STALE" in explored.wrong, explored
    assert explored.schedule


def test_publishing_without_a_row_lock_is_found() -> None:
    """Writers that do not exclude each other in the database and publish all the same leave a stale value."""

    def scenario() -> Table:
        world = Table(row_locks=False)
        world.writes()
        world.writes()
        world.reads(ID)
        return world

    assert "STALE" in explore(scenario).wrong


def test_the_documented_gap_is_found() -> None:
    """A lock that is lost together with its writer's life inside the commit is the gap there is, and is seen."""

    def scenario() -> Table:
        world = crash()
        world.faults["TIME PASSES"] = world.time_passes
        world.faults_left = 2
        return world

    explored = explore(scenario)
    assert "STALE" in explored.wrong
    assert "TIME PASSES" in explored.schedule
    assert any(step.endswith("CRASHES") for step in explored.schedule)
