"""What backplanes tell each other, as bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockpyle.classes import spec_of
from stockpyle.coherence.messages import Changes, Messages, News, Unreadable
from stockpyle.keys import Key
from stockpyle.packing import Packer
from stockpyle.testing import Automobile, Person


class Colour(Enum):
    """A plain Enum, which equals nothing but itself."""

    RED = 1


class Level(IntEnum):
    """An Enum that equals its number."""

    LOW = 1


def key(**asked: Any) -> Key:
    """Return a key of a person."""
    found = spec_of(Person).key(asked)
    assert found is not None
    return found


def there_and_back(keys: Iterable[Key], messages: Messages | None = None) -> Changes:
    """Return what a receiver makes of a message about these keys."""
    messages = messages or Messages()
    (data,) = messages.write(News(Changes.of(keys), b"me"))
    return messages.read(data).changes


VALUES: list[Any] = [
    *(0, 1, -1, 2**63, -(2**63) - 1, 2**200, True, False),
    *(0.5, 1.0, -0.0, float("inf"), "", "a", "é\0'\"", "\ud800", b"", b"\xff", UUID(int=5)),
    *(Decimal("1.10"), Decimal("1E+3"), Decimal("Infinity"), Decimal("-0"), Fraction(1, 3), Fraction(4, 2)),
    *(date(2026, 1, 2), time(1, 2, 3, 4), timedelta(days=-1, microseconds=5), Level.LOW),
    *(datetime(2026, 1, 2, 3, 4, 5, 6), datetime(2026, 1, 2, tzinfo=timezone.utc)),
    datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=30))),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_keys_arrive_as_they_are(value: Any) -> None:
    """A key of any allowed value is the same key at the other end: it finds what is kept under it there."""
    sent = [key(id=value), key(org=value, login="x")]
    heard = there_and_back(sent)
    assert heard.idents == {each.ident: None for each in sent}
    assert not heard.spaces
    assert not heard.everything


@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.decimals(allow_nan=False)))
def test_any_key_value_arrives(value: Any) -> None:
    """So do values that nobody has thought of."""
    sent = key(id=value)
    assert there_and_back([sent]).idents == {sent.ident: None}


@pytest.mark.parametrize("value", [Colour.RED, Fraction(1, 10**5000)], ids=["enum", "long fraction"])
def test_what_cannot_be_sent_is_sent_as_its_class(value: Any) -> None:
    """A value that bytes alone do not tell drops the class that its key is of, and leaves other classes alone."""
    plate = spec_of(Automobile).keys_of(Automobile("p", "v"))
    heard = there_and_back([key(id=value), key(id=5), *plate])
    assert heard.spaces == {spec_of(Person).space: None}
    assert heard.idents == {each.ident: None for each in plate}


def test_classes_and_everything_arrive() -> None:
    """Whole classes, and that anything may have changed, arrive as what they are."""
    assert there_and_back([spec_of(Person).epoch]).spaces == {spec_of(Person).space: None}
    messages = Messages()
    (data,) = messages.write(News(Changes(everything=True)))
    assert messages.read(data) == News(Changes(everything=True))


@pytest.mark.parametrize("number", [1, 2, 10, 1000])
@pytest.mark.parametrize("largest", [200, 7999])
def test_messages_are_bounded(number: int, largest: int) -> None:
    """However many keys there are, no message is longer than it may be, and together they tell of all keys."""
    messages = Messages(largest)
    sent = [key(id=i) for i in range(number)]
    settled = {bytes([i % 256, i // 256]): None for i in range(number)}
    data = list(messages.write(News(Changes(Changes.of(sent).idents, settled=settled), b"me")))
    heard = Changes()
    for each in data:
        assert len(each) <= largest
        heard.add(messages.read(each).changes, 10**6)
    assert heard.idents == {each.ident: None for each in sent}
    assert heard.settled == settled


def test_what_fits_into_no_message_is_sent_as_its_class() -> None:
    """A key that is longer than a message is sent as its class; a class with such a name drops everything."""
    messages = Messages(200)
    (data,) = messages.write(News(Changes.of([key(id="x" * 300)])))
    assert messages.read(data).changes == Changes(spaces={spec_of(Person).space: None})
    (data,) = messages.write(News(Changes(spaces={"x" * 300: None})))
    assert messages.read(data).changes == Changes(everything=True)


def test_announcement_is_one_message() -> None:
    """What is sent inside a transaction is one message, of whole classes if its keys do not fit."""
    messages = Messages(200)
    (data,) = messages.write(News(Changes.of([key(id=i) for i in range(1000)]), b"me", b"number"))
    assert messages.read(data) == News(Changes(spaces={spec_of(Person).space: None}), b"me", b"number")


def test_changes_are_bounded() -> None:
    """Of more keys than may wait only the classes are kept; of too many classes, that everything may have changed."""
    changes = Changes()
    changes.add(Changes.of([key(id=i) for i in range(11)]), 10)
    assert changes == Changes(spaces={spec_of(Person).space: None})
    changes.add(Changes(spaces={str(i): None for i in range(10)}), 10)
    assert changes == Changes(everything=True)
    changes.add(Changes.of([key(id=1)]), 10)
    assert changes == Changes(everything=True)
    changes.add(Changes(settled={bytes([i]): None for i in range(12)}), 10)
    assert len(changes.settled) == 10


def garbage() -> Iterable[bytes]:
    """Yield messages that are wrong, each in one way."""
    pack = Packer().pack
    group = ["s", ["id"], [pack([1])]]
    good: list[Any] = [1, b"o", [group], ["s"], False, [b"n"], b""]
    assert Messages().read(pack(good))
    groups: list[Any] = [5, [5], [["s", ["id"]]], [[b"s", *group[1:]]], [["s", [b"id"], group[2]]]]
    groups += [[["s", ["id"], each]] for each in ([b"!"], [pack([1, 2])], [pack([])], [5])]
    groups += [[["s", ["id"], [pack([each])]]] for each in ([1], None, float("nan"), Decimal("1E+9999"))]
    wrong: list[tuple[int, Any]] = [(2, each) for each in groups]
    wrong += [(0, 2), (0, None), (1, "o"), (1, None), (3, [5]), (3, 5), (4, 1), (4, None)]
    wrong += [(5, ["n"]), (5, 7), (6, "x"), (6, None)]
    for place, value in wrong:
        yield pack([*good[:place], value, *good[place + 1 :]])
    yield pack(good[:-1])
    yield pack([*good, 1])
    yield pack(good)[:-1]
    yield pack(good) + b"x"


@pytest.mark.parametrize("data", list(garbage()))
def test_wrong_messages_are_unreadable(data: bytes) -> None:
    """What is not exactly a message of this version is refused as a whole."""
    with pytest.raises(Unreadable):
        Messages().read(data)


@given(st.binary())
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """Whatever bytes somebody sends, they are a message or unreadable."""
    with contextlib.suppress(Unreadable):
        Messages().read(data)
