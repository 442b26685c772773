"""Tiers that can be cut off: calls fail before they have done anything, or after, when only the answer is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from stockpyle.coherence.guards import Guards
from stockpyle.coherence.parts import Parts
from stockpyle.keys import Key
from stockpyle.records import Found, Lock
from stockpyle.stats import Stats
from stockpyle.stores import ChainedStore, ProcessMemoryStore
from stockpyle.testing import Clock
from tests.chain.parts import Source


class CutOff:
    """A tier of a user's own, in process memory, which does not say "memory"; several chains can reach it."""

    def __init__(self, clock: Clock, inner: ProcessMemoryStore | None = None, **options: Any) -> None:
        self.inner = inner or ProcessMemoryStore(clock=clock)
        self.clock = clock
        self.stats = Stats()
        self.guards = Guards(self, clock=clock, **{"courier": None, **options})
        self.calls: list[str] = []
        self.cut: set[str] = set()
        self.lost: set[str] = set()
        """The calls that take effect, and whose answer is lost."""
        self.on: dict[str, Callable[[], Any]] = {}
        """What happens at a call, once."""
        self.error: BaseException = OSError("cut off")

    def __getattr__(self, name: str) -> Any:
        if name in ("parts", "place", "_stockpyle_guards", "unreachable", "forget"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def accepts(self, klass: type) -> bool:
        return False

    def _call(self, what: str, work: Callable[[], Any]) -> Any:
        self.calls.append(what)
        if what in self.on:
            self.on.pop(what)()
        if what in self.cut:
            raise self.error
        done = work()
        if what in self.lost:
            raise self.error
        return done

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        return self._call("read", lambda: self.inner.read(keys, lease=lease))

    def fill(self, leased: Any) -> int:
        return self._call("fill", lambda: self.inner.fill(leased))

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> list[Lock]:
        return self._call("lock", lambda: self.inner.lock(keys, seconds, without_row_lock=without_row_lock))

    def publish(self, locked: Any) -> None:
        self._call("publish", lambda: self.inner.publish(locked))

    def unlock(self, locks: Any) -> None:
        self._call("unlock", lambda: self.inner.unlock(locks))

    def clear(self) -> None:
        self._call("clear", self.inner.clear)

    def holds(self, key: Key) -> Any:
        """What other processes read there."""
        return self.inner.read([key], lease=False)[0]

    def took(self) -> list[str]:
        """The calls since it was last asked."""
        calls, self.calls = self.calls, []
        return calls

    @contextmanager
    def off(self, *calls: str) -> Iterator[None]:
        """Cut off: all calls fail, or these."""
        self.cut = set(calls or ("read", "fill", "lock", "publish", "unlock", "clear"))
        try:
            yield
        finally:
            self.cut = set()


class Server(CutOff):
    """One part of a tier of two; it notes its calls among those of the tier."""

    def __init__(self, tier: Parted, name: str) -> None:
        super().__init__(tier.clock)
        self.tier = tier
        self.name = name

    def _call(self, what: str, work: Callable[[], Any]) -> Any:
        self.tier.batches.append((what, self.name))
        if self.name in self.tier.down:
            raise OSError("that server is down")
        return super()._call(what, work)


class Parted:
    """A tier of two parts, by odd and even ids; what is no identity is in the even one, an epoch in both."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.down: set[str] = set()
        self.batches: list[tuple[str, str]] = []
        self.parts = (Server(self, "even"), Server(self, "odd"))
        self.stats = Stats()
        self.guards = Guards(self, clock=clock, courier=None)
        whole = Parts(self.parts, self.place)
        self.read, self.fill, self.lock = whole.read, whole.fill, whole.lock
        self.publish, self.unlock = whole.publish, whole.unlock

    def __getattr__(self, name: str) -> Any:
        if name in ("_stockpyle_guards", "unreachable", "forget"):
            raise AttributeError(name)
        return getattr(self.parts[0].inner, name)

    def accepts(self, klass: type) -> bool:
        return False

    def place(self, key: Key) -> int:
        assert not key.is_epoch
        return int(key.values[0] % 2) if key.is_identity else 0

    def holds(self, key: Key) -> Any:
        """What other processes read there."""
        return self.parts[self.place(key)].holds(key)


def chain_of(*people: Any, tier: Any = None, **options: Any) -> tuple[ChainedStore, Any, Source, Clock]:
    """Return a chain of one tier that can be cut off over a source with these people, and its parts."""
    clock = tier.clock if tier is not None else Clock()
    tier = CutOff(clock) if tier is None else tier
    source = Source(*people)
    return ChainedStore([tier, source], **options), tier, source, clock
