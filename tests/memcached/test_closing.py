"""How writers of a class that overlap lock its epoch on a real memcached, whose time is moved on by hand."""

from __future__ import annotations

from typing import Any

import pytest

from stockpyle.memcached import closing, locking
from stockpyle.memcached.closing import CLOSED_BY
from stockpyle.memcached.wire import Connection
from stockpyle.records import LOCKED, MISS, Lock
from stockpyle.stores import MemcacheStore
from tests.memcached.parts import ONE, PERSON, Foreign, fill, holds, record, store_on, text

MARK = 12
"""So many bytes are a mark and how many seconds sooner it runs out."""


@pytest.fixture
def store(memcached: tuple[str, int]) -> MemcacheStore:
    """A store with a prefix of its own."""
    return store_on(memcached)


def close(store: MemcacheStore, seconds: float = 30) -> Lock:
    """Lock the class."""
    (lock,) = store.lock([PERSON.epoch], seconds, without_row_lock=[PERSON.epoch])
    return lock


def let_pass(store: MemcacheStore, other: Foreign, seconds: int) -> None:
    """Let the class's lock be so many seconds older."""
    name = text(store, PERSON.epoch)
    left = other.seconds_left(name) - seconds
    assert left > 0
    assert other.meta(f"mg {name} T{left}") == b"HD"


def marks(store: MemcacheStore, other: Foreign) -> int:
    """Return how many marks are there."""
    return len(other.get(text(store, PERSON.epoch)) or b"") // MARK


def test_mark_keeps_its_end(store: MemcacheStore, other: Foreign) -> None:
    """However often a set is written again, each mark runs out when its writer has said, by the server's clock."""
    close(store, 100)
    for passed in (20, 40, 60):
        let_pass(store, other, 20)
        lock = close(store, 100)
        assert 99 <= other.seconds_left(text(store, PERSON.epoch)) <= 101
        assert marks(store, other) == 2
        store.publish([(lock, None)])
        left = other.seconds_left(text(store, PERSON.epoch))
        assert 99 - passed <= left <= 101 - passed
        assert store.read([ONE]) == [LOCKED]


def test_mark_that_has_run_out_is_dropped(store: MemcacheStore, other: Foreign) -> None:
    """A dead writer's mark is kept as long as it lives, and not when others come and go after that."""
    close(store, 30)
    first = close(store, 60)
    let_pass(store, other, 25)
    second = close(store, 60)
    store.publish([(first, None)])
    assert marks(store, other) == 2
    let_pass(store, other, 10)
    third = close(store, 60)
    assert marks(store, other) == 2
    store.publish([(second, None)])
    assert store.read([ONE]) == [LOCKED]
    store.publish([(third, None)])
    assert other.get(text(store, PERSON.epoch)) is None


def test_set_that_has_no_room_for_another_is_left_to_run_out(
    store: MemcacheStore, other: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set may grow as large as an item: then one mark stands for all, as long as the longest, and is left."""
    first = close(store, 100)
    (part,) = store.parts
    part.server.call("read", lambda connection: setattr(connection, "largest", 200))
    locks = [close(store) for _ in range(10)]
    assert any(lock.contended for lock in locks)
    assert 99 <= other.seconds_left(text(store, PERSON.epoch)) <= 101
    store.publish([(lock, None) for lock in (first, *locks)])
    assert store.read([ONE]) == [LOCKED]
    assert marks(store, other) >= 1


def test_writer_that_others_always_forestall(
    store: MemcacheStore, other: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who never gets a swap done takes the place of all marks, for as long as the longest, and leaves that."""
    first = close(store, 100)
    real = Connection.meta

    def meddle(self: Any, commands: Any) -> Any:
        if any(b" C" in each and each.startswith(b"ms") for each in commands):
            value = other.get(text(store, PERSON.epoch))
            assert value is not None
            other.client.set(text(store, PERSON.epoch), value, flags=CLOSED_BY, expire=101)
        return real(self, commands)

    monkeypatch.setattr(locking, "pause", lambda: None)
    monkeypatch.setattr(closing, "pause", lambda: None)
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "meta", meddle)
        late = close(store)
        assert late.contended
    store.publish([(first, None), (late, None)])
    assert store.read([ONE]) == [LOCKED]
    assert 99 <= other.seconds_left(text(store, PERSON.epoch)) <= 101


def test_writer_that_cannot_take_its_mark_out(
    store: MemcacheStore, other: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mark runs out, and nothing fails."""
    first, second = close(store), close(store)
    real = Connection.meta

    def meddle(self: Any, commands: Any) -> Any:
        if any(b" C" in each for each in commands):
            value = other.get(text(store, PERSON.epoch))
            assert value is not None
            other.client.set(text(store, PERSON.epoch), value, flags=CLOSED_BY, expire=31)
        return real(self, commands)

    monkeypatch.setattr(closing, "pause", lambda: None)
    with monkeypatch.context() as patched:
        patched.setattr(Connection, "meta", meddle)
        store.publish([(first, None)])
    assert marks(store, other) == 2
    store.publish([(second, None)])
    assert marks(store, other) == 1
    assert store.read([ONE]) == [LOCKED]


def test_lost_marks(store: MemcacheStore, other: Foreign) -> None:
    """If the server has lost the set, each of its writers changes the epoch when it has committed."""
    locks = [close(store), close(store)]
    for lock in locks:
        other.delete(text(store, PERSON.epoch))
        fill(store, record(name="perhaps old"))
        assert holds(store) == "perhaps old"
        store.publish([(lock, None)])
        assert holds(store, ONE) is MISS


def test_lost_marks_of_who_rolls_back(store: MemcacheStore, other: Foreign) -> None:
    """A rollback changes nothing, so that an epoch that came in the set's place may stay."""
    locks = [close(store), close(store)]
    other.delete(text(store, PERSON.epoch))
    fill(store, record(name="Ann"))
    store.unlock(locks)
    assert holds(store) == "Ann"


def test_set_without_an_end_is_replaced(store: MemcacheStore, other: Foreign) -> None:
    """What another client has put there for ever is no writer's."""
    other.set(text(store, PERSON.epoch), b"somebody\0\0\0\0", flags=CLOSED_BY)
    store.publish([(close(store), None)])
    assert holds(store) is MISS
