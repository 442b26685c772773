"""SqlAlchemyStore used alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, make_transient, mapped_column, relationship
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.pool import NullPool, SingletonThreadPool, StaticPool

from stockpyle.exceptions import (
    ImproperlyConfigured,
    InvalidKey,
    InvalidKeysDeclaration,
    InvalidKeyType,
    NonUniqueKeyError,
    PendingElsewhere,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
    UndeclaredKeyError,
)
from stockpyle.orm.connections import is_own
from stockpyle.stores import BaseDictionaryStore
from stockpyle.stores.chained import ChainedStore
from stockpyle.stores.memory import ProcessMemoryStore
from stockpyle.stores.sqlalchemy import SqlAlchemyStore
from tests.databases import chain_on, save, traffic
from tests.servers import Postgres


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "customers"
    __stockpyle_keys__ = ["email", ("org", "login"), "code"]
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    org: Mapped[int | None]
    login: Mapped[str | None]
    code: Mapped[str] = mapped_column(server_default="generated", unique=True)
    visits: Mapped[int] = mapped_column(default=7)
    items: Mapped[list[Item]] = relationship(back_populates="user", cascade="all, delete-orphan")
    __table_args__ = (sa.UniqueConstraint("org", "login"),)


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("customers.id"))
    user: Mapped[User | None] = relationship(back_populates="items")


class Place(Base):
    __tablename__ = "places"
    x: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    y: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]


class Loose(Base):
    __tablename__ = "loose"
    __stockpyle_keys__ = ["name"]
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Versioned(Base):
    __tablename__ = "versioned"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}


def _user(number: int, **values: Any) -> User:
    return User(
        **{"id": number, "email": f"{number}@x", "org": 1, "login": f"l{number}", "code": f"c{number}", **values}
    )


def _rows(engine: sa.Engine, column: Any = User.id) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.scalars(sa.select(column).order_by(column)))


@pytest.fixture
def store(engine: sa.Engine) -> Iterator[SqlAlchemyStore]:
    """A store on a database with the tables and nothing in them."""
    Base.metadata.create_all(engine)
    with SqlAlchemyStore(engine=engine) as made:
        yield made


# how it is built


def test_it_takes_a_url_or_an_engine(tmp_path: Path) -> None:
    """Either may be given by name, or stand first."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    engine = sa.create_engine(url)
    stores = [SqlAlchemyStore(url), SqlAlchemyStore(uri=url), SqlAlchemyStore(sa.make_url(url))]
    stores += [SqlAlchemyStore(engine=engine), SqlAlchemyStore(None, engine), SqlAlchemyStore(engine)]
    assert {str(each.engine.url) for each in stores} == {url}
    for each in stores:
        each.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either a database URL"),
        ({"uri": "sqlite://", "engine": sa.create_engine("sqlite://")}, "either a database URL"),
        ({"uri": "no url"}, "'no url' is no database URL"),
        ({"uri": 5}, "5 is no database URL"),
        ({"uri": "nodialect://x"}, "nodialect"),
        ({"engine": "sqlite://"}, "must be a SQLAlchemy Engine, not 'sqlite://'"),
        ({"engine": create_async_engine("sqlite+aiosqlite://")}, "plain Engine"),
        ({"uri": create_async_engine("sqlite+aiosqlite://")}, "plain Engine"),
        ({"uri": "sqlite+aiosqlite://"}, "async"),
        ({"uri": "sqlite+aiosqlite:///file.db"}, "async"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    """The error says what a store takes, and never shows a password."""
    with pytest.raises(ImproperlyConfigured, match=message):
        SqlAlchemyStore(**arguments)


def test_a_missing_driver_is_named() -> None:
    """It is an ImportError too."""
    with pytest.raises(ImportError, match="MySQLdb"):
        SqlAlchemyStore("mysql://user:secret@host/db")


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?cache=shared&uri=true"])
def test_a_database_in_memory_has_its_tables_and_serves_many_threads(uri: str) -> None:
    """It is one database, whichever thread asks."""
    with SqlAlchemyStore(uri) as store, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: store.put(_user(number)), range(40)))
        found = list(threads.map(lambda number: store.get(User, {"id": number}), range(40)))
        assert [each and each.email for each in found] == [f"{number}@x" for number in range(40)]


def test_a_file_gets_no_tables(tmp_path: Path) -> None:
    """A database that lives longer than the store is its owner's to make."""
    with SqlAlchemyStore(f"sqlite:///{tmp_path / 'a.db'}") as store:
        with pytest.raises(StoreError, match="no such table: customers"):
            store.put(_user(1))
        assert sa.inspect(store.engine).get_table_names() == []


def test_a_password_is_not_shown() -> None:
    """Neither repr nor errors have it."""
    with SqlAlchemyStore("postgresql+psycopg://ann:secret@127.0.0.1:1/db") as store:
        assert "secret" not in repr(store)
        with pytest.raises(StoreUnavailable) as caught:
            store.get(User, {"id": 1})
        assert "secret" not in str(caught.value)


# reading


def test_a_batch_is_one_select_for_each_declared_key(store: SqlAlchemyStore) -> None:
    """However many keys, mixed as they come, they are answered in their order with None for misses."""
    save(store.engine, [_user(number) for number in range(20)])
    keys: list[dict[str, Any]] = [{"id": number} for number in range(20)]
    keys += [{"email": f"{number}@x"} for number in range(20)]
    keys += [{"login": f"l{number}", "org": 1} for number in range(20)]
    keys += [{"id": 99}, {"id": 3}, {"email": None}, {"org": 2, "login": "l1"}]
    with traffic(store.engine) as seen:
        found = store.batch_get(User, (key for key in keys))
    assert len(seen.of("SELECT")) == len(seen.statements) == 3
    assert [each and each.id for each in found] == [*range(20), *range(20), *range(20), None, 3, None, None]
    assert found[3] is not found[63]


def test_composite_primary_keys_are_one_select(store: SqlAlchemyStore) -> None:
    """The order of a key's attributes does not matter."""
    save(store.engine, [Place(x=x, y=y) for x in range(3) for y in "abc"])
    with traffic(store.engine) as seen:
        found = store.batch_get(Place, [{"y": "a", "x": 2}, {"x": 0, "y": "c"}, {"x": 9, "y": "a"}])
    assert len(seen.statements) == 1
    assert [each and (each.x, each.y) for each in found] == [(2, "a"), (0, "c"), None]


def test_more_keys_than_parameters_are_asked_in_chunks(store: SqlAlchemyStore) -> None:
    """No batch is too large for the driver."""
    save(store.engine, [Place(x=number, y="y") for number in (0, 69_999)])
    with traffic(store.engine) as seen:
        found = store.batch_get(Place, [{"x": number, "y": "y"} for number in range(70_000)])
    assert [each.x for each in found if each] == [0, 69_999]
    assert 1 < len(seen.statements) < 12


def test_an_empty_batch_asks_nothing(store: SqlAlchemyStore) -> None:
    """No verb reaches the database for nothing."""
    with traffic(store.engine) as seen:
        assert store.batch_get(User, []) == []
        store.batch_put([])
        store.batch_delete(iter(()))
    assert (seen.statements, seen.begins) == ([], 0)


def test_several_rows_for_one_key_are_an_error(store: SqlAlchemyStore) -> None:
    """A key that is declared and not unique in the database names its class and itself."""
    save(store.engine, [Loose(name="twin"), Loose(name="twin"), Loose(name="single")])
    for _ in range(2):
        with pytest.raises(NonUniqueKeyError, match=r"'name': 'twin'.*Loose") as caught:
            store.batch_get(Loose, [{"name": "single"}, {"name": "twin"}])
        assert (caught.value.klass, caught.value.key) == (Loose, {"name": "twin"})
    chain = ChainedStore([ProcessMemoryStore(), store])
    with pytest.raises(NonUniqueKeyError):
        chain.get(Loose, {"name": "twin"})
    with Session(store.engine) as session:
        session.add(Loose(name="other"))
        session.flush()
        with pytest.raises(NonUniqueKeyError):
            chain.get(Loose, {"name": "twin"}, session=session)


class Plain:
    __stockpyle_keys__ = ["id"]
    id = 1


def test_used_alone_it_ignores_what_is_not_mapped(store: SqlAlchemyStore) -> None:
    """Plain objects are neither stored nor found, and no error."""
    store.put(Plain())
    store.batch_put([Plain(), _user(1)])
    assert store.get(Plain, {"id": 1}) is None
    assert store.batch_get(Plain, [{"id": 1}, {"id": 2}]) == [None, None]
    store.delete(Plain())
    store.batch_delete([Plain(), _user(1)])
    assert _rows(store.engine) == []


def test_a_class_and_an_object_are_not_mixed_up(store: SqlAlchemyStore) -> None:
    """A mapped class that is put, and what is no class in a get, are mistakes, and not ignored."""
    for verb, given in (
        (store.put, User),
        (store.delete, User),
        (store.batch_put, [User]),
        (store.batch_delete, [User]),
    ):
        with pytest.raises(InvalidKey, match="User is a class"):
            verb(given)
    for wrong in ("User", User(id=1), None):
        with pytest.raises(InvalidKeysDeclaration, match="is not a class"):
            store.get(wrong, {"id": 1})  # type: ignore[call-overload]


def test_a_batch_of_one_thing_is_named(store: SqlAlchemyStore) -> None:
    """Every store says which verb takes several things, and what it was given."""
    for each in (store, ProcessMemoryStore(), BaseDictionaryStore(), ChainedStore([ProcessMemoryStore(), store])):
        for verb in (each.batch_put, each.batch_delete, each.batch_get):
            with pytest.raises(TypeError, match=rf"{verb.__name__} takes several at once, .* not <.*User object"):
                verb(User(id=1))
        with pytest.raises(TypeError, match=r"batch_get takes several at once, .* not 5"):
            each.batch_get(User, 5)  # type: ignore[call-overload]


def test_a_key_without_a_class_is_looked_for_among_the_classes_seen(store: SqlAlchemyStore) -> None:
    """Put or loaded through this very store."""
    with pytest.raises(LookupError):
        store.get({"id": 1})
    store.put(_user(1))
    assert store.get({"email": "1@x"}).id == 1
    assert [each and each.id for each in store.batch_get([{"id": 1}, {"id": 2}])] == [1, None]


# writing


def test_put_inserts_updates_and_sets_what_was_generated(store: SqlAlchemyStore) -> None:
    """Primary keys, server defaults and Python's defaults are on the object when put returns."""
    user = User(email="a@x")
    store.put(user)
    assert user.id is not None
    assert (user.code, user.visits) == ("generated", 7)
    assert sa.inspect(user).transient
    assert store.get(User, {"code": "generated"}).id == user.id  # type: ignore[union-attr]
    user.email = "b@x"
    user.visits = 8
    store.put(user)
    assert _rows(store.engine, User.email) == ["b@x"]
    assert store.get(User, {"id": user.id}).visits == 8  # type: ignore[union-attr]


def test_a_batch_is_written_in_one_transaction(store: SqlAlchemyStore) -> None:
    """One BEGIN and one COMMIT for inserts and updates of several classes, one for the deletes."""
    save(store.engine, [_user(1), Place(x=1, y="a")])
    objs: list[Any] = [_user(number, visits=1) for number in range(10)] + [
        Place(x=x, y="a", name="n") for x in range(5)
    ]
    with traffic(store.engine) as seen:
        store.batch_put(iter(objs))
    assert (seen.begins, seen.commits) == (1, 1)
    assert len(seen.of("SELECT")) == 2
    assert _rows(store.engine) == list(range(10))
    with traffic(store.engine) as seen:
        store.batch_delete([*objs, _user(77)])
    assert (seen.begins, seen.commits) == (1, 1)
    assert _rows(store.engine) == _rows(store.engine, Place.x) == []


def test_putting_the_same_row_twice_writes_the_last_one(store: SqlAlchemyStore) -> None:
    """In a batch the later object wins, and one object given twice is one row."""
    new = User(email="new@x", code="n")
    store.batch_put([_user(50, visits=1), _user(50, visits=2), new, new])
    assert store.get(User, {"id": 50}).visits == 2  # type: ignore[union-attr]
    assert _rows(store.engine, User.email) == ["50@x", "new@x"]


def test_a_failed_batch_writes_nothing_and_changes_no_object(store: SqlAlchemyStore) -> None:
    """An IntegrityError is the cause of a StoreError."""
    save(store.engine, [_user(1)])
    first, second = User(email="new@x", code="n"), User(email="1@x", code="m")
    with pytest.raises(StoreError) as caught:
        store.batch_put([first, second])
    assert isinstance(caught.value.__cause__, IntegrityError)
    assert (caught.value.store, caught.value.operation) == ("sqlalchemy", "write")
    assert type(caught.value) is StoreError
    assert _rows(store.engine) == [1]
    assert [name for name in ("id", "visits") if name in vars(first) or name in vars(second)] == []
    store.put(first)
    assert len(_rows(store.engine)) == 2


def test_a_value_that_the_column_cannot_hold_is_a_store_error(store: SqlAlchemyStore) -> None:
    """Its cause is SQLAlchemy's, and nothing is written."""
    with pytest.raises(StoreError) as caught:
        store.put(_user(1, visits=object()))
    assert caught.value.__cause__ is not None
    assert _rows(store.engine) == []


@pytest.mark.parametrize("value", [[1], {}, "five", 1.5, object()])
def test_a_primary_key_of_a_wrong_type_is_named(store: SqlAlchemyStore, value: Any) -> None:
    """Neither a TypeError from inside SQLAlchemy nor the database's own words, alone or in a chain."""
    for each in (store, ChainedStore([ProcessMemoryStore(), store])):
        for verb in (each.put, each.delete):
            with pytest.raises(InvalidKeyType, match=r"User\.id: takes an int, not"):
                verb(User(id=value, email="x@x", org=1, login="x"))
    assert _rows(store.engine) == []


def test_put_of_a_dirty_object_leaves_its_session_alone(store: SqlAlchemyStore) -> None:
    """The state is copied: the session has flushed and committed nothing, and can still roll back."""
    save(store.engine, [_user(1), _user(2)])
    with Session(store.engine) as session:
        user, other = session.get_one(User, 1), session.get_one(User, 2)
        session.commit()
        user.visits = 100
        other.visits = 200
        with traffic(store.engine) as seen:
            store.put(user)
        assert len(seen.of("UPDATE")) == 1
        assert user in session.dirty
        assert other in session.dirty
        assert _rows(store.engine, User.visits) == [7, 100]
        session.rollback()
        assert user.visits == 100
        assert other.visits == 7


def test_put_of_an_expired_object_loads_nothing_in_its_session(store: SqlAlchemyStore) -> None:
    """What the object has not loaded stays as it is in the database."""
    save(store.engine, [_user(1)])
    with Session(store.engine) as session:
        user = session.get_one(User, 1)
        session.commit()
        store.put(user)
        assert "email" not in vars(user)
        assert not session.in_transaction()
        session.expire(user, ["email"])
        user.visits = 3
        store.put(user)
        assert store.get(User, {"email": "1@x"}).visits == 3  # type: ignore[union-attr]
        session.rollback()


def test_put_of_detached_objects(store: SqlAlchemyStore) -> None:
    """A detached object updates its row, or makes it anew."""
    save(store.engine, [_user(1)])
    user = store.get(User, {"id": 1})
    assert user is not None
    user.visits = 9
    store.put(user)
    assert _rows(store.engine, User.visits) == [9]
    store.delete(user)
    store.put(user)
    assert _rows(store.engine, User.visits) == [9]
    assert sa.inspect(user).detached


@pytest.mark.parametrize("through", ["itself", "a relationship"])
def test_an_object_pending_elsewhere_is_refused(store: SqlAlchemyStore, through: str) -> None:
    """Its session would insert it once more; nothing is written, nor taken out of that session."""
    with Session(store.engine) as session:
        user = _user(1)
        session.add(user)
        with pytest.raises(PendingElsewhere, match="this User is pending in another session"):
            store.put(user if through == "itself" else Item(name="i", user=user))
        assert user in session.new
        session.rollback()
    assert _rows(store.engine) == []


def test_an_object_flushed_elsewhere_is_refused(store: SqlAlchemyStore) -> None:
    """Its session holds the row's lock, for which the store would wait for ever."""
    save(store.engine, [_user(1), _user(2)])
    with Session(store.engine) as session:
        user = session.get_one(User, 1)
        user.visits = 3
        session.flush()
        with pytest.raises(PendingElsewhere, match="flushed by another session"):
            store.put(user)
        session.commit()
        user.visits = 4
        store.put(user)
    assert _rows(store.engine, User.visits) == [4, 7]


def test_related_objects_are_written_too(store: SqlAlchemyStore) -> None:
    """What merges cascade to is inserted, updated or orphaned; generated keys are set on all of it."""
    user = _user(1, items=[Item(name="a"), Item(name="b")])
    store.put(user)
    assert [item.user_id for item in user.items] == [1, 1]
    assert None not in [item.id for item in user.items]
    user.items[0].name = "c"
    user.items.pop()
    store.put(user)
    assert _rows(store.engine, Item.name) == ["c"]
    store.put(Item(id=5, name="d", user=_user(2)))
    assert _rows(store.engine) == [1, 2]
    assert store.get(Item, {"id": 5}).user_id == 2  # type: ignore[union-attr]


def test_a_changed_primary_key_moves_the_row(store: SqlAlchemyStore) -> None:
    """A detached object remembers which row it was loaded from."""
    save(store.engine, [_user(1)])
    chain = ChainedStore([ProcessMemoryStore(), store])
    user = chain.get(User, {"id": 1})
    assert user is not None
    user.id = 5
    chain.put(user)
    assert chain.get(User, {"id": 1}) is None
    assert chain.get(User, {"id": 5}).email == "1@x"  # type: ignore[union-attr]
    assert _rows(store.engine) == [5]


def test_an_sql_expression_as_a_value_is_executed(store: SqlAlchemyStore) -> None:
    """The object has the result afterwards."""
    save(store.engine, [_user(1)])
    user = _user(1)
    user.visits = User.visits + 1  # type: ignore[assignment]
    store.put(user)
    assert _rows(store.engine, User.visits) == [8]


def test_versions_count_and_conflicts_are_errors(store: SqlAlchemyStore) -> None:
    """Who puts an older version than the database has gets a StoreError, its cause a StaleDataError."""
    first = Versioned(id=1, name="a")
    store.put(first)
    assert first.version == 1
    second = store.get(Versioned, {"id": 1})
    assert second is not None
    first.name = "b"
    store.put(first)
    assert first.version == 2
    second.name = "c"
    with pytest.raises(StoreError, match=r"has version 1 .*database has 2") as caught:
        store.put(second)
    assert isinstance(caught.value.__cause__, StaleDataError)
    assert _rows(store.engine, Versioned.name) == ["b"]


def test_delete_knows_every_state_of_an_object(store: SqlAlchemyStore) -> None:
    """Transient ones with a primary key, detached and attached ones; absent rows are no error."""
    save(store.engine, [_user(number) for number in range(1, 5)])
    store.delete(_user(1))
    store.delete(store.get(User, {"id": 2}))
    with Session(store.engine) as session:
        user = session.get_one(User, 3)
        session.commit()
        store.delete(user)
        assert user in session
    assert _rows(store.engine) == [4]
    store.delete(_user(1))
    store.delete(user)
    with pytest.raises(InvalidKey, match=r"this User has None in its primary key \{id\}"):
        store.delete(User(email="4@x"))
    assert _rows(store.engine) == [4]


def test_delete_cascades(store: SqlAlchemyStore) -> None:
    """As the relationships say, also for objects that were never loaded."""
    save(store.engine, [_user(1, items=[Item(name="a"), Item(name="b")])])
    store.delete(_user(1))
    assert _rows(store.engine, Item.id) == []


# keys


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("5", True),
        (5.0, True),
        (True, False),
        ("05", None),
        ("abc", None),
        (5.5, None),
        (b"5", None),
        ([5], None),
        ({}, None),
    ],
)
def test_integer_keys_are_coerced_or_refused(store: SqlAlchemyStore, given: Any, found: bool | None) -> None:
    """What is exactly an integer stands for it; anything else is refused with the attribute's name."""
    save(store.engine, [_user(5)])
    if found is None:
        with pytest.raises(InvalidKeyType, match=r"User\.id: "):
            store.get(User, {"id": given})
    else:
        assert (store.get(User, {"id": given}) is not None) is found


def test_values_that_no_column_can_hold_find_nothing(store: SqlAlchemyStore) -> None:
    """A number too large, a NUL or a lone surrogate is a miss on every database."""
    save(store.engine, [_user(5)])
    asked: list[dict[str, Any]] = [{"id": 2**40}, {"id": -(10**30)}, {"email": "a\0b"}, {"email": "\ud800"}]
    for key in asked:
        assert store.get(User, key) is None
    found = store.batch_get(User, [*asked, {"id": 5}])
    assert [each and each.id for each in found] == [None] * 4 + [5]


@pytest.mark.parametrize("key", [{"login": "l1"}, {"nope": 1}, {"id": 1, "email": "x"}, {}, {"visits": 7}])
def test_an_undeclared_key_is_refused(store: SqlAlchemyStore, key: dict[str, Any]) -> None:
    """The error lists what is declared; the database is not asked."""
    with traffic(store.engine) as seen, pytest.raises(UndeclaredKeyError, match=r"\{id\}, \{email\}, \{login, org\}"):
        store.get(User, key)
    assert seen.statements == []


# trouble


def test_a_database_that_is_down_is_unavailable(postgres: Postgres, postgres_url: str) -> None:
    """Reads and writes raise StoreUnavailable, and work again when it is back."""
    engine = sa.create_engine(postgres_url)
    Base.metadata.create_all(engine)
    with SqlAlchemyStore(engine=engine) as store:
        store.put(_user(1))
        postgres.stop()
        try:
            attempts: list[Callable[[], Any]] = [
                lambda: store.get(User, {"id": 1}),
                lambda: store.get(User, {"id": 1}),
                lambda: store.put(_user(2)),
                lambda: store.delete(_user(1)),
            ]
            for attempt in attempts:
                with pytest.raises(StoreUnavailable) as caught:
                    attempt()
                assert caught.value.__cause__ is not None
        finally:
            postgres.start()
        assert store.get(User, {"id": 1}) is not None
        store.put(_user(2))
    engine.dispose()


def test_a_lost_connection_is_replaced(postgres: Postgres, postgres_engine: sa.Engine) -> None:
    """One call may fail; the next one has a new connection."""
    Base.metadata.create_all(postgres_engine)
    store = SqlAlchemyStore(engine=postgres_engine)
    store.put(_user(1))
    postgres.terminate_backends()
    with pytest.raises(StoreUnavailable):
        store.get(User, {"id": 1})
    assert store.get(User, {"id": 1}) is not None


def test_a_locked_database_says_so(tmp_path: Path) -> None:
    """Another connection that writes is named as the reason."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'a.db'}", connect_args={"timeout": 0.05})
    Base.metadata.create_all(engine)
    store = SqlAlchemyStore(engine=engine)
    with engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked") as caught:
            store.put(_user(1))
        assert caught.value.operation == "write"
    store.put(_user(1))
    engine.dispose()


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[tuple[sa.Engine, sa.Connection]]:
    """An SQLite file, and a reader that keeps everybody from committing to it."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/test.db", pool_size=1, connect_args={"timeout": 0})
    Base.metadata.create_all(engine)
    save(engine, [User(id=1, email="1", code="1")])
    other = sa.create_engine(engine.url, poolclass=NullPool)
    with other.connect() as reader:
        reader.exec_driver_sql("begin")
        reader.exec_driver_sql("select * from customers").fetchone()
        yield engine, reader
    engine.dispose()


def test_what_a_failed_commit_has_left_on_a_pooled_connection_is_not_read(
    busy: tuple[sa.Engine, sa.Connection],
) -> None:
    """A session that is closed after COMMIT failed leaves its rows to the next user of its SQLite connection."""
    engine, reader = busy
    chain = ChainedStore([ProcessMemoryStore(), SqlAlchemyStore(engine=engine)])
    with Session(engine) as session:
        session.get_one(User, 1).visits = 8
        with pytest.raises(OperationalError, match="locked"):
            session.commit()
    reader.rollback()
    assert chain.get(User, {"id": 1}).visits == 7


def test_what_a_failed_commit_has_left_on_a_pooled_connection_is_not_committed(
    busy: tuple[sa.Engine, sa.Connection],
) -> None:
    """Nor does a put commit it."""
    engine, reader = busy
    with Session(engine) as session:
        session.get_one(User, 1).visits = 8
        with pytest.raises(OperationalError, match="locked"):
            session.commit()
    reader.rollback()
    SqlAlchemyStore(engine=engine).put(User(id=2, email="2", code="2"))
    with Session(engine) as session:
        assert session.get_one(User, 1).visits == 7


def test_a_put_whose_commit_fails_leaves_nothing_behind(busy: tuple[sa.Engine, sa.Connection]) -> None:
    """Its connection goes back to the pool without a transaction."""
    engine, _ = busy
    with pytest.raises(StoreError, match="locked"):
        SqlAlchemyStore(engine=engine).put(User(id=2, email="2", code="2"))
    with Session(engine) as session:
        assert session.get(User, 2) is None


def test_a_pool_of_one_connection_is_enough(engine: sa.Engine) -> None:
    """No verb holds a connection while it needs another."""
    Base.metadata.create_all(engine)
    single = sa.create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    chain = chain_on(single)
    chain.batch_put([_user(1), _user(2)])
    assert chain.get(User, {"email": "1@x"}) is not None
    with Session(single) as session:
        assert chain.get(User, {"id": 2}, session=session) is not None
        assert session.get_one(User, 1).id == 1
        with pytest.raises(StoreTimeout, match="no connection"):
            chain.get(User, {"id": 3})
        assert chain.get(User, {"id": 2}, session=session) is not None
    chain.delete(_user(1))
    assert chain.get(User, {"id": 3}) is None
    single.dispose()


def test_many_threads(engine: sa.Engine) -> None:
    """Each thread reads what it has written, whatever the others do."""
    Base.metadata.create_all(engine)
    with SqlAlchemyStore(engine=engine) as store, ThreadPoolExecutor(8) as threads:
        barrier = threading.Barrier(8)

        def work(thread: int) -> list[int]:
            barrier.wait()
            found = []
            for turn in range(10):
                user = _user(thread * 100 + turn, visits=turn)
                store.put(user)
                found.append(store.get(User, {"email": user.email}).visits)  # type: ignore[union-attr]
                store.batch_get(User, [{"id": each} for each in range(0, 800, 100)])
                store.delete(user)
                store.release()
            return found

        assert list(threads.map(work, range(8))) == [list(range(10))] * 8
    assert _rows(engine) == []


# engines of every kind


@pytest.fixture(params=[StaticPool, SingletonThreadPool])
def shared(request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    """An engine whose pool gives everybody (in a thread) the same connection."""
    engine = sa.create_engine("sqlite://", poolclass=request.param, connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_a_read_inside_a_users_transaction_on_the_only_connection(shared: sa.Engine) -> None:
    """It neither rolls the transaction back nor caches the uncommitted rows that it sees."""
    chain = chain_on(shared)
    save(shared, [_user(1)])
    with Session(shared) as session:
        session.get_one(User, 1).visits = 100
        session.add(_user(2))
        session.flush()
        assert chain.get(User, {"id": 1}) is not None
        assert chain.get(User, {"id": 2}) is not None
        assert chain.get(User, {"id": 3}) is None
        chain.release()
        assert session.get_one(User, 1).visits == 100
        session.rollback()
    assert chain.get(User, {"id": 2}) is None
    assert chain.get(User, {"id": 1}).visits == 7  # type: ignore[union-attr]
    save(shared, [_user(3)])
    assert chain.get(User, {"id": 3}) is not None


def test_a_transaction_that_begins_during_a_read_on_the_only_connection() -> None:
    """What another thread writes after the read has looked for open transactions is not cached either."""
    store = SqlAlchemyStore("sqlite:///:memory:")
    chain = ChainedStore([ProcessMemoryStore(), store])
    chain.put(_user(1))
    chain.clear()
    session = Session(store.engine)

    def write() -> None:
        session.get_one(User, 1).visits = 100
        session.flush()

    def another_thread_writes(connection: sa.Connection, *_: Any) -> None:
        if is_own(connection) and not session.in_transaction():
            with ThreadPoolExecutor(1) as other:
                other.submit(write).result()

    event.listen(store.engine, "before_cursor_execute", another_thread_writes)
    chain.get(User, {"id": 1})
    event.remove(store.engine, "before_cursor_execute", another_thread_writes)
    session.rollback()
    session.close()
    assert chain.get(User, {"id": 1}).visits == 7  # type: ignore[union-attr]


def test_a_write_inside_a_users_transaction_on_the_only_connection_is_refused(shared: sa.Engine) -> None:
    """It would commit what the user has not committed; after the user's commit it works."""
    store = SqlAlchemyStore(engine=shared)
    with Session(shared) as session:
        session.add(_user(1))
        session.flush()
        with pytest.raises(StoreError, match="another transaction is open on the only connection"):
            store.put(_user(2))
        session.rollback()
        store.put(_user(3))
        assert [user.id for user in session.scalars(sa.select(User))] == [3]


def test_a_failed_write_on_the_only_connection_leaves_no_transaction(shared: sa.Engine) -> None:
    """The next write and the user's own sessions work."""
    store = SqlAlchemyStore(engine=shared)
    store.put(_user(1))
    with pytest.raises(StoreError):
        store.put(_user(2, email="1@x"))
    store.put(_user(3))
    save(shared, [_user(4)])
    assert _rows(shared) == [1, 3, 4]


def test_a_put_whose_commit_fails_on_the_only_connection(shared: sa.Engine) -> None:
    """SQLite keeps the transaction open: nobody reads what was not committed, and the next write works."""

    class Own(DeclarativeBase):
        pass

    class Leaf(Own):
        __tablename__ = "leaves"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent: Mapped[int | None] = mapped_column(
            sa.ForeignKey("leaves.id", deferrable=True, initially="DEFERRED"), default=None
        )

    sa.event.listen(shared, "connect", lambda connection, record: connection.execute("pragma foreign_keys = on"))
    shared.dispose()
    Own.metadata.create_all(shared)
    chain = chain_on(shared)
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        chain.put(Leaf(id=1, parent=7))
    assert chain.get(Leaf, {"id": 1}) is None
    chain.put(Leaf(id=2))
    assert _rows(shared, Leaf.id) == [2]


def test_an_engine_with_its_own_begin_on_the_only_connection(shared: sa.Engine) -> None:
    """Where every SQLAlchemy transaction begins one in SQLite, a read leaves none behind."""
    sa.event.listen(shared, "connect", lambda connection, record: setattr(connection, "isolation_level", None))
    shared.dispose()
    sa.event.listen(shared, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    Base.metadata.create_all(shared)
    chain = chain_on(shared)
    for number in (1, 2):
        chain.put(_user(number))
        save(shared, [_user(number + 10)])
        assert chain.get(User, {"id": number + 10}) is not None
        assert chain.get(User, {"id": number + 20}) is None
    assert _rows(shared) == [1, 2, 11, 12]


def test_read_uncommitted_is_refused(tmp_path: Path) -> None:
    """Rows that are never committed would be handed out and cached."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'a.db'}", isolation_level="READ UNCOMMITTED")
    Base.metadata.create_all(engine)
    store = SqlAlchemyStore(engine=engine)
    for attempt in (lambda: store.get(User, {"id": 1}), lambda: store.put(_user(1))):
        with pytest.raises(ImproperlyConfigured, match="READ UNCOMMITTED"):
            attempt()
    engine.dispose()


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE"])
def test_other_isolation_levels(engine: sa.Engine, level: str) -> None:
    """Reads work, and a write is one transaction even on an engine in autocommit."""
    Base.metadata.create_all(engine)
    own = sa.create_engine(engine.url, isolation_level=level)
    chain = chain_on(own)
    chain.put(_user(1))
    with pytest.raises(StoreError):
        chain.batch_put([_user(2), _user(3, email="1@x")])
    assert chain.get(User, {"id": 2}) is None
    assert chain.get(User, {"id": 1}) is not None
    with own.connect() as connection:
        connection.execute(sa.insert(User).values(email="4@x", id=4, code="c4"))
    assert (_rows(engine) == [1, 4]) is (level == "AUTOCOMMIT")
    own.dispose()


def test_a_write_on_the_only_connection_in_autocommit_is_one_transaction() -> None:
    """Afterwards the connection is in autocommit again."""
    engine = sa.create_engine("sqlite://", poolclass=StaticPool, isolation_level="AUTOCOMMIT")
    Base.metadata.create_all(engine)
    store = SqlAlchemyStore(engine=engine)
    store.put(_user(1))
    with pytest.raises(StoreError):
        store.batch_put([_user(2), _user(3, email="1@x")])
    with engine.connect() as connection:
        connection.execute(sa.insert(User).values(email="4@x", id=4, code="c4"))
        assert store.get(User, {"id": 4}) is not None
        connection.rollback()
    assert _rows(engine) == [1, 4]
    engine.dispose()


def test_make_transient_objects_are_put_as_new_ones(store: SqlAlchemyStore) -> None:
    """An object made transient again has no row to update unless it names one."""
    save(store.engine, [_user(50)])
    user = store.get(User, {"id": 50})
    assert user is not None
    make_transient(user)
    user.id, user.email, user.login, user.code = None, "n@x", "n", "n"  # type: ignore[assignment]
    store.put(user)
    assert _rows(store.engine, User.email) == ["50@x", "n@x"]
    assert user.id is not None


def test_a_session_on_another_database_is_refused(tmp_path: Path) -> None:
    """get(session=) hands no row of its own database to a session that would write it into another."""
    mine, other = (sa.create_engine(f"sqlite:///{tmp_path}/{name}.db") for name in ("mine", "other"))
    chain = ChainedStore([ProcessMemoryStore(), SqlAlchemyStore(engine=mine)])
    with Session(other) as session, pytest.raises(ImproperlyConfigured, match=r"other\.db.*mine\.db"):
        chain.get(User, {"id": 1}, session=session)
    chain.close()


def test_an_unmapped_subclass_of_a_mapped_class_is_refused() -> None:
    """A class that only inherits a mapped class's keys has no rows, and its name and the base's are in the error."""

    class Guest(User):
        __abstract__ = True

    with pytest.raises(InvalidKeysDeclaration, match="Guest is not mapped, only its base User is"):
        ChainedStore([ProcessMemoryStore()]).get(Guest, {"id": 1})


def test_one_key_in_place_of_several_is_named_with_a_session_too(sqlite_engine: sa.Engine) -> None:
    """batch_get(session=) says what it takes when it is not given several keys."""
    store = SqlAlchemyStore(engine=sqlite_engine)
    with Session(sqlite_engine) as session:
        for reader in (store, ChainedStore([ProcessMemoryStore(), store])):
            with pytest.raises(TypeError, match="batch_get takes several at once"):
                reader.batch_get(User, 5, session=session)  # type: ignore[call-overload]
