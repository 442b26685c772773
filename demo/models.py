"""The codes that the world has agreed on, as mapped classes: ISO 3166, ISO 639 and ISO 4217, from pycountry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pycountry
from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Country(Base):
    """ISO 3166-1. Its keys are the primary key and what is unique: three codes, each of which finds the country."""

    __tablename__ = "countries"

    alpha_2: Mapped[str] = mapped_column(primary_key=True)
    alpha_3: Mapped[str] = mapped_column(unique=True)
    numeric: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]


class Subdivision(Base):
    """ISO 3166-2. Found by its code, US-CA, or by the two parts of it."""

    __tablename__ = "subdivisions"
    __table_args__ = (UniqueConstraint("country", "local"),)

    code: Mapped[str] = mapped_column(primary_key=True)
    country: Mapped[str]
    local: Mapped[str]
    name: Mapped[str]
    type: Mapped[str]
    parent_code: Mapped[str | None]


class Language(Base):
    """ISO 639-3. Only one in forty has the two letters of ISO 639-1; the others have None there."""

    __tablename__ = "languages"
    __stockpyle_keys__ = ("alpha_3", "alpha_2")

    alpha_3: Mapped[str] = mapped_column(primary_key=True)
    alpha_2: Mapped[str | None] = mapped_column(unique=True)
    name: Mapped[str]
    scope: Mapped[str]
    type: Mapped[str]


class Currency(Base):
    """ISO 4217."""

    __tablename__ = "currencies"
    __stockpyle_keys__ = ("alpha_3", "numeric")

    alpha_3: Mapped[str] = mapped_column(primary_key=True)
    numeric: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]


KEYS: dict[type[Any], list[tuple[str, ...]]] = {
    Country: [("alpha_2",), ("alpha_3",), ("numeric",)],
    Subdivision: [("code",), ("country", "local")],
    Language: [("alpha_3",), ("alpha_2",)],
    Currency: [("alpha_3",), ("numeric",)],
}
"""Every key of every class, its primary key first."""


def everything() -> Iterator[Base]:
    """Make an instance of each code that pycountry knows."""
    for each in pycountry.countries:
        yield Country(alpha_2=each.alpha_2, alpha_3=each.alpha_3, numeric=each.numeric, name=each.name)
    for each in pycountry.subdivisions:
        yield Subdivision(
            code=each.code,
            country=each.country_code,
            local=each.code.partition("-")[2],
            name=each.name,
            type=each.type,
            parent_code=each.parent_code,
        )
    for each in pycountry.languages:
        yield Language(
            alpha_3=each.alpha_3,
            alpha_2=getattr(each, "alpha_2", None),
            name=each.name,
            scope=each.scope,
            type=each.type,
        )
    for each in pycountry.currencies:
        yield Currency(alpha_3=each.alpha_3, numeric=each.numeric, name=each.name)
