"""Process memory above a shared tier, with a backplane, in every order of steps that there is.

The readers, the writers, both tiers and the backplanes run as they are; the channel between the backplanes is
simulated: a message arrives at any time, or never, if the connection is lost. No reader may be handed what the row was
before the last commit of which its process had heard when it began; and while a process hears nothing, before the last
commit that had returned.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import pytest

from stockpyle.coherence.backplane import Backplane
from stockpyle.coherence.layers import Layer
from stockpyle.coherence.publishing import publish_committed
from stockpyle.coherence.reader import fetch
from stockpyle.coherence.writer import Writer
from stockpyle.protocols import Change
from stockpyle.stores import ProcessMemoryStore
from stockpyle.stores._slots import LeaseSlot
from stockpyle.stores._table import MemoryTable
from tests.model.explorer import Wrong, explore
from tests.model.test_protocol import ID, SPEC, Row, Stepping, Table


class Line:
    """A process's pub/sub. What arrives waits until the world delivers it."""

    max_size = None

    def __init__(self, world: Wired, number: int) -> None:
        self.world, self.number = world, number
        self.connected = True
        self.waiting: list[tuple[bytes, int]] = []
        self.callback: Any = None
        self.notices: tuple[Any, Any] = (None, None)

    def watch(self, on_lost: Any = None, on_restored: Any = None) -> None:
        """See PubSub.watch."""
        self.notices = on_lost, on_restored

    def subscribe(self, channel: str, callback: Any, *, wait: bool = True) -> None:
        """See PubSub.subscribe."""
        self.callback = callback

    def unsubscribe(self, channel: str, callback: Any = None) -> None:
        """See PubSub.unsubscribe."""
        self.callback = None

    def publish(self, channel: str, data: bytes) -> None:
        """See PubSub.publish."""
        self.world.step("tells")
        version = self.world.committed[self.world.me.name]
        for line in self.world.lines:
            if line.connected and line is not self:
                line.waiting.append((data, version))

    def deliver(self) -> None:
        """Hand over what came first."""
        data, version = self.waiting.pop(0)
        self.callback("", data)
        self.world.heard[self.number] = max(self.world.heard[self.number], version)

    def lose(self) -> None:
        """Lose the connection, and what was on its way."""
        self.connected, self.waiting = False, []
        self.notices[0]()

    def restore(self) -> None:
        """Connect again."""
        self.connected = True
        self.notices[1]()
        self.world.heard[self.number] = max(self.world.heard[self.number], self.world.settled)


class Wired(Table):
    """So many processes, each with memory of its own above the one shared tier."""

    def __init__(self, processes: int = 2, *, publish: bool = True, shared: bool = True) -> None:
        super().__init__(tiers=1, publish=publish)
        shared_tiers = self.layers if shared else []
        self.lines = [Line(self, i) for i in range(processes)]
        memories = [ProcessMemoryStore(clock=self.clock) for _ in self.lines]
        self.stores = [*memories, *self.stores]
        tiers = [Stepping(self, store, f"memory {i}") for i, store in enumerate(memories)]
        self.backplanes = [
            Backplane(line, "", [memory], courier=None) for line, memory in zip(self.lines, memories, strict=True)
        ]
        self.chains = [[Layer(tier), *shared_tiers] for tier in tiers]
        self.heard = [0] * processes
        for backplane in self.backplanes:
            backplane.start()

    def fingerprint(self) -> Hashable:
        """See World.fingerprint."""
        lines = [(line.connected, *(version for _, version in line.waiting)) for line in self.lines]
        return super().fingerprint(), *lines, *self.heard

    def reads_in(self, process: int, times: int = 2) -> None:
        """Add a reader of a process."""

        def run() -> None:
            for turn in range(times):
                self.me.seen[:] = [turn]
                self.step("begins")
                self.joined = True
                key = SPEC.key(ID)
                assert key is not None
                line = self.lines[process]
                floor = self.note(self.heard[process] if line.connected else max(self.heard[process], self.settled))
                record = fetch(self.chains[process], self, [key])[key.ident]
                assert record is not None
                if record.value.version < floor:
                    raise Wrong(f"STALE: version {record.value.version} after version {floor} was heard of")

        self.add(f"r{len(self.actors)}", run)

    def writes_in(self, process: int, *, can_crash: bool = False) -> None:
        """Add a writer of a process; one a process."""
        name = f"w{len(self.actors)}"

        def run() -> None:
            self.step("changes the row", lambda: self.row_owner is None)
            self.joined = True
            self.row_owner = name
            keys = tuple(SPEC.keys_of(Row(0, "a")))
            changes = [Change(SPEC, keys, keys)]
            writer = Writer(self.chains[process], changes, backplane=self.backplanes[process])
            writer.lock()
            self.step("commits")
            self.history.append(Row(len(self.history), "a"))
            self.committed[name] = len(self.history) - 1
            self.row_owner = None
            publish_committed(writer, self, self.on_write)
            self.settled = max(self.settled, self.committed[name])
            # its own process has heard of it
            self.heard[process] = max(self.heard[process], self.committed[name])

        self.add(name, run, can_crash=can_crash)

    def delivers_to(self, process: int, times: int) -> None:
        """Add what delivers so many messages to a process."""
        line = self.lines[process]

        def run() -> None:
            for turn in range(times):
                self.me.seen[:] = [turn]
                self.step("delivers", lambda: bool(line.waiting))
                line.deliver()

        self.add(f"d{len(self.actors)}", run)

    def loses(self, process: int) -> None:
        """Add what loses the connection of a process once, and restores it."""

        def run() -> None:
            self.step("loses")
            self.lines[process].lose()
            self.step("restores")
            self.lines[process].restore()

        self.add(f"l{len(self.actors)}", run)


def other_process() -> Wired:
    """A commit in one process, a reader in another."""
    world = Wired()
    world.writes_in(0)
    world.reads_in(1, times=3)
    world.delivers_to(1, 1)
    return world


def other_process_dies() -> Wired:
    """The same, with a writer that may die anywhere, and another in a third process that does not."""
    world = Wired(3)
    world.writes_in(0, can_crash=True)
    world.writes_in(2)
    world.reads_in(1, times=1)
    world.delivers_to(1, 2)
    return world


def both_write() -> Wired:
    """Commits in both processes, and a reader in one of them."""
    world = Wired()
    world.writes_in(0)
    world.writes_in(1)
    world.reads_in(1, times=1)
    world.delivers_to(1, 1)
    return world


def both_write_no_shared_tier() -> Wired:
    """The same with memory only."""
    world = Wired(shared=False)
    world.writes_in(0)
    world.writes_in(1)
    world.reads_in(1)
    world.delivers_to(1, 1)
    return world


def both_invalidate() -> Wired:
    """Commits in both processes that only remove what was there."""
    world = Wired(publish=False)
    world.writes_in(0)
    world.writes_in(1)
    world.reads_in(1, times=1)
    world.delivers_to(1, 1)
    return world


def lost_line() -> Wired:
    """A commit in one process, a reader in another, whose connection is lost and restored at any time."""
    world = Wired()
    world.writes_in(0)
    world.reads_in(1)
    world.delivers_to(1, 1)
    world.loses(1)
    return world


def lost_line_of_a_writer() -> Wired:
    """Commits in both processes, with memory only; the connection of one is lost and restored at any time."""
    world = Wired(shared=False)
    world.writes_in(0)
    world.writes_in(1)
    world.reads_in(1, times=1)
    world.delivers_to(1, 1)
    world.loses(1)
    return world


SCENARIOS = [
    other_process,
    other_process_dies,
    both_write,
    both_write_no_shared_tier,
    both_invalidate,
    lost_line,
    lost_line_of_a_writer,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_nothing_older_than_what_was_heard(scenario: Callable[[], Wired]) -> None:
    """In every order of steps no reader is handed a version older than what its process has heard of."""
    explored = explore(scenario)
    assert not explored.wrong, explored
    assert explored.states > 200, "too few states to mean anything"


# the check can fail: each of these breaks one rule, and has to be found


def keeps_leases(self: MemoryTable, space: Any, ident: Any) -> None:
    """A message that leaves leases alone."""
    index = space.index(ident[1])
    if not isinstance(index.slots.get(index.at(ident[2])), LeaseSlot):
        self._held.remove(index, index.at(ident[2]))


def keeps_locks(self: MemoryTable, space: Any, ident: Any) -> None:
    """A message that lets a lock's owner publish what it has loaded before."""
    index = space.index(ident[1])
    self._held.remove(index, index.at(ident[2]))


def keeps_entries(self: MemoryTable, listener: object) -> None:
    """A lost connection that empties nothing."""
    self._deaf.add(listener)


def keeps_filling(self: MemoryTable, listener: object) -> None:
    """A lost connection after which memory is filled as ever."""
    self._drop_all()


def restores_only(self: MemoryTable, listener: object) -> None:
    """A restored connection that leaves locks from meanwhile as they are."""
    self._deaf.discard(listener)


MUTANTS: list[tuple[type, str, Callable[..., None], Callable[[], Wired]]] = [
    (MemoryTable, "_disown", keeps_leases, other_process),
    (MemoryTable, "_disown", keeps_locks, both_write_no_shared_tier),
    (MemoryTable, "deafen", keeps_entries, lost_line),
    (MemoryTable, "deafen", keeps_filling, lost_line),
    (MemoryTable, "hears", restores_only, lost_line_of_a_writer),
]


@pytest.mark.parametrize(
    ("owner", "method", "wrong", "scenario"), MUTANTS, ids=lambda each: getattr(each, "__name__", each)
)
def test_a_wrong_version_is_found(
    owner: type, method: str, wrong: Callable[..., None], scenario: Callable[[], Wired], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wrong version hands out a stale value in some order."""
    monkeypatch.setattr(owner, method, wrong)
    assert "STALE" in explore(scenario).wrong
