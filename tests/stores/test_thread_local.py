from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from stockpyle.classes import spec_of
from stockpyle.keys import Key
from stockpyle.records import LOCKED, Lease, Record
from stockpyle.stores import ChainedStore, ProcessMemoryStore, ThreadLocalStore
from stockpyle.testing import Clock, Person, StoreContract, TierContract


class TestContract(StoreContract):
    threads = False

    def make_store(self, **options: Any) -> ThreadLocalStore:
        return ThreadLocalStore(**options)


class TestTier(TierContract):
    def make_tier(self, clock: Clock) -> ThreadLocalStore:
        return ThreadLocalStore(clock=clock)


class Worker:
    """A thread that does what it is told, and then waits for more."""

    def __init__(self) -> None:
        self._work: Callable[[], Any] | None = None
        self._result: Any = None
        self._asked, self._answered = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            self._asked.acquire()
            if self._work is None:
                return
            self._result = self._work()
            self._answered.release()

    def do(self, work: Callable[[], Any]) -> Any:
        self._work = work
        self._asked.release()
        assert self._answered.acquire(timeout=10), "the thread hangs or has failed"
        return self._result

    def end(self) -> None:
        self._work = None
        self._asked.release()
        self._thread.join(10)


def one() -> Key:
    """Return the key of person 1."""
    found = spec_of(Person).key({"id": 1})
    assert found is not None
    return found


def test_threads_do_not_see_each_others_objects() -> None:
    """What one thread puts, replaces or deletes concerns no other thread."""
    store, other = ThreadLocalStore(), Worker()
    store.put(Person(1, name="mine"))
    assert other.do(lambda: store.get(Person, {"id": 1})) is None
    other.do(lambda: store.put(Person(1, name="theirs")))
    assert store.get(Person, {"id": 1}).name == "mine"
    other.do(lambda: store.delete(Person(1)))
    assert store.get(Person, {"id": 1}).name == "mine"
    other.end()


def test_released_thread_starts_anew() -> None:
    """release() forgets this thread's objects and no other's."""
    store, other = ThreadLocalStore(), Worker()
    store.put(Person(1))
    other.do(lambda: store.put(Person(1)))
    store.release()
    assert store.get(Person, {"id": 1}) is None
    assert len(store) == 0
    assert other.do(lambda: len(store)) == 1
    other.end()


def test_clear_forgets_what_all_threads_hold() -> None:
    """clear() empties the store for every thread."""
    store, other = ThreadLocalStore(), Worker()
    other.do(lambda: store.put(Person(1)))
    store.clear()
    assert other.do(lambda: store.get(Person, {"id": 1})) is None
    other.end()


def test_commit_in_one_thread_reaches_the_copies_of_all() -> None:
    """In a chain, what one thread has cached is not handed out after another thread's put."""
    source = ProcessMemoryStore()
    chain, other = ChainedStore([ThreadLocalStore(), source]), Worker()
    chain.put(Person(1, name="old"))
    assert other.do(lambda: chain.get(Person, {"id": 1}).name) == "old"
    chain.put(Person(1, name="new"))
    assert other.do(lambda: chain.get(Person, {"id": 1}).name) == "new"
    other.do(lambda: chain.delete(Person(1)))
    assert chain.get(Person, {"id": 1}) is None
    other.end()


def test_thread_that_comes_in_the_middle_of_a_commit_finds_its_keys_locked() -> None:
    """A thread whose first read falls between another's lock and publish may fill nothing."""
    store, other = ThreadLocalStore(), Worker()
    (lock,) = store.lock([one()], 30)
    assert other.do(lambda: store.read([one()])) == [LOCKED]
    store.publish([(lock, Record(spec_of(Person), Person(1)))])
    assert isinstance(other.do(lambda: store.read([one()]))[0], Lease)
    assert isinstance(store.read([one()])[0], Record)
    other.end()


def test_released_thread_finds_its_own_commit_locked() -> None:
    """release() between a lock and its publish does not lose the lock."""
    store = ThreadLocalStore()
    locks = store.lock([one()], 30)
    store.release()
    assert store.read([one()]) == [LOCKED]
    store.unlock(locks)
    assert isinstance(store.read([one()])[0], Lease)


def test_writer_that_comes_back_late_finds_threads_that_never_saw_its_lock() -> None:
    """A lock that ran out before a thread came is published as one that is gone."""
    clock = Clock()
    store, other = ThreadLocalStore(clock=clock), Worker()
    locks = store.lock([one()], 30)
    clock.advance(31)
    other.do(lambda: len(store))
    store.publish([(locks[0], None)])
    assert isinstance(other.do(lambda: store.read([one()]))[0], Lease)
    other.end()


def test_thread_that_ended_leaves_nothing() -> None:
    """The objects of a thread that has ended are let go."""
    store, other = ThreadLocalStore(), Worker()
    other.do(lambda: store.put(Person(1)))
    before = len(store._tables)
    other.end()
    assert len(store._tables) == before - 1
