"""Both ways to make an instance of a row."""

from __future__ import annotations

import pytest

from stockpyle.orm.instances import Reviver, Row


@pytest.fixture(params=["quick", "public"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have every instance made this way: its state written directly, or by SQLAlchemy's public calls."""

    def quick(self: Reviver, row: Row) -> object:
        return self._directly(row) if type(row) is tuple else self._publicly(row)

    chosen: str = request.param
    monkeypatch.setattr(Reviver, "__call__", quick if chosen == "quick" else Reviver._publicly)
    return chosen
