"""The checker can fail: it finds each of the wrong systems in a run of a few seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.coherence.mutants import MUTANTS, RECORDED, command
from tests.coherence.runner import BROKEN, VIOLATIONS

TIMES = (1, 2, 4)
"""A seed fixes what is done, but not how processes take turns: what one run misses, another finds that lasts longer."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_system_is_found(name: str) -> None:
    """With one method of production code overridden, somebody is handed what is stale, dirty or not there."""
    for seed, times in enumerate(TIMES, start=1):
        arguments = command(name, times)
        done = subprocess.run(
            [sys.executable, "-m", "tests.coherence", "--seed", str(seed), "--mutant", name, *arguments],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            check=False,
        )
        assert done.returncode < BROKEN, done.stdout + done.stderr
        if done.returncode == VIOLATIONS:
            return
    pytest.fail(f"not found in {len(TIMES)} runs; the last said:\n{done.stdout}")


def test_each_has_its_recorded_run_and_says_what_it_does_wrong() -> None:
    """No mutant without arguments that find it, and a sentence."""
    assert set(RECORDED) == set(MUTANTS)
