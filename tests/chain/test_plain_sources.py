"""Sources of plain objects: no row of a database keeps two writers apart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from stockpyle.exceptions import StoreError
from stockpyle.records import LOCKED
from stockpyle.stores import BaseDictionaryStore, ChainedStore, ProcessMemoryStore
from stockpyle.testing import Automobile, Car, Person
from tests.chain.parts import Tier, key


class Paused(BaseDictionaryStore):
    """A source in which something can happen right before an object of a certain name is written."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.before: dict[str, Callable[[], Any]] = {}

    def batch_put(self, objs: Iterable[Any]) -> None:
        """Put several objects."""
        objs = list(objs)
        for obj in objs:
            self.before.pop(getattr(obj, "name", ""), lambda: None)()
        super().batch_put(objs)


def test_writers_of_one_object_pass_each_other() -> None:
    """Of two writers that overlap, none leaves in the tier what the other has replaced in the source meanwhile."""
    tier, source = Tier(), Paused()
    first, second = ChainedStore([tier, source]), ChainedStore([tier, source])
    written, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        written.set()
        assert go_on.wait(10)

    source.before["first"] = wait
    thread = threading.Thread(target=first.put, args=[Person(1, name="first")])
    thread.start()
    assert written.wait(10)

    def overtaken() -> None:
        # the second has loaded what it has written, and is about to publish it
        go_on.set()
        thread.join(10)

    tier.on["publish"] = overtaken
    second.put(Person(1, name="second"))
    assert source.get(Person, {"id": 1}).name == "first"  # type: ignore[union-attr]
    assert second.get(Person, {"id": 1}).name == "first"  # type: ignore[union-attr]


@pytest.mark.parametrize("make", [BaseDictionaryStore, ProcessMemoryStore])
def test_known_absence_of_a_base_ends_with_a_put_of_a_subclass(make: Any) -> None:
    """A tier that keeps no Car as an Automobile may know that there is none; it no longer does when a Car is put."""
    chain = ChainedStore([Tier(), make(polymorphic=True)])
    assert chain.get(Automobile, {"plate": "A 1"}) is None
    chain.put(Car("A 1"))
    assert isinstance(chain.get(Automobile, {"plate": "A 1"}), Car)


def test_cache_that_fails_while_it_writes_as_a_source_may_have_written() -> None:
    """A put that fails in the source itself may still happen: the tiers above stay locked until that runs out."""

    class Failing(ProcessMemoryStore):
        def _replace(self, values: Any) -> None:
            super()._replace(values)
            raise StoreError("the answer was lost")

    tier = Tier()
    chain = ChainedStore([tier, Failing()])
    with pytest.raises(StoreError, match="lost"):
        chain.put(Person(1, name="new"))
    assert tier.holds(key(id=1)) is LOCKED
    assert chain.get(Person, {"id": 1}).name == "new"  # type: ignore[union-attr]
