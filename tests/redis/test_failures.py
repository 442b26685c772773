"""A Redis that refuses what it is asked, in all the ways it has, seen from a chain and its sessions."""

from __future__ import annotations

import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hiredis
import pytest
import redis
from redis._parsers import _RESP2Parser as PythonParser

from stockpyle.exceptions import StoreError, StoreTimeout, StoreUnavailable
from stockpyle.records import LOCKED, MISS, Lease, Lock
from stockpyle.redis.scripts import TAKE_LEASE
from stockpyle.redis.server import packer
from stockpyle.stores import RedisStore
from stockpyle.testing.samples import Person
from tests.ext.models import User
from tests.remote.caches import OnRedis
from tests.remote.parts import ONE, TWO, Meddler, fill, holds, meddler, new_prefix, record, wait_for
from tests.remote.places import Place
from tests.servers import Redis

ERRORS = {
    "loading": b"LOADING Redis is loading the dataset in memory",
    "a replica": b"READONLY You can't write against a read only replica.",
    "a replica without its master": b"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "out of memory": b"OOM command not allowed when used memory > 'maxmemory'.",
    "no script": b"NOSCRIPT No matching script. Please use EVAL.",
    "busy": b"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "not allowed": b"NOPERM this user has no permissions to run the 'eval' command",
    "logged out": b"NOAUTH Authentication required.",
    "cannot save": b"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "wrong type": b"WRONGTYPE Operation against a key holding the wrong kind of value",
    "something new": b"ERR unknown command",
}


def refusing(error: bytes) -> Callable[[bytes], Iterator[bytes]]:
    """Answer each command with this error."""

    def answer(said: bytes) -> Iterator[bytes]:
        reader = hiredis.Reader(notEnoughData=refusing)
        reader.feed(said)
        while reader.gets() is not refusing:
            yield b"-" + error + b"\r\n"

    return answer


@pytest.fixture
def between(cache: OnRedis) -> Iterator[Meddler]:
    """Somebody in front of the server."""
    with meddler(cache.address) as made:
        yield made


@pytest.fixture
def cache(redis_server: str) -> OnRedis:
    """The Redis that all tests share."""
    host, port = redis_server.removeprefix("redis://").removesuffix("/0").split(":")
    return OnRedis((host, int(port)))


@pytest.fixture
def own() -> Iterator[Redis]:
    """A server that a test may stop."""
    with Redis() as server:
        yield server


@pytest.mark.parametrize("error", ERRORS)
def test_refusals_cost_no_answers(error: str, tmp_path: Path, between: Meddler, cache: OnRedis) -> None:
    """Reads and commits go on, right, while Redis refuses everything; afterwards nothing older is in it."""
    place = Place(tmp_path, cache, between)
    plain = between.forwarding
    between.forwarding = refusing(ERRORS[error])
    assert place.name == "old"
    for name in ("first", "second"):
        place.rename(name)
        assert place.name == name
        assert place.chain.get(User, {"email": "ann@x"}).name == name
    between.forwarding = plain
    place.recover()
    assert place.name == "second"
    assert place.others_see == "second"
    assert place.tier.guards.parts[0].trusted


# a real server that refuses


def test_server_that_is_busy_with_a_script(own: Redis) -> None:
    """While somebody's script keeps the server busy it cannot be used; when that is over, all is as it was."""
    store = RedisStore(own.url)
    fill(store, record(name="kept"))
    (lease,) = store.read([TWO])
    assert own.tell("CONFIG", "SET", "busy-reply-threshold", 1).startswith(b"+OK")
    endless = threading.Thread(target=own.tell, args=("EVAL", '"while true do end"', 0))
    endless.start()
    while not own.tell("PING").startswith(b"-BUSY"):
        time.sleep(0.01)
    for call in (
        lambda: holds(store),
        lambda: store.revisions([ONE]),
        lambda: store.lock([ONE], 30),
        lambda: store.publish([(Lock(ONE), None)]),
    ):
        with pytest.raises(StoreError, match="BUSY"):
            call()
    with pytest.raises(StoreError, match="BUSY"):
        store.fill([(lease, record(2))])
    own.tell("SCRIPT", "KILL")
    endless.join()
    assert holds(store) == "kept"


def test_server_that_forgets_its_scripts(own: Redis) -> None:
    """Scripts are sent, not only named: a server that has forgotten them, as after a restart, needs no second try."""
    store = RedisStore(own.url)
    fill(store, record(name="kept"))
    assert own.tell("SCRIPT", "FLUSH").startswith(b"+OK")
    (lock,) = store.lock([ONE], 30)
    store.publish([(lock, record(name="new"))])
    assert holds(store) == "new"


def test_server_that_has_become_a_replica(own: Redis) -> None:
    """A server that takes no more writes locks nothing, and says why; as a master again it is used again."""
    store = RedisStore(own.url)
    fill(store, record(name="old"))
    with Redis() as master:
        own.tell("REPLICAOF", master.host, master.port)
        with pytest.raises(StoreError, match=r"(?i)read ?only"):
            store.lock([ONE], 30)
        own.tell("REPLICAOF", "NO", "ONE")
    store.close()
    (lock,) = store.lock([ONE], 30)
    store.publish([(lock, record(name="new"))])
    assert holds(store) == "new"


@pytest.mark.parametrize("password", ["", ":wrong@"], ids=["none", "wrong"])
def test_password_that_is_missing_or_wrong(own: Redis, password: str) -> None:
    """Without the server's password it cannot be used, and the error says that it is about that."""
    own.tell("CONFIG", "SET", "requirepass", "secret")
    store = RedisStore(own.url.replace("redis://", f"redis://{password}"))
    with pytest.raises(StoreUnavailable, match=r"(?i)auth|password") as caught:
        store.get(Person, {"id": 1})
    assert "wrong@" not in str(caught.value)
    right = RedisStore(own.url.replace("redis://", "redis://:secret@"))
    assert right.get(Person, {"id": 1}) is None


def test_user_who_may_not_run_scripts(own: Redis) -> None:
    """A user of the server's who lacks a right that is needed cannot use it; the error names the command."""
    own.tell("ACL", "SETUSER", "reader", "on", ">word", "~*", "+@all", "-eval")
    store = RedisStore(own.url.replace("redis://", "redis://reader:word@"))
    with pytest.raises(StoreUnavailable, match="eval"):
        store.get(Person, {"id": 1})


def test_server_that_takes_no_more_clients(own: Redis) -> None:
    """A server with as many clients as it takes cannot be used by one more, and can when some have gone."""
    own.tell("CONFIG", "SET", "maxclients", 2)
    others = [redis.Redis(own.host, own.port) for _ in range(2)]
    for other in others:
        other.ping()
    store = RedisStore(own.url)
    with pytest.raises(StoreUnavailable, match="max number of clients"):
        store.get(Person, {"id": 1})
    for other in others:
        other.close()
    wait_for(lambda: own.tell("PING").startswith(b"+PONG"))
    assert store.get(Person, {"id": 1}) is None


def test_server_that_hangs_costs_its_timeout_once(own: Redis) -> None:
    """A call waits for its timeout, and is not tried again; nor does it find answers to what was asked before."""
    store = RedisStore(own.url, timeout=0.2)
    fill(store, record(1, name="one"), record(2, name="two"))
    looks = _looks(own)
    with own.hung(), pytest.raises(StoreTimeout, match="did not answer in time"):
        holds(store, ONE)
    assert holds(store, TWO) == "two"
    assert holds(store, ONE) == "one"
    assert _looks(own) - looks == 3


def _looks(server: Redis) -> int:
    with redis.Redis(server.host, server.port) as client:
        return int(client.info("commandstats")["cmdstat_mget"]["calls"])


def test_interrupt_in_the_midst_of_a_call(cache: OnRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever breaks a call off, its connection with half an answer in it is not used again."""
    store = cache.store()
    fill(store, record(1, name="one"), record(2, name="two"))
    real = redis.Connection.read_response

    def interrupted(self: Any, *args: Any, **options: Any) -> Any:
        monkeypatch.undo()
        raise KeyboardInterrupt

    for call in (lambda: store.read([ONE]), lambda: store.revisions([ONE]), lambda: store.lock([TWO], 30)):
        monkeypatch.setattr(redis.Connection, "read_response", interrupted)
        with pytest.raises(KeyboardInterrupt):
            call()
        assert redis.Connection.read_response is real
        assert holds(store, ONE) == "one"
        assert store.revisions([ONE])[0] == store.read_revised([ONE])[0].revision
    assert holds(store, TWO) is LOCKED


def test_answer_of_a_call_that_was_given_up(cache: OnRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pooled connection in which an answer waits that nobody has asked for is replaced before it is used."""
    for store in (cache.store(), RedisStore(client=redis.Redis(*cache.address, protocol=3), prefix=new_prefix())):
        fill(store, record(1, name="one"))
        pool = store.parts[0].server._client.connection_pool
        connection = pool.get_connection()
        connection.send_command("PING")
        select.select([connection._sock], [], [])
        pool.release(connection)
        assert holds(store) == "one"
        pool.release(pool.get_connection())
        assert store.revisions([ONE])[0]


def test_the_protocol_is_the_third(own: Redis) -> None:
    """Connections speak RESP3, also those of a client that was given with other settings."""
    stores = [RedisStore(own.url), RedisStore(client=redis.Redis(own.host, own.port, protocol=3))]
    for store in stores:
        assert holds(store) is MISS
        with redis.Redis(own.host, own.port) as client:
            assert {each["resp"] for each in client.client_list()} >= {"3"}
        store.close()


def test_client_without_hiredis(cache: OnRedis) -> None:
    """A client that parses in Python is as good, whether or not what is there is what was expected."""
    host, port = cache.address
    pool = redis.ConnectionPool(parser_class=PythonParser, host=host, port=port)
    store = RedisStore(client=redis.Redis(connection_pool=pool), prefix=new_prefix())
    fill(store, record(1, name="one"))
    (found,) = store.read_revised([ONE])
    assert store.revisions([ONE], [found.revision]) == [found.revision]
    (lock,) = store.lock([ONE], 30)
    store.publish([(lock, record(1, name="one"))])
    assert store.revisions([ONE], [found.revision]) != [found.revision]


def test_commands_without_hiredis(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent is the same, whether hiredis packs it or not."""
    commands = [(b"MGET", b"a", "b"), (b"EVAL", TAKE_LEASE, b"1", b"key", b"\0\r\n" * 1000, b""), (b"ROLE",)]
    packed = packer()
    monkeypatch.setitem(sys.modules, "hiredis", None)
    assert packer() is not packed
    assert [packer()(each) for each in commands] == [packed(each) for each in commands]


def test_bounded_pool(cache: OnRedis) -> None:
    """A client that makes one connection only can be asked for revisions and for records in turn."""
    store = RedisStore(f"redis://{cache.address[0]}:{cache.address[1]}/0?max_connections=1", prefix=new_prefix())
    fill(store, record(1, name="one"))
    for _ in range(3):
        (found,) = store.read_revised([ONE])
        assert store.revisions([ONE], [found.revision]) == [found.revision]


@pytest.mark.parametrize("ask", [lambda it: it.counter("visits").reset(), lambda it: it.counter("visits").increment()])
def test_connections_at_hand_are_for_all(cache: OnRedis, ask: Callable[[RedisStore], Any]) -> None:
    """The last connection, kept at hand for a tier's calls, is for whoever needs it, and then kept no more."""
    store = RedisStore(f"redis://{cache.address[0]}:{cache.address[1]}/0?max_connections=4", prefix=new_prefix())
    fill(store, record(1, name="one"))
    pool = store._server._client.connection_pool
    others = [pool.get_connection() for _ in range(3)]
    assert store.revisions([ONE])
    assert store.read_revised([ONE])
    assert store._server._spare
    ask(store)
    assert store.revisions([ONE])
    assert not store._server._spare
    others.append(pool.get_connection())
    with pytest.raises(StoreUnavailable, match="Too many connections"):
        store.read_revised([ONE])
    for connection in others:
        pool.release(connection)
    store.close()


def test_value_of_any_size(cache: OnRedis) -> None:
    """A value of some megabytes, which Redis takes, is kept and read like any other; nothing is too large before."""
    store = cache.store()
    fill(store, record(name="x" * 5_000_000))
    assert len(holds(store)) == 5_000_000
    assert store.revisions([ONE]) == [store.read_revised([ONE])[0].revision]


def test_value_that_is_larger_than_redis_takes(own: Redis) -> None:
    """A fill or a publish that Redis refuses for its size leaves nothing older, and is no answer of the next call."""
    store = RedisStore(own.url)
    fill(store, record(name="old"))
    assert own.tell("CONFIG", "SET", "proto-max-bulk-len", 1024 * 1024).startswith(b"+OK")
    (lock,) = store.lock([ONE], 30)
    with pytest.raises(StoreError):
        store.publish([(lock, record(name="x" * 5_000_000))])
    assert holds(store) is LOCKED
    (lease,) = store.read([TWO])
    assert isinstance(lease, Lease)
    with pytest.raises(StoreError):
        store.fill([(lease, record(2, name="x" * 5_000_000))])
    assert holds(store) is LOCKED


# ways to reach a server


def test_unix_socket(own: Redis) -> None:
    """A path in place of host and port."""
    with Redis("--unixsocket", f"{own.folder}/redis.sock", "--unixsocketperm", "777") as server:
        store = RedisStore(f"unix://{own.folder}/redis.sock?db=1")
        store.put(Person(1, name="kept"))
        assert store.get(Person, {"id": 1}).name == "kept"
        assert store.revisions([ONE])[0]
        assert server.tell("INFO", "keyspace").count(b"db1:keys") == 1
