"""Both ways to make an instance of a row."""

from __future__ import annotations

from typing import Any

import pytest

from stockpyle.orm.instances import Reviver, Row, tell_of_load


@pytest.fixture(params=["quick", "public"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have every instance made this way: its state written directly, or by SQLAlchemy's public calls."""

    def make(self: Reviver, row: Row) -> Any:
        return self._directly(row) if chosen == "quick" and type(row) is tuple else self._publicly(row)

    def loaded(self: Reviver, row: Row) -> Any:
        if chosen == "quick" and type(row) is tuple:
            return self._directly_loaded(row)
        instance = self._publicly(row)
        tell_of_load(instance)
        return instance

    chosen: str = request.param
    monkeypatch.setattr(Reviver, "__call__", make)
    monkeypatch.setattr(Reviver, "loaded", loaded)
    return chosen
