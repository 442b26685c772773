"""What is logged where nothing may be raised, and where it may happen with every record."""

from __future__ import annotations

import logging

import pytest

from stockpyle.coherence.logs import QUIET_SECONDS, Seldom, logger
from stockpyle.testing import Clock


def test_a_flood_is_a_message_and_then_a_number(caplog: pytest.LogCaptureFixture) -> None:
    """Of a kind one message a minute is logged, with how many there were besides."""
    clock = Clock()
    seldom = Seldom(clock)
    for _ in range(3):
        seldom.log(logging.WARNING, "a", "%s is wrong", "a")
    seldom.log(logging.ERROR, "b", "%s is wrong", "b")
    clock.advance(QUIET_SECONDS)
    seldom.log(logging.WARNING, "a", "%s is wrong", "a")
    clock.advance(QUIET_SECONDS)
    seldom.log(logging.WARNING, "a", "%s is wrong", "a")
    assert [(line.levelname, line.getMessage()) for line in caplog.records] == [
        ("WARNING", "a is wrong"),
        ("ERROR", "b is wrong"),
        ("WARNING", "a is wrong (and 2 more since the last such message)"),
        ("WARNING", "a is wrong"),
    ]


def test_logging_raises_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A filter of the application's that raises makes no durable commit look like a failed one."""

    def refuse(line: logging.LogRecord) -> bool:
        raise RuntimeError("no")

    logging.getLogger("stockpyle").addFilter(refuse)
    try:
        logger.error("lost")
    finally:
        logging.getLogger("stockpyle").removeFilter(refuse)
    assert caplog.records == []
