"""A Redis that refuses what it is asked, in all the ways it has, seen from a chain and its sessions."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hiredis
import pytest
import redis
import sqlalchemy as sa
from sqlalchemy.orm import Session

from stockpyle.exceptions import StoreError, StoreTimeout, StoreUnavailable
from stockpyle.records import LOCKED, MISS, Lease
from stockpyle.stores import RedisStore
from stockpyle.testing.samples import Person
from tests.ext.models import User
from tests.remote.caches import OnRedis
from tests.remote.parts import ONE, TWO, Meddler, fill, holds, meddler, record
from tests.remote.places import Place
from tests.servers import Redis

ERRORS = {
    "loading": b"LOADING Redis is loading the dataset in memory",
    "a replica": b"READONLY You can't write against a read only replica.",
    "a replica without its master": b"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "out of memory": b"OOM command not allowed when used memory > 'maxmemory'.",
    "no script": b"NOSCRIPT No matching script. Please use EVAL.",
    "busy": b"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "not allowed": b"NOPERM this user has no permissions to run the 'eval' command",
    "logged out": b"NOAUTH Authentication required.",
    "cannot save": b"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "wrong type": b"WRONGTYPE Operation against a key holding the wrong kind of value",
    "something new": b"ERR unknown command",
}


def refusing(error: bytes) -> Callable[[bytes], Iterator[bytes]]:
    """Answer each command with this error."""

    def answer(said: bytes) -> Iterator[bytes]:
        reader = hiredis.Reader(notEnoughData=refusing)
        reader.feed(said)
        while reader.gets() is not refusing:
            yield b"-" + error + b"\r\n"

    return answer


@pytest.fixture
def between(cache: OnRedis) -> Iterator[Meddler]:
    """Somebody in front of the server."""
    with meddler(cache.address) as made:
        yield made


@pytest.fixture
def cache(redis_server: str) -> OnRedis:
    """The Redis that all tests share."""
    host, port = redis_server.removeprefix("redis://").removesuffix("/0").split(":")
    return OnRedis((host, int(port)))


@pytest.fixture
def own() -> Iterator[Redis]:
    """A server that a test may stop."""
    with Redis() as server:
        yield server


@pytest.mark.parametrize("error", ERRORS)
def test_refusals_cost_no_answers(error: str, tmp_path: Path, between: Meddler, cache: OnRedis) -> None:
    """Reads and commits go on, right, while Redis refuses everything; afterwards nothing older is in it."""
    place = Place(tmp_path, cache, between)
    plain = between.forwarding
    between.forwarding = refusing(ERRORS[error])
    assert place.name == "old"
    for name in ("first", "second"):
        place.rename(name)
        assert place.name == name
        assert place.chain.get(User, {"email": "ann@x"}).name == name
    between.forwarding = plain
    place.recover()
    assert place.name == "second"
    assert place.others_see == "second"
    assert place.tier.guards.parts[0].trusted
