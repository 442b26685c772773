from __future__ import annotations

import functools
import gc
import random
import sys
import threading
import weakref
from collections.abc import Callable
from time import monotonic
from typing import Any

import cachetools
import pytest

from stockpyle.classes import spec_of
from stockpyle.exceptions import ImproperlyConfigured
from stockpyle.keys import Key
from stockpyle.records import ABSENT, LOCKED, Alias, Busy, Lease, Record
from stockpyle.stores import ProcessMemoryStore, ThreadLocalStore
from stockpyle.stores._holding import FREED_AT_ONCE
from stockpyle.stores._slots import Entry
from stockpyle.stores._table import MemoryTable
from stockpyle.testing import Clock, Person, Pet, StoreContract, TierContract
from tests import forks

POLICIES: list[Callable[[], Any]] = [
    lambda: cachetools.LRUCache(10),
    lambda: cachetools.LFUCache(10),
    lambda: cachetools.TTLCache(10, ttl=1000),
    lambda: cachetools.FIFOCache(10),
]


class TestContract(StoreContract):
    def make_store(self, **options: Any) -> ProcessMemoryStore:
        return ProcessMemoryStore(**options)


class TestBoundedContract(StoreContract):
    def make_store(self, **options: Any) -> ProcessMemoryStore:
        return ProcessMemoryStore(maxsize=50, **options)


class TestPolicyContract(StoreContract):
    def make_store(self, **options: Any) -> ProcessMemoryStore:
        return ProcessMemoryStore(policy=cachetools.LRUCache(50), **options)


class TestTier(TierContract):
    def make_tier(self, clock: Clock) -> ProcessMemoryStore:
        return ProcessMemoryStore(clock=clock)


class TestPolicyTier(TierContract):
    def make_tier(self, clock: Clock) -> ProcessMemoryStore:
        return ProcessMemoryStore(policy=cachetools.LRUCache(50), clock=clock)


def key(klass: type = Person, **names: Any) -> Key:
    """Return a key."""
    found = spec_of(klass).key(names)
    assert found is not None
    return found


def check(store: ProcessMemoryStore) -> None:
    """Assert what must always hold between the parts of a table."""
    table = store._table
    entries: set[int] = set()
    with table._mutex:
        for space in table._spaces.values():
            for index in space.indexes.values():
                assert index.space is space
                for at, slot in index.slots.items():
                    if not isinstance(slot, Entry):
                        assert slot.is_held
                    elif slot.index is not index:
                        assert slot.is_held
                        assert (index, at) in list(slot.places())
                    else:
                        assert slot.at == at
                        assert all(other.slots[name] is slot for other, name in slot.places())
                        entries.add(id(slot))
        assert table._held.count == len(entries)
        assert entries == {id(entry) for entry in table._held.ring if entry.is_held}
        assert len(table._held.ring) <= 2 * table._held.count + 16
        assert table._held.maxsize is None or table._held.count <= table._held.maxsize


def in_thread(work: Callable[[], Any]) -> Any:
    """Run `work` in another thread, which must end, and return what it returns."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(10)
    assert results, "the thread hangs or has failed"
    return results[0]


def slots_of(store: ProcessMemoryStore) -> int:
    """Return how much a store holds: records, aliases, leases and locks."""
    return sum(len(space.items()) + len(space.locks) for space in store._table._spaces.values())


# objects


def test_plain_objects_are_kept_as_they_are() -> None:
    """What comes out is the very object that was put, by each of its keys."""
    store = ProcessMemoryStore()
    ann = Person(1, "ann@x")
    store.put(ann)
    assert store.get(Person, {"id": 1}) is ann
    assert store.get({"email": "ann@x"}) is ann


def test_object_changed_in_place_is_not_found_by_a_key_it_no_longer_has() -> None:
    """An object that the caller changes without a put is found by neither its old identity nor alternate key."""
    store = ProcessMemoryStore()
    ann = Person(1, "ann@x")
    store.put(ann)
    ann.id, ann.email = 2, "other@x"
    assert store.get(Person, {"id": 1}) is None
    assert store.get(Person, {"email": "ann@x"}) is None


def test_forgotten_objects_are_freed() -> None:
    """A deleted, replaced, cleared or invalidated object is not held on to."""

    class Weak:
        __stockpyle_keys__ = ("id",)

        def __init__(self, id: int) -> None:
            self.id = id

    store = ProcessMemoryStore()
    alive: list[weakref.ref[Weak]] = []

    def put(number: int) -> Weak:
        obj = Weak(number)
        alive.append(weakref.ref(obj))
        store.put(obj)
        return obj

    store.delete(put(1))
    put(2)
    store.put(Weak(2))
    put(3)
    store.invalidate(Weak, {"id": 3})
    put(4)
    store.invalidate(Weak)
    put(5)
    store.clear()
    gc.collect()
    assert [ref() for ref in alive] == [None] * 5
    check(store)


def test_overwriting_put_is_one_step() -> None:
    """A reader never misses an object that is there before and after another thread's put of it."""
    store = ProcessMemoryStore()
    store.put(Person(1, "ann@x"))
    done = threading.Event()

    def put_again() -> None:
        for _ in range(2000):
            store.put(Person(1, "ann@x"))
        done.set()

    thread = threading.Thread(target=put_again)
    thread.start()
    missed = 0
    while not done.is_set():
        missed += store.get(Person, {"id": 1}) is None
    thread.join()
    assert missed == 0


# bounds


def test_maxsize_is_never_exceeded() -> None:
    """However objects come in, there are never more than maxsize, and no aliases of evicted ones."""
    store = ProcessMemoryStore(maxsize=7)
    chance = random.Random(1)
    for round in range(300):
        people = [Person(chance.randrange(50), f"{chance.randrange(50)}@x") for _ in range(chance.randrange(1, 20))]
        store.batch_put(people)
        assert len(store) <= 7
        assert slots_of(store) <= 14
        if round % 10 == 0:
            store.delete(people[0])
        check(store)


def test_what_was_just_put_stays() -> None:
    """A full store makes room for a new object, even if all the others are in use."""
    store = ProcessMemoryStore(maxsize=3)
    for i in range(3):
        store.put(Person(i))
    store.batch_get(Person, [{"id": i} for i in range(3)])
    store.put(Person(3))
    assert store.get(Person, {"id": 3}).id == 3
    assert len(store) == 3


def test_what_is_used_stays() -> None:
    """Objects that are read again and again outlive those that are not."""
    store = ProcessMemoryStore(maxsize=10)
    store.batch_put([Person(i) for i in range(5)])
    for i in range(100, 300):
        store.put(Person(i))
        assert all(store.batch_get(Person, [{"id": hot} for hot in range(5)])), i


def test_oldest_unused_goes_first() -> None:
    """Without any reads, objects leave in the order in which they came."""
    store = ProcessMemoryStore(maxsize=3)
    for i in range(6):
        store.put(Person(i))
    assert [person and person.id for person in store.batch_get(Person, [{"id": i} for i in range(6)])] == [
        None,
        None,
        None,
        3,
        4,
        5,
    ]


@pytest.mark.parametrize("maxsize", [0, -1, True, "10", 1.5])
def test_bad_maxsize(maxsize: Any) -> None:
    """A maxsize that is no number of objects is named in the error."""
    for store in (ProcessMemoryStore, ThreadLocalStore):
        with pytest.raises(ImproperlyConfigured, match=f"maxsize.*{maxsize}"):
            store(maxsize=maxsize).get(Person, {"id": 1})


def test_bad_policy() -> None:
    """A policy that is no cache, that is a class, or that comes with a maxsize is refused."""
    for policy in (object(), "lru", cachetools.LRUCache):
        with pytest.raises(ImproperlyConfigured, match="policy"):
            ProcessMemoryStore(policy=policy)  # type: ignore[arg-type]
    with pytest.raises(ImproperlyConfigured, match="maxsize"):
        ProcessMemoryStore(maxsize=5, policy=cachetools.LRUCache(5))


@pytest.mark.parametrize("make", POLICIES)
def test_policy_bounds_the_store(make: Callable[[], Any]) -> None:
    """With a cachetools policy the store holds what the policy does, and drops the rest with its aliases."""
    policy = make()
    store = ProcessMemoryStore(policy=policy)
    for i in range(0, 1000, 20):
        store.batch_put([Person(n, f"{n}@x") for n in range(i, i + 20)])
        assert len(store) == len(policy) == 10
        assert slots_of(store) <= 60
        check(store)
    held = [n for n in range(1000) if store.get(Person, {"id": n})]
    assert [n for n in range(1000) if store.get(Person, {"email": f"{n}@x"})] == held
    assert len(held) == 10
    store.clear()
    assert len(policy) == len(store) == 0


def test_lru_policy_decides_by_use() -> None:
    """Under LRU a hit by any key keeps an object, and an insertion refreshes nothing but itself."""
    store = ProcessMemoryStore(policy=cachetools.LRUCache(3))
    store.batch_put([Person(i, f"{i}@x") for i in range(3)])
    store.get(Person, {"email": "0@x"})
    store.put(Person(3))
    assert [bool(store.get(Person, {"id": i})) for i in (1, 0, 2, 3)] == [False, True, True, True]
    store.put(Person(4))
    assert [bool(store.get(Person, {"id": i})) for i in (0, 2, 3, 4)] == [False, True, True, True]


def test_lfu_policy_counts_a_hit_once() -> None:
    """Under LFU a hit by an alternate key counts like one by the identity, and sweeps count nothing."""
    policy: Any = cachetools.LFUCache(3)
    store = ProcessMemoryStore(policy=policy)
    store.batch_put([Person(i, f"{i}@x") for i in range(3)])
    store.batch_get(Person, [{"email": "0@x"}])
    store.get(Person, {"id": 0})
    for _ in range(3):
        store.get(Person, {"id": 1})
    store.put(Person(3))
    store.put(Person(4))
    assert [bool(store.get(Person, {"id": i})) for i in range(5)] == [True, True, False, False, True]


def test_ttl_policy_ends_objects_by_its_own_timer() -> None:
    """What a TTLCache has let expire is a miss, by alternate key too."""
    timer = Clock(0)
    store = ProcessMemoryStore(policy=cachetools.TTLCache(10, ttl=60, timer=timer))
    store.put(Person(1, "ann@x"))
    timer.advance(59)
    assert store.get(Person, {"email": "ann@x"}) is not None
    timer.advance(2)
    assert store.get(Person, {"email": "ann@x"}) is None
    assert store.get(Person, {"id": 1}) is None
    assert len(store) == 0


def test_object_larger_than_the_policy_is_not_kept() -> None:
    """A put that the policy refuses leaves nothing, and no alias, behind."""
    store = ProcessMemoryStore(policy=cachetools.LRUCache(5, getsizeof=lambda entry: entry.record.value.id))
    store.batch_put([Person(3, "a@x"), Person(9, "b@x")])
    assert store.get(Person, {"email": "a@x"}).id == 3
    assert store.get(Person, {"email": "b@x"}) is None
    assert slots_of(store) == 2


# what must not grow


def test_expired_objects_are_swept() -> None:
    """Objects that expire and are never asked for again make way for new ones."""
    clock = Clock()
    store = ProcessMemoryStore(lifetime=10, clock=clock)
    for i in range(2000):
        store.put(Person(i, f"{i}@x"))
        clock.advance(1)
        assert len(store) < 30
        assert slots_of(store) < 60
    check(store)


def test_sweeping_ends_with_the_last_entry() -> None:
    """A put that finds nothing but what has expired, all of it to be swept at once, puts."""
    clock = Clock()
    store = ProcessMemoryStore(lifetime_cb=lambda person: int(person.name), clock=clock)
    for number, life in ((0, 2), (1, 2), (3, 2), (5, 2), (2, 5), (5, 5), (3, 2)):
        store.put(Person(number, name=str(life)))
    store.delete(Person(1))
    clock.advance(6)
    assert store.get(Person, {"id": 2}) is None
    store.delete(Person(0))
    store.put(Person(5, name="2"))
    assert store.get(Person, {"id": 5}) is not None
    check(store)


def test_moved_keys_leave_no_aliases() -> None:
    """An object whose alternate keys keep moving takes no more room than one."""
    store = ProcessMemoryStore()
    for i in range(500):
        store.put(Person(1, f"{i}@x", i, "ann"))
    assert slots_of(store) == 3
    check(store)


def test_old_locks_are_forgotten() -> None:
    """Locks that were left to run out, and that nobody asks for, go with later ones."""
    clock = Clock()
    store = ProcessMemoryStore(clock=clock)
    for i in range(1000):
        store.lock([key(id=i)], 30)
        clock.advance(1)
    assert slots_of(store) <= 31
    assert len(store._table._locks) <= 31


# threads


def test_hit_takes_no_lock() -> None:
    """A hit is answered while another thread holds the table's mutex; with a policy it has to wait."""
    bounded, policy = ProcessMemoryStore(maxsize=5), ProcessMemoryStore(policy=cachetools.LRUCache(5))
    for store in (bounded, policy):
        store.put(Person(1, "ann@x"))
    with bounded._table._mutex:
        assert in_thread(lambda: bounded.get(Person, {"id": 1}).id) == 1
    started, answered = threading.Event(), threading.Event()

    def ask() -> None:
        started.set()
        policy.get(Person, {"id": 1})
        answered.set()

    thread = threading.Thread(target=ask)
    with policy._table._mutex:
        thread.start()
        assert started.wait(10)
        assert not answered.wait(0.05)
    thread.join(10)
    assert answered.is_set()


def hammer(store: Any, number: int, until: float) -> None:
    """Do everything that one can do with a tier, at random, for a while."""
    chance = random.Random(number)
    leases: list[Any] = []
    locks: list[Any] = []
    while monotonic() < until:
        one = chance.randrange(30)
        what = chance.randrange(12)
        if what < 3:
            store.put(Person(one, f"{chance.randrange(30)}@x"))
        elif what < 6:
            found = store.batch_get(Person, [{"id": one}, {"email": f"{one}@x"}])
            assert found[0] is None or found[0].id == one
            assert found[1] is None or found[1].email == f"{one}@x"
        elif what == 6:
            store.delete(Person(one, f"{one}@x"))
        elif what == 7:
            answers = store.read([key(id=one), key(email=f"{one}@x")])
            leases += [answer for answer in answers if isinstance(answer, Lease)]
        elif what == 8:
            for lease in leases:
                (name,) = lease.key.as_dict()
                alias = Alias(key(id=chance.randrange(30)))
                store.fill([(lease, Record(spec_of(Person), Person(*lease.key.values)) if name == "id" else alias)])
            leases.clear()
        elif what == 9:
            loose = [key(id=one)]
            locks += store.lock([*loose, key(email=f"{one}@x")], 30, without_row_lock=loose)
        elif what == 10:
            store.publish([(lock, None) for lock in locks[::2]])
            store.unlock(locks[1::2])
            locks.clear()
        elif chance.randrange(20) == 0:
            epoch = spec_of(Person).epoch
            store.publish([(lock, None) for lock in store.lock([epoch], 30, without_row_lock=[epoch])])


@pytest.mark.parametrize(
    "make",
    [
        ProcessMemoryStore,
        lambda: ProcessMemoryStore(maxsize=20),
        lambda: ProcessMemoryStore(policy=cachetools.LRUCache(20)),
        lambda: ThreadLocalStore(maxsize=20),
    ],
)
def test_many_threads(make: Callable[[], Any]) -> None:
    """Threads that put, get, delete, lease, lock and invalidate the same keys break nothing."""
    store = make()
    errors: list[BaseException] = []
    until = monotonic() + 0.7

    def work(number: int) -> None:
        try:
            hammer(store, number, until)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    check(store)


child_says = functools.partial(forks.child_says, within=10)
"""A lease lasts as long: a child that waits for one says nothing."""


@pytest.mark.parametrize("make", [ProcessMemoryStore, ThreadLocalStore])
def test_child_process_does_not_inherit_a_held_mutex(make: Callable[[], Any]) -> None:
    """A store that another thread is in the middle of changing is usable, and whole, in a forked child."""
    store = make()
    store.put(Person(1))
    held, finish = threading.Event(), threading.Event()

    def hold() -> None:
        with store._table._mutex, getattr(store, "_mutex", store._table._mutex):
            held.set()
            finish.wait(10)

    def use() -> bool:
        store.put(Person(2))
        store.lock([key(id=3)], 30)
        return store.get(Person, {"id": 2}).id == 2 and store.get(Person, {"id": 3}) is None

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    assert child_says(use)
    finish.set()
    thread.join(10)
    assert store.get(Person, {"id": 1}).id == 1


def test_child_process_inherits_the_objects() -> None:
    """A store that nobody is changing keeps its objects over a fork."""
    store = ProcessMemoryStore()
    store.put(Person(1))
    assert child_says(lambda: store.get(Person, {"id": 1}).id == 1)


def test_child_process_does_not_wait_for_other_threads_of_its_parent() -> None:
    """What another thread of the parent was loading at the fork, the child loads at once; in the parent it is busy."""
    store = ProcessMemoryStore()
    asked = key(id=1)
    (lease,) = in_thread(lambda: store.read([asked]))
    assert isinstance(lease, Lease)
    # whoever waits there may have had the lock of what it waits for
    (busy,) = store.read([asked])
    assert isinstance(busy, Busy)

    def use() -> bool:
        (mine,) = store.read([asked])
        assert isinstance(mine, Lease)
        assert isinstance(store.read([asked])[0], Busy)
        person = Person(1)
        assert store.fill([(lease, Record(asked.spec, Person(1), None))]) == 0
        assert store.fill([(mine, Record(asked.spec, person, None))]) == 1
        check(store)
        return store.get(Person, {"id": 1}) is person

    assert child_says(use)
    assert isinstance(store.read([asked])[0], Busy)
    assert store.fill([(lease, Record(asked.spec, Person(1), None))]) == 1
    assert busy.done.is_set()


def test_child_process_touches_no_event_of_its_parents_threads() -> None:
    """A thread that was waiting for a lease at the fork may have held its event's lock, which the child never takes."""
    store = ProcessMemoryStore()
    for verb in (lambda: store.lock([key(id=1)], 30), store.clear):
        (lease,) = store.read([key(id=1)])
        (busy,) = store.read([key(id=1)])
        assert isinstance(lease, Lease)
        assert isinstance(busy, Busy)

        def use(verb: Callable[[], Any] = verb) -> bool:
            verb()
            return True

        with busy.done._cond:  # type: ignore[attr-defined]
            assert child_says(use)
        store.fill([(lease, None)])


def test_what_the_forking_thread_was_loading_it_may_fill() -> None:
    """In the child the lease of the thread that has forked stays good, until somebody else loads."""
    store = ProcessMemoryStore()
    (lease,) = store.read([key(id=1)])
    assert isinstance(lease, Lease)
    assert child_says(lambda: store.fill([(lease, Record(key(id=1).spec, Person(1), None))]) == 1)


# what a class's epoch covers


def test_keys_that_live_under_a_name_of_their_own_belong_to_the_epoch() -> None:
    """A subclass's own alternate keys, which have another space than its table, end with the table's epoch."""
    spec = spec_of(Pet)
    tag = key(Pet, tag="rex")
    elsewhere = type(tag.definition)("another space", tag.definition.attributes)
    own = Key(spec, elsewhere, ("rex",))
    table = MemoryTable()
    (lease,) = table.read([own])
    assert isinstance(lease, Lease)
    table.fill([(lease, Record(spec, ABSENT))])
    locks = table.lock([spec.epoch], 30, without_row_lock=[spec.epoch])
    assert table.read([own]) == [LOCKED]
    table.publish([(locks[0], None)])
    assert isinstance(table.read([own])[0], Lease)


def lines_run(work: Callable[[], Any]) -> int:
    """Run `work` and return how many lines of Python it took."""
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("verb", ["lock", "publish"])
def test_dropping_a_class_takes_the_same_time_whatever_it_holds(verb: str) -> None:
    """From some size on a larger class does not cost a line more; its objects are freed by what comes later."""
    epoch = spec_of(Person).epoch

    def taken(size: int) -> int:
        store = ProcessMemoryStore()
        locks = store.lock([epoch], 30)
        store.unlock(locks)
        store.batch_put([Person(i) for i in range(size)])
        lines = lines_run(lambda: store.lock([epoch], 30) if verb == "lock" else store.publish([(locks[0], None)]))
        assert len(store) == 0
        return lines

    assert taken(2 * FREED_AT_ONCE) == taken(6 * FREED_AT_ONCE)


def test_what_was_dropped_is_freed_by_what_comes_later() -> None:
    """A class as large as one likes is freed, a little at each put or delete."""
    store = ProcessMemoryStore()
    store.batch_put([Person(i) for i in range(3 * FREED_AT_ONCE)])
    store.invalidate(Person)
    assert sum(map(len, store._table._held.dropped)) > 0
    for i in range(FREED_AT_ONCE):
        store.put(Pet(1, f"{i}"))
    assert sum(map(len, store._table._held.dropped)) == 0
    assert len(store._table._held.ring) <= 2 * len(store) + 16


def test_who_waits_for_a_lease_of_a_dropped_class_goes_on() -> None:
    """A reader that waits for another's lease looks again as soon as the class is dropped."""
    store = ProcessMemoryStore()
    (lease,) = store.read([key(id=1)])
    busy = in_thread(lambda: store.read([key(id=1)])[0])
    locks = store.lock([spec_of(Person).epoch], 30)
    assert busy.done.is_set()
    assert store.fill([(lease, Record(spec_of(Person), Person(1)))]) == 0
    store.publish([(locks[0], None)])
    assert isinstance(store.read([key(id=1)])[0], Lease)


# what is interrupted


def interrupted(work: Callable[[], Any], line: int) -> bool:
    """Run `work` up to that line of what keeps the table, where a KeyboardInterrupt comes; False if it has ended."""
    left = line

    def trace_lines(frame: Any, event: str, arg: Any) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace_lines

    def trace_calls(frame: Any, event: str, arg: Any) -> Any:
        return trace_lines if "/stores/_" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(trace_calls)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def put_again(store: ProcessMemoryStore, clock: Clock) -> None:
    """Put one, with the other's alternate key."""
    store.put(Person(1, "2@x"))


def put_several(store: ProcessMemoryStore, clock: Clock) -> None:
    """Exchange alternate keys."""
    store.batch_put([Person(1, "2@x"), Person(2, "1@x"), Person(7, "7@x")])


def put_more(store: ProcessMemoryStore, clock: Clock) -> None:
    """Put more than there is room for."""
    store.batch_put([Person(i, f"{i}@x") for i in range(10, 16)])


def delete(store: ProcessMemoryStore, clock: Clock) -> None:
    """Delete one."""
    store.delete(Person(1, "1@x"))


def drop(store: ProcessMemoryStore, clock: Clock) -> None:
    """Drop them all."""
    store.clear()


def expire(store: ProcessMemoryStore, clock: Clock) -> None:
    """Sweep what has expired."""
    clock.advance(20)
    store.put(Person(9, "9@x"))


@pytest.mark.parametrize("maxsize", [None, 8])
@pytest.mark.parametrize("change", [put_again, put_several, put_more, delete, drop, expire])
def test_an_interrupt_leaves_nothing_crooked(change: Callable[[Any, Clock], None], maxsize: int | None) -> None:
    """At whatever line a change is interrupted, the table keeps, finds, deletes and counts as ever afterwards."""
    line, was_interrupted = 0, True
    while was_interrupted:
        line += 1
        clock = Clock()
        store = ProcessMemoryStore(maxsize=maxsize, lifetime=10, clock=clock)
        store.batch_put([Person(i, f"{i}@x") for i in range(4)])
        for i in range(4):
            # the short way knows them now
            assert store.get(Person, {"id": i}) is store.get(Person, {"email": f"{i}@x"})
        was_interrupted = interrupted(functools.partial(change, store, clock), line)
        for i in range(8):
            for name, value in (("id", i), ("email", f"{i}@x")):
                found = store.get(Person, {name: value})
                assert found is None or getattr(found, name) == value
        store.batch_put([Person(1, "2@x"), Person(2, "1@x"), Person(7, "7@x")])
        for i in (1, 2, 7):
            person = Person(i, f"{i}@x")
            store.put(person)
            assert store.get(Person, {"id": i}) is store.get(Person, {"email": f"{i}@x"}) is person, line
        for i in range(16):
            store.delete(Person(i, f"{i}@x"))
        for i in range(16):
            assert store.get(Person, {"id": i}) is store.get(Person, {"email": f"{i}@x"}) is None, line
        assert len(store) == 0, line
        for i in range(30):
            store.put(Person(i, f"{i}@x"))
            assert maxsize is None or len(store) <= maxsize, line
        assert maxsize is not None or len(store) == 30, line
        check(store)
        store.clear()
        assert len(store) == 0, line
    assert line > 20
