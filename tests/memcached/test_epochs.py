"""Epochs: how all objects of a class, or all under a prefix, are forgotten at once, on one server and on three."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from stockpyle.exceptions import StoreError
from stockpyle.memcached.closing import CLOSED_BY
from stockpyle.memcached.epochs import EPOCH
from stockpyle.memcached.tier import MemcachedTier
from stockpyle.records import ABSENT, LOCKED, MISS, Alias, Busy, Lease, Record
from stockpyle.remote.epochs import EPOCH_BYTES
from stockpyle.stores import MemcacheStore
from stockpyle.testing.samples import Person, Pet
from tests.memcached.parts import (
    ONE,
    PERSON,
    TWO,
    Foreign,
    fill,
    foreign,
    holds,
    key,
    new_prefix,
    pet,
    record,
    store_on,
    text,
)
from tests.servers import Memcached

MAIL = key(email="ann@x")


@pytest.fixture(scope="module")
def three() -> Iterator[list[tuple[str, int]]]:
    """Three memcached servers."""
    with Memcached() as first, Memcached() as second, Memcached() as third:
        yield [server.address for server in (first, second, third)]
        for server in (first, second, third):
            server.stop("immediate")


@pytest.fixture(params=[1, 3], ids=["one server", "three servers"])
def addresses(request: pytest.FixtureRequest, three: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The addresses of the servers."""
    return three[: request.param]


def test_invalidated_class_is_gone_and_other_classes_are_not(addresses: list[tuple[str, int]]) -> None:
    """invalidate(Person) forgets every Person on every server, for other processes' stores too, and no Pet."""
    prefix = new_prefix()
    store, others = store_on(*addresses, prefix=prefix), store_on(*addresses, prefix=prefix)
    store.batch_put([*(Person(i, f"{i}@x") for i in range(60)), *(Pet(i) for i in range(60))])
    assert all(others.batch_get(Person, [{"email": f"{i}@x"} for i in range(60)]))
    store.invalidate(Person)
    for each in (store, others):
        assert each.batch_get(Person, [{"id": i} for i in range(60)]) == [None] * 60
        assert each.batch_get(Person, [{"email": f"{i}@x"} for i in range(60)]) == [None] * 60
        assert all(each.batch_get(Pet, [{"id": i} for i in range(60)]))
    store.batch_put([Person(i, f"{i}@x") for i in range(60)])
    assert all(others.batch_get(Person, [{"id": i} for i in range(60)]))


def test_clear_forgets_everything_under_the_prefix_and_nothing_else(addresses: list[tuple[str, int]]) -> None:
    """clear() forgets all classes; a store of another prefix, even one that begins alike, and foreign keys stay."""
    prefix = new_prefix()
    store, others = store_on(*addresses, prefix=prefix), store_on(*addresses, prefix=prefix)
    neighbours = [store_on(*addresses, prefix=each) for each in (prefix + ":", prefix + "x", prefix[:-1])]
    for each in (store, *neighbours):
        each.batch_put([Person(i) for i in range(30)] + [Pet(i) for i in range(30)])
    with foreign(addresses[0]) as client:
        client.set("somebody's", b"own")
        store.clear()
        assert client.get("somebody's") == b"own"
    for each in (store, others):
        assert each.batch_get(Person, [{"id": i} for i in range(30)]) == [None] * 30
        assert each.batch_get(Pet, [{"id": i} for i in range(30)]) == [None] * 30
    for each in neighbours:
        assert all(each.batch_get(Person, [{"id": i} for i in range(30)]))


def test_lease_from_before_a_clear_fills_nothing(addresses: list[tuple[str, int]]) -> None:
    """What was loaded before clear() returned is of no use after it."""
    store = store_on(*addresses)
    leases = store.read([key(id=i) for i in range(30)])
    locks = store.lock([key(id=i) for i in range(30, 60)], 30)
    store.clear()
    store.fill([(lease, record(lease.key.values[0])) for lease in leases])
    store.publish([(lock, record(lock.key.values[0])) for lock in locks])
    assert store.read([key(id=i) for i in range(60)], lease=False) == [MISS] * 60


@pytest.fixture
def store(memcached: tuple[str, int]) -> MemcacheStore:
    """A store with a prefix of its own."""
    return store_on(memcached)


def _texts(store: MemcacheStore) -> list[str]:
    """The keys of the class's epoch and of everything's."""
    return [text(store, PERSON.epoch), f"{store.prefix}::"]


def test_epochs_are_random_values_under_keys_of_their_own(store: MemcacheStore, other: Foreign) -> None:
    """Each is 8 bytes without an end; a new one differs."""
    fill(store, record())
    seen = set()
    for name in _texts(store):
        assert other.meta(f"mg {name} f s t").startswith(b"HD f%d s%d t-1" % (EPOCH, EPOCH_BYTES))
        seen.add(other.get(name))
    store.invalidate(Person)
    store.clear()
    fill(store, record())
    assert len(seen | {other.get(name) for name in _texts(store)}) == 4


@pytest.mark.parametrize("value", ["record", "absent", "alias"])
@pytest.mark.parametrize("how", ["invalidated", "cleared", "evicted class", "evicted everything"])
def test_what_is_of_an_older_epoch_is_a_miss_and_its_cas_id_the_lease(
    store: MemcacheStore, other: Foreign, value: str, how: str
) -> None:
    """Records, absents and aliases of a former epoch are missed and filled anew; nothing else gets in between."""
    wanted = MAIL if value == "alias" else ONE
    kept: Any = {"record": record(name="old"), "absent": Record(PERSON, ABSENT), "alias": Alias(TWO)}[value]
    (lease,) = store.read([wanted])
    assert store.fill([(lease, kept)]) == 1
    if how == "invalidated":
        store.invalidate(Person)
    elif how == "cleared":
        store.clear()
    else:
        assert other.delete(_texts(store)[how.endswith("everything")])
    assert other.get(text(store, wanted))
    assert holds(store, wanted) is MISS
    (lease,) = store.read([wanted])
    assert isinstance(lease, Lease)
    assert lease.token.cas == other.cas(text(store, wanted))
    assert isinstance(store.read([wanted])[0], Busy)
    assert store.fill([(lease, record(name="new") if wanted is ONE else Alias(ONE))]) == 1
    (found,) = store.read([wanted])
    assert found.value.name == "new" if isinstance(found, Record) else found.identity == ONE
    assert store.stats.corrupt == 0


def test_evicted_epoch_is_read_anew_by_a_locker(store: MemcacheStore, other: Foreign) -> None:
    """A writer whose lock is the first to need the epoch makes it, and its publish is read."""
    fill(store, record(name="old"), record(2, name="old"))
    for name in _texts(store):
        other.delete(name)
    (lock,) = store.lock([ONE], 30)
    store.publish([(lock, record(name="new"))])
    assert holds(store) == "new"
    assert holds(store, TWO) is MISS


def test_epoch_evicted_between_lock_and_publish(store: MemcacheStore, other: Foreign) -> None:
    """What is published of an epoch that is gone is never believed: the class may have been invalidated meanwhile."""
    (lock,) = store.lock([ONE], 30)
    (lease,) = store.read([TWO])
    other.delete(_texts(store)[0])
    fill(store, record(3))
    store.publish([(lock, record(name="perhaps old"))])
    store.fill([(lease, record(2, name="perhaps old"))])
    assert holds(store) is MISS
    assert holds(store, TWO) is MISS


def _close(other: Foreign, name: str) -> None:
    """Put the mark of some writer's there."""
    other.client.set(name, b"somebody\0\0\0\0", flags=CLOSED_BY, expire=60)


FOREIGN_EPOCHS = [(0, b""), (0, b"12345678"), (EPOCH, b"1234567"), (EPOCH, b"123456789"), (EPOCH, b""), (2, b"7")]


@pytest.mark.parametrize("which", [0, 1], ids=["class", "everything"])
@pytest.mark.parametrize(("flags", "data"), FOREIGN_EPOCHS, ids=repr)
def test_corrupt_epoch_is_replaced(store: MemcacheStore, other: Foreign, flags: int, data: bytes, which: int) -> None:
    """What another client has put in an epoch's place makes everything a miss once; then there is a new epoch."""
    fill(store, record(name="old"))
    name = _texts(store)[which]
    other.set(name, data, flags=flags)
    assert store.read([ONE, TWO]) == [MISS] * 2
    assert other.get(name) is None
    fill(store, record(name="new"), record(2, name="new"))
    assert holds(store) == "new"


@pytest.mark.parametrize("which", [0, 1], ids=["class", "everything"])
def test_corrupt_epoch_is_no_writers_trouble(store: MemcacheStore, other: Foreign, which: int) -> None:
    """Under a corrupt epoch a lock is taken, nothing is published, and put and invalidate replace it."""
    name = _texts(store)[which]
    other.set(name, b"junk", flags=77)
    (lock,) = store.lock([ONE], 30)
    assert not lock.contended
    store.publish([(lock, record(name="new"))])
    assert holds(store) is MISS
    other.set(name, b"junk", flags=77)
    store.put(Person(1, name="put"))
    assert store.get(Person, {"id": 1}).name == "put"
    other.set(name, b"junk", flags=77)
    store.invalidate(Person)
    store.clear()
    assert store.get(Person, {"id": 1}) is None


@pytest.mark.parametrize("which", [0, 1], ids=["class", "everything"])
def test_locked_epoch_is_bypassed_and_its_end_invalidates(store: MemcacheStore, other: Foreign, which: int) -> None:
    """While an epoch is locked all it covers is LOCKED, and what is filled or published from then is never believed."""
    fill(store, record(name="old"))
    (early,) = store.read([key(id=5)])
    _close(other, _texts(store)[which])
    assert store.read([ONE, MAIL, TWO]) == [LOCKED] * 3
    assert store.read([ONE], lease=False) == [LOCKED]
    assert isinstance(store.read([pet(1)])[0], Lease) == (which == 0)
    (lock,) = store.lock([TWO], 30)
    store.publish([(lock, record(2, name="perhaps old"))])
    store.fill([(early, record(5, name="perhaps old"))])
    other.delete(_texts(store)[which])
    assert store.read([ONE, TWO, key(id=5)], lease=False) == [MISS] * 3


def test_put_waits_for_a_locked_epoch_only_so_long(store: MemcacheStore, other: Foreign) -> None:
    """A store used alone puts nothing while its class is being dropped, and says so rather than wait for ever."""
    store.put(Person(1, name="old"))
    _close(other, _texts(store)[0])
    with pytest.raises(StoreError, match="all the time"):
        store.put(Person(1, name="new"))
    other.delete(_texts(store)[0])
    store.put(Person(1, name="new"))
    assert store.get(Person, {"id": 1}).name == "new"


def test_clear_leaves_those_who_have_closed_everything(store: MemcacheStore, other: Foreign) -> None:
    """clear() during another's does not end that: everything is bypassed until that ends, or runs out."""
    fill(store, record(name="old"))
    _close(other, _texts(store)[1])
    store.clear()
    assert holds(store) is LOCKED
    assert other.get(_texts(store)[1]) == b"somebody\0\0\0\0"
    other.delete(_texts(store)[1])
    assert holds(store) is MISS


def test_epoch_of_a_class_is_locked_on_all_servers(three: list[tuple[str, int]]) -> None:
    """A lock on a class holds one on each server; where others have one, too, theirs stay."""
    store = store_on(*three)
    keys = [key(id=i) for i in range(40)]
    assert len({store.place(each) for each in keys}) == 3
    (lock,) = store.lock([PERSON.epoch], 30, without_row_lock=[PERSON.epoch])
    assert sorted(lock.token) == [0, 1, 2]
    assert store.read(keys) == [LOCKED] * 40
    store.unlock([lock])
    fill(store, *[record(i) for i in range(40)])
    first, second = (store.lock([PERSON.epoch], 30, without_row_lock=[PERSON.epoch])[0] for _ in range(2))
    assert [first.contended, second.contended] == [False, False]
    store.publish([(first, None)])
    assert store.read(keys) == [LOCKED] * 40
    store.publish([(second, None)])
    assert store.read(keys, lease=False) == [MISS] * 40


def test_keys_are_spread_and_stay_where_they_are(three: list[tuple[str, int]]) -> None:
    """Each server has a fair share; with one server less only that one's keys move; the order of servers is nothing."""
    store, turned, fewer = (
        store_on(*three, prefix="p"),
        store_on(*three[::-1], prefix="p"),
        store_on(*three[:2], prefix="p"),
    )
    keys = [key(id=i) for i in range(3000)]
    places = [store.parts[store.place(each)].name for each in keys]
    assert all(places.count(part.name) > 800 for part in store.parts)
    assert places == [turned.parts[turned.place(each)].name for each in keys]
    left = [fewer.parts[fewer.place(each)].name for each in keys]
    gone = store.parts[2].name
    assert all(before == now for before, now in zip(places, left, strict=True) if before != gone)


def test_lock_that_one_server_refuses_is_taken_nowhere(three: list[tuple[str, int]]) -> None:
    """If a server cannot be reached the locks on the others are removed before the error is raised."""
    with Memcached() as fourth:
        store = store_on(*three, fourth.address)
        keys = [key(id=i) for i in range(60)]
        assert {store.place(each) for each in keys} == {0, 1, 2, 3}
        fourth.stop("immediate")
        with pytest.raises(StoreError):
            store.lock([*sorted(keys, key=store.place), PERSON.epoch], 30, without_row_lock=[PERSON.epoch])
        reachable = [each for each in keys if store.place(each) != 3]
        assert store.read(reachable, lease=False) == [MISS] * len(reachable)


def test_publish_and_fill_reach_the_servers_that_are_there(three: list[tuple[str, int]]) -> None:
    """One server's failure is raised after the others have done their share."""
    with Memcached() as fourth:
        store = store_on(*three, fourth.address)
        keys = [key(id=i) for i in range(60)]
        leases = store.read([key(id=i) for i in range(60, 120)])
        locks = store.lock(keys, 30)
        fourth.stop("immediate")
        with pytest.raises(StoreError):
            store.publish([(lock, record(lock.key.values[0], name="new")) for lock in locks])
        with pytest.raises(StoreError):
            store.fill([(lease, record(lease.key.values[0], name="new")) for lease in leases])
        there = [key(id=i) for i in range(120) if store.place(key(id=i)) != 3]
        assert {found.value.name for found in store.read(there)} == {"new"}
        assert all(isinstance(part, MemcachedTier) for part in store.parts)
