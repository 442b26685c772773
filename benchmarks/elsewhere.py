"""Contestants in processes of their own.

stockpyle listens to all Engines and Sessions of a process. Whoever is measured without it must not pay for that:
`elsewhere` sees that the new process has never imported it.
"""

from __future__ import annotations

import gc
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks.contestants import Contestant, Role, Sample

PATIENCE = 120.0

Factory = Callable[..., Sequence[Contestant]]


class Remote:
    """A contestant over there."""

    def __init__(self, name: str, role: Role, number: int, pipe: Any) -> None:
        self.name = name
        self.role = role
        self._number = number
        self._pipe = pipe

    def prepare(self, seconds: float) -> None:
        self.send("prepare", seconds)
        self.receive()

    def sample(self) -> Sample:
        self.send("sample")
        sample: Sample = self.receive()
        return sample

    def send(self, method: str, *arguments: Any) -> None:
        """Have it begin."""
        self._pipe.send((self._number, method, arguments))

    def receive(self) -> Any:
        """Wait for what it has to say."""
        return _answer(self._pipe)


def elsewhere(stack: ExitStack, factory: Factory, *arguments: Any, **options: Any) -> list[Remote]:
    """Have a new process without stockpyle make contestants, and return what stands for them here."""
    return _remotes(stack, partial(factory, *arguments, **options), without_stockpyle=True)


def remotes(stack: ExitStack, factory: Factory, *arguments: Any) -> list[Remote]:
    """Have any new process make them."""
    return _remotes(stack, partial(factory, *arguments), without_stockpyle=False)


def _remotes(stack: ExitStack, factory: Any, *, without_stockpyle: bool) -> list[Remote]:
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=_serve, args=(other, factory, without_stockpyle), daemon=True)
    process.start()
    other.close()

    def end() -> None:
        pipe.close()
        process.join(PATIENCE)

    stack.callback(end)
    return [Remote(name, role, number, pipe) for number, (name, role) in enumerate(_answer(pipe))]


def _answer(pipe: Any) -> Any:
    if not pipe.poll(PATIENCE):
        raise TimeoutError("the other process does not answer")
    done, answer = pipe.recv()
    if not done:
        raise RuntimeError(f"the other process has failed: {answer}")
    return answer


def _serve(pipe: Any, factory: Any, without_stockpyle: bool) -> None:
    try:
        contestants = factory()
        if without_stockpyle and "stockpyle" in sys.modules:
            raise AssertionError(f"{factory.func.__module__} has imported stockpyle")
        pipe.send((True, [(each.name, each.role) for each in contestants]))
        gc.freeze()
    except BaseException as error:
        pipe.send((False, repr(error)))
        raise
    while True:
        try:
            number, method, given = pipe.recv()
        except EOFError:
            return
        try:
            answer = True, getattr(contestants[number], method)(*given)
        except Exception as error:  # noqa: BLE001  # it is raised over there
            answer = False, f"{contestants[number].name}: {error!r}"
        pipe.send(answer)
