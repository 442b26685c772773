"""A program of its own: its first, and only, contact with a database and a cache is one statement."""

from __future__ import annotations

import sys

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.stores import ChainedStore, MemcacheStore, SqlAlchemyStore


class Base(DeclarativeBase): ...


class Newcomer(Base):
    """A row that another process has in the cache."""

    __tablename__ = "newcomers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def make_chain(engine: sa.Engine, cache: str) -> ChainedStore:
    """Return a chain of a memcached and the database."""
    return ChainedStore([MemcacheStore(servers=[cache], prefix="newcomers"), SqlAlchemyStore(engine=engine)])


def main(url: str, cache: str, way: str) -> None:
    """Change the only row."""
    engine = sa.create_engine(url)
    table = Newcomer.__table__
    statements = {
        "orm": sa.update(Newcomer).values(name=way),
        "core": sa.update(table).values(name=way),  # type: ignore[arg-type]
        "text": sa.text(f"UPDATE newcomers SET name = '{way}'"),
    }
    with sessionmaker(engine, extension=StockpyleSessionExtension(make_chain(engine, cache)))() as session:
        session.execute(statements[way])
        session.commit()


if __name__ == "__main__":
    main(*sys.argv[1:])
