"""What is read on the driver's own cursor: the same as by a Connection, and only where nobody can tell."""

from __future__ import annotations

import enum
import logging
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, deferred, mapped_column, registry
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.pool import NullPool

from stockpyle.exceptions import NonUniqueKeyError, StoreError, StoreTimeout
from stockpyle.orm.connections import SourceConnections
from stockpyle.orm.following import start_following
from stockpyle.records import Record
from stockpyle.stores.sqlalchemy import SqlAlchemyStore
from tests.databases import save, traffic
from tests.servers import Postgres


class Base(DeclarativeBase):
    pass


class Color(enum.Enum):
    RED = "r"
    GREEN = "g"


class Level(str, enum.Enum):
    LOW = "low level"
    HIGH = "high level"


class Upper(sa.TypeDecorator[str]):
    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else value.lower()

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else value.upper()


class Shifted(sa.types.UserDefinedType[int]):
    """What the database adds one to, and takes it off again."""

    cache_ok = True

    def get_col_spec(self, **kw: Any) -> str:
        return "INTEGER"

    def bind_expression(self, bindvalue: Any) -> Any:
        return sa.type_coerce(bindvalue, sa.Integer) + sa.literal_column("1")

    def column_expression(self, colexpr: Any) -> Any:
        return sa.type_coerce(colexpr, sa.Integer) - sa.literal_column("1")


UTC = timezone.utc
VALUES: dict[str, tuple[Any, list[Any]]] = {
    "small": (sa.SmallInteger, [-1, 0, 7]),
    "big": (sa.BigInteger, [2**40, -(2**62), 5]),
    "text": (sa.Text, ["", "a'b", "naïve ☃ %s :x ?"]),
    "short": (sa.String(3), ["abc", "ab", "ab "]),
    "char": (sa.CHAR(4), ["abcd", "wxyz", "ab"]),
    "wide": (sa.Unicode(20), ["é", "%(key_0)s", "{}"]),
    "yes": (sa.Boolean, [True, False, None]),
    "data": (sa.LargeBinary, [b"", b"\0\xff", b"x"]),
    "price": (sa.Numeric(10, 2), [Decimal("12.50"), Decimal("-1.00"), Decimal("0.01")]),
    "cheap": (sa.Numeric(10, 2, asdecimal=False), [1.5, 2.0, -0.25]),
    "weight": (sa.Float, [1.5, -0.1, 1e30]),
    "double": (sa.Double(asdecimal=True), [Decimal("1.5"), Decimal("2.25"), Decimal("-3.125")]),
    "born": (sa.Date, [date(2000, 1, 1), date(1, 1, 1), date(9999, 12, 31)]),
    "at": (sa.DateTime, [datetime(2020, 1, 2, 3, 4, 5, 6), datetime(1999, 1, 1), datetime(2038, 1, 19)]),
    "zoned": (
        sa.DateTime(timezone=True),
        [datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)],
    ),
    "hour": (sa.Time, [time(1, 2, 3), time(0), time(23, 59, 59, 999999)]),
    "gap": (sa.Interval, [timedelta(hours=1), timedelta(0), timedelta(days=-1)]),
    "token": (sa.Uuid, [uuid.UUID(int=1), uuid.UUID(int=2), uuid.UUID(int=2**127)]),
    "hexed": (sa.Uuid(as_uuid=False), [str(uuid.UUID(int=i)) for i in (4, 5, 6)]),
    "foreign_uuid": (sa.Uuid(native_uuid=False), [uuid.UUID(int=i) for i in (7, 8, 9)]),
    "color": (sa.Enum(Color), [Color.RED, Color.GREEN, None]),
    "level": (sa.Enum(Level), [Level.LOW, Level.HIGH, None]),
    "word": (sa.Enum("x", "y", name="word"), ["x", "y", None]),
    "shout": (Upper(20), ["LOUD", "LOUDER", "Q"]),
    "shifted": (Shifted, [1, 2, 3]),
}
"""A column of each type, and values of it; those without a None are keys too."""

KEPT: dict[str, tuple[Any, list[Any]]] = {
    "document": (sa.JSON, [{"a": [1, None]}, [1], "x"]),
    "settings": (MutableDict.as_mutable(sa.JSON()), [{"b": 1}, {}, {"c": {"d": 2}}]),
    "pickled": (sa.PickleType, [{1: {2}}, (1,), None]),
}
"""Columns of types that nobody has keys of."""

KEYS = [name for name, (_, values) in VALUES.items() if None not in values]


def _mapped(columns: dict[str, tuple[Any, list[Any]]], keys: list[Any]) -> Any:
    """A class with these columns, and one with a primary key of two."""

    class Base(DeclarativeBase):
        pass

    body: dict[str, Any] = {name: mapped_column(kind, nullable=True) for name, (kind, _) in columns.items()}
    body |= {"__tablename__": "things", "__stockpyle_keys__": keys, "id": mapped_column(sa.Integer, primary_key=True)}
    body["later"] = deferred(mapped_column(sa.String, nullable=True))
    body["__annotations__"] = {}
    return type("Thing", (Base,), body)


POSTGRES_ONLY: dict[str, tuple[Any, list[Any]]] = {
    "folded": (postgresql.CITEXT, ["abc", "dEf", "g"]),
    "jsonb": (postgresql.JSONB, [{"a": 1}, [2], None]),
    "inet": (postgresql.INET, ["10.0.0.1", "::1", None]),
    "array": (postgresql.ARRAY(sa.Integer), [[1, 2], [], None]),
    "tree": (postgresql.HSTORE, [{"a": "b"}, {}, None]),
    "native": (postgresql.UUID(as_uuid=True), [uuid.UUID(int=1), None, None]),
    "stamp": (postgresql.TIMESTAMP(timezone=True), [datetime(2020, 1, 2, tzinfo=UTC), None, None]),
    "span": (postgresql.INTERVAL, [timedelta(1), None, None]),
}


@pytest.fixture(params=["sqlite", "psycopg", "psycopg2"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """An engine on an empty database, with each driver that is read by its own cursor."""
    if request.param == "sqlite":
        made = sa.create_engine(f"sqlite:///{tmp_path / 'test.db'}")
    else:
        server: Postgres = request.getfixturevalue("postgres")
        made = sa.create_engine(server.create_database(request.param))
        with made.begin() as connection:
            connection.exec_driver_sql("CREATE EXTENSION citext")
            connection.exec_driver_sql("CREATE EXTENSION hstore")
        made.dispose()
    yield made
    made.dispose()
    if request.param != "sqlite":
        server.drop_database(made.url.render_as_string(hide_password=False))


@contextmanager
def only_directly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no Connection read."""

    def refuse(*_: Any) -> Any:
        raise AssertionError("a Connection was asked for")

    with monkeypatch.context() as patch:
        patch.setattr(SourceConnections, "reading", refuse)
        yield


def warm(engine: sa.Engine, klass: type) -> SqlAlchemyStore:
    """Return a store that knows the database, as it does when it has read some keys of each kind."""
    store = SqlAlchemyStore(engine=engine)
    spec = store.spec(klass)
    with store._connections.reading() as (connection, _):
        for definition in spec.definitions:
            store._collations.compare_exactly(connection, spec, definition)
        connection.scalar(sa.select(sa.literal(1)))
    return store


def traits(found: Any) -> Any:
    """Return all that can be seen of an instance."""
    if found is None:
        return None
    state = instance_state(found)
    values = {name: (type(value), repr(value)) for name, value in state.dict.items() if name != "_sa_instance_state"}
    return type(found), state.key, values, state.expired_attributes, state.unloaded, state.modified, state.detached


def seen(records: Sequence[Record]) -> list[Any]:
    """Return all that can be seen of records."""
    return [
        (each.spec, each.value if each.is_absent else [(type(v), repr(v)) for v in each.value], each.fillable)
        for each in records
    ]


def both_ways(store: SqlAlchemyStore, klass: type, asked: list[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    """Return what the store says of these keys directly, and by a Connection."""
    keys = [key for key in map(store.spec(klass).key, asked) if key is not None]

    def read() -> list[Any]:
        return [
            [traits(each) for each in store.batch_get(klass, asked)],
            [traits(store.get(klass, each)) for each in asked],
            seen(store.load(klass, keys)),
            [seen(store.load(klass, [key])) for key in keys],
        ]

    directly = read()
    with traffic(store.engine) as sent:
        plainly = read()
    assert sent.of("SELECT")
    return directly, plainly


def test_every_type_is_read_as_a_connection_reads_it(database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the columns and the key are, values, types and states are the same, found or not."""
    columns = VALUES | KEPT | (POSTGRES_ONLY if database.dialect.name == "postgresql" else {})
    keys = [*KEYS, ("small", "text"), ("token", "big", "short"), ("born", "small"), ("level", "small")]
    if database.dialect.name == "postgresql":
        keys.append("folded")
    klass = _mapped(columns, keys)
    klass.metadata.create_all(database)
    rows = [
        {name: values[i] if i < len(values) else None for name, (_, values) in columns.items()} | {"later": "x" * i}
        for i in range(3)
    ]
    save(database, [klass(id=i, **row) for i, row in enumerate(rows)])
    store = warm(database, klass)
    for key in [["id"], *([each] if isinstance(each, str) else list(each) for each in keys)]:
        asked = [
            {name: row.get(name, i) for name in key}
            for i, row in enumerate(rows)
            if all(row.get(name, i) is not None for name in key)
        ]
        directly, plainly = both_ways(store, klass, [*asked, {name: asked[0][name] for name in key}])
        assert directly == plainly, key
        assert None not in directly[0], key
        with only_directly(monkeypatch):
            assert store.get(klass, asked[0]) is not None
        directly, plainly = both_ways(store, klass, [asked[0], {**asked[1], key[0]: _another(asked[0][key[0]])}])
        assert directly == plainly, key


@pytest.mark.parametrize("of", [sa.Integer, sa.SmallInteger])
def test_a_variant_holds_what_it_holds(database: sa.Engine, of: Any) -> None:
    """Of a type that is another one on this database, that one says which values a column can have."""
    wide = of().with_variant(sa.BigInteger(), "postgresql", "sqlite")
    narrow = sa.BigInteger().with_variant(sa.SmallInteger(), "postgresql")
    klass = _mapped({"wide": (wide, []), "narrow": (narrow, [])}, ["wide", "narrow", ("wide", "narrow")])
    klass.metadata.create_all(database)
    save(database, [klass(id=1, wide=2**40, narrow=5), klass(id=2, wide=-(2**40), narrow=6)])
    store = warm(database, klass)
    wides, narrows = [{"wide": 2**40}, {"wide": -(2**40)}], [{"narrow": 5}, {"narrow": 6}]
    for asked in (wides, narrows, [a | b for a, b in zip(wides, narrows, strict=True)]):
        for found in both_ways(store, klass, asked):
            assert None not in found[0] + found[1]
    missing: list[dict[str, Any]] = [{"narrow": 2**40}, {"wide": 2**40, "narrow": 2**20}, {"wide": 2**70}]
    for key in missing:
        assert store.get(klass, key) is None
        assert store.batch_get(klass, [key, {**key, "narrow": 7} if "narrow" in key else {"wide": 3}]) == [None, None]
    assert [each.id for each in store.query(klass).where(wide=2**40)] == [1]


@pytest.mark.parametrize("kind", [Shifted(), sa.Integer().with_variant(Shifted(), "postgresql", "sqlite")])
def test_what_a_type_does_to_parameters_is_done_to_each_of_many(database: sa.Engine, kind: Any) -> None:
    """A batch by a key of several columns finds what get() finds, however many there are."""
    klass = _mapped({"shifted": (kind, []), "text": (sa.Text, [])}, [("shifted", "text")])
    klass.metadata.create_all(database)
    count = 1200
    save(database, [klass(id=i, shifted=i, text=f"t{i}") for i in range(count)])
    store = warm(database, klass)
    asked = [{"shifted": i, "text": f"t{i}"} for i in range(count)]
    assert store.get(klass, asked[7]).id == 7
    for some in (asked[:2], asked):
        for found in (store.batch_get(klass, some), store.batch_get(klass, [*some, {"shifted": 3, "text": "none"}])):
            assert [each and each.id for each in found][: len(some)] == list(range(len(some)))


def _another(value: Any) -> Any:
    """Return a value of the same type that no row has."""
    if isinstance(value, enum.Enum):
        return type(value)(list(type(value))[-1])
    if isinstance(value, str):
        return str(uuid.UUID(int=99)) if len(value) == 36 else "zz"
    if isinstance(value, uuid.UUID):
        return uuid.UUID(int=99)
    if isinstance(value, bytes):
        return b"none"
    if isinstance(value, time):
        return time(5)
    return value + (timedelta(days=3) if isinstance(value, date | timedelta) else 3)


class Account(Base):
    __tablename__ = "accounts"
    __stockpyle_keys__ = ["email", ("org", "login")]
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    org: Mapped[int]
    login: Mapped[str]
    shout: Mapped[str | None] = mapped_column(Upper(20))


def _accounts(engine: sa.Engine, count: int = 3) -> None:
    Base.metadata.create_all(engine)
    save(engine, [Account(id=i, email=f"e{i}", org=i % 2, login=f"l{i}", shout="x") for i in range(count)])


ASKED: list[Callable[[int], dict[str, Any]]] = [
    lambda i: {"id": i},
    lambda i: {"email": f"e{i}"},
    lambda i: {"org": i % 2, "login": f"l{i}"},
]


@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize("count", [1, 2, 600])
def test_no_connection_is_needed(
    database: sa.Engine, monkeypatch: pytest.MonkeyPatch, ask: Callable[[int], dict[str, Any]], count: int
) -> None:
    """One key or many, of one column or several, found or not: all is read directly, once the database is known."""
    _accounts(database, count)
    store = warm(database, Account)
    asked = [ask(i) for i in range(count + 1)]
    with only_directly(monkeypatch):
        found = store.batch_get(Account, asked)
        one = [store.get(Account, each) for each in asked[-2:]]
        records = store.load(Account, [key for key in map(store.spec(Account).key, asked) if key is not None])
    assert [None if each is None else each.id for each in found] == [*range(count), None]
    assert [each and each.id for each in one] == [count - 1, None]
    assert [each.is_absent for each in records] == [False] * count + [True]
    assert all(each.fillable for each in records)


def test_what_must_be_asked_is_asked_once(database: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """How the database compares text, a first batch asks of it; from then on no Connection is needed."""
    _accounts(database)
    store = SqlAlchemyStore(engine=database)
    asked = [{"email": "e0"}, {"email": "nobody"}, {"email": "e1"}]
    for _ in range(2):
        store.batch_get(Account, asked)
    with only_directly(monkeypatch):
        found = store.batch_get(Account, asked)
    assert [each and each.id for each in found] == [0, None, 1]


@pytest.mark.parametrize("ask", ASKED)
@pytest.mark.parametrize("count", [1, 3])
def test_the_text_is_the_one_that_a_connection_sends(
    database: sa.Engine, ask: Callable[[int], dict[str, Any]], count: int
) -> None:
    """Nothing but its way to the driver is another."""
    _accounts(database)
    store = warm(database, Account)
    keys = [key for key in (store.spec(Account).key(ask(i)) for i in range(count)) if key is not None]
    plan = store._direct(Account)._plan(keys)
    assert plan is not None
    own = plan.sent(keys)
    assert own is not None
    sent: list[Any] = []

    def note(conn: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    event.listen(database, "before_cursor_execute", note)
    store.load(Account, keys)
    ((text, parameters),) = sent
    assert own[0] == text
    if isinstance(parameters, dict):
        assert own[1] == parameters
    else:
        assert list(own[1]) == list(parameters)


# who is told

LISTENERS = [
    "before_execute",
    "after_execute",
    "before_cursor_execute",
    "after_cursor_execute",
    "begin",
    "rollback",
    "engine_connect",
    "do_execute",
]


@pytest.mark.parametrize("name", LISTENERS)
@pytest.mark.parametrize("following", [False, True])
def test_who_listens_is_told(sqlite_engine: sa.Engine, name: str, following: bool) -> None:
    """A listener of the application's hears each read as soon as it is set; ours are not taken for it."""
    if following:
        start_following()
    _accounts(sqlite_engine)
    store = warm(sqlite_engine, Account)
    told: list[str] = []

    def note(*_: Any) -> None:
        told.append(name)

    event.listen(sqlite_engine, name, note)
    assert store.get(Account, {"id": 1}) is not None
    assert store.batch_get(Account, [{"id": 1}, {"id": 2}]) != [None, None]
    assert len(told) == 2


def test_who_listens_to_all_connections_is_told(sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener on the class of Connections hears of reads too."""
    _accounts(sqlite_engine)
    store = warm(sqlite_engine, Account)
    monkeypatch.setattr(sa.Connection, "_has_events", True)
    with pytest.raises(AssertionError, match="a Connection was asked for"), only_directly(monkeypatch):
        store.get(Account, {"id": 1})


def test_errors_are_told_to_who_listens(sqlite_engine: sa.Engine) -> None:
    """A handle_error listener hears of a read that fails."""
    _accounts(sqlite_engine)
    store = warm(sqlite_engine, Account)
    told: list[Any] = []
    event.listen(sqlite_engine, "handle_error", lambda context: told.append(context.statement))
    with sqlite_engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE accounts")
    with pytest.raises(StoreError, match="no such table"):
        store.get(Account, {"id": 1})
    assert len(told) == 1


def test_the_log_has_every_statement(sqlite_engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    """With SQLAlchemy's log at INFO, reads are in it."""
    _accounts(sqlite_engine)
    store = warm(sqlite_engine, Account)
    with caplog.at_level(logging.INFO, "sqlalchemy.engine.Engine"):
        store.get(Account, {"id": 1})
    assert any("FROM accounts" in message for message in caplog.messages)


@pytest.mark.parametrize("options", [{"schema_translate_map": {None: None}}, {"isolation_level": "SERIALIZABLE"}])
def test_an_engine_with_options_of_its_own_is_read_by_connections(
    sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """What the options ask for, only a Connection does."""
    _accounts(sqlite_engine)
    store = warm(sqlite_engine.execution_options(**options), Account)
    with pytest.raises(AssertionError, match="a Connection was asked for"), only_directly(monkeypatch):
        store.get(Account, {"id": 1})


def test_each_store_of_an_engine_reads_directly(database: sa.Engine) -> None:
    """A store reads without a Connection also where another one has looked at all connections of the pool."""
    Base.metadata.create_all(database)
    stores = [SqlAlchemyStore(engine=database) for _ in range(2)]
    for store in stores:
        store.get(Account, {"id": 1})
    assert [store._reads.are_possible for store in stores] == [True, True]


# transactions


def _sent(engine: sa.Engine, work: Callable[[], Any]) -> list[str]:
    """What psycopg sends on the engine's one connection while `work` runs: the kinds of messages."""
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
    with tempfile.TemporaryFile() as trace:
        raw.pgconn.trace(trace.fileno())
        try:
            work()
        finally:
            raw.pgconn.untrace()
        trace.seek(0)
        lines = [line.split("\t") for line in trace.read().decode().splitlines()]
    return [line[3].strip() for line in lines if len(line) > 3 and line[1] == "F"]


@pytest.mark.parametrize(
    ("level", "trips"),
    [(None, 1), ("READ COMMITTED", 1), ("AUTOCOMMIT", 1), ("REPEATABLE READ", 3), ("SERIALIZABLE", 3)],
)
def test_a_read_is_one_round_trip(postgres_url: str, level: str | None, trips: int) -> None:
    """No BEGIN and no ROLLBACK go with it, where it sees the same without; one and many rows."""
    options = {} if level is None else {"isolation_level": level}
    engine = sa.create_engine(postgres_url, pool_size=1, max_overflow=0, **options)
    _accounts(engine)
    store = warm(engine, Account)
    reads: list[Callable[[], Any]] = [
        lambda: store.get(Account, {"id": 1}),
        lambda: store.batch_get(Account, [{"id": 1}, {"id": 2}]),
    ]
    for read in reads:
        sent = _sent(engine, read)
        assert len([each for each in sent if each in ("Query", "Sync")]) == trips
    engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_connection_is_left_as_it_was(postgres: Postgres, driver: str, fails: bool) -> None:
    """Who has it next is in a transaction that can be rolled back, whether the read has failed or not."""
    url = postgres.create_database(driver)
    engine = sa.create_engine(url, pool_size=1, max_overflow=0)
    _accounts(engine)
    store = warm(engine, Account)
    if fails:
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE accounts RENAME TO elsewhere")
        with pytest.raises(StoreError, match="does not exist"):
            store.get(Account, {"id": 1})
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO accounts")
    assert store.get(Account, {"id": 1}) is not None
    with engine.connect() as connection:
        connection.exec_driver_sql("DELETE FROM accounts")
        connection.rollback()
    assert store.get(Account, {"id": 1}) is not None
    engine.dispose()
    postgres.drop_database(url)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "AUTOCOMMIT"])
def test_a_pool_that_resets_nothing_keeps_no_transaction(postgres: Postgres, driver: str, level: str) -> None:
    """Each read sees what was committed before it, at every level, and leaves the connection in none of its own."""
    url = postgres.create_database(driver)
    engine = sa.create_engine(url, pool_size=1, max_overflow=0, pool_reset_on_return=None, isolation_level=level)
    other = sa.create_engine(url)
    _accounts(other)
    store = warm(engine, Account)
    for name in ("first", "second"):
        with other.begin() as connection:
            connection.execute(sa.update(Account).values(login=name).where(Account.id == 1))
        found = store.get(Account, {"id": 1})
        assert found is not None
        assert found.login == name
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        assert raw.info.transaction_status == 0
        assert raw.autocommit is (level == "AUTOCOMMIT")
    engine.dispose()
    other.dispose()
    postgres.drop_database(url)


def test_a_transaction_that_the_pool_hands_out_is_read_in(postgres_url: str) -> None:
    """A listener of the pool's may have begun one, with settings that hold in it alone."""
    engine = sa.create_engine(postgres_url, pool_size=1, max_overflow=0)
    _accounts(engine)
    store = warm(engine, Account)
    event.listen(engine, "checkout", lambda raw, *_: raw.execute("SET LOCAL search_path TO nowhere"))
    with pytest.raises(StoreError, match="does not exist"):
        store.get(Account, {"id": 1})
    engine.dispose()


class Interrupted(sqlite3.Connection):
    """A connection whose next read is interrupted, if it is told so."""

    now: BaseException | None = None

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        error, Interrupted.now = Interrupted.now, None
        if error is not None:
            raise error
        return super().cursor(*args, **kwargs)


def test_an_interrupted_connection_is_not_used_again(tmp_path: Path) -> None:
    """Nobody knows what is still under way on it."""
    engine = sa.create_engine(
        f"sqlite:///{tmp_path}/test.db", pool_size=1, max_overflow=0, connect_args={"factory": Interrupted}
    )
    _accounts(engine)
    store = warm(engine, Account)
    before = engine.raw_connection()
    raw = before.dbapi_connection
    before.close()
    Interrupted.now = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        store.get(Account, {"id": 1})
    after = engine.raw_connection()
    assert after.dbapi_connection is not raw
    after.close()
    assert store.get(Account, {"id": 1}) is not None
    engine.dispose()


def test_what_the_driver_refuses_in_its_own_way_is_a_connections(tmp_path: Path) -> None:
    """An error that is not the driver's makes a Connection read, which succeeds or raises as it always does."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/test.db", connect_args={"factory": Interrupted})
    _accounts(engine)
    store = warm(engine, Account)
    Interrupted.now = ValueError("odd")
    assert store.get(Account, {"id": 1}) is not None
    engine.dispose()


def test_the_drivers_errors_are_the_stores(tmp_path: Path) -> None:
    """A statement that the database refuses raises StoreError, whose cause is SQLAlchemy's error."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/test.db")
    _accounts(engine)
    store = warm(engine, Account)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE accounts")
    with pytest.raises(StoreError, match="no such table: accounts") as caught:
        store.get(Account, {"id": 1})
    assert caught.value.operation == "load"
    assert isinstance(caught.value.__cause__, sa.exc.OperationalError)
    assert "FROM accounts" in str(caught.value.__cause__.statement)
    engine.dispose()


def test_a_pool_that_is_empty_says_so(tmp_path: Path) -> None:
    """Waiting for a connection ends with StoreTimeout."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/test.db", pool_size=1, max_overflow=0, pool_timeout=0.01)
    _accounts(engine)
    store = warm(engine, Account)
    with engine.connect(), pytest.raises(StoreTimeout, match="no connection could be had"):
        store.get(Account, {"id": 1})
    engine.dispose()


def test_a_lost_database_empties_the_pool(postgres: Postgres, postgres_url: str) -> None:
    """One read fails and tells why; the next has a new connection, however many the pool had."""
    engine = sa.create_engine(postgres_url, pool_size=3)
    _accounts(engine)
    store = warm(engine, Account)
    held = [engine.connect() for _ in range(3)]
    for each in held:
        each.close()
    postgres.terminate_backends()
    with pytest.raises(StoreError, match="terminating connection due to administrator command"):
        store.get(Account, {"id": 1})
    assert [store.get(Account, {"id": 1}) is not None for _ in range(4)] == [True] * 4
    engine.dispose()


def test_rows_of_another_kind_are_a_connections(tmp_path: Path) -> None:
    """An application may have its driver make rows that are no tuples."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/test.db", poolclass=NullPool)
    _accounts(engine)

    def set_factory(raw: Any, record: Any) -> None:
        raw.row_factory = sqlite3.Row

    event.listen(engine, "connect", set_factory)
    store = warm(engine, Account)
    found = store.batch_get(Account, [{"id": 1}, {"id": 2}])
    assert [each and each.email for each in found] == ["e1", "e2"]
    engine.dispose()


# what is odd


class Loose(Base):
    __tablename__ = "loose"
    __stockpyle_keys__ = ["name", ("name", "number")]
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    number: Mapped[int] = mapped_column(default=1)


_FOLDING: dict[str, list[str]] = {
    "sqlite": ["CREATE TABLE loose (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE, number INTEGER)"],
    "citext": ["CREATE TABLE loose (id INTEGER PRIMARY KEY, name CITEXT, number INTEGER)"],
    "icu": [
        "CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "CREATE TABLE loose (id INTEGER PRIMARY KEY, name TEXT COLLATE folding, number INTEGER)",
    ],
}


@pytest.mark.parametrize("how", ["sqlite", "citext", "icu"])
def test_columns_that_fold_case_are_read_alike(database: sa.Engine, how: str) -> None:
    """Several spellings of one name in a batch find what a Connection finds, and each row once."""
    if (database.dialect.name == "sqlite") is not (how == "sqlite"):
        return
    with database.begin() as connection:
        for statement in _FOLDING[how]:
            connection.exec_driver_sql(statement)
    save(database, [Loose(id=1, name="bob"), Loose(id=2, name="Ann"), Loose(id=3, name="eve")])
    store = warm(database, Loose)
    for names in (["bob", "BOB"], ["BOB", "Bob"], ["bob", "ann", "nobody"], ["eve", "Ann"], ["nobody", "no"]):
        for number in (None, 1):
            asked = [{"name": name} if number is None else {"name": name, "number": number} for name in names]
            directly, plainly = both_ways(store, Loose, asked)
            assert directly == plainly, asked


class Short(Base):
    __tablename__ = "shorts"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(3), unique=True)


def test_a_key_is_not_cut_to_the_length_of_its_column(database: sa.Engine) -> None:
    """A longer value finds nothing, instead of the row that has its beginning."""
    Base.metadata.create_all(database)
    save(database, [Short(id=1, name="abc"), Short(id=2, name="ab")])
    store = warm(database, Short)
    directly, plainly = both_ways(store, Short, [{"name": "abcd"}, {"name": "ab"}, {"name": "abc "}])
    assert directly == plainly
    assert [each and each.id for each in store.batch_get(Short, [{"name": "abcd"}, {"name": "ab"}])] == [None, 2]


def test_two_rows_under_one_key_are_an_error(database: sa.Engine) -> None:
    """A key that is declared and not unique raises, alone and among others."""
    Base.metadata.create_all(database)
    save(database, [Loose(id=1, name="bob"), Loose(id=2, name="bob", number=2), Loose(id=3, name="eve")])
    store = warm(database, Loose)
    for asked in ([{"name": "bob"}], [{"name": "bob"}, {"name": "eve"}]):
        with pytest.raises(NonUniqueKeyError):
            store.batch_get(Loose, asked)


def test_subclasses_come_as_what_they_are(database: sa.Engine) -> None:
    """Joined and single-table inheritance: base and subclass find the same instances as by a Connection."""
    own = registry()

    @own.mapped
    class Animal:
        __tablename__ = "animals"
        id = mapped_column(sa.Integer, primary_key=True)
        kind = mapped_column(sa.Enum(Color))
        name = mapped_column(sa.String, unique=True)
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": Color.RED}

    @own.mapped
    class Dog(Animal):
        __tablename__ = "dogs"
        id = mapped_column(sa.ForeignKey("animals.id"), primary_key=True)
        tricks = mapped_column(sa.DateTime)
        __mapper_args__ = {"polymorphic_identity": Color.GREEN}

    @own.mapped
    class Vehicle:
        __tablename__ = "vehicles"
        id = mapped_column(sa.Integer, primary_key=True)
        kind = mapped_column(sa.String)
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}

    @own.mapped
    class Car(Vehicle):
        doors = mapped_column(sa.Integer, nullable=True)
        __mapper_args__ = {"polymorphic_identity": "car"}

    own.metadata.create_all(database)
    made: list[Any] = [Animal(id=1, name="a"), Dog(id=2, name="b", tricks=datetime(2020, 1, 1))]
    save(database, [*made, Vehicle(id=1), Car(id=2, doors=4)])
    for klass in (Animal, Dog, Vehicle, Car):
        store = warm(database, klass)
        directly, plainly = both_ways(store, klass, [{"id": 1}, {"id": 2}, {"id": 3}])
        assert directly == plainly
        assert directly[0][1] is not None


def test_load_events_are_told_of_each_instance(sqlite_engine: sa.Engine) -> None:
    """Once for each instance that is handed out, one or many."""
    _accounts(sqlite_engine)
    store = warm(sqlite_engine, Account)
    loaded: list[Any] = []

    def note(target: Any, context: Any) -> None:
        loaded.append(target)

    event.listen(Account, "load", note)
    try:
        found = [store.get(Account, {"id": 1}), *store.batch_get(Account, [{"id": 1}, {"id": 2}])]
    finally:
        event.remove(Account, "load", note)
    assert loaded == found


def test_keys_that_no_column_can_have_find_nothing(database: sa.Engine) -> None:
    """The others of the batch are found."""
    _accounts(database)
    store = warm(database, Account)
    assert [each and each.id for each in store.batch_get(Account, [{"id": 2**80}, {"id": 1}])] == [None, 1]
    assert store.get(Account, {"id": 2**80}) is None
    assert [each and each.id for each in store.batch_get(Account, [{"email": "\ud800"}, {"email": "e1"}])] == [None, 1]


# what outlives a migration


def _alter(engine: sa.Engine) -> None:
    """As a migration does, on a connection of its own: psycopg knows nothing of it."""
    other = sa.create_engine(engine.url, poolclass=NullPool)
    with other.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE accounts ALTER COLUMN login TYPE varchar(99)")


def _deallocate(engine: sa.Engine) -> None:
    """As something between psycopg and the server may do."""
    with engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
    raw.pgconn.exec_(b"DEALLOCATE ALL")


@pytest.mark.parametrize("change", [_alter, _deallocate])
@pytest.mark.parametrize("level", ["READ COMMITTED", "AUTOCOMMIT"])
@pytest.mark.parametrize("way", ["directly", "by a Connection"])
def test_what_psycopg_has_prepared_is_not_relied_on(
    postgres_url: str, change: Callable[[sa.Engine], None], level: Any, way: str
) -> None:
    """Reads go on when a column changes its type, or what psycopg has prepared is no longer there."""
    engine = sa.create_engine(postgres_url, isolation_level=level)
    _accounts(engine)
    if way == "by a Connection":
        event.listen(engine, "after_execute", lambda *_: None)
    store: Any = warm(engine, Account)
    attempts: list[Callable[[], Any]] = [
        lambda: store.get(Account, {"id": 1}).login,
        lambda: [each.login for each in store.batch_get(Account, [{"id": 1}, {"id": 2}])],
        lambda: [each.login for each in store.query(Account).where(id=1)],
    ]
    for attempt in attempts:
        before = [attempt() for _ in range(8)][-1]
        change(engine)
        assert [attempt() for _ in range(3)] == [before] * 3
        with sa.create_engine(engine.url, poolclass=NullPool).begin() as connection:
            connection.exec_driver_sql("ALTER TABLE accounts ALTER COLUMN login TYPE varchar(50)")
        assert [attempt() for _ in range(3)] == [before] * 3
    engine.dispose()


@pytest.mark.parametrize("level", ["READ COMMITTED", "AUTOCOMMIT"])
def test_a_write_fails_once_of_what_was_prepared(postgres_url: str, level: Any) -> None:
    """A put on a connection that had prepared it may raise after a migration, and writes nothing; the next is done."""
    engine = sa.create_engine(postgres_url, isolation_level=level)
    _accounts(engine)
    store = SqlAlchemyStore(engine=engine)
    for shout in "abcdefgh":
        store.put(Account(id=1, email="e1", org=1, login="l1", shout=shout))
    _alter(engine)
    with pytest.raises(StoreError, match="cached plan must not change result type"):
        store.put(Account(id=1, email="e1", org=1, login="l1", shout="y"))
    assert store.get(Account, {"id": 1}).shout == "H"  # type: ignore[union-attr]
    store.put(Account(id=1, email="e1", org=1, login="l1", shout="z"))
    store.delete(Account(id=2))
    with engine.connect() as connection:
        assert connection.execute(sa.text("select shout from accounts order by id")).scalars().all() == ["x", "z"]
    engine.dispose()


def test_what_was_prepared_before_a_migration_is_given_up(
    postgres_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first read after it is a Connection's; then reads are direct again, by what the database tells anew."""
    _accounts(postgres_engine)
    store = warm(postgres_engine, Account)
    for _ in range(8):
        store.get(Account, {"id": 1})
    plan = store._direct(Account)._for_one[store.spec(Account).definitions[0]]
    _alter(postgres_engine)
    assert store.get(Account, {"id": 1}) is not None
    assert not plan.is_described
    with only_directly(monkeypatch):
        assert store.get(Account, {"id": 1}) is not None
    assert plan.is_described


def test_a_connection_keeps_what_it_was_told_of_preparing(postgres_engine: sa.Engine) -> None:
    """Others who have the connection next find psycopg's threshold as it was."""
    _accounts(postgres_engine)
    with postgres_engine.connect() as connection:
        raw: Any = connection.connection.driver_connection
        raw.prepare_threshold = 3
    warm(postgres_engine, Account)
    assert raw.prepare_threshold == 3
