"""The fixtures all tests can ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import Memcached, Postgres, Redis


@pytest.fixture(scope="session")
def memcached() -> Iterator[tuple[str, int]]:
    """Host and port of a memcached."""
    with Memcached() as server:
        yield server.address


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """URL of a Redis."""
    with Redis() as server:
        yield server.url


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL; a test that stops it has to start it again."""
    with Postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """SQLAlchemy URL of an empty PostgreSQL database, dropped after the test."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)
