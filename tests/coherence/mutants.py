"""Wrong systems: each overrides one method of production code in a few lines. The checker has to find them.

What a mutant does wrong is said in its docstring, with the rule of docs/consistency.md that it breaks. The unchanged
system comes through the same runs.
"""

from __future__ import annotations

from tests.coherence import mutants_of_epochs, mutants_of_keys, mutants_of_memory
from tests.coherence.mutation import FOUND_BY, MUTANTS

SECONDS = 40
"""How long a mutant may stay unfound in one run: one that is found ends its run."""


def command(name: str) -> list[str]:
    """Return the arguments of its run, but --mutant and --seed. Of two of a kind, the later one counts."""
    return ["--workers", "4", "--faults", "none", "--seconds", str(SECONDS), *FOUND_BY[name].split()]


def apply(name: str) -> None:
    """Spoil this process."""
    if name not in MUTANTS:
        raise SystemExit(f"no mutant {name!r}: there are {', '.join(MUTANTS) or 'none'}")
    MUTANTS[name]()


__all__ = ["FOUND_BY", "MUTANTS", "apply", "command", "mutants_of_epochs", "mutants_of_keys", "mutants_of_memory"]
