"""Round trips to the cache, counted at the socket, through a chain whose source is a real database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from stockpyle.testing.samples import Pet
from tests.ext.models import Employee, Org, User
from tests.remote.caches import Cache
from tests.remote.counting import World


@pytest.fixture
def world(cache: Cache, sqlite_engine: sa.Engine) -> Iterator[World]:
    """600 users, of whom the last one is in the cache."""
    made = World(cache, sqlite_engine)
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


def test_useless_value(world: World, kind: str) -> None:
    """Redis puts a lease in the place of what is of no use at once; on memcached to swap it is one more than a miss."""
    world.chain.invalidate(User)
    with world.counted() as trips:
        assert world.chain.get(User, {"id": 599}) is not None
    assert trips == [{"memcached": 4, "redis": 3}[kind]]


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


@pytest.mark.parametrize("count", [1, 100, 10_000])
def test_commit_of_a_bulk_update(world: World, kind: str, count: int) -> None:
    """A statement drops its rows in two round trips; if it has ten thousand, their class, on memcached in three."""
    with world.Session() as session:
        session.execute(sa.insert(Org), [{"id": i, "name": str(i)} for i in range(count)])
        session.commit()
        assert world.chain.get(Org, {"id": 0}) is not None
        statement = sa.update(Org).where(Org.id < count).values(leader_id=None)
        assert session.execute(statement).rowcount == count
        with world.counted() as trips:
            session.commit()
    assert trips == [3 if count == 10_000 and kind == "memcached" else 2]


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
def test_delete(world: World, kind: str, how: str) -> None:
    """A delete locks no row for certain: on memcached a key that is held costs one more, to swap it for the lock."""
    for held, expected in ((False, 2), (True, 3 if kind == "memcached" else 2)):
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


@pytest.mark.parametrize("held", [False, True])
def test_commit_of_a_row_over_two_tables(world: World, kind: str, held: bool) -> None:
    """So it is with a row over two tables: its keys are locked without a row lock."""
    if not held:
        world.store.invalidate(Employee, {"id": 1})
    with world.Session() as session:
        session.get(Employee, 1).desk = 2
        with world.counted() as trips:
            session.commit()
    assert trips == [3 if held and kind == "memcached" else 2]
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


# with a memory above that validates


@pytest.fixture
def validated(cache: Cache, sqlite_engine: sa.Engine) -> Iterator[World]:
    """The same, under a memory that validates."""
    made = World(cache, sqlite_engine, validate=True)
    yield made
    made.store.close()


@pytest.mark.parametrize("count", [1, 100])
def test_validated_hit(validated: World, count: int) -> None:
    """A hit in memory that is validated is one round trip, in which no value comes; so are a hundred."""
    keys = [{"id": i} for i in range(count)]
    for expected in (3, 1, 1):
        with validated.counted() as trips:
            assert all(validated.chain.batch_get(User, keys))
        assert trips == [expected]
    assert validated.memory.stats.hits == count
    assert not any(b"old" in reply for reply in validated.sockets.received)


@pytest.mark.parametrize("count", [1, 100])
def test_validated_hit_by_alternate_key(validated: World, count: int) -> None:
    """By an alternate key it is one, too: the alias that leads to it needs no validating."""
    keys = [{"email": f"{i}@x"} for i in range(count)]
    for expected in (5, 2, 1):
        with validated.counted() as trips:
            assert all(validated.chain.batch_get(User, keys))
        assert trips == [expected]


@pytest.mark.parametrize("count", [1, 100])
def test_validated_hit_by_alternate_key_of_plain_objects(validated: World, count: int) -> None:
    """Of plain objects it is two: whose the key is, and whether memory's copy of that one is right."""
    validated.chain.batch_put([Pet(i, f"tag {i}") for i in range(count)])
    keys = [{"tag": f"tag {i}"} for i in range(count)]
    for _ in range(2):
        validated.chain.batch_get(Pet, keys)
    with validated.counted() as trips:
        assert all(validated.chain.batch_get(Pet, keys))
    assert trips == [2]


def test_validated_absence(validated: World) -> None:
    """That there is no such object is validated in one."""
    for expected in (3, 1, 1):
        with validated.counted() as trips:
            assert validated.chain.get(User, {"id": 5000}) is None
        assert trips == [expected]
    assert validated.memory.stats.hits == 1


@pytest.mark.parametrize("count", [1, 100])
def test_validation_that_fails(validated: World, count: int) -> None:
    """What has changed since is one to learn that and one to read, however many; then it is in memory again."""
    keys = [{"id": i} for i in range(count)]
    for _ in range(3):
        validated.chain.batch_get(User, keys)
    validated.others.batch_put([User(id=i, email=f"{i}@x", name="new") for i in range(count)])
    for expected in (2, 1):
        with validated.counted() as trips:
            assert {user.name for user in validated.chain.batch_get(User, keys)} == {"new"}
        assert trips == [expected]


def test_commit_under_validated_memory(validated: World) -> None:
    """A commit costs what it did: one to lock and one to publish."""
    for _ in range(3):
        validated.chain.get(User, {"id": 1})
    with validated.Session() as session:
        session.get(User, 1).name = "new"
        with validated.counted() as trips:
            session.commit()
    assert trips == [2]
    for _ in range(2):
        with validated.counted() as trips:
            assert validated.chain.get(User, {"id": 1}).name == "new"
        assert trips == [1]
