"""The same people as plain objects, and as rows."""

from __future__ import annotations

from datetime import date, datetime, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Colour(Enum):
    RED = "r"
    GREEN = "g"
    BLUE = "b"


class Base(DeclarativeBase):
    pass


class Org(Base):
    __tablename__ = "orgs"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("orgs.id"))
    parent: Mapped[Org | None] = relationship(remote_side=[id])
    people: Mapped[list[Person]] = relationship(back_populates="org", order_by="Person.id")


class Person(Base):
    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(sa.String(50))
    nick: Mapped[str | None] = mapped_column(sa.String(50, collation="NOCASE").with_variant(sa.Text(), "postgresql"))
    age: Mapped[int | None]
    height: Mapped[float | None]
    balance: Mapped[Decimal | None] = mapped_column(sa.Numeric(12, 2))
    active: Mapped[bool | None]
    born: Mapped[date | None]
    seen: Mapped[datetime | None]
    logged: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True).with_variant(sa.DateTime(), "sqlite"))
    token: Mapped[bytes | None]
    uid: Mapped[UUID | None]
    colour: Mapped[Colour | None]
    tags: Mapped[Any] = mapped_column(sa.JSON, nullable=True)
    org_id: Mapped[int | None] = mapped_column(sa.ForeignKey("orgs.id"))
    org: Mapped[Org | None] = relationship(back_populates="people")


COLUMNS = [
    "name", "nick", "age", "height", "balance", "active", "born", "seen", "token", "uid", "colour", "tags"
]  # fmt: skip


class PlainOrg:
    __stockpyle_keys__ = ["id"]

    def __init__(self, id: int, name: str | None, parent: PlainOrg | None) -> None:
        self.id, self.name, self.parent = id, name, parent
        self.people: list[PlainPerson] = []


class PlainPerson:
    __stockpyle_keys__ = ["id"]

    def __init__(self, id: int, org: PlainOrg | None = None, **values: Any) -> None:
        self.id, self.org = id, org
        for name in COLUMNS:
            setattr(self, name, values.get(name))


UTC = timezone.utc
