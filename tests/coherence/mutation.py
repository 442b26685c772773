"""How systems are made wrong: a mutant overrides one method of production code, and says which run finds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Real = Callable[..., Any]

MUTANTS: dict[str, Callable[[], None]] = {}
"""By name: a function that, called in each worker before it makes its system, spoils it."""

FOUND_BY: dict[str, str] = {}
"""The arguments of the run that finds it, in a few seconds; the unchanged system comes through the same run."""


def instead_of(owner: Any, method: str, found_by: str) -> Callable[[Real], Real]:
    """Make a mutant of a function, which takes the real method before the method's own arguments."""

    def register(mutant: Real) -> Real:
        def spoil() -> None:
            real = getattr(owner, method)

            def mutated(*args: Any, **kw: Any) -> Any:
                return mutant(real, *args, **kw)

            setattr(owner, method, mutated)

        name = mutant.__name__.replace("_", "-")
        MUTANTS[name], FOUND_BY[name] = spoil, found_by
        return mutant

    return register
