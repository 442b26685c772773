"""Wrong systems: each overrides one method of production code in a few lines. The checker has to find them."""

from __future__ import annotations

from collections.abc import Callable

MUTANTS: dict[str, Callable[[], None]] = {}
"""What --mutant takes: a function that, called in each worker before it makes its system, spoils it."""


def apply(name: str) -> None:
    """Spoil this process."""
    if name not in MUTANTS:
        raise SystemExit(f"no mutant {name!r}: there are {', '.join(MUTANTS) or 'none'}")
    MUTANTS[name]()
