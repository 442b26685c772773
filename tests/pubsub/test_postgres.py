"""Publish/subscribe by LISTEN and NOTIFY: inside transactions, with small messages, beside an application's pool."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from stockpyle.exceptions import MessageTooLarge, StoreTimeout, StoreUnavailable, UnsupportedOperation
from stockpyle.protocols import PubSub
from stockpyle.pubsub.envelopes import CARRIER, opened, sealed
from stockpyle.stores import ProcessMemoryStore, RedisStore, SqlAlchemyStore
from tests.pubsub.parts import Ear, settle, wait_for
from tests.pubsub.proxies import Pooler, Proxy
from tests.servers import Postgres


@pytest.fixture(params=["psycopg", "psycopg2"])
def engine(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[sa.Engine]:
    """An engine whose pool has one connection, and no patience."""
    made = sa.create_engine(postgres.url(request.param), pool_size=1, max_overflow=0, pool_timeout=0.1)
    yield made
    made.dispose()


@pytest.fixture
def pubsub(engine: sa.Engine) -> Iterator[PubSub]:
    """A pub/sub on that engine."""
    with SqlAlchemyStore(engine=engine).pubsub() as made:
        yield made


@pytest.fixture
def ear(pubsub: PubSub) -> Ear:
    """Who listens to the news."""
    made = Ear()
    pubsub.subscribe("news", made)
    return made


# inside a transaction


def test_it_is_sent_with_the_commit(engine: sa.Engine, pubsub: PubSub, ear: Ear) -> None:
    """What is published in a transaction is heard when it commits, each message once, equal ones too, in order."""
    with engine.connect() as connection:
        for data in (b"1", b"2", b"2", b"\x00"):
            pubsub.publish_in(connection, "news", data)
        settle(pubsub)
        assert ear.heard == []
        connection.commit()
    assert ear.after(4) == [("news", data) for data in (b"1", b"2", b"2", b"\x00")]


def test_it_is_not_sent_without(engine: sa.Engine, pubsub: PubSub, ear: Ear) -> None:
    """What is published in a transaction, or in a savepoint, that is rolled back is never sent."""
    with engine.connect() as connection:
        pubsub.publish_in(connection, "news", b"1")
        connection.rollback()
        with connection.begin():
            with connection.begin_nested() as savepoint:
                pubsub.publish_in(connection, "news", b"2")
                savepoint.rollback()
            pubsub.publish_in(connection, "news", b"3")
    assert ear.after(1) == [("news", b"3")]


def test_it_begins_a_transaction_as_a_statement_does(engine: sa.Engine, pubsub: PubSub, ear: Ear) -> None:
    """A connection in no transaction is in one afterwards; one in autocommit sends at once."""
    with engine.connect() as connection:
        pubsub.publish_in(connection, "news", b"1")
        assert connection.in_transaction()
        connection.commit()
        ear.after(1)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        pubsub.publish_in(connection, "news", b"2")
        ear.after(2)


def test_no_listener_sees_it(engine: sa.Engine, pubsub: PubSub) -> None:
    """The statement does not go through SQLAlchemy's events, and the caller's cursors are left alone."""
    seen: list[str] = []

    def note(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT generate_series(1, 3)"))
        pubsub.publish_in(connection, "news", b"1")
        assert rows.scalars().all() == [1, 2, 3]
        connection.commit()
    assert seen == ["SELECT generate_series(1, 3)"]


def test_it_fails_with_its_transaction(engine: sa.Engine, pubsub: PubSub) -> None:
    """What the database raises is raised, as the driver raises it."""
    with engine.connect() as connection:
        with pytest.raises(sa.exc.ProgrammingError):
            connection.execute(sa.text("SELECT nothing"))
        with pytest.raises(engine.dialect.loaded_dbapi.Error, match="aborted"):
            pubsub.publish_in(connection, "news", b"1")


def test_where_it_is_not(engine: sa.Engine, pubsub: PubSub, redis_server: str) -> None:
    """Only PostgreSQL has it, and only connections have transactions."""
    with sa.create_engine("sqlite://").connect() as connection:
        with pytest.raises(UnsupportedOperation, match="sqlite has no NOTIFY: PostgreSQL has"):
            pubsub.publish_in(connection, "news", b"1")
        for store in (ProcessMemoryStore(), RedisStore(redis_server)):
            with pytest.raises(UnsupportedOperation, match="a SqlAlchemyStore on PostgreSQL does"):
                store.pubsub().publish_in(connection, "news", b"1")
    with pytest.raises(TypeError, match="publish_in takes a SQLAlchemy Connection"):
        pubsub.publish_in(engine, "news", b"1")
    pubsub.close()
    with engine.connect() as connection, pytest.raises(StoreUnavailable, match="closed"):
        pubsub.publish_in(connection, "news", b"1")


# what it carries


def test_the_largest_message(engine: sa.Engine, pubsub: PubSub) -> None:
    """max_size bytes of any sort travel on a channel with the longest name; one more is refused, with both numbers."""
    assert pubsub.max_size == 5736
    channel, data = "x" * 255, bytes(range(256)) * 30
    ear = Ear()
    pubsub.subscribe(channel, ear)
    pubsub.publish(channel, data[: pubsub.max_size])
    with engine.begin() as connection:
        pubsub.publish_in(connection, channel, data[: pubsub.max_size])
        for refused in (
            lambda: pubsub.publish(channel, data[: 5736 + 1]),
            lambda: pubsub.publish_in(connection, channel, data[: 5736 + 1]),
        ):
            with pytest.raises(MessageTooLarge, match=r"5737 bytes: PostgreSQL at .* carries 5736 at most"):
                refused()
    assert ear.after(2) == [(channel, data[:5736])] * 2


def test_the_longest_name(pubsub: PubSub) -> None:
    """A channel's name has at most 255 bytes here: one on which nothing can be sent is not listened to, either."""
    for call in (lambda: pubsub.publish("é" * 128, b""), lambda: pubsub.subscribe("é" * 128, print)):
        with pytest.raises(
            MessageTooLarge, match=r"a channel's name of 256 bytes: PostgreSQL at .* carries 255 at most"
        ):
            call()
    pubsub.psubscribe("*" * 300, print)


def test_notifications_of_others(engine: sa.Engine, pubsub: PubSub, ear: Ear, caplog: Any) -> None:
    """What is no message of ours is logged once, and what is on other channels of PostgreSQL's is not ours."""
    with engine.begin() as connection:
        for payload in ("", "what?", "ä", "AAAA", "AAAA//8AAAA="):
            connection.execute(
                sa.text("SELECT pg_notify(:carrier, :payload)"), {"carrier": CARRIER, "payload": payload}
            )
        connection.execute(sa.text("SELECT pg_notify('news', 'what?')"))
    pubsub.publish("news", b"1")
    assert ear.after(1) == [("news", b"1")]
    assert pubsub.connected
    (line,) = caplog.records
    assert line.levelno == logging.WARNING
    assert f"what came on {CARRIER} is no message" in line.getMessage()


def test_envelopes() -> None:
    """Equal messages have different envelopes, which are opened alike."""
    one, other = sealed("news", b"1"), sealed("news", b"1")
    assert one != other
    assert opened(one) == opened(other) == ("news", b"1", None)


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_JP"])
def test_databases_of_any_encoding(postgres: Postgres, encoding: str) -> None:
    """A database that is not in UTF-8 carries all names and all bytes as well."""
    name = f"in_{encoding.lower()}"
    postgres.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0")
    ear = Ear()
    with SqlAlchemyStore(postgres.url(database=name)).pubsub() as pubsub:
        pubsub.subscribe("größe 漢字", ear)
        pubsub.publish("größe 漢字", b"\x00\xff")
        assert ear.after(1) == [("größe 漢字", b"\x00\xff")]
    postgres.drop_database(postgres.url(database=name))


# its connections


def test_it_needs_no_connection_of_the_pool(engine: sa.Engine, pubsub: PubSub) -> None:
    """It connects, listens and publishes while the application has the only connection of its pool."""
    ear = Ear()
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        pubsub.subscribe("news", ear)
        pubsub.publish("news", b"1")
        assert ear.after(1) == [("news", b"1")]
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


def test_it_connects_as_the_engine_does(postgres: Postgres) -> None:
    """The engine's arguments, and its listeners for new connections, are used."""
    engine = sa.create_engine(postgres.url(), connect_args={"application_name": "of the engine"})
    connected: list[Any] = []
    event.listen(engine, "connect", lambda raw, record: connected.append(raw))
    with SqlAlchemyStore(engine=engine).pubsub() as pubsub:
        pubsub.subscribe("news", Ear())
        pubsub.publish("news", b"1")
        assert [raw.info.get_parameters()["application_name"] for raw in connected] == ["of the engine"] * 2


def test_it_leaves_no_connection(postgres: Postgres, pubsub: PubSub) -> None:
    """close() ends its sessions at the server."""
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{CARRIER}%' AND pid <> pg_backend_pid()"
    with psycopg.connect(postgres.url().replace("+psycopg", ""), autocommit=True) as connection:

        def number() -> int:
            row = connection.execute(sessions.encode()).fetchone()
            assert row is not None
            return int(row[0])

        wait_for(lambda: number() == 0)
        pubsub.subscribe("news", Ear())
        pubsub.publish("news", b"1")
        assert number() == 2
        pubsub.close()
        wait_for(lambda: number() == 0)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_server_that_lets_nobody_in(postgres: Postgres, driver: str) -> None:
    """A server that accepts connections and says nothing costs a timeout, of two seconds at least."""
    with Proxy(postgres.url(driver)) as proxy:
        proxy.loses_all = True
        with SqlAlchemyStore(proxy.url).pubsub(timeout=0.1) as pubsub, pytest.raises(StoreTimeout):
            pubsub.publish("news", b"1")


def test_a_timeout_of_the_applications(postgres: Postgres) -> None:
    """Where the engine says how long connecting may take, that is how long."""
    with Proxy(postgres.url()) as proxy:
        proxy.loses_all = True
        engine = sa.create_engine(proxy.url, connect_args={"connect_timeout": 2})
        with SqlAlchemyStore(engine=engine).pubsub(timeout=1000) as pubsub, pytest.raises(StoreTimeout):
            pubsub.publish("news", b"1")


# where it is not


@pytest.mark.parametrize("driver", ["pg8000", "asyncpg"])
def test_other_drivers(driver: str) -> None:
    """Other drivers of PostgreSQL are refused, naming those that do."""
    engine = sa.create_engine("postgresql+psycopg://localhost/test")
    engine.dialect.driver = driver
    with pytest.raises(UnsupportedOperation, match=rf"postgresql\+{driver} carries no messages.*psycopg or psycopg2"):
        SqlAlchemyStore(engine=engine).pubsub()


def test_an_async_engine() -> None:
    """The engine inside an AsyncEngine cannot wait in a thread."""
    engine = sa.create_engine("postgresql+psycopg_async://localhost/test")
    with pytest.raises(UnsupportedOperation, match="carries no messages"):
        SqlAlchemyStore(engine=engine).pubsub()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_pooler_of_transactions_is_found_out(postgres: Postgres, driver: str) -> None:
    """Behind a PgBouncer that gives each transaction another connection nothing would be heard, and that is said."""
    with Pooler(postgres.url(driver), pools_sessions=False) as pooler, SqlAlchemyStore(pooler.url).pubsub() as pubsub:
        with pytest.raises(StoreUnavailable, match=r"pooler.*lets nobody listen.*pool_mode=transaction.*direct"):
            pubsub.subscribe("news", print)
        assert not pubsub.connected
        pubsub.publish("news", b"1")


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_pooler_of_sessions_is_as_good(postgres: Postgres, driver: str) -> None:
    """Behind one that gives each session a connection of its own all is heard, and no more than that."""
    ear = Ear()
    with Pooler(postgres.url(driver), pools_sessions=True) as pooler, SqlAlchemyStore(pooler.url).pubsub() as pubsub:
        pubsub.psubscribe("*", ear)
        pubsub.publish("news", b"1")
        assert ear.after(1) == [("news", b"1")]
        assert pubsub.connected
