from __future__ import annotations

from typing import Any

from stockpyle.stores import ProcessMemoryStore
from stockpyle.testing import Clock, StoreContract, TierContract


class TestContract(StoreContract):
    def make_store(self, **options: Any) -> ProcessMemoryStore:
        return ProcessMemoryStore(**options)


class TestTier(TierContract):
    def make_tier(self, clock: Clock) -> ProcessMemoryStore:
        return ProcessMemoryStore(clock=clock)
