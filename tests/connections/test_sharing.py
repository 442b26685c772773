"""One store in many threads, and on both sides of a fork: every call, on every server."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

from tests.connections.calls import Calls, go_on
from tests.servers import PATIENCE

TIMES = 5


def without_puts(calls: Calls) -> Calls:
    """Return the calls of which each is answered the same, whoever else calls; the counters count."""
    return {
        name: call for name, call in calls.items() if not name.endswith(("put", "delete", "reset", "value", "drop"))
    }


def counted(calls: Calls) -> list[int]:
    """Return what the counters say."""
    return [call() for name, call in calls.items() if name.endswith("value")]


def test_sixteen_threads(calls: Calls) -> None:
    """Each is answered right, by the answer to its own question, and no step of a counter is lost."""
    go_on(calls)
    before = counted(calls)
    asked = without_puts(calls)

    def ask(number: int) -> None:
        for _ in range(TIMES):
            go_on(asked)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(16)))
    assert counted(calls) == [value + 16 * TIMES for value in before]


def test_both_sides_of_a_fork(calls: Calls) -> None:
    """Both go on with the store, each by connections of its own, and neither hears the other's answers."""
    go_on(calls)
    before = counted(calls)
    asked = without_puts(calls)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for _ in range(TIMES):
                go_on(asked)
            code = 0
        finally:
            os._exit(code)
    for _ in range(TIMES):
        go_on(asked)
    assert os.waitpid(child, 0)[1] == 0
    assert counted(calls) == [value + 2 * TIMES for value in before]


def test_a_child_of_a_busy_parent(calls: Calls) -> None:
    """A child that is forked while other threads use the store finds no lock held."""
    go_on(calls)
    asked = without_puts(calls)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            go_on(asked)

    with ThreadPoolExecutor(4) as pool:
        busy = [pool.submit(work) for _ in range(4)]
        try:
            endings = [_in_a_child(asked) for _ in range(TIMES)]
        finally:
            stop.set()
    assert endings == [0] * TIMES
    for each in busy:
        each.result()


def _in_a_child(asked: Calls) -> int:
    """Return how a child ends that goes on with the calls."""
    with warnings.catch_warnings():
        # Python 3.12 warns of forks in processes with threads, which are what is tested here
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            go_on(asked)
            code = 0
        finally:
            os._exit(code)
    timer = threading.Timer(PATIENCE, os.kill, (child, signal.SIGKILL))
    timer.start()
    _, status = os.waitpid(child, 0)
    timer.cancel()
    return status
