"""A second process, with chains of its own in front of the same database and the same memcached."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from stack import Stack

T = TypeVar("T")

_own: list[Stack] = []
"""In the second process: its stack."""


class Other:
    """The second process, from where the first one stands."""

    def __init__(self, folder: Path, memcache: str, prefix: str) -> None:
        # spawned, so that it shares no memory and no connection with this one
        self._pool = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_start, initargs=(folder, memcache, prefix)
        )

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function there, with its stack as the first argument, and return the result."""
        return self._pool.submit(_call, function, arguments).result()

    def close(self) -> None:
        self._pool.submit(_stop).result()
        self._pool.shutdown()


def _start(folder: Path, memcache: str, prefix: str) -> None:
    _own.append(Stack(folder, memcache, prefix))


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(_own[0], *arguments)


def _stop() -> None:
    _own.pop().close()
