from __future__ import annotations

from typing import Any

from stockpyle.stores import ThreadLocalStore
from stockpyle.testing import Clock, StoreContract, TierContract


class TestContract(StoreContract):
    def make_store(self, **options: Any) -> ThreadLocalStore:
        return ThreadLocalStore(**options)


class TestTier(TierContract):
    def make_tier(self, clock: Clock) -> ThreadLocalStore:
        return ThreadLocalStore(clock=clock)
