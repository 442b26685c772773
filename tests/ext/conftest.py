"""Databases for the tests of the session extension."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ext.worlds import World

MakeWorld = Callable[..., World]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database, an SQLite file and a PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def make_world() -> Iterator[MakeWorld]:
    """What makes worlds, and closes them after the test."""
    made: list[World] = []

    def make(url: str, **options: Any) -> World:
        made.append(World(url, **options))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture(params=["chain", "bare"])
def any_world(request: pytest.FixtureRequest, database_url: str, make_world: MakeWorld) -> World:
    """A world whose extension has the chain, or only its memory."""
    return make_world(database_url, bare=request.param == "bare")


@pytest.fixture
def world(database_url: str, make_world: MakeWorld) -> World:
    """A world whose extension has the chain."""
    return make_world(database_url)


@pytest.fixture
def postgres_world(postgres_url: str, make_world: MakeWorld) -> World:
    """A world on PostgreSQL."""
    return make_world(postgres_url)


@pytest.fixture
def sqlite_world(tmp_path: Path, make_world: MakeWorld) -> World:
    """A world on an SQLite file."""
    return make_world(f"sqlite:///{tmp_path}/test.db")
