from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.plots import pyplot
from benchmarks.table import HEADER
from benchmarks.workloads import NAMES

ROOT = Path(__file__).parents[2]


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the driver in a process of its own, which keeps its connections and listeners to itself."""
    command = [sys.executable, "-W", "ignore::ResourceWarning", "-m", "benchmarks", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT, env=environment, check=False)


def test_every_workload_runs(tmp_path: Path) -> None:
    """All workloads, each as small as can be, end with one table in which stockpyle is in every line, and plots."""
    done = benchmarks("--effort", "tiny", "--seed", "3", "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert re.split(r"  +", printed[0]) == list(HEADER)
    written = (tmp_path / "README.md").read_text(encoding="utf-8")
    lines = [
        line.strip("| ").split(" | ") for line in written.splitlines() if line.startswith("| ") and "---" not in line
    ]
    table = lines[1 : next(i for i, line in enumerate(lines) if line[0] == "contestant")]
    assert len(table) >= len(NAMES)
    for title, _, ours, *_ in table:
        assert ours, f"{title}: stockpyle was not measured"
        assert f"### {title}" in written
    if pyplot() is not None:
        assert (tmp_path / "overview.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_workload_is_an_error_that_names_the_known_ones() -> None:
    """A misspelt name runs nothing."""
    done = benchmarks("memory-hits")
    assert done.returncode == 2
    assert "there is no memory-hits" in done.stderr
    assert all(name in done.stderr for name in NAMES)
