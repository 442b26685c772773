"""The checker can fail: it finds each of the wrong systems in a run of a few seconds."""

from __future__ import annotations

import pytest

from tests.coherence.__main__ import options_of
from tests.coherence.mutants import MUTANTS, command
from tests.coherence.runner import VIOLATIONS, run
from tests.servers import Postgres

SEEDS = (1, 2)
"""A seed fixes what is done, but not how processes take turns: what one run misses, another finds."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_system_is_found(name: str, postgres: Postgres) -> None:
    """With one method of production code overridden, somebody is handed what is stale, dirty or not there."""
    for seed in SEEDS:
        arguments = ["--seed", str(seed), "--mutant", name, "--until-found", *command(name)]
        outcome = run(options_of(arguments), postgres)
        if outcome.status == VIOLATIONS:
            return
    pytest.fail(f"not found in {len(SEEDS)} runs; the last said:\n" + "\n".join(outcome.lines()))
