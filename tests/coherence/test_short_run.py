"""The whole checker, for a short time; `make coherence` runs it at length."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FINE, VIOLATIONS, VOID = 0, 1, 2


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the checker as from the command line."""
    return subprocess.run(
        [sys.executable, "-m", "tests.coherence", *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )


def run_well(seconds: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the checker; for longer if too little has happened, as on a machine with much else to do."""
    for longer in (1, 3, 9):
        done = run("--seconds", str(longer * seconds), *arguments)
        if done.returncode != VOID:
            return done
    return done


def test_nobody_is_handed_anything_stale_or_dirty() -> None:
    """Eight processes, PostgreSQL, memcached and every fault, for half a minute."""
    done = run_well(30, "--workers", "8", "--seed", "1", "--database", "postgresql", "--faults", "all")
    assert done.returncode == FINE, done.stdout + done.stderr


def test_nor_is_anybody_on_sqlite() -> None:
    """SQLite in WAL mode as the source, where one writer at a time leaves less to go wrong."""
    faults = "kill-after-lock,kill-after-commit,kill-between-tiers,pause-cache-short,restart-cache"
    done = run_well(16, "--workers", "4", "--seed", "1", "--rows", "40", "--database", "sqlite", "--faults", faults)
    assert done.returncode == FINE, done.stdout + done.stderr


def test_nor_longer_than_memory_may_keep_it() -> None:
    """Processes with a memory of their own over a Redis hand out what is older than a commit, by a second at most."""
    faults = "kill-after-commit,cut-cache,pause-cache-long,restart-cache"
    done = run_well(16, "--workers", "4", "--seed", "1", "--system", "stockpyle-memory-redis", "--faults", faults)
    assert done.returncode == FINE, done.stdout + done.stderr
    assert "reads older than a commit" in done.stdout


def test_the_usual_pattern_is_caught() -> None:
    """Look-aside with invalidation after the commit is stale without any fault, and the checker says so."""
    done = run("--seconds", "8", "--workers", "6", "--seed", "1", "--faults", "none", "--system", "look-aside")
    assert done.returncode == VIOLATIONS, done.stdout + done.stderr
    assert "stale" in done.stdout


def test_plain_objects_are_as_right() -> None:
    """Plain objects in a SqlTableStore, behind validated memory and a Redis, put and deleted and found by two keys."""
    done = run_well(10, "--workers", "4", "--seed", "1", "--system", "plain-validated", "--database", "sqlite")
    assert done.returncode == FINE, done.stdout + done.stderr


def test_the_usual_pattern_is_caught_with_plain_objects_too() -> None:
    """Over the same table, look-aside is stale without any fault."""
    done = run_well(8, "--workers", "4", "--seed", "1", "--system", "plain-look-aside", "--faults", "none")
    assert done.returncode == VIOLATIONS, done.stdout + done.stderr
    assert "stale" in done.stdout


def test_a_run_that_proves_nothing_is_void() -> None:
    """A run in which hardly anything happened says so, and does not pass."""
    done = run("--seconds", "1", "--workers", "1", "--faults", "none")
    assert done.returncode == VOID, done.stdout + done.stderr
