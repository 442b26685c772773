"""A process that has met no class yet, and writes a table whose objects others have in a cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.ext.first_statement import Base, Newcomer, make_chain


@pytest.mark.parametrize("way", ["orm", "core", "text"])
def test_the_first_statement_of_a_process_is_seen(way: str, tmp_path: Path, memcached: tuple[str, int]) -> None:
    """A statement is the first thing that a process does: what others have cached of its table is dropped."""
    url, cache = f"sqlite:///{tmp_path / 'test.db'}", "{}:{}".format(*memcached)
    engine = sa.create_engine(url)
    Base.metadata.create_all(engine)
    chain = make_chain(engine, cache)
    chain.put(Newcomer(id=1, name="old"))
    program = [sys.executable, "-m", "tests.ext.first_statement", url, cache, way]
    subprocess.run(program, check=True, cwd=Path(__file__).parents[2])
    assert chain.get(Newcomer, {"id": 1}).name == way
    chain.close()
    engine.dispose()
