"""Real servers with somebody between them and the stores, who says nonsense, half of it, or nothing."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from stockpyle import create_store
from stockpyle.exceptions import StoreError, StoreUnavailable
from tests.memcached.parts import Meddler

TIMEOUT = 1.0
ANSWERS = {"redis": b"1", "memcache": "1", "postgresql+psycopg": 1, "postgresql+psycopg2": 1}
KINDS = list(ANSWERS)


class Place:
    """A server of one kind, and a store on it, through a Meddler or without."""

    def __init__(self, kind: str, server: Any, between: Any) -> None:
        self.kind = kind
        self.server = server
        self.between = between
        host, port = between.address if isinstance(between, Meddler) else (server.host, server.port)
        if kind.startswith("postgresql"):
            self.url = f"{kind}://postgres@{host}:{port}/postgres"
        else:
            self.url = f"{kind}://{host}:{port}"
        self.store = create_store(self.url)
        self.store.timeout = TIMEOUT

    def ask(self) -> Any:
        """Run a command that every server answers with 1."""
        if self.kind == "redis":
            return self.store.execute("ECHO", "1")
        if self.kind == "memcache":
            return "1" if self.store.execute("version").startswith("VERSION 1.") else None
        return self.store.execute("SELECT 1")[0][0]


def garbage(answer: bytes) -> Iterable[bytes]:
    """Say what no such server would."""
    yield b"HTTP/1.1 400 Bad Request\r\n\r\n"


def half(answer: bytes) -> Iterable[bytes]:
    """Say half of it, and go."""
    yield answer[: len(answer) // 2]


def nothing(answer: bytes) -> Iterable[bytes]:
    """Go without a word."""
    yield b""


def fails(ask: Callable[[], Any], operation: str, kind: type[StoreError] = StoreUnavailable) -> None:
    """Assert that a call fails in time, and that its error says where and survives pickling."""
    began = time.monotonic()
    with pytest.raises(kind) as told:
        ask()
    # connecting and asking may take the timeout each; the rest is for a busy machine
    assert time.monotonic() - began < 20
    assert told.value.operation == operation
    again = pickle.loads(pickle.dumps(told.value))
    assert (type(again), str(again), again.store) == (type(told.value), str(told.value), told.value.store)
