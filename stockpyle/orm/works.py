"""What is to be done in the tiers for what a database transaction has written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import sqlalchemy as sa

from stockpyle.coherence.publishing import OnWrite
from stockpyle.coherence.writer import Writer
from stockpyle.keys import Key
from stockpyle.protocols import Change, Source


@dataclass(slots=True)
class Work:
    """A writer for some of a commit's changes, and where what it publishes is loaded from."""

    writer: Writer
    source: Source
    on_write: OnWrite


class Target(Protocol):
    """What keeps copies of what is committed: an extension, for the session that it listens to.

    rows_by_key: how many rows of one statement past the unit of work it wants to have named.
    """

    rows_by_key: int

    def works(self, engine: sa.Engine, changes: Sequence[Change], epochs: Sequence[Key]) -> list[Work]:
        """Return the writers for these changes, not yet locked."""
        ...


def end_each(works: Sequence[Work], end: Callable[[Work], None]) -> None:
    """End all of them: an interrupt in one must not let another be forgotten."""
    if len(works) == 1:
        end(works[0])
        return
    with ExitStack() as stack:
        for work in reversed(works):
            stack.callback(end, work)
