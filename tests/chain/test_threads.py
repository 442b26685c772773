"""Readers and writers of one chain at the same time."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

import cachetools
import pytest

from stockpyle.coherence import reader as reader_module
from stockpyle.exceptions import (
    ImproperlyConfigured,
)
from stockpyle.protocols import Pending
from stockpyle.records import Busy, Lease, Record
from stockpyle.stores import (
    ChainedStore,
    ProcessMemoryStore,
    ThreadLocalStore,
)
from stockpyle.testing import Person
from tests.chain.parts import Source, build, key


class Together:
    """Two threads that are stopped and let go at named points."""

    def __init__(self) -> None:
        self.reached: dict[str, threading.Event] = {}
        self.go: dict[str, threading.Event] = {}

    def stop(self, point: str) -> Callable[[], None]:
        """Return what waits at a point until it is let go."""
        reached, go = self.reached.setdefault(point, threading.Event()), self.go.setdefault(point, threading.Event())

        def wait() -> None:
            reached.set()
            assert go.wait(10), point

        return wait

    def until(self, point: str) -> None:
        assert self.reached[point].wait(10), point

    def let(self, point: str) -> None:
        self.go[point].set()


def start(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run `work` in a thread, and return that and the list that gets its result."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    return thread, results


def waiting_readers(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Return a semaphore that is released whenever a reader begins to wait for another's load."""
    waits = threading.Semaphore(0)
    wait = Busy.wait

    def counted(busy: Busy, seconds: float) -> None:
        waits.release()
        wait(busy, 10 if seconds > 0.1 else seconds)

    monkeypatch.setattr(Busy, "wait", counted)
    return waits


@pytest.mark.parametrize("asked", [{"id": 1}, {"email": "ann@x"}])
def test_stampede_is_one_load(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that miss the same key wait for the first one's load, and do not load themselves."""
    waits, together = waiting_readers(monkeypatch), Together()
    chain, _, source, _ = build(Person(1, "ann@x"), tiers=1)
    source.on["load"] = together.stop("load")
    first, _ = start(lambda: chain.get(Person, asked).id)
    together.until("load")
    others = [start(lambda: chain.get(Person, asked).id) for _ in range(8)]
    for _ in others:
        assert waits.acquire(timeout=10)
    together.let("load")
    for thread, _ in others:
        thread.join(10)
    first.join(10)
    assert [results for _, results in others] == [[1]] * 8
    assert source.took() == (["load 1"] if "id" in asked else ["load 1", "load 1"])


def test_reader_that_waits_too_long_loads_without_filling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader whose predecessor does not finish loads for itself, and fills nothing."""
    monkeypatch.setattr(reader_module, "BUSY_SECONDS", 0.0)
    chain, (tier,), source, _ = build(Person(1), tiers=1)
    lease = tier._table.read([key(id=1)])[0]
    assert start(lambda: chain.get(Person, {"id": 1}).id)[0].join(10) is None
    assert source.took() == ["load 1"]
    assert len(tier) == 0
    assert isinstance(lease, Lease)
    assert tier._table.fill([(lease, None)]) == 0


def test_reader_waits_only_for_what_it_still_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cold read by alternate key whose identity another is loading has its answer, and does not wait."""
    waits = waiting_readers(monkeypatch)
    chain, (tier,), _, _ = build(Person(1, "ann@x"), tiers=1)
    tier._table.read([key(id=1)])
    thread, results = start(lambda: chain.get(Person, {"email": "ann@x"}).id)
    thread.join(10)
    assert results == [1]
    assert not waits.acquire(blocking=False)
    assert tier.stats.misses == 1


def test_reader_holds_no_lease_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch fills what it could load before it waits for others' keys, so that no two readers block each other."""
    waits, together = waiting_readers(monkeypatch), Together()
    chain, (tier,), source, _ = build(Person(1), Person(2), tiers=1)
    source.on["load"] = together.stop("load")
    first, one = start(lambda: [p.id for p in chain.batch_get(Person, [{"id": 1}])])
    together.until("load")
    second, two = start(lambda: [p.id for p in chain.batch_get(Person, [{"id": 2}, {"id": 1}])])
    assert waits.acquire(timeout=10)
    assert isinstance(tier.holds(key(id=2)), Record)
    together.let("load")
    first.join(10)
    second.join(10)
    assert (one, two) == ([[1]], [[2, 1]])
    assert source.took() == ["load 1", "load 1"]


@pytest.mark.parametrize("asked", [{"id": 1}, {"email": "ann@x"}])
@pytest.mark.parametrize("reader_at", ["load", "loaded"])
@pytest.mark.parametrize("writer_at", ["locked", "committed", "done"])
def test_reader_that_races_a_writer_leaves_nothing_old(asked: Any, reader_at: str, writer_at: str) -> None:
    """Wherever a reader stands when a writer passes, later readers get what was written."""
    together = Together()
    chain, (upper, lower), source, _ = build(Person(1, "ann@x", name="old"))
    source.on[reader_at] = together.stop("reader")
    reader, _ = start(lambda: chain.get(Person, asked))
    together.until("reader")
    if writer_at == "locked":
        source.on["commit"] = together.stop("writer")
    elif writer_at == "committed":
        lower.on["publish"] = together.stop("writer")
    writer, _ = start(lambda: chain.put(Person(1, "ann@x", name="new")))
    if writer_at == "done":
        writer.join(10)
    else:
        together.until("writer")
    together.let("reader")
    reader.join(10)
    if writer_at != "done":
        together.let("writer")
        writer.join(10)
    assert not reader.is_alive()
    assert not writer.is_alive()
    for name in ({"id": 1}, {"email": "ann@x"}):
        assert chain.get(Person, name).name == "new"
    for tier in (upper, lower):
        held = tier.holds(key(id=1))
        assert not isinstance(held, Record) or held.value.name == "new"


@pytest.mark.parametrize("asked", [{"id": 1}, {"email": "new@x"}])
def test_reader_in_the_middle_of_a_write(asked: Any) -> None:
    """Between lock and publish readers are answered by the source, with what is committed there."""
    seen: list[Any] = []
    chain, (upper, lower), source, _ = build(Person(1, "old@x", name="old"))
    chain.batch_get(Person, [{"id": 1}, asked])

    def look() -> None:
        thread, results = start(lambda: chain.get(Person, asked))
        thread.join(10)
        seen.append(results[0] and results[0].name)

    source.on["commit"] = look
    lower.on["publish"] = look
    upper.on["publish"] = look
    chain.put(Person(1, "new@x", name="new"))
    assert seen == ["old" if "id" in asked else None, "new", "new"]
    assert chain.get(Person, asked).name == "new"


def test_two_writers_of_one_object() -> None:
    """When two puts overlap, the tiers end with what the source has."""
    together = Together()
    chain, (upper, lower), _, _ = build(Person(1, name="old"))
    lower.on["publish"] = together.stop("first")
    first, _ = start(lambda: chain.put(Person(1, name="first")))
    together.until("first")
    chain.put(Person(1, name="second"))
    together.let("first")
    first.join(10)
    assert chain.get(Person, {"id": 1}).name == "second"
    assert [tier.holds(key(id=1)).value.name for tier in (upper, lower)] == ["second", "second"]


class RowLocking(Source):
    """A source whose writers hold their row from the first statement to the commit."""

    def __init__(self, *objs: Any) -> None:
        super().__init__(*objs)
        self.row = threading.Lock()

    @contextmanager
    def write(self, puts: Sequence[Any], deletes: Sequence[Any]) -> Iterator[Pending]:
        with self.row, super().write(puts, deletes) as pending:
            yield pending


@pytest.mark.parametrize(
    "tiers",
    [
        lambda: [ProcessMemoryStore(), ProcessMemoryStore()],
        lambda: [ProcessMemoryStore(maxsize=2), ProcessMemoryStore(maxsize=5)],
        lambda: [ThreadLocalStore(), ProcessMemoryStore(policy=cachetools.LRUCache(3))],
    ],
)
def test_no_reader_gets_less_than_was_committed(tiers: Callable[[], list[Any]]) -> None:
    """Under threads that write, read, delete and invalidate the same keys, nobody reads what a put had replaced."""
    people = range(4)
    chain = ChainedStore([*tiers(), RowLocking()])
    committed = dict.fromkeys(people, 0)
    versions = {i: iter(range(1, 10**9)) for i in people}
    writing = {i: threading.Lock() for i in people}
    errors: list[str] = []
    hits = 0
    until = monotonic() + 1.0

    def write(number: int) -> None:
        chance = random.Random(number)
        while monotonic() < until:
            i = chance.randrange(len(people))
            with writing[i]:
                version = next(versions[i])
                chain.put(Person(i, f"{i}@x", "v", version))
                committed[i] = version
            if chance.randrange(30) == 0:
                chain.invalidate(Person, chance.choice([None, {"id": i}, {"email": f"{i}@x"}]))

    def read(number: int) -> None:
        nonlocal hits
        chance = random.Random(number)
        while monotonic() < until:
            i = chance.randrange(len(people))
            floor = committed[i]
            found = chain.get(Person, chance.choice([{"id": i}, {"email": f"{i}@x"}]))
            hits += found is not None
            if (found.login if found else 0) < floor:
                errors.append(f"{i}: {found and found.login} after {floor}")

    threads = [threading.Thread(target=work, args=(n,)) for n, work in enumerate([write, read, write, read, read])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert hits > 100
    assert min(committed.values()) > 0


def test_nothing_of_a_quiet_chain_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Puts, gets and deletes that succeed log nothing."""
    with caplog.at_level(logging.DEBUG, logger="stockpyle"):
        chain, _, _, _ = build()
        chain.put(Person(1, "ann@x"))
        chain.get(Person, {"email": "ann@x"})
        chain.delete(Person(1, "ann@x"))
    assert caplog.records == []


def test_a_store_stands_in_a_chain_once() -> None:
    """Twice, even inside a chain that is part of it, would lock itself out and lose what is put."""
    memory = ProcessMemoryStore()
    for stores in ([memory, memory], [memory, ChainedStore([memory])]):
        with pytest.raises(ImproperlyConfigured, match=r"ProcessMemoryStore.* twice"):
            ChainedStore(stores)


@pytest.mark.parametrize("seconds", [0, -1, "30", None, True, float("nan")])
def test_locks_and_leases_last_some_seconds(seconds: Any) -> None:
    """Ones that last no time would protect nothing, silently."""
    with pytest.raises(ImproperlyConfigured, match=f"lock_seconds .* not {seconds!r}"):
        ChainedStore([ProcessMemoryStore()], lock_seconds=seconds)
    with pytest.raises(ImproperlyConfigured, match=f"lease_seconds .* not {seconds!r}"):
        ProcessMemoryStore(lease_seconds=seconds)
