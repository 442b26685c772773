from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks.shapes import create, shape


def test_the_same_seed_draws_the_same_class() -> None:
    """A seed and a purpose name one class with its rows, in every process; another seed another one."""
    assert shape(1, "tests") == shape(1, "tests")
    assert shape(1, "tests").row(5) == shape(1, "tests").row(5)
    assert shape(1, "tests").names != shape(2, "tests").names


@pytest.mark.parametrize("seed", range(10))
def test_no_two_rows_have_a_key_in_common(seed: int) -> None:
    """Each of the three keys tells all rows apart."""
    drawn = shape(seed, "tests")
    for keys in (drawn.single, drawn.pair, drawn.alternate):
        picks = drawn.picks(keys, range(1, 3000))
        assert len(set(picks)) == len(picks)


def test_objects_can_be_pickled() -> None:
    """A drawn class is found by its name, as a cache of another process needs it."""
    drawn = shape(1, "tests")
    made = drawn.instance(drawn.plain(), 7)
    assert drawn.values(pickle.loads(pickle.dumps(made))) == drawn.row(7)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("composite", [False, True])
def test_rows_come_back_from_the_database_as_they_were(seed: int, composite: bool, tmp_path: Path) -> None:
    """The table has the rows, and who looks at one finds it whole, and right only for its own key."""
    drawn, url = shape(seed, f"tests {composite}", composite=composite), f"sqlite:///{tmp_path}/rows.db"
    create(url, drawn, 3)
    with Session(sa.create_engine(url)) as session:
        rows = list(session.scalars(sa.select(drawn.mapped())))
        picks = drawn.picks(drawn.identity, [1, 2, 3])
        right, all_right = drawn.is_row(drawn.identity), drawn.are_rows(drawn.identity)
        by_pick = {drawn.key_of(row, drawn.identity): row for row in rows}
        assert right(by_pick[picks[0]], picks[0])
        assert not right(by_pick[picks[0]], picks[1])
        assert all_right(rows, picks)
        assert not all_right(rows[:2], picks)
