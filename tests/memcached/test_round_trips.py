"""Round trips to memcached, counted at the socket, through a chain whose source is a real database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from pymemcache.client.base import Client
from sqlalchemy.orm import Session

from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.memcached.wire import CHUNK_COMMANDS
from stockpyle.orm.mapping import spec_of_mapped
from stockpyle.stores import ChainedStore, MemcacheStore, SqlAlchemyStore
from stockpyle.testing.samples import Pet
from tests.ext.models import Base, Employee, Org, User
from tests.memcached.parts import CountingSockets, Foreign, foreign, new_prefix


class World:
    """A chain of memcached and SQLite, whose sockets to memcached are counted."""

    def __init__(self, memcached: tuple[str, int], engine: sa.Engine) -> None:
        self.sockets = CountingSockets()
        self.counted = self.sockets.counted
        self.store = MemcacheStore(
            client=Client(memcached, timeout=10, socket_module=self.sockets), prefix=new_prefix()
        )
        self.chain = ChainedStore([self.store, SqlAlchemyStore(engine=engine)])
        self.Session = sessionmaker(engine, extension=StockpyleSessionExtension(self.chain))
        self.engine = engine
        self.address = memcached
        Base.metadata.create_all(engine)
        with Session(engine) as session, session.begin():
            session.add_all([User(id=i, email=f"{i}@x", name="old") for i in range(600)])
            session.add(Employee(id=1, ssn=1, desk=1))
        # connected, and both epochs made
        self.chain.get(User, {"id": 599})
        self.chain.get(Employee, {"id": 1})

    def text(self, user: int) -> str:
        """The key of a user."""
        wanted = spec_of_mapped(User).key({"id": user})
        assert wanted is not None
        return wanted.text(self.store.prefix)


@pytest.fixture
def world(memcached: tuple[str, int], sqlite_engine: sa.Engine) -> Iterator[World]:
    """600 users, of whom the last one is in the cache."""
    made = World(memcached, sqlite_engine)
    yield made
    made.store.close()


def test_hit(world: World) -> None:
    """A hit is one round trip."""
    with world.counted() as trips:
        assert world.chain.get(User, {"id": 599}) is not None
    assert trips == [1]


def test_hits_by_the_hundred(world: World) -> None:
    """So are a hundred."""
    keys = [{"id": i} for i in range(100)]
    world.chain.batch_get(User, keys)
    with world.counted() as trips:
        assert all(world.chain.batch_get(User, keys))
    assert trips == [1]


def test_hit_by_alternate_key(world: World) -> None:
    """A hit by an alternate key is two: the alias, and the record it leads to; a hundred are two as well."""
    keys = [{"email": f"{i}@x"} for i in range(100)]
    world.chain.batch_get(User, keys)
    for asked in (keys[:1], keys):
        with world.counted() as trips:
            assert all(world.chain.batch_get(User, asked))
        assert trips == [2]


@pytest.mark.parametrize("count", [1, 100])
def test_miss(world: World, count: int) -> None:
    """A miss is two, the look and the lease, and one more to fill, however many keys."""
    with world.counted() as trips:
        assert all(world.chain.batch_get(User, [{"id": i} for i in range(count)]))
    assert trips == [3]
    assert world.sockets.sent[2].count(b"ms ") == count


def test_miss_of_what_is_not_there(world: World) -> None:
    """What the database has not is looked for as often, and then known to be absent."""
    for expected in (3, 1):
        with world.counted() as trips:
            assert world.chain.get(User, {"id": 5000}) is None
        assert trips == [expected]


def test_miss_by_alternate_key(world: World) -> None:
    """A cold read by an alternate key must lease the identity it learns: look and lease twice, and one to fill all."""
    with world.counted() as trips:
        assert world.chain.get(User, {"email": "1@x"}) is not None
    assert trips == [5]


def test_miss_by_alternate_key_of_a_held_object(world: World) -> None:
    """If the record is there already, to learn of it costs a look, and the alias is filled: four in all."""
    world.chain.get(User, {"id": 1})
    with world.counted() as trips:
        assert world.chain.get(User, {"email": "1@x"}) is not None
    assert trips == [4]


def test_useless_value(world: World, other: Foreign) -> None:
    """To swap what is of no use for a lease is one more than a miss."""
    world.chain.invalidate(User)
    with world.counted() as trips:
        assert world.chain.get(User, {"id": 599}) is not None
    assert trips == [4]


@pytest.mark.parametrize("count", [1, 100])
def test_commit(world: World, count: int) -> None:
    """A session's commit is one round trip to lock and one to publish, however many objects; then all are hits."""
    with world.Session() as session:
        for user in session.scalars(sa.select(User).where(User.id < count)):
            user.name = "new"
        with world.counted() as trips:
            session.commit()
    assert trips == [2]
    keys = [{"id": i} for i in range(count)]
    with world.counted() as trips:
        assert {user.name for user in world.chain.batch_get(User, keys)} == {"new"}
    assert trips == [1]


def test_commit_of_inserts_and_deletes(world: World) -> None:
    """Objects that come and go, of two classes, are in the same two round trips."""
    with world.Session() as session:
        session.add_all([User(id=1000 + i, email=f"{1000 + i}@x", name="new") for i in range(20)])
        session.add(Org(id=1, name="org"))
        for user in session.scalars(sa.select(User).where(User.id < 20)):
            session.delete(user)
        with world.counted() as trips:
            session.commit()
    assert trips == [2]
    with world.counted() as trips:
        assert all(world.chain.batch_get(User, [{"email": f"{1000 + i}@x"} for i in range(20)]))
    assert trips == [2]


@pytest.mark.parametrize(("count", "chunks"), [(300, 3), (600, 5)])
def test_commit_of_more_than_a_chunk(world: World, count: int, chunks: int) -> None:
    """Two keys an object, 250 commands a chunk: a chunk costs at most one round trip, the first two together one.

    They are pipelined: the next is sent before the last is answered, so that waiting for two at once may be one wait.
    """
    with world.Session() as session:
        for user in session.scalars(sa.select(User).where(User.id < count)):
            user.name = "new"
        with world.counted() as trips:
            session.commit()
    assert -(-2 * count // CHUNK_COMMANDS) == chunks
    assert len(world.sockets.sent) == 2 * chunks
    assert 2 <= trips[0] <= 2 * (chunks - 1)
    assert {user.name for user in world.chain.batch_get(User, [{"id": i} for i in range(count)])} == {"new"}


def test_rollback(world: World) -> None:
    """A rollback before any commit says nothing to memcached."""
    with world.Session() as session, world.counted() as trips:
        session.get(User, 1).name = "new"
        session.flush()
        session.rollback()
    assert trips == [0]


@pytest.mark.parametrize("count", [1, 100])
def test_chain_put(world: World, count: int) -> None:
    """chain.put is one round trip to lock and one to publish."""
    with world.counted() as trips:
        world.chain.batch_put([User(id=i, email=f"{i}@x", name="put") for i in range(count)])
    assert trips == [2]
    assert world.chain.get(User, {"id": 0}).name == "put"


@pytest.mark.parametrize("how", ["chain", "session"])
def test_delete(world: World, how: str) -> None:
    """A delete locks no row for certain: a key that is held costs one more, to swap what was looked at for the lock."""
    for held, expected in ((False, 2), (True, 3)):
        user = world.chain.get(User, {"id": 1 + held})
        if not held:
            world.store.invalidate(User, {"id": 1})
        if how == "chain":
            with world.counted() as trips:
                world.chain.delete(user)
        else:
            with world.Session() as session:
                session.delete(session.get(User, 1 + held))
                with world.counted() as trips:
                    session.commit()
        assert trips == [expected]
        assert world.chain.get(User, {"id": 1 + held}) is None


@pytest.mark.parametrize("lost", [1, 50])
def test_lost_compare(world: World, lost: int) -> None:
    """Locks that are lost before the publish add one read and one conditional removal, however many they are."""
    with world.Session() as session, foreign(world.address) as client:
        for user in session.scalars(sa.select(User).where(User.id < 50)):
            user.name = "new"

        def steal(*_: object) -> None:
            for i in range(lost):
                client.set(world.text(i), b"another's")

        sa.event.listen(world.engine, "commit", steal)
        try:
            with world.counted() as trips:
                session.commit()
        finally:
            sa.event.remove(world.engine, "commit", steal)
        assert trips == [4]
        assert client.get(world.text(0)) is None
        looks, removals = world.sockets.sent[-2:]
        assert looks.count(b"mg ") == lost
        assert removals.count(b"md ") == lost


@pytest.mark.parametrize(("held", "expected"), [(False, 2), (True, 3)])
def test_commit_of_a_row_over_two_tables(world: World, held: bool, expected: int) -> None:
    """A key without a row lock is added; what is held is looked at in the same trip, and swapped in one more."""
    if not held:
        world.store.invalidate(Employee, {"id": 1})
    with world.Session() as session:
        session.get(Employee, 1).desk = 2
        with world.counted() as trips:
            session.commit()
    assert trips == [expected]
    assert world.chain.get(Employee, {"id": 1}).desk == 2


def test_used_alone(world: World) -> None:
    """Without a chain a put asks for the epochs and stores; a get is one or, by an alternate key, two."""
    world.store.put(Pet(1, "rex"))
    for call, expected in (
        (lambda: world.store.put(Pet(1, "rex")), 2),
        (lambda: world.store.get(Pet, {"id": 1}), 1),
        (lambda: world.store.get(Pet, {"tag": "rex"}), 2),
        (lambda: world.store.batch_put([Pet(i, f"rex{i}") for i in range(100)]), 2),
        (lambda: world.store.batch_get(Pet, [{"id": i} for i in range(100)]), 1),
    ):
        with world.counted() as trips:
            call()
        assert trips == [expected]
