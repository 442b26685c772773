"""One store in many threads, and on both sides of a fork: every call, on every server."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from tests.connections.calls import Calls, go_on
from tests.forks import child_says

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

    def ask() -> bool:
        go_on(asked)
        return True

    with ThreadPoolExecutor(4) as pool:
        busy = [pool.submit(work) for _ in range(4)]
        try:
            answers = [child_says(ask) for _ in range(TIMES)]
        finally:
            stop.set()
    assert answers == [True] * TIMES
    for each in busy:
        each.result()
