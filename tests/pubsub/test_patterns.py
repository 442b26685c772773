"""Patterns of channels: that they are Redis's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stockpyle.pubsub.callbacks import Name, fitting
from stockpyle.pubsub.patterns import decoded, encoded, matcher
from tests.servers import PATIENCE, Redis

CHARACTERS = r"*?[]^-\abcé" + "\n"


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    """A Redis that has no other keys."""
    with Redis() as server, redis.Redis.from_url(server.url) as client:
        yield client


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=500)
@given(st.text(CHARACTERS, max_size=8), st.lists(st.text(CHARACTERS, min_size=1, max_size=5), min_size=1))
@example("[a", ["a", "[a", "b"])
@example("[^", ["a", "^"])
@example("[]a]", ["a", "]", "]a]"])
@example("[^]", ["a", "]", "\n"])
@example("[c-a]", ["b", "c-a", "d"])
@example("[a-", ["a", "-"])
@example("[\\]]", ["]", "\\"])
@example("a\\", ["a", "a\\"])
@example("?", ["é", "a", "\n"])
@example("*a*", ["a", "\na", "b"])
@example("*a*ab*b", ["aabb", "aab", "abab", "abb", "bab"])
@example("*a" * 120 + "*", ["a" * 120, "a" * 119])
@example("a*b*", ["ab", "acb", "acbd", "ac", "ba"])
@example("*[", ["", "a", "["])
def test_patterns_are_those_of_redis(client: redis.Redis, pattern: str, names: list[str]) -> None:
    """A name fits a pattern exactly if Redis says so, whose KEYS and PSUBSCRIBE compare in the same way."""
    client.flushall()
    client.mset({encoded(name): "" for name in names})
    ours = {name for name in names if matcher(pattern).fullmatch(encoded(name))}
    assert ours == {decoded(name) for name in client.keys(encoded(pattern))}


def test_long_names_stop_nobody() -> None:
    """A name that nearly fits is found not to fit at once, however many stars the pattern has."""
    ask = "from stockpyle.pubsub.patterns import matcher; print(matcher('*a' * 20 + 'b').fullmatch(b'a' * 255))"
    # in a process of its own: no other thread runs while re compares
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert told.stdout == "None\n"


def test_names_of_others_come_back_as_they_were() -> None:
    """Bytes that are no UTF-8 are text that leads to the same bytes again."""
    name = b"\xff\xfe caf\xe9 \xc3\xa9"
    assert encoded(decoded(name)) == name


def test_a_channel_comes_before_its_patterns() -> None:
    """What is subscribed to by name is called first."""
    names = {Name("*", True): None, Name("news"): None, Name("weather"): None, Name("w*", True): None}
    assert fitting(names, "news") == [Name("news"), Name("*", True)]
    assert fitting(names, "w*") == [Name("*", True), Name("w*", True)]
