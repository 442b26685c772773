"""The fixtures of the tests that run on every kind of server."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.remote.caches import KINDS, Cache, on, own


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which kind of server."""
    name: str = request.param
    return name


@pytest.fixture
def cache(request: pytest.FixtureRequest, kind: str) -> Cache:
    """The server of this kind that all tests share."""
    if kind == "memcached":
        return on(kind, request.getfixturevalue("memcached"))
    parts = urlsplit(request.getfixturevalue("redis_server"))
    return on(kind, (parts.hostname, parts.port))


@pytest.fixture
def own_cache(kind: str) -> Iterator[Cache]:
    """A server of the test's own, to stop and start."""
    with own(kind) as server:
        cache = on(kind, (server.host, server.port), server)
        yield cache
        cache.close()
        # one that is asked nicely may take a second to end
        server.stop("immediate")
