"""What a user's type checker sees."""

from __future__ import annotations

from pathlib import Path

from mypy import api

USAGE = Path(__file__).parent / "typing" / "usage.py"


def test_types_are_what_users_expect() -> None:
    """`User | None`, `list[User | None]`, `sessionmaker[MySession]`: under mypy --strict the usage file has no error."""
    report, errors, status = api.run(["--strict", str(USAGE)])
    assert status == 0, report + errors
