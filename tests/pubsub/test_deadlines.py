"""Waits that end, whatever a driver does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from stockpyle.pubsub.deadlines import Deadlines


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection on which nobody says anything."""
    mine, theirs = socket.socketpair()
    with mine, theirs:
        yield mine, theirs


def read(deadlines: Deadlines, end: socket.socket, seconds: float) -> bytes:
    """Read as libpq does: what was shut down is an error."""
    with deadlines.within(seconds, end.fileno()):
        data = end.recv(10)
        if not data:
            raise ConnectionError("closed")
        return data


def test_a_wait_ends(pair: tuple[socket.socket, socket.socket]) -> None:
    """Who waits too long is told so, by TimeoutError, with the driver's own error as its cause."""
    with pytest.raises(TimeoutError, match=r"no answer within 0.05 s") as failure:
        read(Deadlines(), pair[0], 0.05)
    assert isinstance(failure.value.__cause__, ConnectionError)


def test_a_connection_is_not_cut_after_the_wait(pair: tuple[socket.socket, socket.socket]) -> None:
    """Once an answer has come, the time that was left for it is of no matter, and other errors stay what they are."""
    deadlines, (mine, theirs) = Deadlines(), pair
    theirs.sendall(b"1")
    assert read(deadlines, mine, 0.05) == b"1"
    with pytest.raises(ZeroDivisionError), deadlines.within(60, mine.fileno()):
        raise ZeroDivisionError
    other, silent = socket.socketpair()
    with other, silent, pytest.raises(TimeoutError):
        read(deadlines, other, 0.1)
    theirs.sendall(b"2")
    assert read(deadlines, mine, 60) == b"2"


def test_who_could_not_wait_is_forgotten(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait that never began, for want of a thread, cuts nobody: by then the number may be another connection's."""
    deadlines, (mine, theirs) = Deadlines(), pair
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("no more threads")))
        with pytest.raises(RuntimeError, match="no more threads"):
            read(deadlines, mine, 0.05)
    other, silent = socket.socketpair()
    with other, silent, pytest.raises(TimeoutError):
        read(deadlines, other, 0.1)
    theirs.sendall(b"1")
    assert read(deadlines, mine, 60) == b"1"


def test_each_has_its_own_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    """One who begins later and has less time is cut first; the other gets its answer."""
    deadlines, (mine, theirs) = Deadlines(), pair
    impatient, silent = socket.socketpair()
    with impatient, silent, ThreadPoolExecutor(1) as threads:
        patient = threads.submit(read, deadlines, mine, 60)
        with pytest.raises(TimeoutError):
            read(deadlines, impatient, 0.05)
        theirs.sendall(b"1")
        assert patient.result() == b"1"


def test_one_thread_for_all() -> None:
    """However many wait, one daemon thread looks after them."""
    deadlines = Deadlines()
    before = threading.active_count()
    with deadlines.within(60, 0), deadlines.within(60, 0):
        assert threading.active_count() == before + 1
