"""Round trips that only memcached makes, counted at the socket. The others are in tests/remote."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from stockpyle.memcached.wire import CHUNK_COMMANDS
from tests.ext.models import User
from tests.memcached.parts import foreign
from tests.remote.caches import OnMemcached
from tests.remote.counting import World


@pytest.fixture
def world(memcached: tuple[str, int], sqlite_engine: sa.Engine) -> Iterator[World]:
    """600 users, of whom the last one is in the cache."""
    made = World(OnMemcached(memcached), sqlite_engine)
    yield made
    made.store.close()


@pytest.mark.parametrize("count", [1, 100])
def test_fill(world: World, count: int) -> None:
    """The third round trip of a miss fills, with a command for each key."""
    with world.counted() as trips:
        assert all(world.chain.batch_get(User, [{"id": i} for i in range(count)]))
    assert trips == [3]
    assert world.sockets.sent[2].count(b"ms ") == count


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
