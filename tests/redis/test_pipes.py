"""Batches of any size, and one record in a way of its own, from servers that are themselves and from others."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from redis._parsers import _HiredisParser, _RESP3Parser

from stockpyle.exceptions import StoreError, StoreTimeout
from stockpyle.records import MISS, Lease, Record
from stockpyle.redis.pipes import CHUNK_COMMANDS, CHUNK_KEYS, Pipe
from stockpyle.stores import RedisStore
from stockpyle.testing.samples import Person
from tests.remote.caches import OnRedis
from tests.remote.parts import Meddler, fill, key, meddler, new_prefix, record, wait_for
from tests.remote.places import FAILURES

RIGHT = {"id": 1}


@pytest.fixture
def cache(redis_server: str) -> OnRedis:
    """The Redis that all tests share."""
    host, port = redis_server.removeprefix("redis://").removesuffix("/0").split(":")
    return OnRedis((host, int(port)))


@pytest.fixture
def between(cache: OnRedis) -> Iterator[Meddler]:
    """Somebody in front of the server."""
    with meddler(cache.address) as made:
        yield made


# batches


def test_fifty_thousand_keys(redis_server: str) -> None:
    """50,000 keys are read, filled, locked, published and unlocked in one call each."""
    store = RedisStore(redis_server, prefix=new_prefix(), timeout=30, lease_seconds=120)
    keys = [key(id=i) for i in range(50_000)]
    leases = store.read(keys)
    assert all(isinstance(lease, Lease) for lease in leases)
    values = [record(i, name="old") for i in range(50_000)]
    assert store.fill(list(zip(leases, values, strict=True))) == 50_000
    found: Any = store.read_revised(keys)
    assert {each.value.name for each in found} == {"old"}
    revisions = [each.revision for each in found]
    assert list(store.revisions(keys, revisions)) == revisions
    locks = store.lock(keys, 30, without_row_lock=keys[::2])
    assert not any(lock.contended for lock in locks)
    store.publish([(lock, record(lock.key.values[0], name="new")) for lock in locks])
    found = store.read(keys)
    assert [each.value.id for each in found] == list(range(50_000))
    assert {each.value.name for each in found} == {"new"}
    store.unlock(store.lock(keys, 30))
    assert store.read(keys, lease=False) == [MISS] * 50_000


@pytest.mark.parametrize("count", [CHUNK_KEYS - 3, CHUNK_KEYS - 2, CHUNK_KEYS, 2 * CHUNK_COMMANDS + 1])
def test_batches_around_the_size_of_a_chunk(redis_server: str, count: int) -> None:
    """No reply is lost or mistaken where chunks meet."""
    store = RedisStore(redis_server, prefix=new_prefix())
    fill(store, *[record(i, name=i) for i in range(count)])
    found: Any = store.read([key(id=i) for i in range(count)])
    assert [each.value.name for each in found] == list(range(count))


def test_no_more_than_two_chunks_are_under_way(redis_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies are read as the questions go out: Redis need never keep more than those to two chunks."""
    store = RedisStore(redis_server, prefix=new_prefix())
    keys = [key(id=i) for i in range(10 * CHUNK_COMMANDS)]
    leases = store.read(keys)
    events: list[str] = []
    real = Pipe.reply

    def reply(self: Pipe) -> Any:
        events.append("reply")
        return real(self)

    connection = type(store._server._spare[0].connection)
    send = connection.send_packed_command

    def sending(self: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
        events.append("chunk")
        return send(self, command, *args, **kwargs)

    monkeypatch.setattr(Pipe, "reply", reply)
    monkeypatch.setattr(connection, "send_packed_command", sending)
    values = [record(i) for i in range(len(keys))]
    assert store.fill(list(zip(leases, values, strict=True))) == len(keys)
    assert events.count("reply") == len(keys)
    assert events.count("chunk") >= 10
    under_way = 0
    for event, following in zip(events, [*events[1:], "end"], strict=True):
        if event == "chunk":
            under_way += 1
        elif following != "reply":
            under_way -= 1
        assert under_way <= 2


# one record


def _asked_before(between: Meddler) -> RedisStore:
    """A store that has found the record once, and now asks for it in its own way."""
    host, port = between.address
    store = RedisStore(f"redis://{host}:{port}/0", prefix=new_prefix(), timeout=0.3)
    fill(store, record(name="right"))
    for _ in range(2):
        assert store.get(Person, RIGHT).name == "right"
    assert store._server._spare
    return store


@pytest.mark.parametrize("failure", FAILURES)
def test_server_that_fails_while_one_is_asked_for(between: Meddler, failure: str) -> None:
    """A server that hangs, breaks off or says something else is StoreUnavailable, and no connection is kept."""
    store = _asked_before(between)
    between.meddle = FAILURES[failure](between)
    with pytest.raises(StoreError):
        store.get(Person, RIGHT)
    assert not store._server._spare
    between.meddle = None
    assert store.get(Person, RIGHT).name == "right"


def test_answer_in_packets(between: Meddler) -> None:
    """However an answer is cut into packets, it is understood."""
    store = _asked_before(between)
    between.forwarding = lambda answer: (answer[i : i + 5] for i in range(0, len(answer), 5))
    for _ in range(3):
        assert store.get(Person, RIGHT).name == "right"


@pytest.mark.parametrize("parser", [_HiredisParser, _RESP3Parser])
@pytest.mark.parametrize("count", [1, 2])
def test_answer_that_comes_in_drops(between: Meddler, parser: Any, count: int) -> None:
    """A byte now and then does not prolong the timeout."""
    host, port = between.address
    pool = redis.ConnectionPool(host=host, port=port, parser_class=parser, protocol=3, socket_timeout=0.3)
    store = RedisStore(client=redis.Redis(connection_pool=pool), prefix=new_prefix())
    fill(store, record(name="x" * 5000))
    assert store.get(Person, RIGHT).name == "x" * 5000
    pause, sent = threading.Event(), 0

    def drip(answer: bytes) -> Iterable[bytes]:
        nonlocal sent
        for i in range(len(answer)):
            sent += 1
            yield answer[i : i + 1]
            pause.wait(0.02)

    between.meddle = drip
    with pytest.raises(StoreTimeout):
        store.batch_get(Person, [{"id": 1 + i} for i in range(count)]) if count > 1 else store.get(Person, RIGHT)
    assert sent < 500, "of 5,000 and more"
    between.meddle = None
    assert store.get(Person, RIGHT).name == "x" * 5000


def test_answer_may_take_longer_than_the_timeout_if_it_keeps_coming(between: Meddler) -> None:
    """A large answer on a slow line is no hanging server: only what comes in drops times out."""
    host, port = between.address
    store = RedisStore(f"redis://{host}:{port}/0", prefix=new_prefix(), timeout=0.3)
    # 4 MB in all, which Redis sends as they are read
    for i in range(8):
        fill(store, record(i, name="x" * 500_000))
    slow = threading.Event()

    def slowly(answer: bytes) -> Iterable[bytes]:
        yield answer
        slow.wait(0.01)

    between.forwarding = slowly
    begun = time.monotonic()
    assert all(isinstance(found, Record) for found in store.read([key(id=i) for i in range(8)]))
    assert time.monotonic() - begun > 0.3


@pytest.mark.parametrize("name", ["\r\n$9\r\n", "*3\r\n$1\r\nx\r\n", "\r\n" * 9, "x" * 200_000])
def test_value_that_looks_like_an_answer(between: Meddler, name: str) -> None:
    """What a value holds is never taken for the end of it."""
    store = _asked_before(between)
    fill(store, record(2, name=name))
    for _ in range(2):
        assert store.get(Person, {"id": 2}).name == name
        assert store.get(Person, RIGHT).name == "right"


PIECES = st.sampled_from([b"*3\r\n", b"$9\r\n", b"$-1\r\n", b"\r\n", b"-ERR no\r\n", b"$1\r\nx\r\n", b"\x04"])


@settings(max_examples=100, deadline=None)
@given(answer=st.one_of(st.binary(max_size=60), st.integers(0, 200), st.lists(PIECES, max_size=9).map(b"".join)))
def test_fuzzed_answers(redis_server: str, answer: bytes | int) -> None:
    """A random, half-right or truncated answer leads to an error or to a miss, never to a value.

    An integer stands for that much of the server's own answer.
    """
    host, port = redis_server.removeprefix("redis://").removesuffix("/0").split(":")
    with meddler((host, int(port))) as between:
        store = _asked_before(between)

        def meddle(own: bytes) -> Iterable[bytes]:
            between.meddle = None
            yield own[:answer] if isinstance(answer, int) else answer

        between.meddle = meddle
        with contextlib.suppress(StoreError):
            found = store.get(Person, RIGHT)
            assert found is None or found.name == "right"
        assert store.get(Person, RIGHT).name == "right"


def test_what_has_become_of_it_is_seen(redis_server: str) -> None:
    """A lock, a lease, another epoch and another's bytes in the record's place are what they are for every reader."""
    prefix = new_prefix()
    store, other = RedisStore(redis_server, prefix=prefix), RedisStore(redis_server, prefix=prefix)
    one = key(id=1)
    fill(store, record(name="right"))
    assert isinstance(store.read_one(one), Record)
    locks = other.lock([one], 30)
    assert store.read_one(one) is not MISS
    assert store.get(Person, RIGHT) is None
    other.publish([(locks[0], record(name="new"))])
    assert store.get(Person, RIGHT).name == "new"
    other.clear()
    assert store.get(Person, RIGHT) is None
    fill(other, record(name="newer"))
    assert store.get(Person, RIGHT).name == "newer"
    other.invalidate(Person)
    assert isinstance(store.read_one(one), Lease)
    assert other.execute("SET", one.text(prefix), b"another's")
    assert store.get(Person, RIGHT) is None


def test_answer_that_nobody_has_asked_for(redis_server: str) -> None:
    """It is not taken for the answer to the next question: the connection that has it is used no more."""
    store = RedisStore(redis_server, prefix=new_prefix())
    fill(store, record(name="right"))
    (pipe,) = store._server._spare
    pipe.connection.send_command("PING")
    wait_for(lambda: not pipe.is_quiet)
    assert store.get(Person, RIGHT).name == "right"
    assert pipe not in store._server._spare


def _checked_by_url(url: str, prefix: str) -> RedisStore:
    return RedisStore(f"{url}?health_check_interval=30", prefix=prefix)


def _checked_by_client(url: str, prefix: str) -> RedisStore:
    return RedisStore(client=redis.Redis.from_url(url, health_check_interval=30), prefix=prefix)


def _parsed_in_python(url: str, prefix: str) -> RedisStore:
    pool = redis.ConnectionPool.from_url(url, parser_class=_RESP3Parser, protocol=3)
    return RedisStore(client=redis.Redis(connection_pool=pool), prefix=prefix)


@pytest.mark.parametrize("make", [_checked_by_url, _checked_by_client, _parsed_in_python])
def test_connection_is_kept_that_redis_py_has_to_itself(
    redis_server: str, make: Callable[[str, str], RedisStore]
) -> None:
    """Reads of one key go on one connection also where redis-py checks it now and then, or parses without hiredis."""
    store = make(redis_server, new_prefix())
    fill(store, record(name="right"))
    tier, one = store._tier, key(id=1)
    found: Any = tier.read_revised([one])[0]
    made = _connections_made(redis_server)
    for _ in range(20):
        assert store.get(Person, RIGHT).name == "right"
        assert tier.has_revision(one, found.revision)
    assert _connections_made(redis_server) == made + 1, "the one that asks for the number"


def _connections_made(url: str) -> int:
    """How many connections the server has taken, that which asks among them."""
    with redis.Redis.from_url(url) as client:
        return int(client.info("stats")["total_connections_received"])
