from __future__ import annotations

import pytest

from benchmarks.figures import median, percent, shown, spread, times


def test_median_is_the_middle_one() -> None:
    """One slow sample does not move the median."""
    assert median([1.0, 2.0, 900.0]) == 2.0
    assert median([1.0, 2.0, 3.0, 900.0]) == 2.5


def test_spread_is_the_middle_half_over_the_median() -> None:
    """The spread is the interquartile range over the median; what lies outside does not count."""
    assert spread([8.0, 9.0, 10.0, 11.0, 12.0]) == pytest.approx(0.2)
    assert spread([8.0, 9.0, 10.0, 11.0, 900.0]) == pytest.approx(0.2)


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0, 5.0], [0.0, 0.0]])
def test_spread_of_what_does_not_differ_is_none(values: list[float]) -> None:
    """One sample, equal samples and zeros have no spread."""
    assert spread(values) == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0, "0"),
        (0.05213, "0.0521"),
        (1.254, "1.25"),
        (74.13, "74.1"),
        (99.96, "100.0"),
        (1808.4, "1,808"),
        (-2.5, "-2.50"),
    ],
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    """A number is written with about three digits, whatever its size."""
    assert shown(value) == text


def test_ratios_and_parts_are_written() -> None:
    """A ratio has an x, and is empty where there is none; a part is a percentage."""
    assert (times(1.4), times(None), percent(0.256)) == ("1.40x", "", "26%")
