"""Text for people: headings, aligned columns, numbers that can be read; colours on a terminal only."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

WIDTH = 98
_COLOURS = {"bold": "1", "dim": "2", "green": "32", "red": "31", "cyan": "36"}


def paint(text: str, colour: str) -> str:
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb":
        return text
    return f"\033[{_COLOURS[colour]}m{text}\033[0m"


def heading(text: str) -> None:
    print()
    print(paint(text, "bold"))
    print(paint("─" * WIDTH, "dim"))


def note(text: str) -> None:
    print(paint(f"  {text}", "dim"))


def done(what: str, result: str) -> None:
    """Print one thing that was done, and what was seen afterwards."""
    print(f"  {paint('ok', 'green')}  {what}")
    print(f"      {paint(result, 'dim')}")


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], left: int = 2) -> None:
    """Print columns as wide as they must be, the first `left` of them flush left; the last is a gain, or a loss.

    Titles may have several lines.
    """
    height = max(title.count("\n") for title in titles) + 1
    split = [[""] * (height - 1 - title.count("\n")) + title.split("\n") for title in titles]
    heads = [[title[i] for title in split] for i in range(height)]
    lines = [*heads, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(titles))]
    for number, line in enumerate(lines):
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        if number < height:
            print("  " + paint("  ".join(cells).rstrip(), "cyan"))
        else:
            gain = cells.pop()
            print("  " + "  ".join([*cells, paint(gain, "red" if gain.lstrip().startswith("0") else "green")]))


def count(number: int) -> str:
    return f"{number:,}" if number else "·"


def micros(seconds: float) -> str:
    """Return a time in microseconds, with as many digits as it is worth."""
    value = seconds * 1e6
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def times(ratio: float) -> str:
    return f"{ratio:.1f}x" if ratio < 10 else f"{ratio:,.0f}x"
