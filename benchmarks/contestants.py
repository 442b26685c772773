"""Contestants: what is measured against one another.

A contestant is a Python expression and the names in it. It is compiled into a loop, so that calling it costs nothing
that is not its own: a memory hit takes less than two calls of a Python function.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, NamedTuple, Protocol

MOST_CALLS = 200_000
"""In one sample."""


class Role(str, enum.Enum):
    OURS = "ours"
    PEER = "peer"
    LIMIT = "limit"
    """What cannot be beaten: the work without which there is no answer."""
    BESIDE = "beside"
    """Shown for comparison; does less than a cache has to."""


class Sample(NamedTuple):
    """Of one call, in the measurement's unit."""

    wall: float
    cpu: float | None
    """Of this process alone, without the servers; None where it says nothing."""


class Contestant(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def role(self) -> Role: ...

    def prepare(self, seconds: float) -> None:
        """See that it answers rightly, and find out how many calls make a sample of so many seconds."""

    def sample(self) -> Sample: ...


def is_found(answer: Any, pick: Any) -> bool:
    return answer is not None


LOOP = """
def run(_picks):
    _begin, _cpu = _clock(), _cpu_clock()
    for {target} in _picks:
        {call}
    return _clock() - _begin, _cpu_clock() - _cpu

def once({target}):
    return {call}
"""


@dataclass
class Timed:
    """An expression, called again and again with picks: values of `target`, such as the key's.

    An expression with ``await`` in it runs in a loop of its own.
    """

    name: str
    role: Role
    call: str
    names: Mapping[str, Any]
    picks: Sequence[Any] = (0,)
    target: str = "pick"
    right: Callable[[Any, Any], bool] = is_found
    """Whether an answer to a pick is right: a cache that misses is fast."""
    loop: asyncio.AbstractEventLoop | None = None
    drawn: list[Any] = field(default_factory=list, repr=False)
    """What a sample asks for."""

    def __post_init__(self) -> None:
        self._is_async = "await " in self.call
        source = LOOP.format(target=self.target, call=self.call)
        if self._is_async:
            source = source.replace("def ", "async def ")
            self.loop = self.loop or asyncio.new_event_loop()
        namespace = {**self.names, "_clock": time.perf_counter, "_cpu_clock": time.process_time}
        exec(compile(source, f"<{self.name}>", "exec"), namespace)
        self._run, self._once = namespace["run"], namespace["once"]

    def prepare(self, seconds: float) -> None:
        self._check()
        count = 1
        while True:
            self.drawn = list(islice(cycle(self.picks), count))
            # the better of two: once, something else may have had the processor
            wall = min(self.run(self.drawn)[0] for _ in range(2)) if seconds else 0.0
            if wall >= seconds or count >= MOST_CALLS:
                return
            count = min(MOST_CALLS, int(count * max(1.5, min(10.0, 1.1 * seconds / max(wall, 1e-9)))) + 1)

    def sample(self) -> Sample:
        wall, cpu = self.run(self.drawn)
        scale = 1e6 / len(self.drawn)
        return Sample(wall * scale, cpu * scale)

    def run(self, picks: Sequence[Any]) -> tuple[float, float]:
        """Call it with each of these, and return how many seconds, and seconds of CPU, it has taken."""
        result: tuple[float, float] = self._completed(self._run(picks))
        return result

    def _check(self) -> None:
        for pick in islice(self.picks, 3):
            answer = self._completed(self._once(*(pick if "," in self.target else (pick,))))
            if not self.right(answer, pick):
                raise AssertionError(f"{self.name} has answered {answer!r} to {pick!r}")

    def _completed(self, value: Any) -> Any:
        if self._is_async:
            assert self.loop is not None
            return self.loop.run_until_complete(value)
        return value


@dataclass
class Taken:
    """A figure that is not a time in a loop, such as a hit ratio: each sample calls `take` once."""

    name: str
    role: Role
    take: Callable[[], float | Sample]

    def prepare(self, seconds: float) -> None:
        """There is nothing to prepare."""

    def sample(self) -> Sample:
        taken = self.take()
        return taken if isinstance(taken, Sample) else Sample(taken, None)
