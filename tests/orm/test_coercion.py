"""Key values of every kind of column: what finds the row, from the database and from memory."""

from __future__ import annotations

import enum
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stockpyle.exceptions import InvalidKeyType
from tests.databases import chain_on, save, traffic


class Base(DeclarativeBase):
    pass


class Kind(enum.Enum):
    ONE = 1
    TWO = "two"


class Paint(str, enum.Enum):
    RED = "r"
    R = "x"


class Number(int, enum.Enum):
    HIGH = 10
    LOW = 1


class Lower(sa.TypeDecorator[str]):
    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else value.lower()


class Kinds(Base):
    __tablename__ = "kinds"
    __stockpyle_keys__ = [
        "small", "big", "text", "data", "token", "token_text", "plain", "text_enum", "number_enum", "word", "amount",
        "ratio", "flag", "at", "instant", "day", "clock", "span", "lowered", "level",
    ]  # fmt: skip
    id: Mapped[int] = mapped_column(primary_key=True)
    small: Mapped[int] = mapped_column(sa.SmallInteger)
    big: Mapped[int] = mapped_column(sa.BigInteger)
    text: Mapped[str]
    data: Mapped[bytes]
    token: Mapped[uuid.UUID]
    token_text: Mapped[str] = mapped_column(sa.Uuid(as_uuid=False))
    plain: Mapped[Kind]
    text_enum: Mapped[Paint]
    number_enum: Mapped[Number]
    word: Mapped[str] = mapped_column(sa.Enum("a", "b", name="word"))
    amount: Mapped[Decimal] = mapped_column(sa.Numeric(10, 2))
    ratio: Mapped[float]
    flag: Mapped[bool]
    at: Mapped[datetime]
    instant: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    day: Mapped[date]
    clock: Mapped[time]
    span: Mapped[timedelta] = mapped_column(sa.Interval)
    lowered: Mapped[str] = mapped_column(Lower(20))
    level: Mapped[str] = mapped_column(sa.String(10))


TOKEN = uuid.UUID("12345678-1234-5678-1234-567812345678")
NOON = datetime(2026, 5, 1, 12, 30, 1, 5)
VALUES: dict[str, Any] = {
    "id": 1, "small": 3, "big": 2**40, "text": "5", "data": b"\x00\xff", "token": TOKEN, "token_text": str(TOKEN),
    "plain": Kind.TWO, "text_enum": Paint.RED, "number_enum": Number.HIGH, "word": "a", "amount": Decimal("12.50"),
    "ratio": 0.25, "flag": True, "at": NOON, "instant": NOON.replace(tzinfo=timezone.utc), "day": date(2026, 5, 1),
    "clock": time(1, 2, 3), "span": timedelta(days=1, seconds=1), "lowered": "low", "level": "r",
}  # fmt: skip

FOUND: list[tuple[str, Any]] = [
    ("small", 3), ("small", "3"), ("small", Decimal(3)), ("small", Fraction(3)), ("big", 2**40), ("big", float(2**40)),
    ("text", "5"), ("text", 5), ("data", b"\x00\xff"), ("data", bytearray(b"\x00\xff")), ("token", TOKEN),
    ("token", str(TOKEN)), ("token", TOKEN.hex), ("token_text", str(TOKEN)), ("token_text", TOKEN),
    ("token_text", TOKEN.hex), ("plain", Kind.TWO), ("plain", "TWO"), ("text_enum", Paint.RED), ("text_enum", "r"),
    ("text_enum", "RED"), ("number_enum", Number.HIGH), ("number_enum", 10), ("number_enum", "HIGH"), ("word", "a"),
    ("amount", Decimal("12.5")), ("amount", "12.50"), ("amount", 12.5), ("ratio", 0.25), ("ratio", Decimal("0.25")),
    ("flag", True), ("flag", 1), ("at", NOON), ("day", date(2026, 5, 1)), ("clock", time(1, 2, 3)),
    ("span", timedelta(days=1, seconds=1)), ("lowered", "low"), ("level", Paint.RED),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), FOUND, ids=lambda value: str(value)[:20])
def test_a_key_of_this_kind_finds_the_row(sqlite_engine: sa.Engine, name: str, value: Any) -> None:
    """The first get reads the database, the second one memory, a session its own transaction: the same row."""
    _check_found(sqlite_engine, name, value)


def test_every_kind_on_postgresql(postgres_engine: sa.Engine) -> None:
    """The same values find the same row there, and an instant is found in every time zone."""
    elsewhere = VALUES["instant"].astimezone(timezone(timedelta(hours=-7)))
    for name, value in [*FOUND, ("instant", VALUES["instant"]), ("instant", elsewhere)]:
        _check_found(postgres_engine, name, value)


def _check_found(engine: sa.Engine, name: str, value: Any) -> None:
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    save(engine, [Kinds(**VALUES)])
    chain = chain_on(engine)
    first = chain.get(Kinds, {name: value})
    assert first is not None, (name, value)
    with traffic(engine) as seen:
        second = chain.get(Kinds, {name: value})
    assert second is not None
    assert seen.statements == [], (name, value)
    assert {each: getattr(second, each) for each in VALUES if each != "instant"} == {
        each: expected for each, expected in VALUES.items() if each != "instant"
    }
    assert [type(getattr(second, each)) for each in VALUES] == [type(expected) for expected in VALUES.values()]
    with Session(engine) as session:
        session.get_one(Kinds, 1).text = "changed"
        session.flush()
        own = chain.get(Kinds, {name: value}, session=session)
        assert (own is not None) is (name != "text")


REFUSED: list[tuple[str, Any]] = [
    ("small", "abc"), ("small", 1.5), ("small", float("nan")), ("small", b"3"), ("small", "3 "), ("text", b"5"),
    ("text", True), ("text", 1.5), ("data", "text"), ("token", "no uuid"), ("token", 5), ("plain", "THREE"),
    ("plain", Paint.RED), ("text_enum", "nope"), ("number_enum", 11), ("amount", "x"), ("amount", Decimal("NaN")),
    ("ratio", float("nan")), ("ratio", b"0.25"), ("flag", 2), ("flag", "yes"), ("at", "2026-05-01"),
    ("at", date(2026, 5, 1)), ("day", NOON), ("text", ["a"]), ("lowered", object()),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=lambda value: str(value)[:20])
def test_a_value_of_another_kind_is_refused(sqlite_engine: sa.Engine, name: str, value: Any) -> None:
    """The error names the class and the attribute, and no statement is sent."""
    chain = chain_on(sqlite_engine)
    with traffic(sqlite_engine) as seen, pytest.raises(InvalidKeyType, match=rf"^Kinds\.{name}: "):
        chain.get(Kinds, {name: value})
    assert seen.statements == []


def test_a_value_that_a_type_of_the_applications_own_changes_is_found_and_not_misfiled(engine: sa.Engine) -> None:
    """What a TypeDecorator makes of a key only the database tells; memory has the row's own value."""
    Base.metadata.create_all(engine)
    save(engine, [Kinds(**VALUES)])
    chain = chain_on(engine)
    for value in ("LOW", "low", "LOW"):
        assert chain.get(Kinds, {"lowered": value}).id == 1  # type: ignore[union-attr]
    assert chain.get(Kinds, {"lowered": "other"}) is None


def test_a_put_with_values_that_the_column_converts_is_found(engine: sa.Engine) -> None:
    """Keys of an object that is put are coerced as the asked ones are."""
    Base.metadata.create_all(engine)
    chain = chain_on(engine)
    chain.put(Kinds(**{**VALUES, "amount": 12.5, "flag": 1}))
    assert chain.get(Kinds, {"amount": Decimal("12.5")}).flag is True  # type: ignore[union-attr]
    assert chain.get(Kinds, {"flag": True}).amount == Decimal("12.50")  # type: ignore[union-attr]
