"""Servers of these tests' own, and stores on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.connections.calls import Calls, asked_of
from tests.connections.places import KINDS, Place
from tests.memcached.parts import meddler
from tests.servers import Memcached, Postgres, Redis


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Any]]:
    """Servers of these tests' own, which any of them may stop."""
    with Redis() as redis, Memcached() as memcached, Postgres() as postgres:
        yield {"redis": redis, "memcache": memcached, "postgresql+psycopg": postgres, "postgresql+psycopg2": postgres}
        memcached.stop("immediate")


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, servers: dict[str, Any]) -> Iterator[Place]:
    """A store on a server that runs."""
    server = servers[request.param]
    server.start()
    with meddler((server.host, server.port)) as between:
        place = Place(request.param, server, between)
        yield place
        place.store.close()


@pytest.fixture
def calls(place: Place) -> Iterator[Calls]:
    """All that can be asked of the stores on a server, by name."""
    with asked_of(place) as made:
        yield made
