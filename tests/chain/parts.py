"""Tiers and sources that write down what a chain asks of them, and chains made of these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from stockpyle.classes import spec_of
from stockpyle.coherence.guards import Guards
from stockpyle.keys import Key
from stockpyle.protocols import Outcome, Pending
from stockpyle.records import ABSENT, Record
from stockpyle.stores import (
    BaseStore,
    ChainedStore,
    ProcessMemoryStore,
)
from stockpyle.testing import Clock, Person


def key(klass: type = Person, **names: Any) -> Key:
    """Return a key."""
    found = spec_of(klass).key(names)
    assert found is not None
    return found


class Tier(ProcessMemoryStore):
    """A memory tier that writes down how it is called, and refuses empty batches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.guards = Guards(self, clock=self.clock, courier=None)
        self.calls: list[str] = []
        self.on: dict[str, Callable[[], Any]] = {}

    def _called(self, what: str, batch: Sequence[Any]) -> None:
        assert batch, f"{what} of nothing"
        self.calls.append(what)
        if what in self.on:
            self.on.pop(what)()

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> Any:
        self._called("read", keys)
        return super().read(keys, lease=lease)

    def fill(self, leased: Any) -> int:
        self._called("fill", leased)
        return super().fill(leased)

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> Any:
        self._called("lock", keys)
        return super().lock(keys, seconds, without_row_lock=without_row_lock)

    def publish(self, locked: Any) -> None:
        self._called("publish", locked)
        super().publish(locked)

    def unlock(self, locks: Any) -> None:
        self._called("unlock", locks)
        super().unlock(locks)

    def took(self) -> list[str]:
        """The calls since it was last asked."""
        calls, self.calls = self.calls, []
        return calls

    def holds(self, wanted: Key) -> Any:
        """What is held under a key, without a trace."""
        return self._table.read([wanted], lease=False)[0]


class Source(BaseStore):
    """A source of plain objects, in rows of its own, that writes down its calls and can be made to fail."""

    def __init__(self, *objs: Any) -> None:
        super().__init__()
        self.rows: dict[tuple[type, Any], Any] = {}
        self.calls: list[str] = []
        self.fail: Outcome | None = None
        self.on: dict[str, Callable[[], Any]] = {}
        self._keep(objs)

    def _keep(self, objs: Sequence[Any]) -> None:
        for obj in objs:
            self.rows[type(obj), spec_of(type(obj)).keys_of(obj)[0].values] = obj

    def batch_get(self, klass: type, keys: Any) -> list[Any]:
        raise AssertionError("a chain loads from a source")

    batch_put = batch_delete = batch_get  # type: ignore[assignment]

    def accepts(self, klass: type) -> bool:
        return klass is not Clock

    def load(self, klass: type, keys: Sequence[Key]) -> list[Record]:
        assert keys, "a load of nothing"
        self.calls.append(f"load {len(keys)}")
        if "load" in self.on:
            self.on.pop("load")()
        found = [self._find(klass, wanted) for wanted in keys]
        if "loaded" in self.on:
            self.on.pop("loaded")()
        return found

    def _find(self, klass: type, wanted: Key) -> Record:
        for obj in list(self.rows.values()):
            spec = spec_of(type(obj))
            if isinstance(obj, klass) and wanted in [spec_of(klass).key_of(obj, wanted.definition)]:
                return Record(spec, obj)
        return Record(spec_of(klass), ABSENT)

    @contextmanager
    def write(self, puts: Sequence[Any], deletes: Sequence[Any]) -> Iterator[Pending]:
        from stockpyle.protocols import Change

        self.calls.append("write")
        pending = Pending()
        for obj in puts:
            spec = spec_of(type(obj))
            keys = tuple(spec.keys_of(obj))
            old = self.rows.get((type(obj), keys[0].values))
            pending.changes.append(Change(spec, tuple(spec.keys_of(old)) if old else (), keys, obj=obj))
        for obj in deletes:
            spec = spec_of(type(obj))
            pending.changes.append(Change(spec, tuple(spec.keys_of(obj)), (), obj=obj))
        yield pending
        if "commit" in self.on:
            self.on.pop("commit")()
        if self.fail is not None:
            pending.outcome = self.fail
            raise OSError("the source has failed")
        self._keep(puts)
        for obj in deletes:
            self.rows.pop((type(obj), spec_of(type(obj)).keys_of(obj)[0].values), None)
        pending.outcome = Outcome.COMMITTED

    def took(self) -> list[str]:
        calls, self.calls = self.calls, []
        return calls


def build(*people: Any, tiers: int = 2, **options: Any) -> tuple[ChainedStore, list[Tier], Source, Clock]:
    """Return a chain of tiers over a source that has these people, and its parts."""
    clock = Clock()
    layers = [Tier(clock=clock) for _ in range(tiers)]
    source = Source(*people)
    return ChainedStore([*layers, source], **options), layers, source, clock
