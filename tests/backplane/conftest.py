"""Processes for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from tests.backplane.peers import Peer, Setting

Start = Callable[..., list[Peer]]


@pytest.fixture
def clean_redis(redis_server: str) -> str:
    """URL of a Redis in which no other test has left anything."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture
def start() -> Iterator[Start]:
    """What starts processes, one for each setting, and ends them after the test."""
    started: list[Peer] = []

    def start(*settings: Setting) -> list[Peer]:
        mine = [Peer(setting) for setting in settings]
        started.extend(mine)
        return [peer.ready() for peer in mine]

    yield start
    for peer in started:
        peer.close()
