"""Child processes."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable

from tests.servers import PATIENCE


def child_says(work: Callable[[], bool], within: float = PATIENCE) -> bool:
    """Fork, and return what `work` returns in the child; False if that has not ended after so many seconds."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of forks in processes with threads, which are what is tested here
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        # nothing of pytest may run in here
        answer = b"0"
        try:
            answer = b"1" if work() else b"0"
        finally:
            os.write(writing, answer)
            os._exit(0)
    os.close(writing)
    timer = threading.Timer(within, os.kill, (child, signal.SIGKILL))
    timer.start()
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    timer.cancel()
    os.waitpid(child, 0)
    return answer == b"1"
