"""SqlTableStore on SQLite, PostgreSQL and MariaDB: the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from stockpyle.stores import SqlTableStore
from stockpyle.testing import StoreContract
from tests.servers import MariaDb, Postgres


class OnDatabase:
    """Stores of their own in one database: each has a table that nobody else has."""

    url: str
    made = 0

    def make(self, **options: Any) -> SqlTableStore:
        metadata = sa.MetaData()
        OnDatabase.made += 1
        store = SqlTableStore(self.engine, metadata, f"kept_{OnDatabase.made}", **options)
        metadata.create_all(self.engine)
        return store

    @pytest.fixture(autouse=True)
    def _engine(self, _database: str) -> None:
        self.engine = sa.create_engine(_database, poolclass=NullPool)


class TestOnSqlite(OnDatabase, StoreContract):
    @pytest.fixture
    def _database(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'kept.db'}"

    def make_store(self, **options: Any) -> SqlTableStore:
        return self.make(**options)


class TestOnPostgres(OnDatabase, StoreContract):
    @pytest.fixture
    def _database(self, postgres: Postgres) -> str:
        return postgres.url()

    def make_store(self, **options: Any) -> SqlTableStore:
        return self.make(**options)


class TestOnPsycopg2(OnDatabase, StoreContract):
    @pytest.fixture
    def _database(self, postgres: Postgres) -> str:
        return postgres.url("psycopg2")

    def make_store(self, **options: Any) -> SqlTableStore:
        return self.make(**options)


class TestOnMariaDb(OnDatabase, StoreContract):
    @pytest.fixture
    def _database(self, mariadb: MariaDb) -> str:
        return mariadb.url("test")

    def make_store(self, **options: Any) -> SqlTableStore:
        return self.make(**options)
