"""The contract of queries, on every store that has them."""

from __future__ import annotations

from typing import Any

from stockpyle.stores import BaseDictionaryStore, ChainedStore, ProcessMemoryStore, ThreadLocalStore
from stockpyle.testing import QueryContract


class TestProcessMemory(QueryContract):
    def make_store(self) -> Any:
        return ProcessMemoryStore()


class TestBounded(QueryContract):
    def make_store(self) -> Any:
        return ProcessMemoryStore(maxsize=100)


class TestThreadLocal(QueryContract):
    def make_store(self) -> Any:
        return ThreadLocalStore()


class TestDictionary(QueryContract):
    def make_store(self) -> Any:
        return BaseDictionaryStore({})


class TestChain(QueryContract):
    def make_store(self) -> Any:
        return ChainedStore([ProcessMemoryStore(), ThreadLocalStore(), BaseDictionaryStore()])
