"""Columns that compare otherwise than Python: what is found is returned, and cached only where that is safe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import CITEXT
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stockpyle.stores.chained import ChainedStore
from tests.databases import chain_on, get_cached, save, traffic


class Base(DeclarativeBase):
    pass


class Name(Base):
    __tablename__ = "names"
    __stockpyle_keys__ = ["name", ("org", "name")]
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    org: Mapped[int] = mapped_column(default=1)


class Exact(Base):
    __tablename__ = "exact"
    __stockpyle_keys__ = ["name", "data", "number", "wide"]
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    data: Mapped[bytes] = mapped_column(unique=True)
    number: Mapped[int] = mapped_column(unique=True)
    wide: Mapped[str] = mapped_column(sa.CHAR(8), unique=True)


def _nocase(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE UNIQUE, org INTEGER)"
        )


def _icu(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        )
        connection.exec_driver_sql(
            "CREATE TABLE names (id SERIAL PRIMARY KEY, name TEXT COLLATE folding UNIQUE, org INTEGER)"
        )


@pytest.fixture(params=[("sqlite_engine", _nocase), ("postgres_engine", _icu)])
def folding(request: pytest.FixtureRequest) -> sa.Engine:
    """An engine whose names differ in nothing but casing only if they are different names."""
    fixture, create = request.param
    engine: sa.Engine = request.getfixturevalue(fixture)
    make: Callable[[sa.Engine], None] = create
    make(engine)
    save(engine, [Name(id=1, name="bob"), Name(id=2, name="Ann"), Name(id=3, name="eve")])
    return engine


@pytest.fixture
def chain(folding: sa.Engine) -> ChainedStore:
    """Memory above that database."""
    return chain_on(folding)


def test_another_casing_is_found_and_not_cached(chain: ChainedStore, folding: sa.Engine) -> None:
    """The row is returned as it is; the key that was asked for is not remembered."""
    for key in ({"name": "BOB"}, {"name": "BOB", "org": 1}):
        for _ in range(2):
            with traffic(folding) as seen:
                found = chain.get(Name, key)
            assert found is not None
            assert found.name == "bob"
            assert len(seen.of("SELECT")) >= 1
    assert get_cached(chain, folding, Name, {"name": "bob"}).id == 1
    with Session(folding) as session:
        session.get_one(Name, 1).name = "other"
        session.commit()
    assert chain.get(Name, {"name": "BOB"}) is None


def test_a_batch_may_mix_casings(chain: ChainedStore) -> None:
    """Each key gets the row that the database finds for it, duplicates and misses in their places."""
    names = ["BOB", "ann", "bob", "nobody", "Ann", "BoB", "eve"]
    for _ in range(2):
        found = chain.batch_get(Name, [{"name": name} for name in names])
        assert [each and each.name for each in found] == ["bob", "Ann", "bob", None, "Ann", "bob", "eve"]


def test_absence_is_not_remembered(chain: ChainedStore, folding: sa.Engine) -> None:
    """A row that is inserted later in another casing is found at once."""
    assert chain.get(Name, {"name": "DAN"}) is None
    chain.put(Name(id=9, name="dan"))
    assert chain.get(Name, {"name": "DAN"}).id == 9  # type: ignore[union-attr]


def test_a_session_finds_the_same(chain: ChainedStore, folding: sa.Engine) -> None:
    """Through a cache and through the session's own transaction."""
    with Session(folding) as session:
        for _ in range(2):
            found = chain.batch_get(Name, [{"name": "BOB"}, {"name": "bob"}, {"name": "x"}], session=session)
            assert [each and each.id for each in found] == [1, 1, None]
            session.add(Name(id=7 + _, name=f"new {_}"))
            session.flush()


EXACT: list[tuple[dict[str, Any], bool]] = [
    ({"id": 2}, True),
    ({"name": "BOB"}, True),
    ({"data": b"B"}, True),
    ({"number": 6}, True),
    ({"wide": "BOB"}, False),
]


@pytest.mark.parametrize(("key", "kept"), EXACT)
def test_absence_is_remembered_where_the_database_compares_exactly(
    engine: sa.Engine, key: dict[str, Any], kept: bool
) -> None:
    """Integers, bytes and text of a plain collation; a padded CHAR of PostgreSQL is asked for again."""
    Base.metadata.create_all(engine)
    save(engine, [Exact(id=1, name="bob", data=b"b", number=5, wide="bob")])
    chain = chain_on(engine)
    assert chain.get(Exact, key) is None
    with traffic(engine) as seen:
        assert chain.get(Exact, key) is None
    assert (seen.statements == []) is (kept or engine.dialect.name == "sqlite")
    chain.put(Exact(id=2, name="BOB", data=b"B", number=6, wide="BOB"))
    assert chain.get(Exact, key) is not None


def test_trailing_blanks_of_a_padded_column_do_not_mislead(postgres_engine: sa.Engine) -> None:
    """PostgreSQL pads CHAR(8): the row is found, and its own padded key is the one remembered."""
    Base.metadata.create_all(postgres_engine)
    save(postgres_engine, [Exact(id=1, name="bob", data=b"b", number=5, wide="bob")])
    chain = chain_on(postgres_engine)
    for wide in ("bob", "bob     ", "bob"):
        assert chain.get(Exact, {"wide": wide}).id == 1  # type: ignore[union-attr]


class Citext(DeclarativeBase):
    pass


class Folded(Citext):
    __tablename__ = "folded"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(CITEXT, unique=True)


def test_citext_is_asked_again(postgres_engine: sa.Engine) -> None:
    """PostgreSQL's type for text without casing finds other spellings, which are not cached, nor is their absence."""
    with postgres_engine.begin() as connection:
        connection.exec_driver_sql("CREATE EXTENSION citext")
        Citext.metadata.create_all(connection)
    chain = chain_on(postgres_engine)
    assert chain.get(Folded, {"name": "BOB"}) is None
    chain.put(Folded(id=1, name="bob"))
    for _ in range(2):
        assert chain.get(Folded, {"name": "BOB"}).name == "bob"  # type: ignore[union-attr]
        found = chain.batch_get(Folded, [{"name": "Bob"}, {"name": "bob"}, {"name": "eve"}])
        assert [each and each.id for each in found] == [1, 1, None]
