"""What is no commit, and what is one in disguise: savepoints, rollbacks, joined transactions, prepared ones."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, ProgrammingError

from stockpyle.exceptions import StockpyleWarning, StoreUnavailable
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.records import Record
from tests.ext.conftest import MakeWorld
from tests.ext.models import Org, User
from tests.ext.worlds import World

ONE: Any = {"id": 1, "email": "1@a.org", "org_id": None, "login": None, "name": "1"}


def furnish(world: World) -> None:
    """Write three users, and read them, and one that is not there, by their keys."""
    world.add(*(User(id=i, email=f"{i}@a.org", name=str(i)) for i in (1, 2, 3)))
    world.warm(User, *({"id": i} for i in (1, 2, 3, 4)), *({"email": f"{i}@a.org"} for i in (1, 2, 3, 4)))
    world.warm(Org, {"id": 1}, {"name": "a"})


def locked_ids(world: World) -> set[Any]:
    """Return the ids of all users that were locked since the caches were warm."""
    return {key.values[0] for keys in world.memory.keys for key in keys if key.is_identity}


def test_a_rollback_leaves_no_trace(world: World) -> None:
    """What is rolled back, flushed or not, was never locked, and the caches still hold what they held."""
    furnish(world)
    with world.Session() as session:
        session.get_one(User, 1).name = "dirty"
        session.add(User(id=4, email="4@a.org"))
        session.flush()
        session.get_one(User, 2).name = "dirty"
        session.rollback()
    assert world.memory.calls == []
    assert world.holds(User, {"id": 1})
    world.check()


def test_close_without_commit_leaves_no_trace(world: World) -> None:
    """A session that is closed, or begun again after that, has committed nothing."""
    furnish(world)
    session = world.Session()
    session.get_one(User, 1).name = "dirty"
    session.flush()
    session.close()
    assert world.memory.calls == []
    session.get_one(User, 2).name = "clean"
    session.commit()
    assert locked_ids(world) == {2}
    session.close()
    world.check()


def test_nothing_is_published_when_a_savepoint_is_released(world: World) -> None:
    """The release of a savepoint is no commit; readers meanwhile see what was there before, and then what came."""
    furnish(world)
    with world.Session() as session:
        session.get_one(User, 2).name = "outer"
        with session.begin_nested():
            session.get_one(User, 1).name = "new"
        assert world.memory.calls == []
        assert (world.cached(User, {"id": 1}) or {})["name"] == "1"
        session.commit()
    assert isinstance(world.held(User, {"id": 1}), Record)
    assert (world.cached(User, {"id": 1}) or {})["name"] == "new"
    world.check()


def test_what_only_a_rolled_back_savepoint_touched_is_not_locked(world: World) -> None:
    """Of nested savepoints, one rolled back and one released, only what is left is locked and published."""
    furnish(world)
    with world.Session() as session:
        session.get_one(User, 1).name = "outer"
        with session.begin_nested():
            session.get_one(User, 2).name = "released"
            inner = session.begin_nested()
            session.get_one(User, 3).name = "rolled back"
            session.add(User(id=4, email="4@a.org"))
            session.flush()
            inner.rollback()
        gone = session.begin_nested()
        with session.begin_nested():
            session.add(Org(id=1, name="a"))
        gone.rollback()
        session.commit()
    assert locked_ids(world) == {1, 2}
    assert world.memory.calls == ["lock", "publish"]
    world.check()


def test_several_flushes_of_one_object(world: World) -> None:
    """Every key that an object had on its way through one transaction is right afterwards."""
    furnish(world)
    with world.Session() as session, session.begin():
        user = session.get_one(User, 1)
        for email in ("4@a.org", "5@a.org", None, "6@a.org"):
            user.email = email
            session.flush()
        session.get_one(User, 2).email = "4@a.org"
    world.warm(User, {"email": "5@a.org"}, {"email": "6@a.org"})
    world.check()


def test_an_object_inserted_and_deleted_at_once(world: World) -> None:
    """What comes and goes within one transaction leaves nothing."""
    furnish(world)
    with world.Session() as session, session.begin():
        user = User(id=4, email="4@a.org")
        session.add(user)
        session.flush()
        session.delete(user)
    world.check()


def test_work_after_a_failed_flush(world: World) -> None:
    """After an error in a flush and a rollback, the same session's next commit locks only what it wrote itself."""
    furnish(world)
    with world.Session() as session:
        session.get_one(User, 3).name = "lost"
        session.add(User(id=4, email="1@a.org"))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        assert world.memory.calls == []
        session.get_one(User, 2).name = "new"
        session.commit()
    assert locked_ids(world) == {2}
    world.check()


def test_a_bulk_write_after_a_flush_that_failed_in_a_savepoint(world: World) -> None:
    """What a failed flush has left behind does not vouch for statements that come after it."""
    furnish(world)
    with world.Session() as session:
        nested = session.begin_nested()
        session.get_one(User, 1).name = "lost"
        session.add(User(id=4, email="1@a.org"))
        with pytest.raises(IntegrityError):
            session.flush()
        nested.rollback()
        session.bulk_update_mappings(sa.inspect(User), [{"id": 1, "name": "bulk"}])
        session.commit()
    world.check()


# transactions of somebody else's


def test_a_rollback_after_sqlite_has_committed_a_savepoint(sqlite_world: World) -> None:
    """As sqlite3 works by default, an outermost savepoint's release is durable: a later rollback does not undo it."""
    world = sqlite_world
    furnish(world)
    with world.Session() as session:
        with session.begin_nested():
            session.get_one(User, 1).name = "durable"
        session.get_one(User, 2).name = "dirty"
        session.flush()
        session.rollback()
        with session.begin_nested():
            session.get_one(User, 3).name = "durable"
        session.get_one(User, 2).name = "dirty"
        session.flush()
    assert world.truth(User, {"id": 1}) == {**ONE, "name": "durable"}
    assert world.locks == []
    world.check()


MODES: Any = ["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("again", [False, True])
def test_the_commit_of_a_joined_transaction(world: World, mode: Any, nested: bool, again: bool) -> None:
    """What a session has written in somebody's transaction is locked at the true commit, and free right after."""
    furnish(world)
    connection = world.engine.connect()
    outer = connection.begin()
    savepoint = connection.begin_nested() if nested else None
    with world.Session(bind=connection, join_transaction_mode=mode) as session:
        session.get_one(User, 1).name = "new"
        session.add(User(id=4, email="4@a.org"))
        session.commit()
        if mode != "control_fully" or nested:
            assert world.memory.calls == []
    if savepoint is not None and savepoint.is_active:
        savepoint.commit()
    if outer.is_active:
        outer.commit()
        assert world.locks != []
        if again:
            connection.begin()
        else:
            connection.close()
    assert world.locks == []
    connection.close()
    assert world.memory.calls == ["lock", "publish"]
    world.check()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("rolled_back", ["session", "outer", "closed"])
def test_the_rollback_of_a_joined_transaction(world: World, mode: Any, nested: bool, rolled_back: str) -> None:
    """Whoever rolls back, nothing is locked at the end, and nothing has changed."""
    furnish(world)
    with world.engine.connect() as connection:
        outer = connection.begin()
        if nested:
            connection.begin_nested()
        with world.Session(bind=connection, join_transaction_mode=mode) as session:
            session.get_one(User, 1).name = "lost"
            session.flush()
            if rolled_back == "session":
                session.rollback()
            elif rolled_back == "outer" and mode != "control_fully":
                session.commit()
        outer.rollback() if rolled_back != "session" and outer.is_active else outer.close()
    assert world.locks == []
    world.check()
    # sqlite3 by default begins no transaction for a savepoint, whose release then is a commit
    assert world.memory.calls == [] or world.truth(User, {"id": 1}) == {**ONE, "name": "lost"}


def test_a_session_rolled_back_in_a_transaction_that_commits(world: World) -> None:
    """With create_savepoint a session's rollback takes only its own; what else the transaction wrote is locked."""
    furnish(world)
    with world.engine.begin() as connection:
        with world.Session(bind=connection, join_transaction_mode="create_savepoint") as session:
            session.get_one(User, 1).name = "lost"
            session.flush()
            session.rollback()
        with world.Session(bind=connection, join_transaction_mode="create_savepoint") as session:
            session.get_one(User, 2).name = "new"
            session.commit()
    assert locked_ids(world) == {2}
    assert world.locks == []
    world.check()


def test_a_session_on_a_connection_that_stays_out(world: World) -> None:
    """A session that commits itself on somebody's connection publishes nothing, but leaves no lock."""
    furnish(world)
    with world.engine.connect() as connection:
        for name in ("a", "b"):
            with world.Session(bind=connection) as session:
                session.get_one(User, 1).name = name
                session.commit()
            assert world.locks == []
            assert not world.holds(User, {"id": 1})
            world.check()


def test_a_transaction_reads_what_it_has_written(world: World) -> None:
    """Within a transaction the chain reads a class that it has written from the session, not from a cache."""
    furnish(world)
    with world.Session() as session:
        session.get_one(User, 1).name = "mine"
        assert world.chain.get(User, {"id": 1}, session=session).name == "mine"  # type: ignore[union-attr]
        session.get_one(User, 2).email = "4@a.org"
        session.flush()
        session.expire_all()
        assert world.chain.get(User, {"email": "2@a.org"}, session=session) is None
        moved = world.chain.get(User, {"email": "4@a.org"}, session=session)
        assert moved is session.get(User, 2)
        assert world.cached(User, {"email": "4@a.org"}) is None
        session.rollback()
        world.execute("update users set name = 'other' where id = 3")
        assert world.chain.get(User, {"id": 3}, session=session).name == "3"  # type: ignore[union-attr]


# prepared transactions


def test_two_phase_commits_are_locked_when_they_are_prepared(postgres_world: World) -> None:
    """A transaction of two phases is locked before PREPARE and published after COMMIT PREPARED."""
    world = postgres_world
    furnish(world)
    two_phase = sessionmaker(world.engine, extension=world.extension, twophase=True)
    with two_phase() as session:
        session.get_one(User, 1).name = "new"
        session.prepare()
        assert world.is_locked(User, {"id": 1})
        session.commit()
    assert isinstance(world.held(User, {"id": 1}), Record)
    world.check()
    with two_phase() as session:
        session.get_one(User, 1).name = "newer"
        session.commit()
    assert isinstance(world.held(User, {"id": 1}), Record)
    world.check()


@pytest.mark.parametrize("prepared", [False, True])
def test_two_phase_rollbacks(postgres_world: World, prepared: bool) -> None:
    """A transaction of two phases that is rolled back leaves no lock."""
    world = postgres_world
    furnish(world)
    with sessionmaker(world.engine, extension=world.extension, twophase=True)() as session:
        session.get_one(User, 1).name = "lost"
        session.flush()
        if prepared:
            session.prepare()
        session.rollback()
    assert world.locks == []
    world.check()


def test_a_prepared_transaction_that_somebody_else_has_ended(postgres_world: World) -> None:
    """That there is nothing to commit any more is no rollback: the locks are left, and nobody is handed the old row."""
    world = postgres_world
    world.add(User(id=1, email="1@a.org", name="old"))
    world.warm(User, {"id": 1})
    session = sessionmaker(world.engine, extension=world.extension, twophase=True)()
    session.get_one(User, 1).name = "new"
    session.prepare()
    with world.outside.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
        xid = other.scalar(sa.text("select gid from pg_prepared_xacts"))
        other.exec_driver_sql(f"commit prepared '{xid}'")
    with pytest.raises(ProgrammingError):
        session.commit()
    # psycopg does not let go of such a connection
    world.engine.dispose()
    assert world.is_locked(User, {"id": 1})
    world.check()


def test_a_two_phase_transaction_that_is_committed_unprepared(postgres_world: World) -> None:
    """A Connection's transaction of two phases may be committed in one: it is locked before that."""
    world = postgres_world
    furnish(world)
    with world.engine.connect() as connection:
        transaction = connection.begin_twophase()
        with world.Session(bind=connection) as session:
            session.get_one(User, 1).name = "new"
            session.commit()
        transaction.commit()
        assert world.is_locked(User, {"id": 1})
        world.check()
    assert world.locks == []
    world.check()


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_what_a_two_phase_transaction_has_written_is_over_with_it(postgres_world: World, end: str) -> None:
    """A session that joins the same connection later is not asked for what that has written."""
    world = postgres_world
    furnish(world)
    with world.engine.connect() as connection:
        transaction = connection.begin_twophase()
        connection.execute(sa.update(User).where(User.id == 9).values(name="nobody"))
        getattr(transaction, end)()
        with world.Session(bind=connection) as session, warnings.catch_warnings():
            warnings.simplefilter("error")
            session.connection()
            with world.statements() as executed:
                assert world.chain.get(User, {"id": 1}, session=session) is not None
    assert executed == []


def test_a_refused_two_phase_commit_is_rolled_back(postgres_world: World) -> None:
    """Nothing of it is left in the transaction that comes next on the connection."""
    world = postgres_world
    furnish(world)
    world.extension.unreachable = "refuse"
    with world.engine.connect() as connection:
        transaction = connection.begin_twophase()
        with world.Session(bind=connection) as session:
            session.get_one(User, 1).name = "lost"
            session.commit()
        world.memory.failing = StoreUnavailable("it is down", "memory", "lock")
        with pytest.raises(StoreUnavailable):
            transaction.commit()
        transaction.rollback()
        world.memory.failing = None
        with connection.begin():
            connection.execute(sa.text("select 1"))
    assert (world.truth(User, {"id": 1}) or {})["name"] == "1"
    world.check()


def test_a_two_phase_transaction_ends_what_was_before_it(postgres_world: World) -> None:
    """Its rollback is not that of the transaction which was committed on the connection before."""
    world = postgres_world
    furnish(world)
    with world.engine.connect() as connection:
        for begin, end in (("begin", "commit"), ("begin_twophase", "rollback")):
            transaction = getattr(connection, begin)()
            with world.Session(bind=connection) as session:
                session.get_one(User, 1).name = end
                session.commit()
            getattr(transaction, end)()
    assert world.memory.calls == ["lock", "publish"]
    assert (world.truth(User, {"id": 1}) or {})["name"] == "commit"
    world.check()


# autocommit


@pytest.mark.parametrize("ending", ["commit", "rollback", "close"])
def test_autocommit(database_url: str, make_world: MakeWorld, ending: str) -> None:
    """On an AUTOCOMMIT engine all endings commit; what was written is removed, never published."""
    world = make_world(database_url)
    furnish(world)
    engine = sa.create_engine(database_url, isolation_level="AUTOCOMMIT")
    with sessionmaker(engine, extension=world.extension)() as session:
        session.get_one(User, 1).name = "new"
        session.flush()
        getattr(session, ending)()
    assert world.locks == []
    assert not world.holds(User, {"id": 1})
    assert world.truth(User, {"id": 1}) == world.cached(User, {"id": 1})
    world.check()
    engine.dispose()


# several at once


def test_a_session_of_several_binds(database_url: str, tmp_path: Any, make_world: MakeWorld) -> None:
    """A session on two databases keeps the caches of both right, each by the extension that has its chain."""
    one, two = make_world(database_url), make_world(f"sqlite:///{tmp_path}/two.db")
    furnish(one)
    two.add(Org(id=1, name="a"))
    two.warm(Org, {"id": 1}, {"name": "a"}, {"name": "b"})
    Both = sessionmaker(binds={User: one.engine, Org: two.engine}, extension=[one.extension, two.extension])
    with Both() as session:
        with pytest.warns(StockpyleWarning, match="ignored"):
            user = session.get_one(User, 1)
        with pytest.warns(StockpyleWarning, match="ignored"):
            org = session.get_one(Org, 1)
        user.name, org.name = "new", "b"
        session.commit()
    assert isinstance(one.held(User, {"id": 1}), Record)
    assert isinstance(two.held(Org, {"id": 1}), Record)
    assert (one.memory.calls, two.memory.calls) == (["lock", "publish"], ["lock", "publish"])
    one.check()
    two.check()


def test_two_extensions_on_one_session(world: World, make_world: MakeWorld) -> None:
    """Each of two extensions on one session keeps its own caches right."""
    furnish(world)
    other = make_world(world.url)
    other.warm(User, {"id": 1}, {"email": "1@a.org"})
    with sessionmaker(world.engine, extension=[world.extension, other.extension])() as session:
        session.get_one(User, 1).email = "new@a.org"
        session.commit()
    for each in (world, other):
        assert each.memory.calls == ["lock", "publish"]
        assert isinstance(each.held(User, {"id": 1}), Record)
        each.check()


# listeners that raise


@pytest.mark.parametrize("name", ["before_commit", "after_flush", "after_commit"])
@pytest.mark.parametrize("early", [False, True])
def test_an_applications_session_listener_raises(world: World, name: str, early: bool) -> None:
    """Whatever an application's listener raises, older than ours or not, the caches are right and no lock is left."""
    furnish(world)
    raising = True

    def listener(*_: Any) -> None:
        if raising:
            raise RuntimeError(name)

    make = sessionmaker(world.engine)
    if early:
        event.listen(make, name, listener)
        world.extension.listen(make)
    else:
        world.extension.listen(make)
        event.listen(make, name, listener)
    session = make()
    session.get_one(User, 1).name = "new"
    with pytest.raises(RuntimeError, match=name):
        session.commit()
    raising = False
    session.close()
    assert world.locks == []
    world.check()


def test_an_applications_commit_listener_refuses_the_commit(world: World) -> None:
    """A listener that keeps the COMMIT from being sent leaves no lock."""
    furnish(world)

    def listener(connection: sa.Connection) -> None:
        connection.rollback()
        raise RuntimeError("no")

    event.listen(world.engine, "commit", listener)
    session = world.Session()
    session.get_one(User, 1).name = "lost"
    with pytest.warns(sa.exc.SAWarning), pytest.raises(RuntimeError):
        session.commit()
    event.remove(world.engine, "commit", listener)
    session.close()
    assert world.locks == []
    world.check()


def test_a_commit_listener_writes_after_the_locks_were_set(world: World) -> None:
    """What an application's own commit listener writes behind ours is dropped from the caches after the commit."""
    furnish(world)
    with world.Session() as session:
        session.get_one(User, 1).name = "new"
        session.flush()

        def write(connection: sa.Connection) -> None:
            connection.execute(sa.update(User).where(User.id == 2).values(name="late"))

        event.listen(world.engine, "commit", write)
        session.commit()
        event.remove(world.engine, "commit", write)
    world.check()


def test_a_tier_that_cannot_be_locked(world: World) -> None:
    """A commit that is refused is rolled back, and no transaction is left open in the pool."""
    furnish(world)
    world.extension.unreachable = "refuse"
    world.memory.failing = RuntimeError("the tier is down")
    session = world.Session()
    session.get_one(User, 1).name = "lost"
    with pytest.raises(StoreUnavailable, match="the tier is down") as caught:
        session.commit()
    assert caught.value.__cause__ is world.memory.failing
    session.close()
    world.memory.failing = None
    world.clock.now += 1
    with world.engine.connect() as connection:
        connection.execute(sa.text("update users set name = 'free' where id = 1"))
        connection.rollback()
    assert world.locks == []
    world.check()
    with world.Session() as session:
        session.get_one(User, 1).name = "new"
        session.commit()
    world.check()


def test_one_tier_of_two_cannot_be_locked(world: World) -> None:
    """The tiers that were locked before the one that failed are unlocked."""
    furnish(world)
    failing = StockpyleSessionExtension(_Failing(), unreachable="refuse")
    session = sessionmaker(world.engine, extension=[world.extension, failing])()
    session.get_one(User, 1).name = "lost"
    with pytest.raises(StoreUnavailable, match="the tier is down"):
        session.commit()
    session.close()
    assert world.locks == []
    world.check()


class _Failing:
    """A store of verbs that is down."""

    def __getattr__(self, name: str) -> Any:
        if name in ("put", "get", "delete", "batch_put", "batch_get", "release"):
            return lambda *_: None
        raise AttributeError(name)

    def batch_delete(self, objs: Any) -> None:
        raise RuntimeError("the tier is down")


def test_the_load_for_publishing_fails(postgres_world: World, caplog: pytest.LogCaptureFixture) -> None:
    """If what was committed cannot be loaded, commit() returns all the same, and the locks are gone."""
    furnish(postgres_world)
    world = postgres_world

    def refuse(connection: sa.Connection, *_: Any) -> None:
        if connection.get_execution_options().get("stockpyle_source"):
            raise RuntimeError("down")

    with world.Session() as session:
        session.get_one(User, 1).name = "new"
        session.flush()
        event.listen(world.engine, "before_cursor_execute", refuse)
        session.commit()
    event.remove(world.engine, "before_cursor_execute", refuse)
    assert "could not be loaded again" in caplog.text
    assert world.locks == []
    world.check()


def test_a_load_event_raises_while_publishing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """An application's load event that raises for a tier's lifetime callback does not reach commit()."""
    from stockpyle.stores import ChainedStore, ProcessMemoryStore, SqlAlchemyStore

    world.add(User(id=1, email="1@a.org"))
    memory = ProcessMemoryStore(lifetime_cb=lambda obj: 60)
    chain = ChainedStore([memory, SqlAlchemyStore(engine=world.engine)])
    assert chain.get(User, {"id": 1})
    session = sessionmaker(world.engine, extension=StockpyleSessionExtension(chain))()
    session.get_one(User, 1).name = "new"

    def refuse(target: User, context: Any) -> None:
        raise RuntimeError("no")

    event.listen(User, "load", refuse)
    session.commit()
    event.remove(User, "load", refuse)
    session.close()
    assert memory.stats.errors == 1
    assert chain.get(User, {"id": 1}).name == "new"  # type: ignore[union-attr]
    assert memory.stats.locked == 0
