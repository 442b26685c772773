"""What every call does while its server is no use, and afterwards."""

from __future__ import annotations

import time
from typing import Any

import pytest

from stockpyle.exceptions import StoreError, StoreTimeout, StoreUnavailable
from tests.connections.calls import Calls, asked_of, go_on
from tests.connections.places import Place, garbage, half, nothing


def fail(calls: Calls, kind: type[StoreError] = StoreUnavailable) -> None:
    """Assert that each call fails, in time, as a server does that is no use."""
    for name, call in calls.items():
        began = time.monotonic()
        with pytest.raises(kind) as told:
            call()
        assert told.value.store, name
        assert told.value.__cause__ is not None, name
        # connecting and asking may take the timeout each; the rest is for a busy machine
        assert time.monotonic() - began < 20, name


@pytest.mark.parametrize("answer", [garbage, half, nothing])
@pytest.mark.parametrize("connected", [True, False])
def test_nonsense_from_the_server(place: Place, calls: Calls, answer: Any, connected: bool) -> None:
    """Garbage, half an answer or none is StoreUnavailable, on a new connection and on one that was in use."""
    if connected:
        go_on(calls)
    place.between.meddle = answer
    fail(calls)
    place.between.meddle = None
    go_on(calls)


def test_a_server_that_is_down(place: Place) -> None:
    """Every call is StoreUnavailable as long as it is down, with connections left from before, too."""
    direct = Place(place.kind, place.server, place.server)
    with asked_of(direct) as calls:
        go_on(calls)
        place.server.stop("immediate")
        fail(calls)
        place.server.start()
        go_on(calls)
    direct.store.close()


@pytest.mark.parametrize("place", ["redis", "memcache"], indirect=True)
def test_a_server_that_hangs(place: Place, calls: Calls) -> None:
    """Every call takes its timeout, and is StoreTimeout; how long a database may take is its driver's business."""
    with place.server.hung():
        fail(calls, StoreTimeout)
    go_on(calls)
