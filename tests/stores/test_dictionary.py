from __future__ import annotations

from typing import Any

from stockpyle.stores import BaseDictionaryStore
from stockpyle.testing import StoreContract


class TestContract(StoreContract):
    def make_store(self, **options: Any) -> BaseDictionaryStore:
        return BaseDictionaryStore(**options)
