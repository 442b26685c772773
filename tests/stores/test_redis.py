"""RedisStore on one server, behind a Sentinel and on a cluster: the contracts, its URLs and options."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from stockpyle.exceptions import ImproperlyConfigured, StoreUnavailable
from stockpyle.stores import RedisStore
from stockpyle.testing import Clock, RevisedContract, StoreContract, TierContract
from stockpyle.testing.samples import Person
from tests.remote.parts import ONE
from tests.servers import PATIENCE, Redis, RedisCluster, RedisSentinel


class OnRedis:
    """Stores of their own on one server: each has a prefix that nobody else has."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: str) -> None:
        self.url = redis_server

    def make(self, **options: Any) -> RedisStore:
        return RedisStore(self.url, prefix=secrets.token_hex(4), **options)


class OnCluster(OnRedis):
    """Stores whose keys are spread over the nodes of a cluster."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_cluster: RedisCluster) -> None:
        self.url = redis_cluster.url


class TestContract(OnRedis, StoreContract):
    def make_store(self, **options: Any) -> RedisStore:
        return self.make(**options)


class TestContractOnCluster(OnCluster, StoreContract):
    def make_store(self, **options: Any) -> RedisStore:
        return self.make(**options)


class TestTier(OnRedis, TierContract):
    clock_is_ours = False

    def make_tier(self, clock: Clock) -> RedisStore:
        return self.make(clock=clock)


class TestRevisions(OnRedis, RevisedContract):
    def make_tier(self, clock: Clock) -> RedisStore:
        return self.make(clock=clock)


class TestRevisionsOnCluster(OnCluster, RevisedContract):
    def make_tier(self, clock: Clock) -> RedisStore:
        return self.make(clock=clock)


class TestTierOnCluster(OnCluster, TierContract):
    clock_is_ours = False

    def make_tier(self, clock: Clock) -> RedisStore:
        return self.make(clock=clock)


# where it is


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://host", "host:6379"),
        ("redis://user:pass%40word@host:1/3", "host:1"),
        ("rediss://[::1]:7/0", "::1:7"),
        ("unix:///run/redis.sock?db=2", "/run/redis.sock"),
        ("redis+sentinel://one,two:2/service/1", "one,two:2/service"),
        ("redis+cluster://:word@one:1,two:2", "one:1,two:2"),
    ],
)
def test_urls_name_servers(url: str, name: str) -> None:
    """Each way to name a server is understood without asking it; no password is shown."""
    store = RedisStore(url, prefix="app")
    assert repr(store) == f"RedisStore(servers=['{name}'], prefix='app')"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (7, "7 is no URL of a Redis"),
        ("localhost:6379", "is no URL of a Redis"),
        ("memcached://localhost", "is no URL of a Redis"),
        ("redis://:secret@host:many", r"'redis://:\*\*\*@host:many' is no URL of a Redis"),
        ("redis+sentinel://host", "the path of a Sentinel's URL is /service"),
        ("redis+sentinel://host/service/x", "the path of a Sentinel's URL is /service"),
        ("redis+cluster://host/3", "a cluster has no databases but 0"),
        ("redis+cluster://host:many", "is no URL of a Redis"),
        ("redis+cluster://", "names no host"),
    ],
)
def test_bad_urls(url: Any, says: str) -> None:
    """What is no URL of a Redis is refused with examples, and without its password."""
    with pytest.raises(ImproperlyConfigured, match=says) as told:
        RedisStore(url)
    assert "redis://localhost:6379/0" in str(told.value) or "Sentinel" in str(told.value)
    assert "secret" not in str(told.value)


def test_a_url_or_a_client() -> None:
    """One of them is needed, and not both."""
    with pytest.raises(ImproperlyConfigured, match=re.escape("either a url")):
        RedisStore()
    with pytest.raises(ImproperlyConfigured, match=re.escape("either a url")):
        RedisStore("redis://host", redis.Redis())


def test_a_client_says_where_the_server_is(redis_server: str) -> None:
    """It stays the caller's own, whatever it decodes."""
    with redis.Redis.from_url(redis_server, decode_responses=True) as client:
        store = RedisStore(client=client, prefix=secrets.token_hex(4))
        store.put(Person(1, name="kept"))
        assert store.get(Person, {"id": 1}).name == "kept"
        assert client.ping()
    with pytest.raises(ImproperlyConfigured, match="client is a redis"):
        RedisStore(client=object())


def test_sentinel_names_the_server() -> None:
    """A store follows the service to the server that has taken it over, and believes nothing it finds there."""
    with Redis() as first, Redis("--replicaof", first.host, str(first.port)) as second:
        wait_for(lambda: b"master_link_status:up" in second.tell("INFO", "replication"))
        with RedisSentinel(first) as sentinel:
            wait_for(lambda: b"num-slaves" in sentinel.tell("SENTINEL", "MASTERS") and replicas(sentinel) == 1)
            store = RedisStore(f"redis+sentinel://{sentinel.host}:{sentinel.port}/service", prefix="app")
            store.put(Person(1, name="old"))
            assert store.get(Person, {"id": 1}).name == "old"
            (found,) = store.read_revised([ONE])
            assert store.revisions([ONE]) == [found.revision] == store.revisions([ONE], [found.revision])
            wait_for(lambda: b"app" in second.tell("KEYS", "*Person*") or second.tell("DBSIZE") != b":0\r\n")
            first.stop("immediate")
            wait_for(lambda: second.tell("ROLE").find(b"master") >= 0)
            wait_for(lambda: answers(store))
            assert store.revisions([ONE], [found.revision]) != [found.revision]
            assert store.get(Person, {"id": 1}) is None
            store.put(Person(1, name="new"))
            assert store.get(Person, {"id": 1}).name == "new"
            store.close()


def replicas(sentinel: RedisSentinel) -> int:
    """Return how many replicas it knows."""
    return sentinel.tell("SENTINEL", "REPLICAS", "service").count(b"runid")


def answers(store: RedisStore) -> bool:
    """True if the server can be reached."""
    try:
        store.parts[0].ping()
    except StoreUnavailable:
        return False
    return True


def wait_for(what: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)
