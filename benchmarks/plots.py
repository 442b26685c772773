"""The plots: how far each goal is, and the growth of each group over its x."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contestants import Role
from benchmarks.measurements import Measurement, Result

STYLES = {Role.OURS: "-", Role.PEER: "--", Role.LIMIT: ":", Role.BESIDE: "-."}


def pyplot() -> Any:
    """Return matplotlib's pyplot, which draws into files here; None if it is not installed."""
    try:
        importlib.import_module("matplotlib").use("Agg")
        return importlib.import_module("matplotlib.pyplot")
    except ImportError:
        return None


def write_plots(measurements: Sequence[Measurement], folder: Path) -> list[Path]:
    """Draw all plots, and return their files; none without matplotlib."""
    plt = pyplot()
    if plt is None:
        return []
    groups = {each.group: [other for other in measurements if other.group == each.group] for each in measurements}
    single = [each for each in groups.pop("", []) if each.ours is not None]
    written = [_bars(plt, single, folder / "overview.png")] if single else []
    for name, members in groups.items():
        draw = _columns if members[0].x is None else _lines
        if len(members) > 1:
            written.append(draw(plt, name, members, folder / f"{name.replace(' ', '-')}.png"))
    return written


def _bars(plt: Any, measurements: Sequence[Measurement], path: Path) -> Path:
    """Draw how many times ours each other contestant takes, one row a measurement; ours is the line at 1."""
    figure, axes = plt.subplots(figsize=(10, 1.5 + 0.32 * len(measurements)))
    marks = {
        Role.PEER: ("o", "tab:blue", "peer"),
        Role.LIMIT: ("|", "tab:red", "limit"),
        Role.BESIDE: (".", "gray", "beside"),
    }
    for role, (mark, color, label) in marks.items():
        points = [
            (result.wall / each.ours.wall, row)
            for row, each in enumerate(measurements)
            for result in each.results
            if result.role is role and each.ours is not None and each.ours.wall and result.wall
        ]
        if points:
            axes.scatter(*zip(*points, strict=True), marker=mark, color=color, label=label, s=60)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(measurements)), [each.title for each in measurements], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("times stockpyle's figure (left of the line: less than stockpyle)")
    axes.legend(loc="best")
    return _saved(plt, figure, path)


def _lines(plt: Any, name: str, members: Sequence[Measurement], path: Path) -> Path:
    figure, axes = plt.subplots(figsize=(9, 5.5))
    drawn: dict[str, list[tuple[float, Result]]] = {}
    for each in members:
        for result in each.results:
            drawn.setdefault(result.name, []).append((each.x or 0.0, result))
    for label, points in drawn.items():
        style = STYLES[points[0][1].role]
        axes.plot([x for x, _ in points], [result.wall for _, result in points], style, marker="o", label=label)
    axes.set_xscale("log")
    axes.set_xticks([each.x for each in members], [f"{each.x:,g}" for each in members])
    axes.minorticks_off()
    if not members[0].higher:
        axes.set_yscale("log")
    axes.set_xlabel(members[0].x_name)
    axes.set_ylabel(members[0].unit)
    axes.set_title(name)
    axes.legend(fontsize=8)
    return _saved(plt, figure, path)


def _columns(plt: Any, name: str, members: Sequence[Measurement], path: Path) -> Path:
    """Draw the figures of each measurement beside each other."""
    figure, axes = plt.subplots(figsize=(11, 5.5))
    labels = [result.name for result in members[0].results]
    width = 0.8 / len(labels)
    for i, label in enumerate(labels):
        heights = [result.wall for each in members for result in each.results if result.name == label]
        axes.bar([place + i * width for place in range(len(members))], heights, width, label=label)
    axes.set_xticks(
        [place + 0.4 - width / 2 for place in range(len(members))],
        [each.title.removeprefix(f"{name}, ") for each in members],
    )
    axes.set_ylabel(members[0].unit)
    axes.set_title(name)
    axes.legend(fontsize=8)
    return _saved(plt, figure, path)


def _saved(plt: Any, figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
