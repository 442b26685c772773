"""Leases and locks on a real memcached: what its own commands, its memory and other clients do to them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheServerError

from stockpyle.exceptions import EncodeError, StoreError
from stockpyle.memcached.items import LAST_DATE, MONTH, OVERHEAD
from stockpyle.records import ABSENT, LOCKED, MISS, Alias, Busy, Lease, Record
from stockpyle.stores import MemcacheStore
from stockpyle.testing.samples import Person
from tests.memcached.parts import (
    ONE,
    PERSON,
    TWO,
    CountingSockets,
    Foreign,
    fill,
    foreign,
    holds,
    key,
    new_prefix,
    record,
    store_on,
    text,
)
from tests.servers import Memcached

MAIL = key(email="ann@x")


@pytest.fixture
def store(memcached: tuple[str, int]) -> Any:
    """A store with a prefix of its own."""
    return store_on(memcached)


# locks


def test_firm_lock_is_never_contended(store: Any) -> None:
    """Who holds the row's lock replaces an orphaned lock and publishes."""
    store.lock([ONE], 30)
    (lock,) = store.lock([ONE], 30)
    assert not lock.contended
    store.publish([(lock, record(name="new"))])
    assert holds(store) == "new"


@pytest.mark.parametrize("there", ["nothing", "a record", "a lease", "a foreign value"])
def test_loose_lock_over_anything_but_a_lock_is_not_contended(store: Any, other: Foreign, there: str) -> None:
    """A lock without a row lock replaces what is no lock, and may be removed again."""
    if there == "a record":
        fill(store, record(name="old"))
    elif there == "a lease":
        assert isinstance(store.read([ONE])[0], Lease)
    elif there == "a foreign value":
        other.set(text(store, ONE), b"7", flags=2)
    (lock,) = store.lock([ONE], 30, without_row_lock=[ONE])
    assert not lock.contended
    assert holds(store) is LOCKED
    store.publish([(lock, None)])
    assert holds(store) is MISS


def test_contended_lock_outlives_its_owner_and_the_first(store: Any) -> None:
    """Two writers without a row lock: neither removes the lock, whichever ends first, nor publishes."""
    (first,) = store.lock([ONE], 30, without_row_lock=[ONE])
    (second,) = store.lock([ONE], 30, without_row_lock=[ONE])
    assert second.contended
    store.publish([(second, record(name="second"))])
    store.publish([(first, record(name="first"))])
    store.unlock([first, second])
    assert holds(store) is LOCKED


def test_firm_lock_over_a_contended_one_is_its_owners(store: Any) -> None:
    """A writer with the row's lock may publish over others' contended lock; the other leaves that alone."""
    store.lock([ONE], 30)
    (loose,) = store.lock([ONE], 30, without_row_lock=[ONE])
    (firm,) = store.lock([ONE], 30)
    store.publish([(loose, None)])
    assert holds(store) is LOCKED
    store.publish([(firm, record(name="firm"))])
    assert holds(store) == "firm"


def test_publish_of_a_contended_lock_removes_a_record_that_came_since(store: Any, other: Foreign) -> None:
    """A contended lock that was lost protects nothing: what a reader filled meanwhile is removed."""
    store.lock([ONE], 30)
    (lock,) = store.lock([ONE], 30, without_row_lock=[ONE])
    other.delete(text(store, ONE))
    fill(store, record(name="perhaps old"))
    store.publish([(lock, None)])
    assert holds(store) is MISS


@pytest.mark.parametrize("value", ["a record", "nothing"])
@pytest.mark.parametrize("came", ["nothing", "a record", "a lease", "a lock"])
def test_publish_without_the_own_lock(store: Any, other: Foreign, came: str, value: str) -> None:
    """The own lock being gone, publish leaves another's lock and removes anything else, whatever is published."""
    (lock,) = store.lock([ONE], 30)
    other.delete(text(store, ONE))
    lease = None
    if came == "a record":
        fill(store, record(name="perhaps old"))
    elif came == "a lease":
        (lease,) = store.read([ONE])
    elif came == "a lock":
        store.lock([ONE], 30)
    store.publish([(lock, record(name="new") if value == "a record" else None)])
    assert holds(store) is (LOCKED if came == "a lock" else MISS)
    if lease is not None:
        assert store.fill([(lease, record(name="perhaps old"))]) == 0
        assert holds(store) is MISS


def test_lock_runs_out_by_memcacheds_own_clock_and_the_writer_removes_what_came(store: Any) -> None:
    """A lock of one second stands for one, is gone after three, and its late owner publishes nothing."""
    (lock,) = store.lock([ONE], 1)
    begun = time.monotonic()
    while holds(store) is LOCKED:
        assert time.monotonic() - begun < 30
        time.sleep(0.05)
    assert time.monotonic() - begun >= 1
    fill(store, record(name="perhaps old"))
    store.publish([(lock, record(name="new"))])
    assert holds(store) is MISS


@pytest.mark.parametrize(("asked", "least", "most"), [(0.5, 1, 2), (30, 30, 31), (1e9, MONTH - 1, MONTH)])
def test_lock_lives_as_long_as_asked_for(store: Any, other: Foreign, asked: float, least: int, most: int) -> None:
    """memcached is told at least the seconds that were asked for, and no date in their place."""
    store.lock([ONE], asked)
    assert least <= other.seconds_left(text(store, ONE)) <= most


def test_lock_of_endless_seconds_lives_a_month(store: Any, other: Foreign) -> None:
    """A lock that is to last for ever lasts as long as memcached counts seconds."""
    store.lock([ONE], float("inf"))
    assert MONTH - 1 <= other.seconds_left(text(store, ONE)) <= MONTH


def test_unlock_leaves_what_is_not_ones_own(store: Any, other: Foreign) -> None:
    """After a rollback another's lock, a record and a contended lock of one's own stay."""
    (lock,) = store.lock([ONE], 30)
    store.lock([ONE], 30)
    store.unlock([lock])
    assert holds(store) is LOCKED
    other.delete(text(store, ONE))
    fill(store, record(name="read since"))
    store.unlock([lock])
    assert holds(store) == "read since"


# what comes between a look and what follows it


@pytest.fixture
def raced(memcached: tuple[str, int]) -> Any:
    """A store, and what tells it to be overtaken: another writer's lock on ONE comes right before a command is sent."""
    sockets = CountingSockets()
    client = Client(memcached, timeout=10, socket_module=sockets)
    store = MemcacheStore(client=client, prefix=new_prefix())
    others = store_on(memcached, prefix=store.prefix)

    def overtake(command: bytes) -> None:
        def lock(data: bytes) -> None:
            if data.startswith(command):
                sockets.before = lambda data: None
                others.lock([ONE], 30)

        sockets.before = lock

    return store, others, overtake


def test_lock_that_comes_before_a_removal_stays(raced: Any) -> None:
    """Publish removes what it has seen, and nothing that came since."""
    store, others, overtake = raced
    (lock,) = store.lock([ONE], 30)
    store.unlock([lock])
    fill(others, record(name="perhaps old"))
    overtake(b"md ")
    store.publish([(lock, record(name="new"))])
    assert holds(store) is LOCKED


def test_lock_that_comes_before_a_loose_one_is_contention(raced: Any) -> None:
    """A lock without a row lock that is overtaken between its look and its swap looks again."""
    store, others, overtake = raced
    fill(others, record(name="old"))
    holds(store)
    overtake(b"ms %b 0 F2 T31 c C" % text(store, ONE).encode())
    (lock,) = store.lock([ONE], 30, without_row_lock=[ONE])
    assert lock.contended


def test_lock_that_comes_before_a_lease_stays(raced: Any) -> None:
    """A reader that wants to swap a useless value for a lease gets none if a lock has come since."""
    store, others, overtake = raced
    fill(others, record(name="old"))
    others.invalidate(Person)
    overtake(b"ms %b 0 C" % text(store, ONE).encode())
    assert store.read([ONE]) == [MISS]
    assert holds(store) is LOCKED


# a key that is useless, foreign or corrupt


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 4, 5, 77])
@pytest.mark.parametrize("wanted", [ONE, MAIL], ids=["identity", "alternate"])
def test_foreign_value_is_a_counted_miss_that_is_replaced(store: Any, other: Foreign, flags: int, wanted: Any) -> None:
    """What another client has left under a key, whatever its flags, is a miss whose CAS id is the lease."""
    fill(store, record(2))
    other.set(text(store, wanted), b"not ours", flags=flags)
    assert holds(store, wanted) is MISS
    assert store.stats.corrupt == 1
    (lease,) = store.read([wanted])
    assert isinstance(lease, Lease)
    assert isinstance(store.read([wanted])[0], Busy)
    value: Any = record(name="ours") if wanted is ONE else Alias(ONE)
    assert store.fill([(lease, value)]) == 1
    assert store.stats.corrupt >= 2
    found = store.read([wanted])[0]
    assert found.value.name == "ours" if wanted is ONE else found.identity == ONE


def test_foreign_value_is_never_removed_blindly(store: Any, other: Foreign) -> None:
    """A lock that comes between the look at a useless value and its replacement stays."""
    other.set(text(store, ONE), b"not ours")
    (lease,) = store.read([ONE])
    (lock,) = store.lock([ONE], 30)
    assert store.fill([(lease, record(name="old"))]) == 0
    assert holds(store) is LOCKED
    store.publish([(lock, record(name="new"))])
    assert holds(store) == "new"


def test_publish_removes_a_foreign_value_that_looks_like_a_lock(store: Any, other: Foreign) -> None:
    """A lock has no data: a value with its flags, as other clients write integers, is no lock."""
    (lock,) = store.lock([ONE], 30)
    other.set(text(store, ONE), b"7", flags=2)
    store.publish([(lock, record(name="new"))])
    assert other.get(text(store, ONE)) is None


# expired, absent, alias


def test_absent_and_alias_are_held(store: Any) -> None:
    """A known absence and an alias are read back as such."""
    leases = store.read([ONE, MAIL])
    assert store.fill([(leases[0], Record(PERSON, ABSENT)), (leases[1], Alias(TWO))]) == 2
    absent, alias = store.read([ONE, MAIL])
    assert absent.is_absent
    assert alias.identity == TWO


def test_deadline_in_the_record_rules(memcached: tuple[str, int], other: Foreign) -> None:
    """A record that memcached still holds is none after its own deadline, and its CAS id is the lease."""
    now = [1000.0]
    store = store_on(memcached, clock=lambda: now[0])
    fill(store, record(name="old", deadline=1010.0))
    assert holds(store) == "old"
    now[0] = 1010.0
    assert other.get(text(store, ONE)) is not None
    assert holds(store) is MISS
    fill(store, record(name="new"))
    assert holds(store) == "new"


@pytest.mark.parametrize(
    ("seconds", "least", "most"),
    [
        (1, 1, 2),
        (60.5, 61, 62),
        (MONTH - 2, MONTH - 3, MONTH - 1),
        (MONTH, MONTH - 1, MONTH + 3),
        (MONTH + 5, MONTH + 4, MONTH + 8),
        (365 * 86400, 365 * 86400 - 1, 365 * 86400 + 3),
    ],
)
def test_lifetime_is_not_shorter_on_the_server(
    store: Any, other: Foreign, seconds: float, least: int, most: int
) -> None:
    """memcached keeps a record at least as long as its deadline says: below 30 days as seconds, above as a date."""
    fill(store, record(deadline=time.time() + seconds))
    assert least <= other.seconds_left(text(store, ONE)) <= most


@pytest.mark.parametrize("seconds", [2**31, 2**40, 1e300])
def test_lifetime_past_memcacheds_dates_is_its_last_date(store: Any, other: Foreign, seconds: float) -> None:
    """What lives longer than memcached counts is kept until its last date, not lost."""
    fill(store, record(name="old", deadline=time.time() + seconds))
    left = other.seconds_left(text(store, ONE))
    assert abs(left - (LAST_DATE - time.time())) < 5
    assert holds(store) == "old"


def test_no_lifetime_is_without_end(store: Any, other: Foreign) -> None:
    """A record without deadline lives until it is evicted."""
    fill(store, record())
    assert other.seconds_left(text(store, ONE)) == -1


def test_expired_is_not_filled_and_gives_the_lease_back(store: Any, other: Foreign) -> None:
    """A record whose deadline has passed leaves nothing, not even its lease; published, it takes the lock away."""
    (lease,) = store.read([ONE])
    assert store.fill([(lease, record(deadline=time.time()))]) == 0
    assert other.get(text(store, ONE)) is None
    (lock,) = store.lock([ONE], 30)
    store.publish([(lock, record(deadline=time.time() - 1e9))])
    assert other.get(text(store, ONE)) is None


def test_lifetimes_of_a_store_used_alone(memcached: tuple[str, int], other: Foreign) -> None:
    """lifetime and lifetime_cb of puts reach the server; zero removes what was there."""
    store = store_on(memcached, lifetime_cb=lambda person: person.name or 0)
    store.put(Person(1, name=60))
    assert 59 <= other.seconds_left(text(store, ONE)) <= 62
    store.put(Person(1, name=0))
    assert other.get(text(store, ONE)) is None


# values over the item size


@pytest.fixture(scope="module", params=["512k", "1m", "2m"])
def sized(request: pytest.FixtureRequest) -> Iterator[tuple[Memcached, int]]:
    """A memcached with this largest item, and that size."""
    bytes_ = {"512k": 1 << 19, "1m": 1 << 20, "2m": 1 << 21}[request.param]
    with Memcached("-I", request.param, "-m", "128") as server:
        yield server, bytes_


def _largest_value(client: Foreign, name: str, item_size: int) -> int:
    """Find by trying how many bytes memcached takes under a key."""
    low, high = item_size - 1000, item_size
    while high - low > 1:
        middle = (low + high) // 2
        try:
            client.set(name, b"x" * middle, flags=1)
            low = middle
        except MemcacheServerError:
            high = middle
    return low


def test_item_size_boundary(sized: tuple[Memcached, int]) -> None:
    """The overhead that is reckoned with is not less than memcached's own, and at most 32 bytes more."""
    server, item_size = sized
    with foreign(server.address) as client:
        for name in ("k", "k" * 100, "k" * 250):
            real = item_size - _largest_value(client, name, item_size) - len(name)
            assert real <= OVERHEAD <= real + 32


def test_nothing_is_sent_that_memcached_would_refuse(sized: tuple[Memcached, int]) -> None:
    """Around the boundary each value is either kept or not sent: memcached never refuses one."""
    server, item_size = sized
    store = store_on(server.address)
    with foreign(server.address) as client:
        before = client.stat("store_too_large")
    kept = []
    for room in range(-150, 800, 19):
        (lock,) = store.lock([ONE], 30)
        store.publish([(lock, record(name="x" * (item_size - room)))])
        kept.append(holds(store) is not MISS)
    assert kept == sorted(kept)
    assert True in kept
    assert store.stats.oversize == kept.count(False) > 0
    with foreign(server.address) as client:
        assert client.stat("store_too_large") == before


@pytest.mark.parametrize("how", ["fill", "publish"])
def test_value_that_is_too_large_leaves_nothing_older(store: Any, other: Foreign, how: str) -> None:
    """A value over the item size is counted, and takes its own lease or lock away: the next reader loads again."""
    large = record(name="x" * (1 << 20))
    if how == "fill":
        (lease,) = store.read([ONE])
        assert store.fill([(lease, large)]) == 0
    else:
        fill(store, record(name="old"))
        (lock,) = store.lock([ONE], 30)
        store.publish([(lock, large)])
    assert store.stats.oversize == 1
    assert other.get(text(store, ONE)) is None
    assert isinstance(store.read([ONE])[0], Lease)


def test_value_that_is_too_large_does_not_touch_anothers_lock(store: Any) -> None:
    """A fill that comes too late with a value over the item size removes nothing."""
    (lease,) = store.read([ONE])
    store.lock([ONE], 30)
    assert store.fill([(lease, record(name="x" * (1 << 20)))]) == 0
    assert holds(store) is LOCKED


def test_put_of_a_value_that_is_too_large_keeps_the_old_object(store: Any) -> None:
    """A store used alone refuses such an object, naming -I, before it writes any of the batch."""
    store.put(Person(1, name="old"))
    with pytest.raises(EncodeError, match="-I"):
        store.batch_put([Person(2, name="new"), Person(1, name="x" * (1 << 20))])
    assert store.get(Person, {"id": 1}).name == "old"
    assert store.get(Person, {"id": 2}) is None


# memory


def _exhaust(client: Foreign, sizes: tuple[int, ...]) -> None:
    """Fill the slabs of items of these sizes until memcached has no memory left for one more."""
    names = (f"filler{i:06}" for i in range(10**6))
    for size in sizes:
        # the item that a batch was about to store when it was broken off is free again: so the last go one by one
        for batch in (500, 1):
            while _stores(client, {next(names): b"x" * size for _ in range(batch)}):
                pass


def _stores(client: Foreign, values: dict[str, bytes]) -> bool:
    """Store values; False if there is no memory."""
    try:
        client.client.set_many(values, noreply=False)
    except MemcacheServerError as error:
        if b"out of memory" in error.args[0]:
            return False
        raise
    return True


@pytest.fixture
def tight() -> Iterator[Memcached]:
    """A memcached with one megabyte that evicts nothing, and says that it is out of memory instead."""
    with Memcached("-m", "1", "-I", "512k", "-M") as server:
        yield server
        server.stop("immediate")


SMALL = (10, 30, 50, 70, 90, 110, 140)
LARGE = (2900, 3000, 3100, 3500)


def test_lock_without_memory_raises_and_leaves_no_older_value(tight: Memcached) -> None:
    """A lock that memcached has no room for raises StoreError; the value under its key is gone."""
    store = store_on(tight.address)
    fill(store, record(name="old" * 1000))
    with foreign(tight.address) as client:
        _exhaust(client, SMALL)
        # asking for an epoch where there is no memory for one more removes it, which makes room for a lock
        for i in range(2, 10):
            with contextlib.suppress(StoreError):
                store.lock([key(id=i)], 30)
        for loose in ([], [ONE]):
            with pytest.raises(StoreError, match="did not lock"):
                store.lock([ONE], 30, without_row_lock=loose)
            assert holds(store) is MISS
            assert client.get(text(store, ONE)) is None


def test_lock_that_fails_for_one_key_leaves_no_lock_on_others(tight: Memcached) -> None:
    """A batch of locks is taken as a whole or not at all."""
    store = store_on(tight.address)
    with foreign(tight.address) as client:
        store.lock([ONE], 30)
        _exhaust(client, SMALL)
        with pytest.raises(StoreError, match="did not lock"):
            store.lock([ONE, *(key(id=i) for i in range(2, 3000))], 30)
        assert holds(store) is MISS


def test_read_without_memory_is_a_miss_without_lease(tight: Memcached) -> None:
    """Where memcached has no room for a lease, nobody fills."""
    store = store_on(tight.address)
    fill(store, record(2, name="held" * 1000))
    with foreign(tight.address) as client:
        _exhaust(client, SMALL)
        found = store.read([ONE, TWO])
        assert found[0] is MISS
        assert found[1].value.name == "held" * 1000


@pytest.mark.parametrize("how", ["fill", "publish"])
def test_value_without_memory_leaves_nothing_older(tight: Memcached, how: str) -> None:
    """A record that memcached has no room for is not kept, and nothing else is under its key."""
    store = store_on(tight.address)
    large = record(name="new" * 1000)
    if how == "fill":
        (lease,) = store.read([ONE])
    else:
        (lock,) = store.lock([ONE], 30)
    with foreign(tight.address) as client:
        _exhaust(client, LARGE)
        if how == "fill":
            assert store.fill([(lease, large)]) == 0
        else:
            store.publish([(lock, large)])
        assert client.get(text(store, ONE)) is None
        assert client.stat("store_no_memory") > 0


def test_put_without_memory_raises_and_leaves_no_older_value(tight: Memcached) -> None:
    """A store used alone says that memcached did not keep the object; the old one is gone as well."""
    store = store_on(tight.address)
    store.put(Person(1, name="old"))
    with foreign(tight.address) as client:
        _exhaust(client, LARGE)
        with pytest.raises(StoreError, match="did not keep"):
            store.put(Person(1, name="new" * 1000))
        assert store.get(Person, {"id": 1}) is None
