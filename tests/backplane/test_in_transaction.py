"""Telling the backplane from inside the writing transaction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from stockpyle.coherence.messages import Changes, Messages, News
from stockpyle.exceptions import ImproperlyConfigured, StoreUnavailable
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.orm.mapping import spec_of_mapped
from stockpyle.records import Record
from stockpyle.stores import ChainedStore, ProcessMemoryStore, SqlAlchemyStore
from tests.backplane.peers import Item, furnish, until
from tests.servers import Postgres


class Here:
    """A chain in this process, and what is said on its backplane."""

    def __init__(self, url: str, **options: Any) -> None:
        furnish(url)
        self.source = SqlAlchemyStore(engine=sa.create_engine(url))
        self.memory = ProcessMemoryStore()
        self.chain = ChainedStore(
            [self.memory, self.source], backplane=self.source, backplane_in_transaction=True, **options
        )
        self.Session = sessionmaker(self.source.engine, extension=StockpyleSessionExtension(self.chain))
        assert self.chain.backplane is not None
        self.backplane = self.chain.backplane
        self.backplane._outbox._courier = None
        self.heard: list[Any] = []
        self.messages = Messages()
        self.listener = self.source.pubsub()
        self.listener.subscribe(
            self.backplane.channel, lambda channel, data: self.heard.append(self.messages.read(data))
        )

    def took(self, number: int = 1) -> list[Any]:
        """Wait for so many messages, and return what has been heard since it was last asked."""
        until(lambda: len(self.heard) >= number)
        heard, self.heard = self.heard, []
        return heard

    def holds(self, i: int) -> bool:
        """True if memory would answer."""
        key = spec_of_mapped(Item).key({"id": i})
        assert key is not None
        return isinstance(self.memory.read([key], lease=False)[0], Record)

    def name(self, i: int) -> str:
        """What the database says."""
        with self.source.engine.connect() as connection:
            return str(connection.scalar(sa.select(Item.name).where(Item.id == i)))

    def nothing_more(self) -> None:
        """Fail if anything else is said before what is sent now."""
        self.listener.publish(self.backplane.channel, next(self.messages.write(_LAST)))
        (last,) = self.took()
        assert last == _LAST


_LAST = News(Changes(settled={b"last": None}))


@pytest.fixture
def here(postgres_url: str) -> Iterator[Here]:
    """A chain on PostgreSQL that tells inside its transactions."""
    made = Here(postgres_url)
    yield made
    made.listener.close()
    made.chain.close()
    made.source.engine.dispose()


@pytest.mark.parametrize("how", ["session", "put", "delete"])
def test_commit_is_announced_and_settled(here: Here, how: str) -> None:
    """A commit is told from inside, with all its keys, and its number is settled with what is sent next."""
    if how == "session":
        with here.Session() as session, session.begin():
            session.get_one(Item, 1).code = "new"
    elif how == "put":
        here.chain.put(Item(id=1, code="new", name="old"))
    else:
        here.chain.delete(Item(id=1, code="code 1", name="old"))
    (announced,) = here.took()
    assert announced.announced
    keys = {(names, values) for _, names, values in announced.changes.idents}
    codes = {(("code",), ("code 1",))} | ({(("code",), ("new",))} if how != "delete" else set())
    assert keys == {(("id",), (1,)), *codes}
    assert here.backplane._outbox.settle()
    (settled,) = here.took()
    assert list(settled.changes.settled) == [announced.announced]
    here.nothing_more()


def test_nothing_is_announced_of_what_has_not_changed(here: Here) -> None:
    """A put of what is there already, which commits nothing, costs no NOTIFY, which other commits would wait for."""
    here.chain.put(Item(id=1, code="code 1", name="old"))
    assert here.backplane.stats.announced == 0
    here.nothing_more()


def test_it_is_heard_when_it_has_happened(here: Here) -> None:
    """Nothing is heard while the transaction is open, and nothing of one that is rolled back."""
    with here.Session() as session:
        session.get_one(Item, 1).name = "never"
        session.flush()
        session.rollback()
    transaction = here.source.engine.connect()
    transaction.begin()
    here.backplane.announce(transaction, [spec_of_mapped(Item).epoch])
    here.nothing_more()
    transaction.commit()
    assert here.took()[0].announced
    transaction.close()


@pytest.mark.parametrize("how", ["session", "put"])
def test_message_that_fails_fails_the_commit(here: Here, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it cannot be told inside, nothing is committed, no lock is left, and the connection can be used again."""
    here.chain.get(Item, {"id": 1})

    def fail(connection: sa.Connection, channel: str, data: bytes) -> None:
        connection.connection.cursor().execute("select 1 / 0")

    monkeypatch.setattr(here.backplane.pubsub, "publish_in", fail)
    with pytest.raises(StoreUnavailable, match="nothing is committed"):  # noqa: PT012
        if how == "session":
            with here.Session() as session, session.begin():
                session.get_one(Item, 1).name = "never"
        else:
            here.chain.put(Item(id=1, code="code 1", name="never"))
    assert here.name(1) == "old"
    here.nothing_more()
    monkeypatch.undo()
    assert here.chain.get(Item, {"id": 1}).name == "old"
    assert here.holds(1)
    with here.Session() as session, session.begin():
        session.get_one(Item, 1).name = "new"
    assert here.chain.get(Item, {"id": 1}).name == "new"


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_failed_transaction_is_rolled_back_as_ever(postgres: Postgres, driver: str) -> None:
    """A transaction in which a statement has failed commits nothing: nothing is told in it, and no error added."""
    url = postgres.create_database(driver)
    here = Here(url)
    with here.source.engine.connect() as connection:
        connection.begin()
        with here.Session(bind=connection) as session:
            session.get_one(Item, 1).name = "never"
            session.flush()
            cursor = connection.connection.cursor()
            with pytest.raises(Exception, match="division"):
                cursor.execute("select 1 / 0")
            session.commit()
        connection.commit()
    assert here.name(1) == "old"
    assert here.backplane.stats.announced == 0
    assert here.chain.get(Item, {"id": 1}).name == "old"
    here.listener.close()
    here.chain.close()
    here.source.engine.dispose()
    postgres.drop_database(url)


def test_prepared_transactions_are_told_afterwards(here: Here) -> None:
    """A transaction of two phases must have no NOTIFY in it: it is told when it is committed, as without the option."""
    with sessionmaker(here.source.engine, extension=StockpyleSessionExtension(here.chain), twophase=True)() as session:
        session.get_one(Item, 1).name = "new"
        session.prepare()
        session.commit()
    (told,) = here.took()
    assert not told.announced
    assert told.changes.idents


def test_autocommit_is_told_afterwards(here: Here) -> None:
    """What is visible at once is told when it is known, as without the option."""
    with here.Session(bind=here.source.engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        session.get_one(Item, 1).name = "new"
        session.commit()
    assert not any(told.announced for told in here.took())


def test_what_is_not_settled_is_not_said_to_be(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that a tier still has to be told of is told to all again, and its number stays open."""
    monkeypatch.setattr("stockpyle.coherence.layers.Layer.owes", True)
    with here.Session() as session, session.begin():
        session.get_one(Item, 1).name = "new"
    announced, told = here.took(2)
    assert announced.announced
    assert not told.announced
    assert not told.changes.settled
    assert told.changes.idents == announced.changes.idents


def test_keys_that_only_the_database_knew_are_told_afterwards(here: Here) -> None:
    """What a trigger has given to a row was not known when the commit was announced: it is told as well."""
    with here.source.engine.begin() as connection:
        connection.exec_driver_sql(
            "create function shout() returns trigger language plpgsql as "
            "$$ begin new.code = upper(new.code); return new; end $$"
        )
        connection.exec_driver_sql("create trigger t before update on items for each row execute function shout()")
    here.chain.get(Item, {"id": 2})
    with here.Session() as session, session.begin():
        session.get_one(Item, 1).code = "new"
    announced, told = here.took(2)
    assert ("items", ("code",), ("NEW",)) not in announced.changes.idents
    assert [ident[2] for ident in told.changes.idents] == [("NEW",)]


def test_another_database_is_refused(postgres: Postgres, postgres_url: str) -> None:
    """A message inside a transaction can only be sent in the database of that transaction."""
    url = postgres.create_database()
    other = SqlAlchemyStore(engine=sa.create_engine(url))
    source = SqlAlchemyStore(engine=sa.create_engine(postgres_url))
    with pytest.raises(ImproperlyConfigured, match="PostgreSQL database"):
        ChainedStore([source], backplane=other, backplane_in_transaction=True)
    pubsub = source.pubsub()
    ChainedStore([source], backplane=pubsub, backplane_in_transaction=True).close()
    pubsub.close()
    postgres.drop_database(url)


def test_statements_of_the_option(here: Here) -> None:
    """It costs a transaction one statement, right before its COMMIT, that no listener of the application's sees."""
    seen: list[str] = []

    def note(*args: Any) -> None:
        seen.append(args[2])

    event.listen(here.source.engine, "before_cursor_execute", note)
    with Session(here.source.engine) as session, session.begin():
        session.get_one(Item, 1).name = "new"
    without = list(seen)
    seen.clear()
    with here.Session() as session, session.begin():
        session.get_one(Item, 1).name = "newer"
    event.remove(here.source.engine, "before_cursor_execute", note)
    # the last is the one that is published
    assert seen[:-1] == without
