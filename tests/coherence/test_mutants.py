"""The checker can fail: it finds each of the wrong systems in a run of a few seconds."""

from __future__ import annotations

import pytest

from tests.coherence.__main__ import options_of
from tests.coherence.mutants import MUTANTS, RECORDED, command
from tests.coherence.runner import VIOLATIONS, run
from tests.servers import Postgres

TIMES = (1, 2, 4)
"""A seed fixes what is done, but not how processes take turns: what one run misses, another finds that lasts longer."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_system_is_found(name: str, postgres: Postgres) -> None:
    """With one method of production code overridden, somebody is handed what is stale, dirty or not there."""
    for seed, times in enumerate(TIMES, start=1):
        arguments = ["--seed", str(seed), "--mutant", name, *command(name, times)]
        outcome = run(options_of(arguments), postgres)
        if outcome.status == VIOLATIONS:
            return
    pytest.fail(f"not found in {len(TIMES)} runs; the last said:\n" + "\n".join(outcome.lines()))


def test_each_has_its_recorded_run_and_says_what_it_does_wrong() -> None:
    """No mutant without arguments that find it, and a sentence."""
    assert set(RECORDED) == set(MUTANTS)
