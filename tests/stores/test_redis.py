"""RedisStore: the contracts, its URLs and options."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from stockpyle.stores import RedisStore
from stockpyle.testing import Clock, StoreContract, TierContract


class OnRedis:
    """Stores of their own on one server: each has a prefix that nobody else has."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: str) -> None:
        self.url = redis_server

    def make(self, **options: Any) -> RedisStore:
        return RedisStore(self.url, prefix=secrets.token_hex(4), **options)


class TestContract(OnRedis, StoreContract):
    def make_store(self, **options: Any) -> RedisStore:
        return self.make(**options)


class TestTier(OnRedis, TierContract):
    clock_is_ours = False

    def make_tier(self, clock: Clock) -> RedisStore:
        return self.make(clock=clock)
