"""Stores as connections: ping, connect, execute and execute_transaction, on real servers that answer, or do not."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from stockpyle import create_store
from stockpyle.exceptions import InvalidKey, StoreError, StoreTimeout, StoreUnavailable, UnsupportedOperation
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.orm.commands import Question
from stockpyle.protocols import InThisProcess
from stockpyle.stores import (
    BaseDictionaryStore,
    BaseStore,
    ChainedStore,
    MemcacheStore,
    NullStore,
    ProcessMemoryStore,
    RedisStore,
    SqlAlchemyStore,
    ThreadLocalStore,
)
from tests.connections.places import ANSWERS, Place, fails, garbage, half, nothing
from tests.ext.models import Base, User
from tests.servers import Memcached, RedisCluster


def test_a_server_answers(place: Place) -> None:
    """ping is True, a command is answered, and connect makes a connection of the driver's, which is the caller's."""
    assert place.store.ping() is True
    assert place.ask() == ANSWERS[place.kind]
    connection = place.store.connect()
    other = place.store.connect()
    assert connection is not other
    if isinstance(connection, sa.Connection):
        assert connection.scalar(sa.text("SELECT 2")) == 2
    else:
        # pymemcache does not wait for an answer by default
        connection.set("mine", b"2", **({"noreply": False} if place.kind == "memcache" else {}))
        assert other.get("mine") == b"2"
    connection.close()
    other.close()


def test_a_server_that_is_down(place: Place) -> None:
    """Nothing is answered while it is down; it is as soon as it is up again, whatever connections were left."""
    direct = create_store(place.url.replace(str(place.between.address[1]), str(place.server.port)))
    assert direct.ping() is True
    place.server.stop("immediate")
    fails(direct.ping, "ping")
    fails(direct.connect, "connect")
    place.server.start()
    assert direct.ping() is True
    direct.close()


def test_a_server_that_hangs(place: Place) -> None:
    """ping gives up after its timeout, with StoreTimeout, with a connection at hand and without, again and again."""
    for _ in range(2):
        with place.server.hung():
            fails(place.store.ping, "ping", StoreTimeout)
            fails(place.store.ping, "ping", StoreTimeout)
        assert place.store.ping() is True


@pytest.mark.parametrize("answer", [garbage, half, nothing])
@pytest.mark.parametrize("connected", [True, False])
def test_a_server_that_answers_nonsense(place: Place, answer: Any, connected: bool) -> None:
    """Garbage, half an answer or none is StoreUnavailable, on a new connection and on one that was in use."""
    if connected:
        assert place.store.ping() is True
        assert place.ask() == ANSWERS[place.kind]
    place.between.meddle = answer
    fails(place.store.ping, "ping")
    fails(place.ask, "execute")
    place.between.meddle = None
    assert place.store.ping() is True
    assert place.ask() == ANSWERS[place.kind]


@pytest.mark.parametrize("place", ["redis", "memcache"], indirect=True)
def test_a_command_to_a_server_that_hangs(place: Place) -> None:
    """execute has the store's timeout."""
    with place.server.hung():
        fails(place.ask, "execute", StoreTimeout)
    assert place.ask() == ANSWERS[place.kind]


@pytest.mark.parametrize("place", ["redis", "memcache"], indirect=True)
def test_a_command_whose_answer_is_lost_is_not_sent_twice(place: Place) -> None:
    """What was sent and not answered may have been done, so that nobody sends it again."""
    make, add, look, told = {
        "redis": (("SET", "n", 0), ("INCR", "n"), ("GET", "n"), b":1\r\n"),
        "memcache": (("set", "n", 0, 0, "0"), ("incr", "n", 1), ("get", "n"), b"1\r\n"),
    }[place.kind]
    place.store.execute(*make)
    place.between.forwarding = lambda answer: [] if answer == told else [answer]
    fails(lambda: place.store.execute(*add), "execute", StoreTimeout)
    place.between.forwarding = lambda answer: [answer]
    assert place.store.execute(*look) in (b"1", {"n": b"1"})


@pytest.mark.parametrize("place", ["redis"], indirect=True)
def test_a_command_whose_connection_is_cut_is_not_sent_twice(place: Place) -> None:
    """Nor is it where a new connection would do."""

    def cut_once(answer: bytes) -> Iterator[bytes]:
        place.between.meddle = None
        yield b""

    place.store.execute("SET", "n", 0)
    place.between.meddle = cut_once
    fails(lambda: place.store.execute("INCR", "n"), "execute")
    assert place.store.execute("GET", "n") == b"1"


# Redis


@pytest.fixture
def redis(redis_server: str) -> Iterator[RedisStore]:
    """A store on Redis, whose database is empty."""
    store = RedisStore(redis_server.replace("/0", "/5"))
    store.execute("FLUSHDB")
    yield store
    store.close()


def test_redis_commands(redis: RedisStore) -> None:
    """The answers are redis-py's, keys and values are as written, bytes too."""
    assert redis.execute("SET", "a", b"\x00\xff") is True
    assert redis.execute("GET", "a") == b"\x00\xff"
    assert redis.execute("GET", "b") is None
    assert redis.execute("HSET", "h", "x", 1, "y", 2) == 2
    assert redis.execute("HGETALL", "h") == {b"x": b"1", b"y": b"2"}
    with pytest.raises(StoreError, match="WRONGTYPE") as told:
        redis.execute("LPUSH", "a", 1)
    assert type(told.value) is StoreError
    with pytest.raises(StoreError, match="unknown command"):
        redis.execute("NONSENSE")
    with pytest.raises(StoreError, match=r"must be str, int|Invalid input"):
        redis.execute("SET", "a", object())
    with pytest.raises(TypeError, match="at least one word"):
        redis.execute()


def test_redis_transactions(redis: RedisStore) -> None:
    """Commands between MULTI and EXEC are answered in order; of one with a wrong command nothing is run."""
    assert redis.execute_transaction([("SET", "n", 1), ("INCR", "n"), "PING"]) == [True, 2, True]
    assert redis.execute_transaction([]) == []
    with pytest.raises(StoreError, match=r"NONSENSE|EXECABORT|Transaction discarded"):
        redis.execute_transaction([("INCR", "n"), ("NONSENSE",)])
    assert redis.execute("GET", "n") == b"2"
    with pytest.raises(StoreError, match="WRONGTYPE"):
        redis.execute_transaction([("INCR", "n"), ("LPUSH", "n", 1)])
    with pytest.raises(TypeError, match="execute_transaction takes several at once"):
        redis.execute_transaction(5)  # type: ignore[arg-type]


def test_redis_transactions_are_not_interrupted(redis: RedisStore) -> None:
    """No other command comes between those of one transaction."""
    seen = set()

    def move() -> None:
        for i in range(200):
            redis.execute_transaction([("SET", "x", i), ("SET", "y", i)])

    mover = threading.Thread(target=move)
    mover.start()
    while mover.is_alive():
        seen.add(len(set(redis.execute("MGET", "x", "y"))))
    mover.join()
    assert seen == {1}


@pytest.mark.parametrize(
    "command",
    [
        ("SELECT", 3),
        ("select 3",),
        ("MULTI",),
        ("SUBSCRIBE", "news"),
        ("MONITOR",),
        ("CLIENT", "REPLY", "OFF"),
        ("CLIENT REPLY", "OFF"),
        (b"auth", "password"),
    ],
)
def test_redis_commands_that_change_the_connection(redis: RedisStore, command: Any) -> None:
    """They are refused, because the next command would meet what they have changed."""
    for refused in (lambda: redis.execute(*command), lambda: redis.execute_transaction([command])):
        with pytest.raises(UnsupportedOperation, match=r"changes its connection.*connect\(\)"):
            refused()
    assert b" db=5 " in redis.execute("CLIENT", "INFO")


def test_commands_do_not_touch_the_stores_own_connections(redis: RedisStore) -> None:
    """What the store keeps is the same before and after; its keys have its prefix, and commands' keys have none."""
    redis.put(Thing(1, "kept"))
    redis.execute("SET", "1", "other")
    assert redis.get(Thing, {"id": 1}).value == "kept"


def test_a_redis_cluster_runs_commands() -> None:
    """Commands go to the node of their key; a transaction's keys are on one node, or it is refused."""
    with RedisCluster() as made, create_store(made.url) as store:
        assert store.ping() is True
        for i in range(20):
            assert store.execute("SET", f"k{i}", i) is True
        assert [store.execute("GET", f"k{i}") for i in range(20)] == [str(i).encode() for i in range(20)]
        assert store.execute_transaction([("SET", "{a}x", 1), ("INCR", "{a}x")])[1] == 2
        with pytest.raises(StoreError):
            store.execute_transaction([("SET", "x", 1), ("SET", "y", 1), ("SET", "z", 1)])
        with contextlib.closing(store.connect()) as client:
            assert client.get("k3") == b"3"


# memcached


@pytest.fixture
def memcache(memcached: tuple[str, int]) -> Iterator[MemcacheStore]:
    """A store on memcached."""
    store = MemcacheStore(servers=memcached)
    yield store
    store.close()


def test_memcached_commands(memcache: MemcacheStore) -> None:
    """Values come by their keys, numbers as numbers, anything else as memcached says it."""
    run = memcache.execute
    assert run("set", "a", 0, 60, "x\r\nEND\r\n") == "STORED"
    assert run("set", "b", 0, 60, b"") == "STORED"
    assert run("add", "a", 0, 60, "y") == "NOT_STORED"
    assert run("get", "a", "b", "nothing") == {"a": b"x\r\nEND\r\n", "b": b""}
    (value, cas) = run("gets", "a")["a"]
    assert run("cas", "a", 0, 60, cas, value + b"!") == "STORED"
    assert run("cas", "a", 0, 60, cas, value) == "EXISTS"
    assert run("gat", 60, "a") == {"a": b"x\r\nEND\r\n!"}
    assert run("set", "n", 0, 60, 5) == "STORED"
    assert (run("incr", "n", 3), run("decr", "n", 100), run("incr", "nothing", 1)) == (8, 0, "NOT_FOUND")
    assert (run("touch", "a", 60), run("delete", "a"), run("delete", "a")) == ("TOUCHED", "DELETED", "NOT_FOUND")
    assert run("VERSION").startswith("VERSION 1.")
    assert int(run("stats")["pid"]) > 0
    assert "evictions" in " ".join(run("stats", "settings"))


@pytest.mark.parametrize(
    ("command", "kind", "says"),
    [
        (("nonsense",), UnsupportedOperation, "'nonsense' is no command .*: set, add"),
        (("mg", "a"), UnsupportedOperation, "is no command that can be sent"),
        (("get",), UnsupportedOperation, "get needs keys"),
        (("gat", 5), UnsupportedOperation, "gat needs an expiry and keys"),
        (("set", "a", "x"), UnsupportedOperation, "set needs key, flags, expiry and value"),
        (("delete",), UnsupportedOperation, "delete needs a key"),
        (("delete", "a", "noreply"), UnsupportedOperation, "noreply asks for no answer"),
        (("get", "a b"), InvalidKey, "blanks or control characters"),
        (("get", "a\r\nflush_all"), InvalidKey, "blanks or control characters"),
        (("set", "a", "0\r\n", 0, "x"), InvalidKey, "blanks or control characters"),
        (("get", ""), InvalidKey, "or is empty"),
        (("get", "k" * 251), InvalidKey, "251 bytes: a key of memcached has at most 250"),
        (("get", 1.5), TypeError, "made of text, bytes and whole numbers"),
        (("incr", "text", 1), StoreError, "CLIENT_ERROR cannot increment"),
        (("set", "a", "x", 0, "v"), StoreError, "CLIENT_ERROR|ERROR"),
        (("set", "a", 0, 0, "v" * 2_000_000), StoreError, "SERVER_ERROR object too large"),
    ],
)
def test_wrong_memcached_commands(memcache: MemcacheStore, command: Any, kind: Any, says: str) -> None:
    """What memcached would misread is not sent; what it refuses is a StoreError; the next command is not disturbed."""
    memcache.execute("set", "text", 0, 60, "x")
    with pytest.raises(kind, match=says):
        memcache.execute(*command)
    assert memcache.execute("get", "text") == {"text": b"x"}


def test_memcached_commands_find_their_server() -> None:
    """On several servers the key decides; a command without one, or with keys of two servers, is refused."""
    with Memcached() as one, Memcached() as two:
        store = create_store(f"memcache://{one.host}:{one.port},{two.host}:{two.port}")
        assert store.ping() is True
        for i in range(20):
            assert store.execute("set", f"k{i}", 0, 60, i) == "STORED"
        assert all(store.execute("get", f"k{i}") == {f"k{i}": str(i).encode()} for i in range(20))
        counts = [int(create_store(f"memcache://{s.host}:{s.port}").execute("stats")["cmd_set"]) for s in (one, two)]
        assert all(count > 1 for count in counts)
        for command in (("version",), ("get", *(f"k{i}" for i in range(20)))):
            with pytest.raises(UnsupportedOperation, match="to choose one of the 2 by"):
                store.execute(*command)
        with pytest.raises(UnsupportedOperation, match="connect needs a key"):
            store.connect()
        two.stop("immediate")
        with pytest.raises(StoreUnavailable, match=str(two.port)):
            store.ping()
        one.stop("immediate")
        store.close()


# SQL


def test_sql_commands(engine: sa.Engine) -> None:
    """Rows come as SQLAlchemy's, else the number of rows changed; text takes parameters, and so does a construct."""
    store = SqlAlchemyStore(engine=engine)
    assert store.ping() is True
    store.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)")
    assert store.execute("INSERT INTO t VALUES (:a, :b)", {"a": 1, "b": "x"}) == 1
    assert store.execute("INSERT INTO t VALUES (:a, :b)", [{"a": 2, "b": "y"}, {"a": 3, "b": "z"}]) == 2
    assert [row.b for row in store.execute("SELECT b FROM t ORDER BY a")] == ["x", "y", "z"]
    table = sa.table("t", sa.column("a"), sa.column("b"))
    assert store.execute(sa.update(table).where(table.c.a > 1), {"b": "w"}) == 2
    with pytest.raises(StoreError) as told:
        store.execute("INSERT INTO t VALUES (1, 'again')")
    assert type(told.value) is StoreError
    assert isinstance(told.value.__cause__, sa.exc.IntegrityError)
    with pytest.raises(StoreError):
        store.execute("SELECT nonsense FROM nowhere")
    with pytest.raises(TypeError, match="a statement, and a mapping"):
        store.execute("SELECT 1", 5)
    with contextlib.closing(store.connect()) as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM t")) == 3
    store.close()


def test_sql_transactions(engine: sa.Engine) -> None:
    """All statements are committed together, or none is, also on an engine in autocommit."""
    for each in (engine, engine.execution_options(isolation_level="AUTOCOMMIT")):
        store = SqlAlchemyStore(engine=each)
        store.execute_transaction(["DROP TABLE IF EXISTS t", "CREATE TABLE t (a INTEGER PRIMARY KEY)"])
        added = store.execute_transaction([("INSERT INTO t VALUES (:a)", {"a": 1}), "SELECT a FROM t"])
        assert added == [1, [(1,)]]
        with pytest.raises(StoreError):
            store.execute_transaction(["INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (1)"])
        assert store.execute("SELECT a FROM t") == [(1,)]
        assert store.execute_transaction([]) == []
        store.close()


def test_sql_commands_leave_the_caches_to_their_user(engine: sa.Engine) -> None:
    """What they change is read anew once the chain is told of it; a session of the extension tells it by itself."""
    Base.metadata.create_all(engine)
    source = SqlAlchemyStore(engine=engine)
    chain = ChainedStore([ProcessMemoryStore(), source])
    Session = sessionmaker(engine, extension=StockpyleSessionExtension(store=chain))
    with Session() as session:
        session.add(User(id=1, email="ann@example.org", name="Ann"))
        session.commit()
    source.execute("UPDATE users SET name = 'Anne' WHERE id = 1")
    chain.invalidate(User, {"id": 1})
    assert chain.get(User, {"id": 1}).name == "Anne"
    source.execute_transaction([(sa.update(User).values(name="Anna"),)])
    chain.invalidate(User)
    assert chain.get(User, {"id": 1}).name == "Anna"
    chain.close()


def test_sql_on_a_connection_that_all_share() -> None:
    """A command does not commit what somebody has begun on the only connection there is."""
    engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    store = SqlAlchemyStore(engine=engine)
    store.execute("CREATE TABLE t (a INTEGER)")
    with engine.connect() as connection:
        connection.execute(sa.text("INSERT INTO t VALUES (1)"))
        with pytest.raises(StoreError, match="another transaction is open"):
            store.execute("INSERT INTO t VALUES (2)")
        connection.rollback()
    assert store.execute("SELECT * FROM t") == []
    assert store.ping() is True
    store.close()
    engine.dispose()


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    """An SQLite file in a folder that is not there is StoreUnavailable."""
    store = create_store(f"sqlite:///{tmp_path}/nowhere/x.db")
    fails(store.ping, "ping")
    fails(lambda: store.execute("SELECT 1"), "execute")


def test_a_question_without_an_answer_is_asked_once() -> None:
    """While one waits in vain no other thread is started; who asks after the answer asks anew."""
    release = threading.Event()
    asked = []

    def ask() -> bool:
        asked.append(threading.current_thread())
        release.wait()
        if len(asked) == 2:
            raise StoreUnavailable("gone", "s", "ping")
        return True

    question = Question(ask)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            question.ask(0.001)
    assert len(asked) == 1
    release.set()
    asked[0].join()
    with pytest.raises(StoreUnavailable, match="gone"):
        question.ask(30)
    assert question.ask(30) is True


# all of them


class Thing:
    __stockpyle_keys__ = ["id"]

    def __init__(self, id: int, value: str) -> None:
        self.id = id
        self.value = value


class Bare(BaseStore):
    """A user's store with no more than it must have."""

    def put(self, obj: Any) -> None: ...

    def get(self, klass: type, key: Any) -> None: ...

    def delete(self, obj: Any) -> None: ...


class Down(Bare):
    """One that cannot be reached."""

    def ping(self) -> bool:
        raise StoreTimeout("nobody is there", "down", "ping")


class Odd(Bare):
    """One whose driver raises whatever it likes."""

    def ping(self) -> bool:
        raise RuntimeError("odd")


@pytest.mark.parametrize(
    ("make", "capabilities"),
    [
        (ProcessMemoryStore, {"ping"}),
        (ThreadLocalStore, {"ping"}),
        (NullStore, {"ping"}),
        (BaseDictionaryStore, {"ping"}),
        (lambda: ChainedStore([NullStore()]), {"ping"}),
        (lambda: RedisStore("redis://h"), {"ping", "connect", "execute", "transactions"}),
        (lambda: MemcacheStore(servers="h"), {"ping", "connect", "execute"}),
        (lambda: SqlAlchemyStore("sqlite://"), {"ping", "connect", "execute", "transactions"}),
        (Bare, set()),
    ],
)
def test_what_a_store_cannot_do_names_those_that_can(make: Any, capabilities: set[str]) -> None:
    """`supports` tells which verbs there are; the others raise UnsupportedOperation."""
    store = make()
    calls: dict[str, Callable[[], Any]] = {
        "ping": store.ping,
        "connect": store.connect,
        "execute": lambda: store.execute("PING"),
        "transactions": lambda: store.execute_transaction(["PING"]),
    }
    assert store.supports & set(calls) == capabilities
    for name, call in calls.items():
        if name not in capabilities:
            with pytest.raises(UnsupportedOperation, match=r"has no \w+\(\): .*RedisStore.*SqlAlchemyStore.* can"):
                call()


def test_stores_in_this_process_answer() -> None:
    """There is nobody else to ask; a mapping is asked itself."""
    for store in (ProcessMemoryStore(), ThreadLocalStore(), NullStore(), BaseDictionaryStore({})):
        assert store.ping() is True

    class Broken(dict[str, Any]):
        def get(self, *args: Any) -> Any:
            raise EOFError("truncated")

    with pytest.raises(StoreUnavailable, match="truncated"):
        BaseDictionaryStore(Broken()).ping()


def test_a_chain_pings_all_its_stores() -> None:
    """Each that can be asked is asked; the error names all that do not answer."""
    assert ChainedStore([ProcessMemoryStore(), Bare(), SqlAlchemyStore("sqlite://")]).ping() is True
    with pytest.raises(StoreTimeout, match=r"down.ping: nobody is there"):
        ChainedStore([NullStore(), Down()]).ping()
    with pytest.raises(StoreUnavailable, match=r"chain.ping: down.ping: nobody is there; odd"):
        ChainedStore([Down(), Odd(), NullStore()]).ping()


def test_a_trivial_answer_says_nothing_of_a_tier_that_fails() -> None:
    """A tier in this process that fails is tried again by who uses it, and a ping does not make it well."""

    class Failing(ProcessMemoryStore):
        def read(self, *args: Any, **kwargs: Any) -> Any:
            raise OSError("broken")

    class Remote(Failing):
        def ping(self) -> bool:
            raise OSError("still broken")

    assert Failing.ping is InThisProcess.ping
    assert [guard._ping for guard in Failing().guards.parts] == [None]
    assert [guard._ping is not None for guard in Remote().guards.parts] == [True]


def test_sixteen_threads_run_commands(redis_server: str, memcached: tuple[str, int], postgres_url: str) -> None:
    """One store serves all of them, and each gets its own answers."""
    stores = [RedisStore(redis_server), MemcacheStore(servers=memcached), SqlAlchemyStore(postgres_url)]
    wrong: list[Any] = []

    def work(number: int) -> None:
        for i in range(30):
            said = f"{number}-{i}"
            answers = [
                stores[0].execute("ECHO", said).decode(),
                stores[1].execute("set", said, 0, 60, said) and stores[1].execute("get", said)[said].decode(),
                stores[2].execute("SELECT CAST(:said AS TEXT)", {"said": said})[0][0],
            ]
            if answers != [said] * 3 or not all(store.ping() for store in stores):
                wrong.append((said, answers))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    for store in stores:
        store.close()


def test_a_child_process_has_connections_of_its_own(
    redis_server: str, memcached: tuple[str, int], postgres_url: str
) -> None:
    """After a fork both sides go on asking, and neither hears the other's answers."""
    stores = [RedisStore(redis_server), MemcacheStore(servers=memcached), SqlAlchemyStore(postgres_url)]

    def ask(said: str) -> list[Any]:
        return [
            stores[0].execute("ECHO", said).decode(),
            stores[1].execute("set", said, 0, 60, said) and stores[1].execute("get", said)[said].decode(),
            stores[2].execute("SELECT CAST(:said AS TEXT)", {"said": said})[0][0],
            [store.ping() for store in stores],
        ]

    def right(side: str) -> bool:
        return all(ask(f"{side}{i}") == [f"{side}{i}"] * 3 + [[True] * 3] for i in range(20))

    assert right("before")
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            code = 0 if right("child") else 1
        os._exit(code)
    assert right("parent")
    assert os.waitpid(child, 0)[1] == 0
    for store in stores:
        store.close()
