"""What an extension can listen to, and what it then leaves alone."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session
from sqlalchemy.orm import sessionmaker as plain_sessionmaker

from stockpyle.exceptions import ImproperlyConfigured, StockpyleWarning
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.records import Record
from stockpyle.stores import ChainedStore, ProcessMemoryStore, SqlAlchemyStore
from tests.ext.conftest import MakeWorld
from tests.ext.models import User
from tests.ext.worlds import World


def furnish(world: World) -> None:
    """Write a user, and read it by its keys."""
    world.add(User(id=1, email="1@a.org", name="old"))
    world.warm(User, {"id": 1}, {"email": "1@a.org"}, {"email": "2@a.org"})


def rename(session: Session, name: str = "new") -> None:
    """Give the user another name, and commit."""
    with session, session.begin():
        session.get_one(User, 1).name = name


def _from_sessionmaker(world: World) -> tuple[Any, Callable[[], Session]]:
    made = plain_sessionmaker(world.engine)
    return made, made


def _from_scoped(world: World) -> tuple[Any, Callable[[], Session]]:
    scoped = scoped_session(plain_sessionmaker(world.engine))
    return scoped, scoped


def _from_class(world: World) -> tuple[Any, Callable[[], Session]]:
    class Own(Session):
        pass

    return Own, lambda: Own(world.engine)


def _from_session(world: World) -> tuple[Any, Callable[[], Session]]:
    session = Session(world.engine)
    return session, lambda: session


@pytest.mark.parametrize("make", [_from_sessionmaker, _from_scoped, _from_class, _from_session])
def test_listening_to_what_makes_sessions(sqlite_world: World, make: Any) -> None:
    """listen() returns its target, whose sessions then keep the caches right; listening twice is listening once."""
    world = sqlite_world
    furnish(world)
    target, session = make(world)
    assert world.extension.listen(target) is target
    world.extension.listen(target)
    rename(session())
    assert world.memory.calls == ["lock", "publish"]
    world.check()


def test_sessionmakers_that_come_and_go(sqlite_world: World) -> None:
    """Each of many short-lived sessionmakers is listened to, though it lies in memory where another one lay."""
    world = sqlite_world
    furnish(world)
    for i in range(20):
        rename(sessionmaker(world.engine, extension=world.extension)(), str(i))
        rename(world.extension.listen(Session(world.engine)), f"{i}!")
    assert world.memory.calls == ["lock", "publish"] * 40
    world.check()


def test_sessions_that_nobody_listens_to(sqlite_world: World) -> None:
    """Sessions of the same class and engine, but of another sessionmaker, are left alone."""
    world = sqlite_world
    furnish(world)
    rename(plain_sessionmaker(world.engine)())
    rename(Session(world.engine), "newer")
    assert world.memory.calls == []


def test_listening_to_something_else(sqlite_world: World) -> None:
    """What is no session is refused by name, and so is an extension on what holds no copies."""
    with pytest.raises(ImproperlyConfigured, match="listen"):
        sqlite_world.extension.listen(sqlite_world.engine)
    with pytest.raises(ImproperlyConfigured, match="chain"):
        StockpyleSessionExtension(SqlAlchemyStore(engine=sqlite_world.engine))
    with pytest.raises(ImproperlyConfigured, match="on_write"):
        StockpyleSessionExtension(sqlite_world.chain, on_write="later")
    with pytest.raises(ImproperlyConfigured, match="ProcessMemoryStore is a class"):
        StockpyleSessionExtension(store=ProcessMemoryStore)
    with pytest.raises(ImproperlyConfigured, match="no store"):
        StockpyleSessionExtension(object())


# other databases


def test_a_session_on_another_database_is_ignored(tmp_path: Any, make_world: MakeWorld) -> None:
    """It would publish rows of another database: its commits are ignored, with one warning."""
    world, other = make_world(f"sqlite:///{tmp_path}/one.db"), make_world(f"sqlite:///{tmp_path}/two.db")
    furnish(world)
    other.add(User(id=1, name="other"))
    session = sessionmaker(other.engine, extension=world.extension)()
    with pytest.warns(StockpyleWarning, match="ignored"):
        rename(session)
    rename(session, "newer")
    assert world.memory.calls == []
    world.check()


def test_the_same_database_under_another_address(tmp_path: Any, make_world: MakeWorld) -> None:
    """same_database=True is believed, also after the engine was once ignored; the same path is seen to be the same."""
    world = make_world(f"sqlite:///{tmp_path}/one.db")
    furnish(world)
    os.link(tmp_path / "one.db", tmp_path / "linked.db")
    os.symlink(tmp_path / "one.db", tmp_path / "symlink.db")
    linked, symlink = (sa.create_engine(f"sqlite:///{tmp_path}/{name}.db") for name in ("linked", "symlink"))
    with pytest.warns(StockpyleWarning, match="ignored"):
        rename(sessionmaker(linked, extension=world.extension)(), "old")
    rename(world.extension.listen(plain_sessionmaker(linked), same_database=True)(), "linked")
    world.check()
    assert world.memory.calls == ["lock", "publish"]
    rename(sessionmaker(symlink, extension=world.extension)(), "symlink")
    world.check()
    assert world.memory.calls == ["lock", "publish"] * 2
    linked.dispose()
    symlink.dispose()


def test_another_driver_reaches_the_same_database(postgres_world: World) -> None:
    """Host, port and database say which database it is, not the driver's name or the user."""
    world = postgres_world
    furnish(world)
    url = sa.make_url(world.url).set(host="localhost", drivername="postgresql+psycopg_async")
    engine = create_async_engine(url)

    async def work() -> None:
        async with world.extension.listen(async_sessionmaker(engine))() as session:
            (await session.get_one(User, 1)).name = "new"
            await session.commit()
        await engine.dispose()

    asyncio.run(work())
    assert isinstance(world.held(User, {"id": 1}), Record)
    world.check()


def test_a_tenants_schema(postgres_world: World) -> None:
    """What a session writes in a tenant's schema is not loaded from, nor published for, anybody else's."""
    world = postgres_world
    furnish(world)
    world.execute("create schema tenant")
    tenant_engine = world.engine.execution_options(schema_translate_map={None: "tenant"})
    with tenant_engine.begin() as connection:
        User.metadata.create_all(connection)
    tenants = ChainedStore([world.memory, SqlAlchemyStore(engine=tenant_engine)])
    with Session(tenant_engine) as session, session.begin():
        session.add(User(id=5, name="tenant's"))
    assert tenants.get(User, {"id": 5}).name == "tenant's"  # type: ignore[union-attr]
    assert tenants.get(User, {"id": 6}) is None
    with world.Session() as session, session.begin():
        session.connection(execution_options={"schema_translate_map": {None: "tenant"}})
        session.get_one(User, 5).name = "new"
        session.add(User(id=6, name="six"))
    assert tenants.get(User, {"id": 5}).name == "new"  # type: ignore[union-attr]
    assert tenants.get(User, {"id": 6}).name == "six"  # type: ignore[union-attr]
    world.check()
    assert world.cached(User, {"id": 5}) is None


def test_an_engine_for_every_request(sqlite_world: World) -> None:
    """Engines derived from one another, made anew for each session, add no listeners and are not kept."""
    world = sqlite_world
    furnish(world)
    bare = StockpyleSessionExtension(world.memory)
    Own = sessionmaker(extension=[world.extension, bare])

    def request(i: int) -> None:
        engine = world.engine.execution_options(request=i)
        rename(Own(bind=engine), str(i))

    request(0)
    commits, resets = len(list(world.engine.dispatch.commit)), len(list(world.engine.pool.dispatch.reset))
    for i in range(1, 4):
        request(i)
    assert len(list(world.engine.dispatch.commit)) == commits
    assert len(list(world.engine.pool.dispatch.reset)) == resets
    gc.collect()
    assert (
        # not isinstance(), which asks what a weak proxy stands for
        len([o for o in gc.get_objects() if issubclass(type(o), sa.Engine) and o.pool is world.engine.pool]) < 5
    )
    world.check()


def test_one_source_for_all_engines_of_a_tenant(sqlite_world: World) -> None:
    """An extension of tiers alone makes one source for the same schemas, whatever SQLAlchemy adds to their dicts."""
    world = sqlite_world
    furnish(world)
    bare = StockpyleSessionExtension(world.memory)
    Own = sessionmaker(extension=[world.extension, bare])
    for i in range(3):
        engine = world.engine.execution_options(schema_translate_map={None: "main"})
        for name in (f"a{i}", f"b{i}"):
            rename(Own(bind=engine), name)
    assert [len(sources) for sources in bare._own_sources.values()] == [1]


# asyncio


def test_async_sessions(sqlite_world: World) -> None:
    """An AsyncSession over aiosqlite keeps the caches right; its base class's other sessions are left alone."""
    world = sqlite_world
    furnish(world)
    engine = create_async_engine(world.url.replace("sqlite:", "sqlite+aiosqlite:"))
    made = async_sessionmaker(engine)

    class Own(AsyncSession):
        pass

    async def rename_async(session: AsyncSession, name: str) -> None:
        async with session, session.begin():
            (await session.get_one(User, 1)).name = name

    async def work() -> None:
        for target, make in [
            (made, made),
            (Own, lambda: Own(engine)),
            (async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: 1), None),
        ]:
            world.memory.calls.clear()
            assert world.extension.listen(target) is target
            world.extension.listen(target)
            await rename_async((make or target)(), repr(target)[:60])
            assert isinstance(world.held(User, {"id": 1}), Record)
            assert world.memory.calls == ["lock", "publish"]
            world.check()
        single = AsyncSession(engine)
        world.extension.listen(single)
        await rename_async(single, "single")
        world.check()
        world.memory.calls.clear()
        await rename_async(AsyncSession(engine), "behind")
        await rename_async(async_sessionmaker(engine)(), "behind")
        assert world.memory.calls == []
        async with made() as session:
            (await session.get_one(User, 1)).name = "rolled back"
            await session.flush()
        assert world.memory.calls == []
        await engine.dispose()

    asyncio.run(work())


def test_an_async_session_with_a_bare_memory(sqlite_world: World) -> None:
    """An extension without a source loads what was committed through the session's own async engine."""
    world = sqlite_world
    furnish(world)
    bare = StockpyleSessionExtension(world.memory)
    engine = create_async_engine(world.url.replace("sqlite:", "sqlite+aiosqlite:"), pool_size=1, max_overflow=0)

    async def work() -> None:
        async with bare.listen(async_sessionmaker(engine))() as session:
            (await session.get_one(User, 1)).name = "new"
            await session.commit()
        await engine.dispose()

    asyncio.run(work())
    assert isinstance(world.held(User, {"id": 1}), Record)
    world.check()


# databases in memory


def test_a_database_in_memory(tmp_path: Any) -> None:
    """On the one connection of a StaticPool, a session's commit is published, and its open transaction is not read."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, connect_args={"check_same_thread": False})
    User.metadata.create_all(engine)
    memory = ProcessMemoryStore()
    chain = ChainedStore([memory, SqlAlchemyStore(engine=engine)])
    make = sessionmaker(engine, extension=StockpyleSessionExtension(chain))
    with make() as session, session.begin():
        session.add(User(id=1, name="old"))
    assert len(memory) == 1
    with make() as session:
        session.get_one(User, 1).name = "dirty"
        session.add(User(id=2, name="dirty"))
        session.flush()
        chain.get(User, {"id": 2})
        session.rollback()
    assert chain.get(User, {"id": 1}).name == "old"  # type: ignore[union-attr]
    assert chain.get(User, {"id": 2}) is None
    chain.close()
    engine.dispose()


def test_what_the_chain_writes_itself_is_locked_once(sqlite_world: World) -> None:
    """A put through the chain is not taken for a session's commit as well."""
    world = sqlite_world
    furnish(world)
    rename(world.Session())
    world.memory.calls.clear()
    world.chain.put(User(id=1, email="2@a.org", name="put"))
    assert world.memory.calls == ["lock", "publish"]
    world.check()


def test_the_source_is_never_written(sqlite_world: World) -> None:
    """The extension writes to a chain's tiers, and sends nothing but SELECTs to its source."""
    world = sqlite_world
    furnish(world)
    statements: list[str] = []

    def note(connection: sa.Connection, cursor: Any, statement: str, *_: Any) -> None:
        if connection.get_execution_options().get("stockpyle_source"):
            statements.append(statement.split()[0])

    event.listen(world.engine, "before_cursor_execute", note)
    rename(world.Session())
    assert set(statements) == {"SELECT"}
