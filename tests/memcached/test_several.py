"""Several servers: all are sent their shares before the first answer is waited for, and each fails for itself."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest

from stockpyle.coherence.guards import Guards
from stockpyle.coherence.layers import Layer
from stockpyle.exceptions import StoreUnavailable
from stockpyle.keys import Key
from stockpyle.memcached.wire import Connection
from stockpyle.records import MISS, Lease, Lock, Record
from stockpyle.stores import MemcacheStore
from stockpyle.testing.samples import Person
from tests.memcached.parts import PERSON, Meddler, fill, key, meddler, new_prefix, record, store_on
from tests.remote.places import FAILURES
from tests.servers import Memcached


@pytest.fixture(scope="module")
def servers() -> Iterator[list[tuple[str, int]]]:
    """Three memcached servers."""
    with Memcached("-m", "256") as one, Memcached("-m", "256") as two, Memcached("-m", "256") as three:
        yield [one.address, two.address, three.address]
        for server in (one, two, three):
            server.stop("immediate")


@pytest.fixture
def between(servers: list[tuple[str, int]]) -> Iterator[list[Meddler]]:
    """Somebody in front of each."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(meddler(address)) for address in servers]


class Several:
    """A store on three servers through meddlers, another that reaches them directly, and keys for each server."""

    def __init__(self, between: Sequence[Meddler], servers: Sequence[tuple[str, int]], **options: Any) -> None:
        self.between = between
        self.store = store_on(*[each.address for each in between], timeout=options.pop("timeout", 5), **options)
        self.store.guards = Guards(self.store, courier=None)
        self.layer = Layer(self.store)
        self.keys = [key(id=i) for i in range(60)]
        assert {self.store.place(each) for each in self.keys} == {0, 1, 2}
        fill(self.store, *[record(i, name="old") for i in range(60)])
        self.absent = [key(id=i) for i in range(100, 160)]
        assert self.layer.read([key(id=1000 + i) for i in range(60)], lease=True)

    def of(self, part: int) -> list[Key]:
        """The keys that one server has."""
        return [each for each in self.keys if self.store.place(each) == part]


@pytest.fixture
def several(between: list[Meddler], servers: list[tuple[str, int]]) -> Several:
    """The store of three, with 60 records; all are connected."""
    return Several(between, servers)


def names(found: Iterable[Any]) -> list[Any]:
    """What the people are called; what is no record as it is."""
    return [each.value.name if isinstance(each, Record) else each for each in found]


@contextlib.contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many servers had been sent a round's question, whenever one's answer to that round was first waited for."""
    send, receive = Connection._send, Connection._receive
    rounds: Counter[Any] = Counter()
    waiting: set[Any] = set()
    asked: list[int] = []

    def sending(self: Connection, data: bytes) -> None:
        if self.client.server not in waiting:
            waiting.add(self.client.server)
            rounds[self.client.server] += 1
        send(self, data)

    def receiving(self: Connection) -> bytes:
        if self.client.server in waiting:
            waiting.remove(self.client.server)
            asked.append(sum(count >= rounds[self.client.server] for count in rounds.values()))
        return receive(self)

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "_send", sending)
        patched.setattr(Connection, "_receive", receiving)
        yield asked


def _all_leased(leases: Sequence[Any]) -> list[Lease]:
    assert all(isinstance(lease, Lease) for lease in leases)
    return list(leases)


WAYS: dict[str, Callable[[Several, Any], Any]] = {
    "read": lambda each, held: names(each.layer.read(each.keys, lease=True)),
    "read alone": lambda each, held: names(each.store.read(each.keys)),
    "read revised": lambda each, held: names(each.store.read_revised(each.keys)),
    "lease": lambda each, held: len(_all_leased(each.layer.read(each.absent, lease=True))),
    "fill": lambda each, held: each.layer.fill([(lease, record(lease.key.values[0])) for lease in held["leases"]]),
    "lock": lambda each, held: len(each.layer.lock(each.absent, 30)),
    "lock loosely": lambda each, held: len(each.layer.lock(each.keys, 30, without_row_lock=each.keys)),
    "lock the class": lambda each, held: each.layer.lock([PERSON.epoch], 30)[0].owed,
    "lock alone": lambda each, held: len(each.store.lock(each.keys, 30)),
    "publish": lambda each, held: each.layer.publish(
        [(lock, record(lock.key.values[0])) for lock in held["locks"]], 30
    ),
    "unlock": lambda each, held: each.layer.unlock(held["locks"]),
    "clear": lambda each, held: each.layer.clear(),
}
ANSWERS = {
    **dict.fromkeys(["read", "read alone", "read revised"], ["old"] * 60),
    **dict.fromkeys(["lease", "lock", "lock loosely", "lock alone"], 60),
    "lock the class": False,
}


TRIPS = {"lease": 2, "lock loosely": 2, "lock the class": 2, "clear": 4}


@pytest.mark.parametrize("way", WAYS)
def test_all_are_asked_before_one_is_waited_for(several: Several, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round trip goes to all servers at once: no answer is waited for before all have been asked."""
    new = [key(id=i) for i in range(200, 260)]
    held: dict[str, Any] = {}
    if way == "fill":
        held["leases"] = _all_leased(several.layer.read(new, lease=True))
    if way in ("publish", "unlock"):
        held["locks"] = several.layer.lock(new, 30)
    with watched(monkeypatch) as asked:
        assert WAYS[way](several, held) == ANSWERS.get(way)
    assert asked == [3, 3, 3] * TRIPS.get(way, 1)
    assert all(guard.trusted for guard in several.store.guards.parts)
    if way in ("fill", "publish"):
        assert all(isinstance(found, Record) for found in several.layer.read(new, lease=False))
    if way in ("unlock", "clear"):
        assert several.layer.read([*new, *several.keys][:: 60 if way == "unlock" else 1], lease=False)[0] is MISS


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("failure", FAILURES)
def test_one_that_fails_leaves_the_others_answers_right(
    between: list[Meddler], servers: list[tuple[str, int]], failure: str, part: int
) -> None:
    """A server that hangs, or breaks off, has nothing; what others answered meanwhile counts, however long it took."""
    several = Several(between, servers, timeout=1)
    between[part].meddle = FAILURES[failure](between[part])
    found = dict(zip([each.ident for each in several.keys], several.layer.read(several.keys, lease=True), strict=True))
    for each in several.keys:
        assert names([found[each.ident]]) == [MISS if several.store.place(each) == part else "old"]
    assert [guard.trusted for guard in several.store.guards.parts] == [i != part for i in range(3)]
    assert [len(tier.server._idle) for tier in several.store.parts] == [int(i != part) for i in range(3)]
    # and nobody is told what another has been told
    between[part].meddle = None
    assert names(several.store.read(several.keys)) == ["old"] * 60


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("failure", FAILURES)
def test_commit_that_one_cannot_be_told_of(
    between: list[Meddler], servers: list[tuple[str, int]], failure: str, part: int
) -> None:
    """The others are told, and what the failing one missed is owed to it, and it only."""
    several = Several(between, servers, timeout=1)
    locks = several.layer.lock(several.keys, 30)
    between[part].meddle = FAILURES[failure](between[part])
    several.layer.publish([(lock, record(lock.key.values[0], name="new")) for lock in locks], 30)
    assert [guard.owes for guard in several.store.guards.parts] == [i == part for i in range(3)]
    others = store_on(*servers, prefix=several.store.prefix)
    for own in (several.of(i) for i in range(3) if i != part):
        assert set(names(several.layer.read(own, lease=False))) == {"new"}
    assert set(names(several.layer.read(several.of(part), lease=False))) == {MISS}
    assert others.prefix == several.store.prefix
    between[part].meddle = None


@pytest.mark.parametrize("part", [0, 1, 2])
def test_lock_that_one_refuses_is_taken_back(between: list[Meddler], servers: list[tuple[str, int]], part: int) -> None:
    """With unreachable="refuse" nobody is left with a lock when one server cannot be reached."""
    several = Several(between, servers, timeout=1)
    between[part].meddle = FAILURES["closes in mid-reply"](between[part])
    with pytest.raises(StoreUnavailable):
        several.layer.lock(several.absent, 30, unreachable="refuse")
    own = [each for each in several.absent if several.store.place(each) != part]
    assert all(isinstance(found, Lease) for found in several.layer.read(own, lease=True))
    between[part].meddle = None


def test_used_alone_one_that_fails_is_named(between: list[Meddler], servers: list[tuple[str, int]]) -> None:
    """Without a chain its failure is the caller's, after the others have been read to the end."""
    several = Several(between, servers)
    between[1].meddle = FAILURES["closes in mid-reply"](between[1])
    with pytest.raises(StoreUnavailable, match=str(between[1].address[1])):
        several.store.batch_get(Person, [{"id": i} for i in range(60)])
    between[1].meddle = None
    assert [len(tier.server._idle) for tier in several.store.parts] == [1, 0, 1]
    assert [each.name for each in several.store.batch_get(Person, [{"id": i} for i in range(60)])] == ["old"] * 60


def test_interrupt_leaves_no_half_answer(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    """What all were asked when an interrupt came is nobody's answer later."""
    real = Connection._receive
    answers = iter([False, True])

    def interrupted(self: Connection) -> bytes:
        if next(answers):
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(Connection, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        several.layer.read(several.keys, lease=True)
    monkeypatch.undo()
    # the one that had answered by then
    assert sorted(len(tier.server._idle) for tier in several.store.parts) == [0, 0, 1]
    assert names(several.layer.read(several.keys, lease=True)) == ["old"] * 60


def test_interrupted_lock_is_taken_back(several: Several, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that had locked its share when an interrupt came is told to forget it."""
    real = Connection._meta_replies
    asked: list[Connection] = []

    def interrupted(self: Connection, count: int, replies: Any) -> None:
        asked.append(self)
        if len(asked) == 2:
            raise KeyboardInterrupt
        real(self, count, replies)

    monkeypatch.setattr(Connection, "_meta_replies", interrupted)
    with pytest.raises(KeyboardInterrupt):
        several.layer.lock(several.absent, 30)
    monkeypatch.undo()
    first = [each.address for each in several.between].index(asked[0].client.server)
    own = [each for each in several.absent if several.store.place(each) == first]
    assert own
    assert all(isinstance(found, Lease) for found in several.layer.read(own, lease=True))


def test_fifty_thousand_keys(servers: list[tuple[str, int]]) -> None:
    """50,000 keys are read, filled, locked and published on three servers in one call each."""
    store = MemcacheStore(servers=servers, prefix=new_prefix(), timeout=30, lease_seconds=120)
    layer = Layer(store)
    keys = [key(id=i) for i in range(50_000)]
    leases = _all_leased(layer.read(keys, lease=True))
    layer.fill([(lease, record(lease.key.values[0], name="old")) for lease in leases])
    assert layer.stats.fills == 50_000
    assert set(names(layer.read(keys, lease=True))) == {"old"}
    locks = layer.lock(keys, 30, without_row_lock=keys[::2])
    assert all(isinstance(lock, Lock) and not lock.contended and not lock.owed for lock in locks)
    layer.publish([(lock, record(lock.key.values[0], name="new")) for lock in locks], 30)
    found = layer.read(keys, lease=True)
    assert [each.value.id for each in found if isinstance(each, Record)] == list(range(50_000))
    assert set(names(found)) == {"new"}
