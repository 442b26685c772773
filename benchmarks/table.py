"""The table: one line a measurement, printed and as Markdown; below it, every contestant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.contestants import Role
from benchmarks.figures import percent, shown, times
from benchmarks.measurements import Measurement, Result

HEADER = (
    "workload",
    "unit",
    "ours",
    "best peer",
    "limit",
    "ours / limit",
    "peer / ours",
    "CPU: ours / limit",
    "CPU: peer / ours",
    "goal",
    "reached",
    "spread",
)


def cells(measurement: Measurement) -> list[str]:
    """Return a measurement's line of the table.

    Both ratios are above 1 where the other one is slower, and turned round where higher is better.
    """
    ours, peer, limit = measurement.ours, measurement.best_peer, measurement.limit
    reached = [measurement.is_met(goal) for goal in measurement.goals]
    words = {True: "yes", False: "no", None: "?"}
    return [
        measurement.title,
        measurement.unit,
        shown(None if ours is None else ours.wall),
        "" if peer is None else f"{shown(peer.wall)} ({peer.name})",
        "" if limit is None else f"{shown(limit.wall)} ({limit.name})",
        times(ratio(ours, limit)),
        times(ratio(ours, peer) if measurement.higher else ratio(peer, ours)),
        times(ratio(ours, limit, "cpu")),
        times(ratio(peer, ours, "cpu")),
        "; ".join(goal.text(measurement.unit) for goal in measurement.goals),
        ", ".join(words[each] for each in reached),
        "" if ours is None else percent(ours.spread),
    ]


def ratio(over: Result | None, under: Result | None, of: str = "wall") -> float | None:
    above, below = getattr(over, of, None), getattr(under, of, None)
    return above / below if above is not None and below else None


def text_table(rows: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> str:
    """Return a table for a terminal: columns side by side."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    parted = [list(lines[0]), ["-" * width for width in widths], *map(list, lines[1:])]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in parted
    )


def markdown_table(rows: Sequence[Sequence[str]], header: Sequence[str] = HEADER) -> str:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in escaped]
    return "\n".join([lines[0], "|" + " --- |" * len(header), *lines[1:]])


def left_out_lines(left_out: Mapping[str, str]) -> list[str]:
    """Say which peers are in no line, and why."""
    return [f"Left out: {name}, which cannot be used here: {reason}" for name, reason in sorted(left_out.items())]


def details(measurement: Measurement) -> str:
    """Return all contestants of a measurement, ours first, as Markdown."""
    order = list(Role)
    results = sorted(measurement.results, key=lambda each: (order.index(each.role), each.wall))
    rows = [
        [
            each.name,
            each.role.value,
            shown(each.wall),
            shown(each.cpu),
            times(ratio(each, measurement.ours)),
            percent(each.spread),
            str(len(each.walls)),
        ]
        for each in results
    ]
    header = ("contestant", "is", measurement.unit, "CPU", "/ ours", "spread", "rounds")
    note = f"\n{measurement.note}\n" if measurement.note else ""
    return f"### {measurement.title}\n{note}\n{markdown_table(rows, header)}\n"
