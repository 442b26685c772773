"""How a write of a source has ended, as far as that is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stockpyle.protocols import Outcome, Pending


@contextmanager
def committed(
    pending: Pending, commit: Callable[[], None], failed_for_sure: Callable[[Exception], bool]
) -> Iterator[None]:
    """Commit at the end of the block, unless an exception leaves it, and write into `pending` how that went.

    failed_for_sure: tells of the error of a commit if it certainly did not happen.
    """
    try:
        yield
    except BaseException:
        pending.outcome = Outcome.ROLLED_BACK
        raise
    # what fails from here on may have happened
    pending.outcome = Outcome.UNKNOWN
    try:
        commit()
    except Exception as error:
        if failed_for_sure(error):
            pending.outcome = Outcome.ROLLED_BACK
        raise
    pending.outcome = Outcome.COMMITTED
