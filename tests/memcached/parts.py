"""What the tests of memcached are made of besides: stores on it, and its foreign clients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from pymemcache.client.base import Client

from stockpyle.keys import Key
from stockpyle.stores import MemcacheStore
from tests.remote.parts import (
    ONE,
    PERSON,
    TWO,
    CountingSockets,
    Meddler,
    fill,
    holds,
    key,
    meddler,
    new_prefix,
    pet,
    record,
)

__all__ = [
    "ONE",
    "PERSON",
    "TWO",
    "CountingSockets",
    "Foreign",
    "Meddler",
    "fill",
    "foreign",
    "holds",
    "key",
    "meddler",
    "new_prefix",
    "pet",
    "record",
    "store_on",
    "text",
]


def store_on(*addresses: tuple[str, int] | str, prefix: str | None = None, **options: Any) -> MemcacheStore:
    """Return a store on these servers, under a prefix of its own unless one is given."""
    return MemcacheStore(servers=list(addresses), prefix=prefix or new_prefix(), **options)


def text(store: MemcacheStore, wanted: Key) -> str:
    """Return the key's text, as other clients see it."""
    return wanted.text(store.prefix)


class Foreign:
    """Another client of the server, in another language perhaps."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        self.client = Client(address, default_noreply=False, timeout=10)

    def set(self, name: str, data: bytes, flags: int = 0) -> None:
        """Set a key."""
        assert self.client.set(name, data, flags=flags)

    def delete(self, name: str) -> bool:
        """Delete a key; False if it was not there."""
        return bool(self.client.delete(name))

    def get(self, name: str) -> bytes | None:
        """Return a value."""
        value: bytes | None = self.client.get(name)
        return value

    def meta(self, command: str) -> bytes:
        """Send a meta command that is answered in one line."""
        answer: bytes = self.client.raw_command(command)
        return answer

    def cas(self, name: str) -> int:
        """Return the CAS id of a key, 0 if it is not there."""
        answer = self.meta(f"mg {name} c")
        return int(answer.split(b" ")[1][1:]) if answer.startswith(b"HD") else 0

    def seconds_left(self, name: str) -> int:
        """Return how long a key still lives, -1 for without end."""
        answer = self.meta(f"mg {name} t")
        assert answer.startswith(b"HD"), answer
        return int(answer.split(b" t")[1])

    def stat(self, name: str) -> int:
        """Return one of the server's counters."""
        return int(self.client.stats()[name.encode()])

    def flush(self) -> None:
        """Empty the server."""
        assert self.client.flush_all(noreply=False)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()


@contextlib.contextmanager
def foreign(address: tuple[str, int] | str) -> Iterator[Foreign]:
    """Another client of the server."""
    client = Foreign(address)
    try:
        yield client
    finally:
        client.close()
