"""Aliases that a tier has learnt while a base class was read, when a subclass is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stockpyle.keys import Key
from stockpyle.stores import ChainedStore, ProcessMemoryStore, SqlAlchemyStore


class Base(DeclarativeBase): ...


class Vessel(Base):
    """The base of a joined inheritance."""

    __tablename__ = "vessels"
    __stockpyle_keys__ = ["id", "name"]

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vessel"}


class Steamer(Vessel):
    """With a key of its own in the second table."""

    __tablename__ = "steamers"
    __stockpyle_keys__ = ["id", "name", "boiler"]

    id: Mapped[int] = mapped_column(sa.ForeignKey("vessels.id"), primary_key=True)
    boiler: Mapped[str] = mapped_column(unique=True)
    __mapper_args__ = {"polymorphic_identity": "steamer"}


class LockedInBetween(ProcessMemoryStore):
    """Whenever an identity is asked for, another thread has just locked it."""

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> Any:
        own = [key for key in keys if key.is_identity]
        if own:
            self.lock(own, 60)
        return super().read(keys, lease=lease)


def test_a_subclass_is_loaded_as_such_by_an_alias_of_its_base(tmp_path: Path) -> None:
    """A base has been read by a key, and a subclass is: what is not in the tier is loaded as the subclass."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'test.db'}")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Steamer(id=i, name=f"n{i}", boiler=f"b{i}") for i in (1, 2)])
        session.commit()
    memory = ProcessMemoryStore()
    chain = ChainedStore([memory, SqlAlchemyStore(engine=engine)])
    chain.get(Vessel, {"name": "n1"})
    memory.__class__ = LockedInBetween
    found = chain.batch_get(Steamer, [{"name": "n1"}, {"boiler": "b2"}])
    assert [(type(each), each.boiler) for each in found] == [(Steamer, "b1"), (Steamer, "b2")]
    engine.dispose()
