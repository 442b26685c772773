"""The fixtures of the tests on memcached."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.memcached.parts import Foreign, foreign
from tests.servers import Memcached


@pytest.fixture
def other(memcached: tuple[str, int]) -> Iterator[Foreign]:
    """Another client of the memcached that all tests share."""
    with foreign(memcached) as client:
        yield client


@pytest.fixture
def server() -> Iterator[Memcached]:
    """A memcached of the test's own, to stop and start."""
    with Memcached() as own:
        yield own
        # one that is asked nicely takes a second to end
        own.stop("immediate")
