from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the root of the repository, where it finds this package and the demo's files."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "demo")])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def test_demo_shows_every_key_and_finds_nothing_wrong() -> None:
    """The demo exits with 0, has a line for every key of every class, and fits into 100 columns without colours."""
    done = run("demo/run.py")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for what, key in [
        ("Country", "alpha_2"),
        ("Country", "alpha_3"),
        ("Country", "numeric"),
        ("Subdivision", "code"),
        ("Subdivision", r"country \+ local"),
        ("Language", "alpha_3"),
        ("Language", "alpha_2"),
        ("Currency", "alpha_3"),
        ("Currency", "numeric"),
    ]:
        lines = re.findall(rf"^  {what} +{key} +([\d,]+) +([\d,]+) +([\d,]+) ", done.stdout, re.MULTILINE)
        counted = [[int(number.replace(",", "")) for number in line] for line in lines]
        assert len(counted) == 2, (what, key)
        for reads, by_memory, by_database in counted:
            assert by_memory == by_database == reads / 2 > 0
    assert re.search(r"ok  [\d,]+ reads by every key of every row agree with the database", done.stdout)
    assert len(re.findall(r"^  ok  ", done.stdout, re.MULTILINE)) == 10
    assert "\033" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_demo_fails_loudly_when_something_is_wrong() -> None:
    """If an answer is not what the database has, the demo says so and exits with 1."""
    done = run(
        "-c",
        "import sys, run, stack\n"
        "right = stack.Stack.rows\n"
        "stack.Stack.rows = lambda self, klass: [(*row[:-1], 'wrong') for row in right(self, klass)]\n"
        "sys.exit(run.main())",
    )
    assert done.returncode == 1
    assert "WRONG" in done.stderr
    assert "but the database has" in done.stderr
