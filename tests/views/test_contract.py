"""The contract of queries, on every store that has them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import mongomock
import pytest
import sqlalchemy as sa

from stockpyle.exceptions import UnsupportedOperation
from stockpyle.matrix import stores
from stockpyle.stores import (
    BaseDictionaryStore,
    BaseStore,
    ChainedStore,
    MongoStore,
    NullStore,
    ProcessMemoryStore,
    ShoveStore,
    SqlTableStore,
    ThreadLocalStore,
)
from stockpyle.testing import Automobile, Car, Person, QueryContract, Truck
from tests.servers import MariaDb, Postgres
from tests.stores.test_sql_table import OnDatabase
from tests.stores.test_sql_table_rows import Employee, Manager


class TestProcessMemory(QueryContract):
    def make_store(self) -> Any:
        return ProcessMemoryStore()


class TestBounded(QueryContract):
    many = 50

    def make_store(self) -> Any:
        return ProcessMemoryStore(maxsize=100)


class TestThreadLocal(QueryContract):
    def make_store(self) -> Any:
        return ThreadLocalStore()


class TestDictionary(QueryContract):
    def make_store(self) -> Any:
        return BaseDictionaryStore({})


class TestChain(QueryContract):
    def make_store(self) -> Any:
        return ChainedStore([ProcessMemoryStore(), ThreadLocalStore(), BaseDictionaryStore()])


class TestTableOnSqlite(OnDatabase, QueryContract):
    @pytest.fixture
    def _database(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'kept.db'}"

    def make_store(self) -> Any:
        return self.make()


class TestTableOnPostgres(OnDatabase, QueryContract):
    @pytest.fixture
    def _database(self, postgres: Postgres) -> str:
        return postgres.url()

    def make_store(self) -> Any:
        return self.make()


class TestTableOnMariaDb(OnDatabase, QueryContract):
    @pytest.fixture
    def _database(self, mariadb: MariaDb) -> str:
        return mariadb.url("test")

    def make_store(self) -> Any:
        return self.make()


class TestMongo(QueryContract):
    def make_store(self) -> Any:
        return MongoStore(mongomock.MongoClient()["app"], "kept")


class TestShove(QueryContract):
    # each is a file that is written through to the disk
    many = 50
    made = 0

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_store(self) -> Any:
        self.made += 1
        return ShoveStore(shoveuri=f"file://{self.folder / str(self.made)}")


class TestChainOnTable(OnDatabase, QueryContract):
    @pytest.fixture
    def _database(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'kept.db'}"

    def make_store(self) -> Any:
        return ChainedStore([ProcessMemoryStore(), self.make()])


@pytest.mark.parametrize("klass", stores())
def test_errors_name_every_store_that_can_be_queried(klass: type[BaseStore]) -> None:
    """Who asks a store that has no queries is told of all that have them, and of no other."""
    with pytest.raises(UnsupportedOperation) as told:
        NullStore().query(Person)
    named = klass.__name__ in str(told.value)
    assert named is ("query" in klass.supports and klass is not ChainedStore)


@pytest.fixture(params=["table", "mongo", "shove"])
def durable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """What makes a durable store."""
    with ExitStack() as stack:

        def make(**options: Any) -> Any:
            if request.param == "mongo":
                return MongoStore(mongomock.MongoClient()["app"], "kept", **options)
            if request.param == "shove":
                return ShoveStore(shoveuri=f"file://{tmp_path / 'kept'}", **options)
            engine = sa.create_engine(f"sqlite:///{tmp_path / 'kept.db'}")
            stack.callback(engine.dispose)
            store = SqlTableStore(engine, sa.MetaData(), "kept", **options)
            store.table.create()
            return store

        yield make


def test_a_polymorphic_store_lists_objects_of_subclasses(durable: Any) -> None:
    """Where a Car is found as an Automobile, it is listed and queried as one, too."""
    store = durable(polymorphic=True)
    store.batch_put([Car(1, "v"), Truck(2), Automobile(3)])
    assert sorted(type(each).__name__ for each in store.scan(Automobile)) == ["Automobile", "Car", "Truck"]
    assert store.query(Automobile).where(vin="v").one().plate == 1
    assert [each.plate for each in store.scan(Car)] == [1]


def test_rows_of_mapped_objects_are_queried_as_rows(durable: Any) -> None:
    """Of mapped objects that a durable store keeps columns can be asked, in hierarchies too."""
    store = durable()
    store.batch_put([Employee(id=1, kind="employee"), Manager(id=2, kind="manager", staff=7)])
    query = store.query(Employee)
    assert [(type(each), each.id) for each in query.order_by("-id")] == [(Manager, 2), (Employee, 1)]
    assert store.query(Manager).where(staff__gt=1).one().id == 2
    assert query.where(id__lt=2).delete() == 1
    assert query.values("kind") == ["manager"]
