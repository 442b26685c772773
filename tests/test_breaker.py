"""When a breaker lets a call through."""

from __future__ import annotations

from stockpyle.coherence.breaker import Breaker
from stockpyle.testing import Clock


def test_first_failure_opens_it() -> None:
    """One failure opens it, and only the change is told."""
    breaker = Breaker(1.0, Clock())
    assert not breaker.is_open
    error = OSError()
    assert breaker.failed(error)
    assert not breaker.failed(OSError())
    assert breaker.is_open


def test_one_caller_tries_when_it_is_time() -> None:
    """Before the probe is due nobody is let through, then one caller, and after it the next."""
    clock = Clock()
    breaker = Breaker(1.0, clock)
    breaker.failed(OSError())
    clock.advance(0.9)
    assert not breaker.begin()
    clock.advance(0.1)
    assert breaker.begin()
    assert not breaker.begin()
    breaker.end()
    assert breaker.begin()


def test_try_that_never_ends_is_not_the_last() -> None:
    """An interrupt may come between a try and its end: after a minute another caller is let through."""
    clock = Clock()
    breaker = Breaker(1.0, clock)
    assert breaker.begin()
    clock.advance(59)
    assert not breaker.begin()
    clock.advance(1)
    assert breaker.begin()
    assert not breaker.begin()


def test_failed_try_puts_the_next_off() -> None:
    """A try that fails leaves it open for as long again."""
    clock = Clock()
    breaker = Breaker(1.0, clock)
    breaker.failed(OSError())
    clock.advance(1)
    assert breaker.begin()
    breaker.failed(OSError())
    breaker.end()
    assert not breaker.begin()
    clock.advance(1)
    assert breaker.begin()


def test_success_closes_it() -> None:
    """A try that goes well closes it, and only the change is told."""
    clock = Clock()
    breaker = Breaker(1.0, clock)
    breaker.failed(OSError())
    assert breaker.succeeded()
    assert not breaker.succeeded()
    assert (breaker.is_open, breaker.error) == (False, None)
    assert breaker.begin()
