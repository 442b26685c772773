"""ShoveStore on all that shove has, and on other mappings: the contract."""

from __future__ import annotations

import shelve
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diskcache
import pytest

from stockpyle.stores import ShoveStore
from stockpyle.testing import StoreContract


class Kept(StoreContract):
    scheme = ""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> Iterator[None]:
        self.folder = tmp_path
        self.made = 0
        self.stores: list[ShoveStore] = []
        yield
        for store in self.stores:
            store.close()

    def path(self) -> str:
        self.made += 1
        return str(self.folder / f"kept{self.made}")

    def make_store(self, **options: Any) -> ShoveStore:
        path = self.path() if self.scheme in ("file", "lite", "dbm") else ""
        self.stores.append(ShoveStore(shoveuri=f"{self.scheme}://{path}", **options))
        return self.stores[-1]


class TestFiles(Kept):
    scheme = "file"


class TestLite(Kept):
    scheme = "lite"


class TestDbm(Kept):
    scheme = "dbm"


class TestSimple(Kept):
    scheme = "simple"


class TestMemory(Kept):
    scheme = "memory"


class TestShelve(Kept):
    # since Python 3.13 it may be a file of SQLite, which belongs to the thread that has opened it
    threads = False

    def make_store(self, **options: Any) -> ShoveStore:
        return ShoveStore(shelve.open(self.path()), **options)


class TestDiskcache(Kept):
    def make_store(self, **options: Any) -> ShoveStore:
        return ShoveStore(diskcache.Cache(self.path()), **options)
