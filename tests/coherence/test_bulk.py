"""The steps past the unit of work: what they leave in the database, in every way that each can be done."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tests.coherence.audit import WRITES, Transactions, create, read_log
from tests.coherence.bulk import BulkSteps
from tests.coherence.models import TABLES, WRITES_EACH
from tests.coherence.outside import Outside
from tests.coherence.pools import initial
from tests.coherence.steps import Step
from tests.coherence.workload import OUTSIDE, PAST

WAYS = [*range(0, 1 << 12, 89), 6, 7, 39, 102]
"""Of the many ways some: every bit is set in a few, and the rare conditions are among them."""


class Writer:
    """One transaction after another, on a database with the first objects in it."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine.execution_options(**{WRITES: True})
        self.transactions = Transactions(engine)
        create(engine)
        self.number = 0
        self.told: list[tuple[str, int, int]] = []
        self.outside = Outside(engine, self.wid)
        with self.session() as session:
            session.add_all(initial(self.wid))
            session.commit()

    def wid(self, count: int = 1) -> int:
        """Give write ids."""
        self.wids += count
        return self.wids - count + 1

    def session(self) -> Session:
        """Return the session of the next transaction."""
        self.number += 1
        self.transactions.number, self.wids = self.number, self.number * WRITES_EACH
        return Session(self.engine)

    def do(self, step: Step) -> None:
        """Do a step in a transaction, and commit it if the database lets it."""
        with self.session() as session:
            if step.name == OUTSIDE:
                self.transactions.number = 0
                self.outside.begin(self.number)
                self.outside.write(step)
                self.outside.commit()
                return
            steps = BulkSteps(
                session,
                self.wid,
                lambda own, klass, key: own.get(klass, key["id"]),
                counted=lambda *c: self.told.append(c),
            )
            try:
                steps.do(step)
                session.commit()
            except IntegrityError:
                session.rollback()


@pytest.fixture
def writer(engine: sa.Engine) -> Iterator[Writer]:
    """A writer, on SQLite and on PostgreSQL."""
    made = Writer(engine)
    yield made
    made.outside.close()


@pytest.mark.parametrize("name", sorted(PAST))
def test_every_row_gets_a_write_id_of_its_own(name: str, writer: Writer) -> None:
    """Whatever way a step takes, no two rows that it writes have one write id, and its transaction is in it."""
    for i, way in enumerate(WAYS):
        writer.do(Step(name, i % 16, (i * 7 + 3) % 16, i % 11, (i * 5 + 2) % 11, way))
    with writer.engine.connect() as connection:
        log = read_log(connection)
    written = [entry for entry in log if entry.tx > 1]
    assert len({entry.tx for entry in written}) > 2
    new = [entry.new for entry in log if entry.new is not None]
    assert len(new) == len(set(new))
    assert all(wid // WRITES_EACH == entry.tx for entry in log for wid in [entry.new] if wid is not None)
    assert {TABLES[entry.table].name for entry in written} <= {"accounts", "people", "members"}
    assert [(said, wrote) for said, wrote, told in writer.told if wrote != told] == []
