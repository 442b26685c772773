"""What workloads are given: how thorough to be, what to draw from, servers, and peers if they are installed."""

from __future__ import annotations

import gc
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from benchmarks.contestants import Contestant
from benchmarks.elsewhere import Factory, elsewhere
from benchmarks.measurements import Effort
from tests.servers import Memcached, Postgres, Redis

T = TypeVar("T")
S = TypeVar("S", Memcached, Redis, Postgres)

EFFORTS = {
    "full": Effort(rounds=31, sample_seconds=0.02, most_seconds=15.0),
    "quick": Effort(rounds=5, sample_seconds=0.003, most_seconds=0.6),
    "tiny": Effort(rounds=1, sample_seconds=0.0, most_seconds=0.0),
}


class Bench:
    """What workloads are given; to be closed at the end.

    The servers run on `server_core` (None: wherever they like), this process on `core`.
    """

    def __init__(
        self, effort: str = "full", seed: int = 1, core: int | None = None, server_core: int | None = None
    ) -> None:
        self.effort_name = effort
        self.effort = EFFORTS[effort]
        self.seed = seed
        self.core = core
        self.server_core = server_core
        self.left_out: dict[str, str] = {}
        """Peers that are not here, and why."""
        self._stack = ExitStack()
        self._servers: dict[type, Any] = {}
        self._all_cores = os.sched_getaffinity(0)
        self.pin()

    def close(self) -> None:
        # whoever still has a connection gives it back before the servers end
        gc.collect()
        self._stack.close()

    def dice(self, what: str) -> random.Random:
        """Return what draws always the same, for one purpose."""
        return random.Random(f"{self.seed} {what}")

    def sized(self, full: T, quick: T, tiny: T) -> T:
        return {"full": full, "quick": quick, "tiny": tiny}[self.effort_name]

    # cores

    def pin(self) -> None:
        os.sched_setaffinity(0, self._all_cores if self.core is None else {self.core})

    @contextmanager
    def on_all_cores(self) -> Iterator[None]:
        """Let this process, and what it starts, run on all cores inside the block."""
        os.sched_setaffinity(0, self._all_cores)
        try:
            yield
        finally:
            self.pin()

    # processes

    def elsewhere(self, stack: ExitStack, factory: Factory, *arguments: Any, **options: Any) -> Sequence[Contestant]:
        """Have a process without stockpyle make contestants. A tiny run measures nothing, and needs no process."""
        if self.effort_name == "tiny":
            return factory(*arguments, **options)
        return elsewhere(stack, factory, *arguments, **options)

    # servers

    def memcached(self) -> Memcached:
        return self._server(Memcached)

    def redis(self) -> Redis:
        return self._server(Redis)

    def postgres(self) -> Postgres:
        return self._server(Postgres)

    def _server(self, kind: type[S]) -> S:
        if kind not in self._servers:
            os.sched_setaffinity(0, self._all_cores if self.server_core is None else {self.server_core})
            try:
                self._servers[kind] = self._stack.enter_context(kind())
            finally:
                self.pin()
        server: S = self._servers[kind]
        return server

    def sqlite(self) -> str:
        """Return the URL of an empty SQLite file."""
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="stockpyle-bench-"))
        return f"sqlite:///{folder}/rows.db"

    def databases(self) -> dict[str, str]:
        """Return the URLs of empty databases, by the names of their systems."""
        return {"SQLite": self.sqlite(), "PostgreSQL": self.postgres().create_database()}

    # peers

    def peer(self, name: str) -> Any:
        """Return a peer's module, or None if it is not here, which the table will say."""
        try:
            return import_module(name)
        except ImportError as error:
            self.left_out[name] = f"{error} (Python {sys.version_info.major}.{sys.version_info.minor})"
            return None

    def has(self, *names: str) -> bool:
        found = [self.peer(name) for name in names]
        return None not in found


def version_of(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
