"""MongoStore by pymongo itself, on a socket: the contract, a fork, and servers that fail.

There is no MongoDB to be had for the tests: what answers is tests.mongod.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bson
import pymongo
import pytest

from stockpyle import create_store
from stockpyle.exceptions import StockpyleError, StoreError, StoreTimeout, StoreUnavailable
from stockpyle.stores import MongoStore
from stockpyle.testing import Person, StoreContract
from tests.forks import child_says
from tests.mongod import Mongod, Trouble


class TestContract(StoreContract):
    made = 0

    @pytest.fixture(autouse=True)
    def _client(self, mongod: str) -> Iterator[None]:
        with pymongo.MongoClient(mongod) as self.client:
            yield

    client: pymongo.MongoClient[Any]

    def make_store(self, **options: Any) -> MongoStore:
        TestContract.made += 1
        return MongoStore(self.client["app"], f"kept_{self.made}", **options)


@pytest.mark.filterwarnings("ignore:MongoClient opened before fork")
def test_a_child_process_uses_the_store(mongod: str) -> None:
    """After a fork both sides go on with the store, and see each other's objects."""
    with create_store(f"{mongod}/app?collection=forked") as store:
        store.put(Person(1))

        def work() -> bool:
            store.put(Person(2, name="child"))
            store.counter("visits").increment()
            return store.get(Person, {"id": 1}) is not None

        assert child_says(work)
        assert store.get(Person, {"id": 2}).name == "child"
        assert store.counter("visits").increment() == 2


def uses(store: Any) -> list[Any]:
    """Everything that asks the server."""
    return [
        lambda: store.get(Person, {"id": 1}),
        lambda: store.put(Person(1)),
        lambda: store.delete(Person(1)),
        lambda: list(store.query(Person)),
        lambda: store.collection("settings").get("a"),
        lambda: store.collection("settings").update(a=1),
        lambda: store.counter("visits").increment(),
        store.ping,
    ]


def answering(answer: bytes, document: dict[str, Any]) -> bytes:
    """Return the answer with another document in it."""
    body = answer[4:21] + bson.encode(document)
    return (len(body) + 4).to_bytes(4, "little") + body


TROUBLES: dict[str, Trouble] = {
    "hangs up": lambda answer: b"",
    "hangs up in mid-reply": lambda answer: answer[: len(answer) // 2],
    "ends in the header": lambda answer: answer[:7],
    "zeros": lambda answer: bytes(200),
    "ones": lambda answer: b"\xff" * 200,
    "another protocol": lambda answer: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "two documents": lambda answer: answer[:21] + b"\x07\x00\x00\x00" + b"\xfe" * (len(answer) - 25),
    "no BSON": lambda answer: answer[:25] + b"\xfe" * (len(answer) - 25),
    "no document": lambda answer: answer[:21] + bytes(len(answer) - 21),
}


@pytest.mark.parametrize("rude", [False, True])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_server_that_answers_nonsense(trouble: str, rude: bool) -> None:
    """Whatever comes instead of an answer, or half of one, is StoreUnavailable, with its cause, and soon."""
    options = "serverSelectionTimeoutMS=300&connectTimeoutMS=300&socketTimeoutMS=300"
    with Mongod(TROUBLES[trouble], rude=rude) as server, create_store(f"{server.url}/app?{options}") as store:
        # without an answer to its first question pymongo asks no other
        for use in uses(store)[: 2 if rude else None]:
            with pytest.raises(StoreUnavailable, match="mongodb") as told:
                use()
            assert told.value.__cause__ is not None


@pytest.mark.parametrize(
    "document", [{}, {"ok": 1}, {"ok": 1, "cursor": 5, "value": 5}, {"ok": 1, "value": {"number": "x"}}]
)
def test_a_server_that_answers_something_else(document: dict[str, Any]) -> None:
    """A document that is no answer to what was asked is an error of the store's, and no miss."""
    with (
        Mongod(lambda answer: answering(answer, document)) as server,
        create_store(f"{server.url}/app?retryReads=false") as store,
    ):
        # of what is asked only for its being done there is nothing to be told
        for use in [use for i, use in enumerate(uses(store)) if i in (0, 3, 4)]:
            with pytest.raises(StoreError, match="mongodb") as told:
                use()
            assert told.value.__cause__ is not None
        if document.get("value"):
            with pytest.raises(StockpyleError):
                store.counter("visits").increment()


@pytest.mark.parametrize("rude", [False, True])
def test_a_server_that_hangs(rude: bool) -> None:
    """A server that takes the command and says nothing is a StoreTimeout after the client's own, or no server."""
    options = "serverSelectionTimeoutMS=300&connectTimeoutMS=300&socketTimeoutMS=300"
    with Mongod(lambda answer: None, rude=rude) as server, create_store(f"{server.url}/app?{options}") as store:
        for use in uses(store)[: 2 if rude else None]:
            with pytest.raises(StoreUnavailable if rude else StoreTimeout, match="mongodb"):
                use()


def test_a_server_that_fails_for_a_while() -> None:
    """Once the server answers again, so does the store."""
    with Mongod() as server, create_store(f"{server.url}/app?serverSelectionTimeoutMS=2000") as store:
        store.put(Person(1))
        server.trouble = TROUBLES["hangs up in mid-reply"]
        with pytest.raises(StoreError):
            store.get(Person, {"id": 1})
        server.trouble = None
        assert store.get(Person, {"id": 1}) is not None
