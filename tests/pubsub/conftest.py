"""Publish/subscribe wherever there is such a thing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis

from stockpyle.protocols import PubSub
from stockpyle.stores import BaseStore, ProcessMemoryStore, RedisStore, SqlAlchemyStore
from tests.pubsub.parts import Make, OnPostgres, OnRedis, Place
from tests.servers import PATIENCE, Postgres, RedisCluster


def pass_all_on(cluster: RedisCluster) -> None:
    """Return when each node has what was published on all others, so that the next test hears nothing of it."""
    with ExitStack() as stack:
        clients = [stack.enter_context(redis.Redis.from_url(node.url)) for node in cluster.nodes]
        ears = [stack.enter_context(client.pubsub(ignore_subscribe_messages=True)) for client in clients]
        for ear in ears:
            ear.subscribe("passed on")
            ear.get_message(timeout=PATIENCE)
        for client in clients:
            client.publish("passed on", b"")
        for ear in ears:
            assert all(ear.get_message(timeout=PATIENCE) for _ in clients)


@pytest.fixture(params=["memory", "redis", "cluster", "psycopg", "psycopg2"])
def store(request: pytest.FixtureRequest) -> Iterator[BaseStore]:
    """A store of each kind that has pub/sub."""
    made: BaseStore
    if request.param == "memory":
        made = ProcessMemoryStore()
    elif request.param == "redis":
        made = RedisStore(request.getfixturevalue("redis_server"))
    elif request.param == "cluster":
        cluster: RedisCluster = request.getfixturevalue("redis_cluster")
        made = RedisStore(cluster.url)
    else:
        server: Postgres = request.getfixturevalue("postgres")
        made = SqlAlchemyStore(server.url(request.param))
    yield made
    made.close()
    if request.param == "cluster":
        pass_all_on(cluster)


@pytest.fixture
def make(store: BaseStore) -> Iterator[Make]:
    """Return a pub/sub of the store; all are closed after the test. No heartbeat finds what it has not seen."""
    made: list[PubSub] = []

    def make_one(**options: Any) -> PubSub:
        made.append(store.pubsub(**{"heartbeat": 10_000, **options}))
        return made[-1]

    yield make_one
    for each in made:
        each.close()


@pytest.fixture
def pubsub(make: Make) -> PubSub:
    """One of them."""
    return make()


@pytest.fixture(params=["redis", "psycopg", "psycopg2"], scope="module")
def own_place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A server of the tests' own."""
    made = OnRedis() if request.param == "redis" else OnPostgres(request.param)
    with made.server:
        yield made


@pytest.fixture
def place(own_place: Place) -> Place:
    """A server that runs, and that a test may do anything to."""
    own_place.server.start()
    return own_place
