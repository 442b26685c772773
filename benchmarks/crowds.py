"""Contestants that are several at once: threads of this process, or processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.contestants import Role, Sample, Timed
from benchmarks.elsewhere import Remote, remotes

LEAST_SECONDS = 0.05
"""A sample is long beside the start of threads."""


@dataclass
class Threads:
    """One contestant in several threads at once; its figure is the time between two answers to whomever."""

    timed: Timed
    count: int

    @property
    def name(self) -> str:
        return self.timed.name

    @property
    def role(self) -> Role:
        return self.timed.role

    def prepare(self, seconds: float) -> None:
        self.timed.prepare(max(seconds, LEAST_SECONDS) if seconds else 0.0)

    def sample(self) -> Sample:
        picks = self.timed.drawn
        shares = [picks[i :: self.count] for i in range(self.count)]
        failed: list[BaseException] = []
        barrier = threading.Barrier(self.count + 1)

        def work(share: Sequence[Any]) -> None:
            barrier.wait()
            try:
                self.timed.run(share)
            except BaseException as error:  # noqa: BLE001  # it is raised by the main thread
                failed.append(error)

        threads = [threading.Thread(target=work, args=(share,)) for share in shares]
        for each in threads:
            each.start()
        barrier.wait()
        begin, cpu = time.perf_counter(), time.process_time()
        for each in threads:
            each.join()
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
        if failed:
            raise failed[0]
        return Sample(wall / len(picks) * 1e6, cpu / len(picks) * 1e6)


class Processes:
    """One contestant in several processes at once; its figure is the time between two answers to whomever."""

    def __init__(self, stack: ExitStack, count: int, factory: Callable[..., Any], *arguments: Any) -> None:
        self._members: list[Remote] = []
        for _ in range(count):
            (only,) = remotes(stack, factory, *arguments)
            self._members.append(only)
        self.name, self.role = self._members[0].name, self._members[0].role

    def prepare(self, seconds: float) -> None:
        for each in self._members:
            each.prepare(max(seconds, LEAST_SECONDS) if seconds else 0.0)

    def sample(self) -> Sample:
        for each in self._members:
            each.send("sample")
        samples = [each.receive() for each in self._members]
        speed = sum(1 / sample.wall for sample in samples)
        return Sample(1 / speed, sum(sample.cpu for sample in samples) / len(samples))
