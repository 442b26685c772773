"""What is made of samples: medians, spreads, ratios, and how they are written."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float]) -> float:
    """Return the interquartile range over the median: how far apart the middle half of the samples is."""
    middle = median(values)
    if len(values) < 2 or middle == 0:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / middle


def shown(value: float | None) -> str:
    """Write a number with three digits that say something: 0.0521, 1.25, 74.1, 1,808."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3g}"


def times(ratio: float | None) -> str:
    return "" if ratio is None else f"{shown(ratio)}x"


def percent(part: float) -> str:
    return f"{part:.0%}"
