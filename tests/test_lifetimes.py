from __future__ import annotations

import math
import time as time_module
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockpyle.exceptions import ImproperlyConfigured, InvalidLifetime
from stockpyle.lifetimes import LifetimePolicy, deadline_of, earlier

NOW = 1_700_000_000.0


class Session:
    pass


class Rule:
    """A callback that is no function."""

    def __init__(self, lifetime: Any) -> None:
        self.lifetime = lifetime

    def __call__(self, obj: Any) -> Any:
        return self.lifetime

    def __repr__(self) -> str:
        return "Rule()"


@pytest.mark.parametrize(
    ("lifetime", "deadline"),
    [
        (None, None),
        (60, NOW + 60),
        (0.5, NOW + 0.5),
        (timedelta(minutes=1), NOW + 60),
        (timedelta.max, NOW + timedelta.max.total_seconds()),
        (datetime.fromtimestamp(NOW + 60, timezone.utc), NOW + 60),
        (datetime.fromtimestamp(NOW + 60, timezone(timedelta(hours=5))), NOW + 60),
        (datetime.fromtimestamp(NOW + 60), NOW + 60),
        (math.inf, None),
        (10**400, None),
        (1e308 * 10, None),
    ],
)
def test_a_lifetime_is_relative_but_for_a_datetime(lifetime: Any, deadline: float | None) -> None:
    """Numbers are seconds and timedeltas are relative to now, datetimes absolute, and naive ones local time."""
    assert deadline_of(lifetime, NOW) == deadline


@pytest.mark.parametrize(
    "lifetime",
    [
        0,
        0.0,
        -0.0,
        -1,
        -math.inf,
        -(10**400),
        timedelta(0),
        timedelta.min,
        datetime.fromtimestamp(NOW),
        datetime.fromtimestamp(NOW - 1, timezone.utc),
        datetime.min.replace(tzinfo=timezone.utc),
    ],
)
def test_zero_or_less_has_already_passed(lifetime: Any) -> None:
    """A lifetime of zero or less, or until the past, is a deadline that is not later than now."""
    deadline = deadline_of(lifetime, NOW)
    assert deadline is not None
    assert deadline <= NOW


@pytest.mark.parametrize(
    ("lifetime", "culprit"),
    [
        (True, r"True \(bool\)"),
        (False, r"False \(bool\)"),
        ("60", r"'60' \(str\)"),
        (b"60", "bytes"),
        (math.nan, "nan"),
        (date(2030, 1, 1), "date"),
        (time(1), "time"),
        (Decimal(60), "Decimal"),
        ([60], "list"),
        (object(), "object"),
        (1j, "complex"),
    ],
)
def test_anything_else_is_no_lifetime(lifetime: Any, culprit: str) -> None:
    """What is neither seconds, timedelta, datetime nor None raises InvalidLifetime, which shows it."""
    with pytest.raises(InvalidLifetime, match=f"{culprit}.*give seconds, a timedelta, a datetime or None"):
        deadline_of(lifetime, NOW)


@given(st.one_of(st.integers(), st.floats(allow_nan=False), st.timedeltas(), st.datetimes()))
def test_a_deadline_is_a_number_that_can_be_compared(lifetime: Any) -> None:
    """Every lifetime gives None or a float that is not nan, and a later one never an earlier deadline."""
    deadline = deadline_of(lifetime, NOW)
    assert deadline is None or not math.isnan(deadline)
    if isinstance(lifetime, int | float):
        assert (deadline is None or deadline > NOW) is (NOW + min(max(lifetime, -1e300), 1e300) > NOW)


@pytest.fixture(params=["UTC", "XXX-14", "XXX+12"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The process's time zone, for one test."""
    monkeypatch.setenv("TZ", request.param)
    time_module.tzset()
    yield request.param
    monkeypatch.undo()
    time_module.tzset()


@pytest.mark.usefixtures("zone")
def test_the_ends_of_the_calendar_are_far_away_in_every_time_zone() -> None:
    """The first and the last naive datetime are past and future, though no UTC may exist for them."""
    past, future = deadline_of(datetime.min, NOW), deadline_of(datetime.max, NOW)
    assert past is not None
    assert past < NOW
    assert future is None or future > NOW + 1e9


@pytest.mark.usefixtures("zone")
def test_a_naive_datetime_is_local_time() -> None:
    """A naive datetime is read in the time zone of the process, as datetime.now() writes it."""
    assert deadline_of(datetime.fromtimestamp(NOW), 0.0) == NOW


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [(None, None, None), (1.0, None, 1.0), (None, 2.0, 2.0), (1.0, 2.0, 1.0), (2.0, 1.0, 1.0), (0.0, None, 0.0)],
)
def test_the_earlier_of_two_deadlines(first: float | None, second: float | None, result: float | None) -> None:
    """None is later than every deadline."""
    assert earlier(first, second) == result


def test_a_policy_without_a_rule_lets_things_live() -> None:
    """Nothing configured is no deadline."""
    policy = LifetimePolicy()
    assert policy.deadline(Session(), NOW) is None
    assert not policy.configured
    assert not policy.asks_object


def test_a_constant_is_the_same_for_every_object() -> None:
    """A constant lifetime counts from the moment it is asked for, and needs no object."""
    policy = LifetimePolicy(lifetime=60)
    assert policy.deadline(None, NOW) == NOW + 60
    assert policy.deadline(Session(), NOW + 1) == NOW + 61
    assert policy.configured
    assert not policy.asks_object
    assert LifetimePolicy(lifetime=0).deadline(None, NOW) == NOW


def test_a_callback_is_asked_with_the_object() -> None:
    """The callback gets the object and may return any lifetime, None included."""
    asked = []

    def lifetime_cb(obj: object) -> timedelta | None:
        asked.append(obj)
        return timedelta(minutes=1) if len(asked) == 1 else None

    policy, session = LifetimePolicy(lifetime_cb), Session()
    assert policy.deadline(session, NOW) == NOW + 60
    assert policy.deadline(session, NOW) is None
    assert asked == [session, session]
    assert policy.configured
    assert policy.asks_object


def test_both_rules_are_an_error() -> None:
    """lifetime_cb and lifetime together raise ImproperlyConfigured, which names both; zero is a lifetime too."""
    for lifetime in (60, 0):
        with pytest.raises(ImproperlyConfigured, match="either lifetime_cb or lifetime"):
            LifetimePolicy(Rule(60), lifetime)


@pytest.mark.parametrize("lifetime", [True, "60", math.nan, [60]])
def test_a_wrong_constant_is_refused_at_once(lifetime: Any) -> None:
    """A constant that is no lifetime is refused when the store is built."""
    with pytest.raises(InvalidLifetime):
        LifetimePolicy(lifetime=lifetime)


def test_a_callback_must_be_callable() -> None:
    """A lifetime given as lifetime_cb raises ImproperlyConfigured, which shows it."""
    with pytest.raises(ImproperlyConfigured, match="callable, not 60"):
        LifetimePolicy(60)  # type: ignore[arg-type]


def failing(obj: object) -> int:
    """Return never."""
    raise KeyError("no plan")


def returning(lifetime: Any, obj: object) -> Any:
    """Return what it was made with."""
    return lifetime


def test_a_callback_that_raises_is_named_with_the_class() -> None:
    """The error names callback, class and what was raised, which is its cause."""
    with pytest.raises(
        InvalidLifetime, match=r"lifetime_cb failing failed for a Session: KeyError\('no plan'\)"
    ) as caught:
        LifetimePolicy(failing).deadline(Session(), NOW)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("nonsense", [True, False, "60", math.nan, [60], object()])
def test_a_callback_that_returns_nonsense_is_named_with_the_class(nonsense: Any) -> None:
    """The error names callback, class and what was returned, whatever kind of callable it is."""
    for callback, name in ((Rule(nonsense), r"Rule\(\)"), (partial(returning, nonsense), "returning")):
        with pytest.raises(InvalidLifetime, match=f"lifetime_cb .*{name}.* returned for a Session: .*not a lifetime"):
            LifetimePolicy(callback).deadline(Session(), NOW)


def test_what_ends_the_program_is_not_wrapped() -> None:
    """A KeyboardInterrupt in a callback stays one."""

    def interrupted(obj: object) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LifetimePolicy(interrupted).deadline(Session(), NOW)
