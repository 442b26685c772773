"""Leases and locks on a real Redis: what restarts, other clients and its memory do to them."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from stockpyle.exceptions import StoreError, StoreUnavailable
from stockpyle.records import LOCKED, MISS, Lease, Record
from stockpyle.stores import RedisStore
from stockpyle.testing.samples import Person
from tests.remote.parts import ONE, PERSON, TWO, fill, holds, record
from tests.servers import Redis


@pytest.fixture
def store(redis_server: str) -> Any:
    """A store with a prefix of its own."""
    return RedisStore(redis_server, prefix=secrets.token_hex(4))


@pytest.fixture
def other(redis_server: str) -> Iterator[Any]:
    """Another client of the server."""
    with redis.Redis.from_url(redis_server) as client:
        yield client


@pytest.fixture
def own() -> Iterator[Redis]:
    """A server that a test may stop, and that keeps what it was told to save."""
    with Redis("--dbfilename", "dump.rdb") as server:
        yield server


def text(store: RedisStore, wanted: Any = ONE) -> str:
    """Return the key's text, as other clients see it."""
    return wanted.text(store.prefix)


def test_values_from_a_snapshot_are_not_believed(own: Redis) -> None:
    """A server that comes back with what it had saved hands out nothing of it: it may be older than what was there."""
    store = RedisStore(own.url)
    fill(store, record(name="old"), record(2, name="old"))
    assert own.tell("SAVE").startswith(b"+OK")
    (lock,) = store.lock([ONE], 30)
    store.publish([(lock, record(name="new"))])
    own.stop("immediate")
    own.start()
    assert own.tell("DBSIZE") not in (b":0\r\n", b"")
    with_new_connections = RedisStore(own.url)
    assert [holds(with_new_connections, each) for each in (ONE, TWO)] == [MISS, MISS]
    fill(with_new_connections, record(name="loaded"))
    assert holds(with_new_connections) == "loaded"


def test_locks_do_not_outlive_the_servers_memory(own: Redis) -> None:
    """What is locked before a restart is not published after it."""
    store = RedisStore(own.url)
    (lock,) = store.lock([ONE], 30)
    own.stop("immediate")
    own.start()
    store.close()
    store.publish([(lock, record(name="too late"))])
    assert holds(store) is MISS


@pytest.mark.parametrize("there", [b"", b"7", b"\x01", b"\x01" + bytes(200), b"\x04" + bytes(8), b"pickled"])
def test_foreign_values_are_counted_misses(store: Any, other: Any, there: bytes, caplog: Any) -> None:
    """What others have put under a key is told once, and replaced."""
    fill(store, record(2))
    other.set(text(store), there)
    (lease,) = store.read([ONE])
    assert isinstance(lease, Lease)
    assert store.stats.corrupt == 1
    assert store.fill([(lease, record(name="kept"))]) == 1
    assert holds(store) == "kept"
    assert [line.levelno for line in caplog.records] == [logging.WARNING]


def test_other_types_are_misses(store: Any, other: Any) -> None:
    """A list under a key is no value, and gives way."""
    other.rpush(text(store), "a", "b")
    assert holds(store) is MISS
    fill(store, record(name="kept"))
    assert holds(store) == "kept"
    other.delete(text(store))
    other.rpush(text(store), "a")
    (lock,) = store.lock([ONE], 30, without_row_lock=[ONE])
    assert not lock.contended
    assert holds(store) is LOCKED


def test_lifetimes_of_records_leases_and_locks(store: Any, other: Any) -> None:
    """Each is told to Redis; a record that lives for ever is not."""
    fill(store, record(deadline=time.time() + 40 * 86400))
    assert 39 * 86400 < other.ttl(text(store)) <= 40 * 86400
    (lease,) = store.read([TWO])
    assert 8 < other.ttl(text(store, TWO)) <= 10
    store.lock([TWO], 30)
    assert 28 < other.ttl(text(store, TWO)) <= 30
    assert store.fill([(lease, Record(ONE.spec, Person(2)))]) == 0


def test_full_server_keeps_nothing_and_locks_nothing(own: Redis) -> None:
    """Where there is no room a read is a miss without a lease, and a lock is refused."""
    store = RedisStore(own.url)
    fill(store, record(name="old"))
    own.tell("CONFIG", "SET", "maxmemory", "1")
    assert store.read([TWO]) == [MISS]
    with pytest.raises(StoreError, match="did not lock"):
        store.lock([TWO], 30)
    own.tell("CONFIG", "SET", "maxmemory", "0")
    assert holds(store, TWO) is MISS


def test_server_that_is_down(own: Redis) -> None:
    """It cannot be used, and can be again."""
    store = RedisStore(own.url, timeout=0.3)
    fill(store, record(name="kept"))
    own.stop()
    with pytest.raises(StoreUnavailable, match=r"Redis at 127.0.0.1:\d+ cannot be used"):
        store.read([ONE])
    own.start()
    assert isinstance(store.read([ONE])[0], Lease)


MARK = 28
"""So many bytes are a mark on an epoch, and how many milliseconds sooner than the key it runs out."""


def close(store: RedisStore, seconds: float) -> Any:
    """Lock the class."""
    (lock,) = store.lock([PERSON.epoch], seconds, without_row_lock=[PERSON.epoch])
    return lock


def test_marks_on_an_epoch_keep_their_ends(store: Any, other: Any) -> None:
    """However often others come and go, a dead writer's mark runs out when it has said, by the server's clock."""
    epoch = text(store, PERSON.epoch)

    def let_pass(seconds: int) -> None:
        other.pexpire(epoch, other.pttl(epoch) - 1000 * seconds)

    close(store, 30)
    assert 29_000 < other.pttl(epoch) <= 30_000
    for left in (20, 10):
        let_pass(10)
        lock = close(store, 60)
        assert 59_000 < other.pttl(epoch) <= 60_000
        assert len(other.get(epoch)) == 1 + 2 * MARK
        store.publish([(lock, None)])
        assert 1000 * left - 1000 < other.pttl(epoch) <= 1000 * left
        assert store.read([ONE]) == [LOCKED]
    first = close(store, 60)
    let_pass(20)
    second = close(store, 60)
    assert len(other.get(epoch)) == 1 + 2 * MARK
    store.publish([(first, None)])
    assert store.read([ONE]) == [LOCKED]
    store.unlock([second])
    assert other.get(epoch) is None


def test_lost_marks_on_an_epoch(store: Any, other: Any) -> None:
    """If the server has lost them, each of the writers changes the epoch when it has committed, and only then."""
    for _ in range(2):
        first, second = close(store, 30), close(store, 30)
        other.delete(text(store, PERSON.epoch))
        fill(store, record(name="perhaps old"))
        store.unlock([first])
        assert holds(store) == "perhaps old"
        store.publish([(second, None)])
        assert holds(store) is MISS
