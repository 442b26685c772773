"""The fixtures all tests can ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from moto.server import ThreadedMotoServer

from tests.mongod import Mongod
from tests.servers import MariaDb, Memcached, Postgres, Redis, RedisCluster

# A busy machine fails no test. `make test` tries the same examples each time; a bare pytest goes on searching.
settings.register_profile("searching", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", settings.get_profile("searching"), derandomize=True)
settings.load_profile("steady" if os.environ.get("STOCKPYLE_REQUIRE_SERVERS") == "1" else "searching")


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
def redis_cluster() -> Iterator[RedisCluster]:
    """A cluster of three Redises."""
    with RedisCluster() as made:
        yield made


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


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """A MariaDB; a test that stops it has to start it again."""
    with MariaDb() as server:
        yield server


@pytest.fixture
def mariadb_url(mariadb: MariaDb) -> Iterator[str]:
    """SQLAlchemy URL of an empty MariaDB database, dropped after the test."""
    url = mariadb.create_database()
    yield url
    mariadb.drop_database(url)


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """URL of what answers as S3 does, in this process: moto."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def mongod() -> Iterator[str]:
    """URL of what stands in for a MongoDB, in this process."""
    with Mongod() as server:
        yield server.url


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """An engine on an empty database: an SQLite file, then PostgreSQL."""
    if request.param == "sqlite":
        made = sa.create_engine(f"sqlite:///{tmp_path / 'test.db'}")
    else:
        made = sa.create_engine(request.getfixturevalue("postgres_url"))
    yield made
    made.dispose()


@pytest.fixture
def sqlite_engine(tmp_path: Path) -> Iterator[sa.Engine]:
    """An engine on an empty SQLite file."""
    made = sa.create_engine(f"sqlite:///{tmp_path / 'test.db'}")
    yield made
    made.dispose()


@pytest.fixture
def postgres_engine(postgres_url: str) -> Iterator[sa.Engine]:
    """An engine on an empty PostgreSQL database."""
    made = sa.create_engine(postgres_url)
    yield made
    made.dispose()
