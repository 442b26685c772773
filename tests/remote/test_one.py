"""What both kinds of server do where one record is asked for, in a way of its own."""

from __future__ import annotations

from collections.abc import Iterable

from stockpyle.testing import Clock
from stockpyle.testing.samples import Person
from tests.remote.caches import Cache
from tests.remote.parts import fill, meddler, new_prefix, record

RIGHT = {"id": 1}


def test_record_that_dies_on_its_way(cache: Cache) -> None:
    """A record whose deadline passes while the server answers is not served: it is the time after the answer."""
    clock, prefix = Clock(), new_prefix()
    with meddler(cache.address) as between:
        store = cache.store(prefix, at=between.address, clock=clock)
        fill(store, record(name="mortal", deadline=clock.now + 1000))
        assert store.get(Person, RIGHT).name == "mortal"

        def late(answer: bytes) -> Iterable[bytes]:
            clock.advance(1001)
            yield answer

        between.forwarding = late
        assert store.get(Person, RIGHT) is None
