from __future__ import annotations

from benchmarks.contestants import Role
from benchmarks.measurements import Goal, Measurement, Result
from benchmarks.table import HEADER, cells, details, left_out_lines, markdown_table, text_table


def lost() -> Measurement:
    """Return a measurement in which ours is neither near the limit nor the fastest."""
    measurement = Measurement("memory hit", [], [Goal(1.4, "limit"), Goal(0.5, "peer")], note="A note.")
    measurement.results = [
        Result("stockpyle", Role.OURS, [3.0, 4.0, 5.0], [2.0]),
        Result("cachebox", Role.PEER, [1.0], [1.0]),
        Result("cachetools", Role.PEER, [8.0], [8.0]),
        Result("reference", Role.LIMIT, [2.0], [0.5]),
    ]
    return measurement


def test_what_is_lost_stays_in_the_table() -> None:
    """A measurement's line has ours, the best peer, the limit, the ratios, the goal, and that it was not reached."""
    line = dict(zip(HEADER, cells(lost()), strict=True))
    assert line == {
        "workload": "memory hit",
        "unit": "us",
        "ours": "4.00",
        "best peer": "1.00 (cachebox)",
        "limit": "2.00 (reference)",
        "ours / limit": "2.00x",
        "peer / ours": "0.25x",
        "CPU: ours / limit": "4.00x",
        "CPU: peer / ours": "0.5x",
        "goal": "<= 1.40x limit; >= 2.00x faster than peer",
        "reached": "no, no",
        "spread": "25%",
    }


def test_a_ratio_above_one_is_good_where_higher_is_better_too() -> None:
    """With hit ratios, ours is divided by the peer's: more than 1 still means that ours is better."""
    measurement = Measurement("hit ratio", [], unit="%", higher=True)
    measurement.results = [Result("stockpyle", Role.OURS, [60.0], []), Result("LRU", Role.PEER, [40.0], [])]
    assert dict(zip(HEADER, cells(measurement), strict=True))["peer / ours"] == "1.50x"


def test_what_was_not_measured_is_empty() -> None:
    """Without peers, limits and goals the cells are empty, and there are as many as ever."""
    measurement = Measurement("alone", [])
    measurement.results = [Result("stockpyle", Role.OURS, [4.0], [])]
    assert cells(measurement) == ["alone", "us", "4.00", *[""] * 8, "0%"]


def test_markdown_has_a_cell_for_each_column() -> None:
    """The Markdown table has a header, a line below it, and a line for each row; a bar in a cell is escaped."""
    assert markdown_table([["1", "a|b"]], ("x", "y")).splitlines() == ["| x | y |", "| --- | --- |", "| 1 | a\\|b |"]


def test_columns_of_the_printed_table_are_as_wide_as_their_widest_cell() -> None:
    """All lines of the printed table have their columns below each other."""
    assert text_table([["1", "long"], ["22", "b"]], ("x", "y")).splitlines() == [
        "x   y",
        "--  ----",
        "1   long",
        "22  b",
    ]


def test_who_is_left_out_is_named() -> None:
    """A peer that is not here has a line that says so, and why."""
    assert left_out_lines({"pylibmc": "No module named 'pylibmc' (Python 3.13)"}) == [
        "Left out: pylibmc, which cannot be used here: No module named 'pylibmc' (Python 3.13)"
    ]


def test_details_have_everybody() -> None:
    """Below the table stand all contestants: ours first, then peers from the fastest, then the limit."""
    lines = details(lost()).splitlines()
    assert lines[:3] == ["### memory hit", "", "A note."]
    assert [line.split(" | ")[0].strip("| ") for line in lines if line.startswith("| ")][2:] == [
        "stockpyle",
        "cachebox",
        "cachetools",
        "reference",
    ]
