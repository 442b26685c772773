from __future__ import annotations

import math
import sys
from collections import UserString
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stockpyle.values import UnusableValue, normalise, write, write_name


class Colour(Enum):
    RED = 1
    GREEN = "RED"


class Shade(Enum):
    RED = 1


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Text(str, Enum):
    RED = "red"
    ONE = "1"


class Permission(Flag):
    READ = 1
    WRITE = 2


class Bits(IntFlag):
    ONE = 1
    TWO = 2


class CaseBlind(str, Enum):
    RED = "red"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.value.casefold() == other.casefold()

    def __hash__(self) -> int:
        return hash(self.value.casefold())


class Modulo(int, Enum):
    ONE = 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and int(self) % 10 == other % 10

    def __hash__(self) -> int:
        return 0


class Weight(float, Enum):
    LIGHT = 0.5


class Loose(Enum):
    A = 1

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = Enum.__hash__


class StrSubclass(str):
    __slots__ = ()


class IntSubclass(int):
    pass


class DatetimeSubclass(datetime):
    pass


class Unsure(tzinfo):
    """A time zone that cannot say its offset: its datetimes are naive."""

    def utcoffset(self, moment: datetime | None, /) -> timedelta | None:
        return None

    def dst(self, moment: datetime | None, /) -> timedelta | None:
        return None

    def tzname(self, moment: datetime | None, /) -> str | None:
        return None


def local_enum() -> type[Enum]:
    """Return an Enum that has the name of every other one made here."""

    class Local(Enum):
        A = 1

    return Local


MEMBERS: list[Enum] = [
    *Colour,
    *Shade,
    *Level,
    *Text,
    *Permission,
    *Bits,
    Permission.READ | Permission.WRITE,
    Permission(0),
    Bits.ONE | Bits.TWO,
]
OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
AWARE = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=OFFSETS)
NUMBERS: st.SearchStrategy[Any] = st.one_of(
    st.integers(),
    st.integers(4300, 5000).map(lambda digits: 10**digits),
    st.booleans(),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False, min_value=Decimal("-1e1000"), max_value=Decimal("1e1000")),
    st.fractions(),
)
FEW: st.SearchStrategy[Any] = st.one_of(
    # values that are likely to meet their equals of other types, and what only looks like them
    st.sampled_from([0, 1, 2, -1, False, True, 0.0, -0.0, 1.0, 0.5, Decimal("0.50"), Decimal("1E0"), Fraction(1, 2)]),
    st.sampled_from([math.inf, -math.inf, Decimal("inf"), Decimal("-inf"), Decimal("-0"), Decimal("0E+9999"), 0.1]),
    st.sampled_from([Decimal("0.1"), Fraction(1, 10), Decimal(10) ** 900, 10**900, 2.0**1000, 2**1000]),
    st.sampled_from(["", "1", "red", "RED", "None", "inf", "0.5", "é", "e\u0301", "\ud800", "a b", "a\n", "\x00", "'"]),
    st.sampled_from([b"", b"1", b"red", b"\xff", UUID(int=1), date(2020, 1, 1), timedelta(1), timedelta(0)]),
    st.sampled_from([time(1, 0), time(1, 0, fold=1), time(1, 0, microsecond=1), time(0)]),
    st.sampled_from(
        [
            datetime(2020, 1, 1),
            datetime(2020, 1, 1, fold=1),
            datetime(2020, 1, 1, tzinfo=Unsure()),
            datetime(2020, 1, 1, tzinfo=timezone.utc),
            datetime(2020, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))),
            datetime(2020, 1, 1, 2, tzinfo=timezone.utc),
        ]
    ),
    st.sampled_from(MEMBERS),
)
VALUES: st.SearchStrategy[Any] = st.one_of(
    FEW,
    NUMBERS,
    st.text(st.characters(exclude_categories=())),
    st.binary(),
    st.uuids(),
    st.dates(),
    st.datetimes(),
    AWARE,
    st.times(),
    st.timedeltas(),
)


def variants(value: Any) -> list[Any]:
    """Return the value in other types and notations, some equal to it and some not."""
    result = [value, repr(value) if is_short(value) else "long"]
    if isinstance(value, int | float | Decimal | Fraction) and is_short(value) and value not in (math.inf, -math.inf):
        exact = Fraction(value)
        result += [exact, exact + Fraction(1, 10**30), -exact]
        if exact.denominator == 1:
            result.append(exact.numerator)
            if exact.numerator.bit_length() < 3000:
                result.append(Decimal(exact.numerator))
        if exact.numerator.bit_length() < 1000 and exact.denominator.bit_length() < 1000:
            result += [float(exact), Decimal(float(exact)), Decimal(exact.numerator) / exact.denominator]
    elif isinstance(value, str) and not isinstance(value, Enum):
        result += [value.encode("utf-8", "surrogatepass"), value.upper(), value + " ", value.casefold()]
    elif isinstance(value, bytes):
        result += [value.decode("latin-1"), value.hex(), value + b"\x00"]
    elif isinstance(value, datetime) and value.utcoffset() is not None:
        result += [value.astimezone(timezone(timedelta(minutes=61))), value.replace(tzinfo=None)]
    elif isinstance(value, datetime):
        result += [value.replace(tzinfo=timezone.utc), value.date(), value.replace(fold=1)]
    elif isinstance(value, UUID):
        result += [value.int, value.hex, UUID(str(value))]
    elif isinstance(value, timedelta):
        # the longest of all has no opposite
        result += [value.total_seconds(), -value if value.days < 999_999_999 else timedelta.min]
    elif isinstance(value, Enum):
        result += [value.value, str(value.name), f"{type(value).__module__}.{type(value).__qualname__}.{value.name}"]
    return result


def is_short(value: Any) -> bool:
    """Return False for what the interpreter refuses to print."""
    return not isinstance(value, int | Fraction) or max(abs(value.numerator), value.denominator) < 10**4000


PAIRS = st.one_of(
    st.tuples(FEW, FEW),
    st.tuples(VALUES, VALUES),
    VALUES.flatmap(lambda value: st.tuples(st.just(value), st.sampled_from(variants(value)))),
)


def as_python_says(first: Any, second: Any) -> bool:
    """Return what `==` says; aware datetimes are compared as instants."""
    if isinstance(first, datetime) and isinstance(second, datetime) and first.utcoffset() is not None:
        return second.utcoffset() is not None and first.astimezone(timezone.utc) == second.astimezone(timezone.utc)
    equal = bool(first == second)
    assert not equal or hash(first) == hash(second)
    return equal


def usable(value: Any) -> bool:
    """Return False for Decimals that are refused."""
    if not isinstance(value, Decimal) or not value.is_finite():
        return True
    return not value or (abs(value.adjusted()) <= 1000 and len(value.as_tuple().digits) <= 1000)


@settings(max_examples=1500, deadline=None)
@given(PAIRS)
@example((Fraction(1, 2), Decimal("0.5")))
@example((10**900, Decimal(10) ** 900))
@example((Decimal("1E+400"), Decimal("inf")))
@example((Text.RED, "red"))
@example((Level.LOW, True))
@example((datetime(2020, 1, 1), datetime(2020, 1, 1, fold=1)))
def test_values_are_the_same_exactly_when_python_says_so(pair: tuple[Any, Any]) -> None:
    """Two values have equal normal forms, and equal texts, if and only if they are equal in Python."""
    first, second = pair
    if not (usable(first) and usable(second)):
        return
    one, other = normalise(first), normalise(second)
    same = as_python_says(first, second)
    assert (one == other) is same
    assert (write(one) == write(other)) is same
    assert not same or hash(one) == hash(other)


@settings(max_examples=500, deadline=None)
@given(VALUES.filter(usable))
def test_text_of_a_value_is_printable_and_has_no_separator(value: Any) -> None:
    """The text is ASCII from 0x21 to 0x7e without the characters that separate the parts of a key."""
    text = write(normalise(value))
    assert text
    assert all("\x21" <= character <= "\x7e" for character in text)
    assert not set(text) & set(":,=#")


@settings(max_examples=300, deadline=None)
@given(VALUES.filter(usable))
def test_normalising_twice_changes_nothing(value: Any) -> None:
    """A normal form is its own normal form, of a plain type or an Enum."""
    normal = normalise(value)
    assert normalise(normal) == normal
    assert type(normalise(normal)) is type(normal)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"),
        (-5, "-5"),
        (True, "1"),
        (1.0, "1"),
        (-0.0, "0"),
        (0.5, "1/2"),
        (Decimal("0.10"), "1/10"),
        (Fraction(-2, 3), "-2/3"),
        (math.inf, "inf"),
        (Decimal("1E+400"), hex(10**400)),
        (Decimal("-Infinity"), "-inf"),
        (2**511, str(2**511)),
        (2**512, hex(2**512)),
        (-(2**512), hex(-(2**512))),
        ("ann", "'ann'"),
        ("ann@example.org", "'ann@example.org'"),
        ("5", "'5'"),
        ("", "''"),
        ("a b,c=d:e#f'g%", "'a%20b%2Cc%3Dd%3Ae%23f%27g%25'"),
        ("é", "'%C3%A9'"),
        ("\ud800", "'%ED%A0%80'"),
        (b"\x00ann", "bytes'00616e6e'"),
        (UUID(int=255), "uuid'000000000000000000000000000000ff'"),
        (date(2026, 1, 2), "date'2026-01-02'"),
        (datetime(2026, 1, 2, 3, 4, 5), "datetime'2026-01-02T03%3A04%3A05'"),
        (
            datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=1))),
            "datetime'2026-01-02T02%3A04%3A05.000006+00%3A00'",
        ),
        (time(3, 4, 5), "time'03%3A04%3A05'"),
        (timedelta(days=1, seconds=2, microseconds=3), "timedelta'1d2s3'"),
        (timedelta(microseconds=-1), "timedelta'-1d86399s999999'"),
        (Level.HIGH, "2"),
        (Bits.ONE | Bits.TWO, "3"),
        (Text.RED, "'red'"),
        (Colour.RED, "enum'tests.test_values.Colour.RED'"),
        (Permission.READ | Permission.WRITE, "enum'tests.test_values.Permission.3'"),
    ],
)
def test_text_of_a_value_reads_well_and_stays_the_same(value: Any, text: str) -> None:
    """The text format is fixed: other processes and other versions have keys in it."""
    assert write(normalise(value)) == text


@pytest.mark.parametrize(
    ("value", "culprit"),
    [
        (math.nan, "nan"),
        (Decimal("NaN"), "NaN"),
        (Decimal("sNaN"), "NaN"),
        (Decimal("1E+1001"), "exponent"),
        (Decimal("1E-1001"), "exponent"),
        (Decimal("1E+999999999"), "exponent"),
        (Decimal("1." + "1" * 1001), "digits"),
        (StrSubclass("a"), "StrSubclass"),
        (IntSubclass(1), "IntSubclass"),
        (DatetimeSubclass(2020, 1, 1), "DatetimeSubclass"),
        (UserString("a"), "UserString"),
        (time(1, 2, tzinfo=timezone.utc), "time zone"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))), "UTC"),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), "UTC"),
        ((1, 2), "tuple"),
        ([1], "list"),
        ({1}, "set"),
        ({"a": 1}, "dict"),
        (bytearray(b"a"), "bytearray"),
        (1j, "complex"),
        (None, "NoneType"),
        (object(), "object"),
        (int, "type"),
        (Weight.LIGHT, "Weight"),
        (Loose.A, "Loose"),
        (CaseBlind.RED, "CaseBlind"),
        (Modulo.ONE, "Modulo"),
    ],
)
def test_what_has_no_safe_equality_is_refused(value: Any, culprit: str) -> None:
    """A value whose equality Python and a remote tier would not agree on raises UnusableValue, which says why."""
    with pytest.raises(UnusableValue, match=culprit):
        normalise(value)


def test_an_enum_made_by_a_function_has_no_text() -> None:
    """Members of equally named enums made by two calls are different in memory, and refused as text."""
    first, second = local_enum(), local_enum()
    one, other = normalise(first["A"]), normalise(second["A"])
    assert one != other
    with pytest.raises(UnusableValue, match="Local"):
        write(one)


def test_huge_integers_are_written_without_a_digit_limit() -> None:
    """An integer beyond the interpreter's limit of digits has a text, another than its neighbour's."""
    huge = 10**100_000
    assert write(huge) == write(Fraction(huge)) != write(huge + 1)
    assert write(Fraction(1, huge)) == f"1/{hex(huge)}"


def test_names_are_escaped_like_values() -> None:
    """Names keep letters, digits and dots; everything else is escaped."""
    assert write_name("app.models.User") == "app.models.User"
    assert write_name("größe") == "gr%C3%B6%C3%9Fe"
    assert write_name("a:b,c=d#e /") == "a%3Ab%2Cc%3Dd%23e%20%2F"


def test_str_enums_become_plain_strings() -> None:
    """A (str, Enum) or IntEnum member normalises to the plain value, whatever its str() says."""
    assert type(normalise(Text.RED)) is str
    assert type(normalise(Level.LOW)) is int
    assert type(normalise(Bits.ONE | Bits.TWO)) is int
    if sys.version_info >= (3, 11):
        from enum import StrEnum

        assert normalise(StrEnum("Word", ["RED"])["RED"]) == "red"


@pytest.mark.parametrize("value", [Decimal("1E+309"), Decimal("-1E+1000"), Decimal("9" * 1000)])
def test_a_decimal_beyond_the_floats_is_not_infinite(value: Decimal) -> None:
    """A finite Decimal that no float can hold has the text of its integer, not that of an infinity."""
    assert write(normalise(value)) == write(int(value))
