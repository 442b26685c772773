"""Stores that carry no messages."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stockpyle.exceptions import UnsupportedOperation
from stockpyle.stores import (
    BaseDictionaryStore,
    BaseStore,
    ChainedStore,
    MemcacheStore,
    NullStore,
    ProcessMemoryStore,
    SqlAlchemyStore,
    ThreadLocalStore,
)


class Own(BaseStore):
    def put(self, obj: object) -> None:
        pass

    def get(self, klass: object, key: object) -> None:  # type: ignore[override]
        pass

    def delete(self, obj: object) -> None:
        pass


@pytest.mark.parametrize(
    "make",
    [
        lambda: BaseDictionaryStore({}),
        lambda: ChainedStore([ProcessMemoryStore()]),
        lambda: MemcacheStore(servers=["localhost:11211"]),
        lambda: SqlAlchemyStore("sqlite://"),
        NullStore,
        Own,
        ThreadLocalStore,
    ],
)
def test_who_carries_messages(make: Callable[[], BaseStore]) -> None:
    """A store without pub/sub says so, by its name, and who has it."""
    store = make()
    who = type(store).__name__
    says = f"{who} carries no messages: RedisStore, SqlAlchemyStore on PostgreSQL and ProcessMemoryStore do"
    with pytest.raises(UnsupportedOperation, match=f"^{says}$"):
        store.pubsub()


def test_stores_do_not_share_their_memory() -> None:
    """Two stores in one process are two places."""
    one, other = ProcessMemoryStore(), ProcessMemoryStore()
    with one.pubsub() as here, other.pubsub() as there:
        here.subscribe("news", print)
        assert there.publish("news", b"1") == 0
