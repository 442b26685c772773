from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from stockpyle.stores import MemcacheStore
from stockpyle.testing import Clock, StoreContract, TierContract
from tests.servers import Memcached


@pytest.fixture(scope="module")
def servers() -> Iterator[list[str]]:
    """Three memcached servers."""
    with Memcached() as one, Memcached() as two, Memcached() as three:
        yield [f"{server.host}:{server.port}" for server in (one, two, three)]


class OnOneServer:
    """Stores of their own on one server: each has a prefix that nobody else has."""

    @pytest.fixture(autouse=True)
    def _servers(self, servers: list[str]) -> None:
        self.servers = servers[:1]

    def make(self, **options: Any) -> MemcacheStore:
        return MemcacheStore(servers=self.servers, prefix=secrets.token_hex(4), **options)


class OnThreeServers(OnOneServer):
    """Stores whose keys are spread over three servers."""

    @pytest.fixture(autouse=True)
    def _servers(self, servers: list[str]) -> None:
        self.servers = servers


class TestContract(OnOneServer, StoreContract):
    def make_store(self, **options: Any) -> MemcacheStore:
        return self.make(**options)


class TestContractOnThreeServers(OnThreeServers, StoreContract):
    def make_store(self, **options: Any) -> MemcacheStore:
        return self.make(**options)


class TestTier(OnOneServer, TierContract):
    clock_is_ours = False

    def make_tier(self, clock: Clock) -> MemcacheStore:
        return self.make(clock=clock)


class TestTierOnThreeServers(OnThreeServers, TierContract):
    clock_is_ours = False

    def make_tier(self, clock: Clock) -> MemcacheStore:
        return self.make(clock=clock)
