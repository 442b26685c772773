"""What a worker makes of what it sees, where the judge could not tell."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.coherence.models import WRITES_EACH, Account, Base
from tests.coherence.steps import Step
from tests.coherence.worker import Worker
from tests.coherence.workload import Plan


def test_own_writes_are_compared_with_the_row_and_not_with_what_a_session_remembers() -> None:
    """Others may move a key between a session's SELECT and its UPDATE: it then asks for the key that the row has."""
    engine = sa.create_engine("sqlite://")
    Base.metadata.create_all(engine)
    seen: list[tuple[Any, ...]] = []
    worker: Any = Worker.__new__(Worker)
    worker.number, worker.counts = 1, Counter()
    worker.history = SimpleNamespace(add=lambda *frame: seen.append(frame))
    worker.system = SimpleNamespace(
        get_into=lambda session, klass, key: session.scalars(sa.select(klass).filter_by(**key)).one_or_none()
    )
    step = Step("update_a", account=1, other=0, person=0, other_person=0)
    with Session(engine) as session:
        for i in range(2):
            session.add(
                Account(id=i, email=f"e{i}", org="o", login=f"l{i}", nick=f"n{i}", wid=i, a1=0, a2=0, b1=0, b2=0)
            )
        session.commit()
        mine = session.get_one(Account, 1)
        for i, email in ((1, "free"), (0, "e1"), (1, "e0")):
            session.connection().execute(sa.update(Account).where(Account.id == i).values(email=email))
        mine.wid = WRITES_EACH + 1
        session.flush()
        worker._read_own(session, Plan("READ COMMITTED", [step], rolls_back=False, flushes=True, into_session=False))
    ((_, _, _, asked, own, found),) = seen
    assert asked == "e0"
    assert own == found
