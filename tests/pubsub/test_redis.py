"""Publish/subscribe on Redis: behind a Sentinel, on a cluster, and beside other clients."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
import redis

from stockpyle.exceptions import StoreUnavailable
from stockpyle.pubsub.callbacks import Name
from stockpyle.pubsub.redis import MOST_AT_ONCE
from stockpyle.pubsub.wires import Inbox
from stockpyle.stores import RedisStore
from tests.pubsub.parts import Diary, Ear, wait_for
from tests.servers import Redis, RedisCluster, RedisSentinel

QUICK: dict[str, Any] = {"heartbeat": 0.1, "timeout": 0.5}


def test_other_clients_are_heard_and_hear(redis_server: str) -> None:
    """The channels are Redis's own, whatever the store's prefix and database; data and names come as they are sent."""
    ear = Ear()
    with (
        RedisStore(redis_server.removesuffix("0") + "3", prefix="app").pubsub() as pubsub,
        redis.Redis.from_url(redis_server) as client,
        client.pubsub(ignore_subscribe_messages=True) as other,
    ):
        pubsub.subscribe("news", ear)
        pubsub.psubscribe("*", ear)
        assert client.publish("news", b"1") == 2
        assert client.publish(b"caf\xe9", b"2") == 1
        assert ear.after(3) == [("news", b"1")] * 2 + [(b"caf\xe9".decode("utf-8", "surrogateescape"), b"2")]
        other.subscribe("news")
        other.get_message(timeout=5)
        assert pubsub.publish("news", "süß") == 3
        assert other.get_message(timeout=5)["data"] == "süß".encode()


def test_large_messages(redis_server: str) -> None:
    """There is no limit but Redis's own."""
    ear = Ear()
    with RedisStore(redis_server).pubsub() as pubsub:
        assert pubsub.max_size is None
        pubsub.subscribe("news", ear)
        data = bytes(range(256)) * 20_000
        pubsub.publish("news", data)
        assert ear.after(1) == [("news", data)]


def test_a_flood_is_taken_in_parts(redis_server: str) -> None:
    """Of what has come only so much is read before the callbacks are called: no message waits for an end of them."""
    inbox: Inbox = deque()
    number = 3 * MOST_AT_ONCE
    with RedisStore(redis_server).pubsub() as pubsub, redis.Redis.from_url(redis_server) as client:
        wire = pubsub._connect(inbox)
        wire.subscribe([Name("news")])
        with client.pipeline(transaction=False) as pipeline:
            for i in range(number):
                pipeline.publish("news", str(i))
            assert sum(pipeline.execute()) == number
        heard: list[bytes] = []
        while len(heard) < number:
            wire.receive()
            assert len(inbox) <= MOST_AT_ONCE
            heard += [inbox.popleft().data for _ in range(len(inbox))]
        wire.close()
    assert heard == [str(i).encode() for i in range(number)]


def test_a_client_says_where_the_server_is(redis_server: str) -> None:
    """A store that was given a client has pub/sub as well, on connections of its own."""
    ear = Ear()
    with (
        redis.Redis.from_url(redis_server, decode_responses=True) as client,
        RedisStore(client=client).pubsub() as pubsub,
    ):
        pubsub.subscribe("news", ear)
        pubsub.publish("news", b"\xff")
        assert ear.after(1) == [("news", b"\xff")]
        assert client.ping()


def test_a_slow_callback_is_not_taken_for_a_loss(redis_server: str) -> None:
    """While a callback runs nobody asks the server, and what comes meanwhile is heard after it."""
    diary, ear = Diary(), Ear()
    with RedisStore(redis_server).pubsub(**diary.options, **QUICK) as pubsub:
        go = Diary()

        def slow(channel: str, data: bytes) -> None:
            pubsub.unsubscribe("news", slow)
            go.until("on")

        pubsub.subscribe("news", slow)
        pubsub.subscribe("news", ear)
        for number in range(100):
            pubsub.publish("news", str(number))
        go.note("on")
        assert [data for _, data in ear.after(100)] == [str(number).encode() for number in range(100)]
        assert diary.entries == []


def test_sentinel_names_the_server() -> None:
    """Who listens follows the service to the server that has taken it over, and says that messages were lost."""
    with Redis() as first, Redis("--replicaof", first.host, str(first.port)) as second:
        wait_for(lambda: b"master_link_status:up" in second.tell("INFO", "replication"))
        with RedisSentinel(first) as sentinel:
            wait_for(lambda: sentinel.tell("SENTINEL", "REPLICAS", "service").count(b"runid") == 1)
            diary, ear = Diary(), Ear()
            store = RedisStore(f"redis+sentinel://{sentinel.host}:{sentinel.port}/service")
            with store.pubsub(**diary.options, **QUICK) as pubsub:
                pubsub.subscribe("news", ear)
                assert pubsub.publish("news", b"1") == 1
                first.stop("immediate")
                diary.until("lost")
                diary.until("lost", "restored")
                assert second.tell("ROLE").find(b"master") >= 0
                assert pubsub.publish("news", b"2") == 1
                assert ear.after(2) == [("news", b"1"), ("news", b"2")]


def test_a_master_that_does_not_know_that_it_is_none() -> None:
    """Once Sentinel names another server, the one before is listened to no more, though it answers."""
    with Redis() as first, Redis() as second, RedisSentinel(first) as sentinel:
        diary, ear = Diary(), Ear()
        store = RedisStore(f"redis+sentinel://{sentinel.host}:{sentinel.port}/service")
        with store.pubsub(**diary.options, **QUICK) as pubsub:
            pubsub.subscribe("news", ear)
            sentinel.tell("SENTINEL", "REMOVE", "service")
            sentinel.tell("SENTINEL", "MONITOR", "service", second.host, second.port, 1)
            diary.until("lost", "restored")
            with redis.Redis.from_url(second.url) as client:
                assert client.publish("news", b"1") == 1
            assert ear.after(1) == [("news", b"1")]


def test_a_sentinel_that_is_down() -> None:
    """As long as the server answers, it is listened to."""
    with Redis() as server, RedisSentinel(server) as sentinel:
        diary, ear = Diary(), Ear()
        store = RedisStore(f"redis+sentinel://{sentinel.host}:{sentinel.port}/service")
        with store.pubsub(**diary.options, **QUICK) as pubsub, redis.Redis.from_url(server.url) as client:
            pubsub.subscribe("news", ear)
            sentinel.stop("immediate")
            asked = client.info("commandstats")["cmdstat_ping"]["calls"]
            wait_for(lambda: client.info("commandstats")["cmdstat_ping"]["calls"] > asked + 2)
            client.publish("news", b"1")
            assert ear.after(1) == [("news", b"1")]
            assert diary.entries == []


def test_a_cluster_that_is_no_whole() -> None:
    """A node that is cut off from its cluster does not hear the others, and is not listened to until it is whole."""
    with RedisCluster() as cluster:
        diary, ear = Diary(), Ear()
        with RedisStore(cluster.url).pubsub(**diary.options, **QUICK) as pubsub:
            pubsub.subscribe("news", ear)
            assert pubsub.publish("news", b"1") is None
            ear.after(1)
            cluster.nodes[0].stop("immediate")
            wait_for(lambda: all(b"cluster_state:fail" in node.tell("CLUSTER", "INFO") for node in cluster.nodes[1:]))
            wait_for(lambda: not pubsub.connected)
            with pytest.raises(StoreUnavailable):
                pubsub.subscribe("weather", ear)
            cluster.nodes[0].start()
            wait_for(lambda: pubsub.connected)
            # the nodes need a moment to see that one of them is gone, in which another is listened to
            assert diary.entries in (["lost", "restored"], ["lost", "restored"] * 2)
            wait_for(lambda: published(pubsub))
            ear.after(2)


def published(pubsub: Any) -> bool:
    """Publish, and return True if nothing was wrong."""
    try:
        pubsub.publish("news", b"2")
    except StoreUnavailable:
        return False
    return True
