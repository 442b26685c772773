"""Contestants in a process that has never imported stockpyle.

stockpyle listens to all Engines and Sessions of a process. Whoever is measured without it must not pay for that.
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

    def __init__(self, name: str, role: Role, ask: Callable[..., Any]) -> None:
        self.name = name
        self.role = role
        self._ask = ask

    def prepare(self, seconds: float) -> None:
        self._ask("prepare", seconds)

    def sample(self) -> Sample:
        sample: Sample = self._ask("sample")
        return sample


def elsewhere(stack: ExitStack, factory: Factory, *arguments: Any, **options: Any) -> list[Contestant]:
    """Have a new process make contestants, and return what stands for them here; it ends with the stack."""
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=_serve, args=(other, partial(factory, *arguments, **options)), daemon=True)
    process.start()
    other.close()

    def ask(number: int, method: str, *given: Any) -> Any:
        pipe.send((number, method, given))
        return _answer(pipe)

    def end() -> None:
        pipe.close()
        process.join(PATIENCE)

    stack.callback(end)

    def proxy(number: int, name: str, role: Role) -> Remote:
        return Remote(name, role, lambda *asked: ask(number, *asked))

    return [proxy(number, name, role) for number, (name, role) in enumerate(_answer(pipe))]


def _answer(pipe: Any) -> Any:
    if not pipe.poll(PATIENCE):
        raise TimeoutError("the other process does not answer")
    done, answer = pipe.recv()
    if not done:
        raise RuntimeError(f"the other process has failed: {answer}")
    return answer


def _serve(pipe: Any, factory: Any) -> None:
    try:
        contestants = factory()
        if "stockpyle" in sys.modules:
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
