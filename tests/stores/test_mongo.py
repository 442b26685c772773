"""MongoStore: the contract. There is no MongoDB to be had for the tests; mongomock stands in for it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import mongomock
import pymongo
import pytest

from stockpyle.codecs import SignedCodec
from stockpyle.exceptions import (
    DecodeError,
    EncodeError,
    ImproperlyConfigured,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
    UnsupportedOperation,
)
from stockpyle.stores import ChainedStore, MongoStore
from stockpyle.testing import Automobile, Car, Clock, Person, StoreContract
from tests.chain.parts import Tier, key
from tests.servers import HOST, free_port
from tests.stores.test_sql_table_rows import Reader


class TestContract(StoreContract):
    def make_store(self, **options: Any) -> MongoStore:
        return MongoStore(mongomock.MongoClient()["app"], "kept", **options)


@pytest.fixture
def db() -> Any:
    """A database."""
    return mongomock.MongoClient()["app"]


def test_a_batch_is_one_bulk_write_and_one_query(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many objects, of however many keys: one call writes them, one finds them, one deletes them."""
    store = MongoStore(db, "kept")
    store.put(Person(0))
    calls: list[str] = []

    def count(name: str) -> None:
        real = getattr(store.documents, name)

        def counted(*args: Any, **options: Any) -> Any:
            calls.append(name)
            before = list(calls)
            done = real(*args, **options)
            # mongomock itself calls one by way of another
            calls[:] = before
            return done

        monkeypatch.setattr(store.documents, name, counted)

    count("bulk_write")
    count("find")
    people = [Person(i, f"{i}@x", 7, str(i)) for i in range(50)]
    store.batch_put(people)
    assert len(store.batch_get(Person, [{"email": f"{i}@x"} for i in range(50)] + [{"id": 3}])) == 51
    store.batch_delete(people)
    assert calls == ["bulk_write", "find", "bulk_write"]
    assert db["kept"].count_documents({}) == 0


def test_an_object_is_one_document_with_all_its_keys(db: Any) -> None:
    """Moved, taken and given up keys leave nothing behind; a polymorphic object is kept once."""
    store = MongoStore(db, "kept", polymorphic=True, prefix="app")
    store.batch_put([Person(1, "a@x", 7, "ann"), Person(2, "b@x")])
    store.batch_put([Person(1, "b@x"), Person(3, "c@x")])
    store.put(Car(1, "v"))
    found = {each["_id"].rpartition(".")[2]: len(each["keys"]) for each in db["kept"].find()}
    assert found == {"Person:id=1": 2, "Person:id=2": 1, "Person:id=3": 2, "Car:plate=1": 4}
    assert type(store.get(Automobile, {"vin": "v"})) is Car
    store.invalidate(Automobile)
    assert store.get(Car, {"plate": 1}) is None
    assert store.get(Person, {"email": "b@x"}).id == 1  # type: ignore[union-attr]


def test_a_deleted_base_object_is_found_as_none_of_its_subclasses(db: Any) -> None:
    """To delete an Automobile takes its identity from the Car that has it, too; the Car is still one."""
    store = MongoStore(db, "kept", polymorphic=True)
    store.put(Car(1, "v"))
    store.delete(Automobile(1))
    assert store.get(Automobile, {"plate": 1}) is None
    assert store.get(Car, {"plate": 1}) is not None


def test_ping(db: Any) -> None:
    """A server that answers is one; the store names its database."""
    store = MongoStore(db, "kept")
    assert store.ping()
    assert store.database == "app"
    nobody = pymongo.MongoClient(f"mongodb://{HOST}:{free_port()}", serverSelectionTimeoutMS=50)
    with nobody as client, pytest.raises(StoreUnavailable):
        MongoStore(client["app"], "kept").ping()


def test_indexes(db: Any) -> None:
    """Keys and classes are indexed, and a TTL index removes what has expired, unless by a clock of one's own."""
    MongoStore(db, "kept").put(Person(1))
    indexes = db["kept"].index_information()
    assert {tuple(each["key"]) for each in indexes.values()} == {
        (("_id", 1),),
        (("keys", 1),),
        (("kind", 1),),
        (("expires", 1),),
    }
    assert [each["expireAfterSeconds"] for each in indexes.values() if "expireAfterSeconds" in each] == [0]
    MongoStore(db, "other", clock=Clock()).put(Person(1))
    assert not any("expireAfterSeconds" in each for each in db["other"].index_information().values())


def test_expired_objects_are_not_found_before_they_are_removed(db: Any) -> None:
    """MongoDB removes what has expired when it comes to it; until then it is not found, by any key."""
    clock = Clock()
    store = MongoStore(db, "kept", lifetime=60, clock=clock)
    store.put(Person(1, "a@x"))
    clock.advance(60.5)
    assert store.batch_get(Person, [{"id": 1}, {"email": "a@x"}]) == [None, None]
    assert db["kept"].count_documents({}) == 1


def test_a_key_that_two_documents_have(db: Any) -> None:
    """If two writers gave one key to two objects at once, the one written later is found by it."""
    store = MongoStore(db, "kept")
    store.batch_put([Person(1, "a@x"), Person(2, "b@x")])
    texts = {each["_id"]: each["keys"] for each in db["kept"].find()}
    both = [text for each in texts.values() for text in each]
    for own in texts:
        written = datetime(2030 + own.endswith("=2"), 1, 1)
        db["kept"].update_one({"_id": own}, {"$set": {"keys": both, "written": written}})
    assert store.get(Person, {"email": "b@x"}).id == 2  # type: ignore[union-attr]
    # which has the key no more, whatever its document says
    assert store.get(Person, {"email": "a@x"}) is None
    assert store.get(Person, {"id": 2}).id == 2  # type: ignore[union-attr]


def test_mapped_instances_and_codecs(db: Any) -> None:
    """Used alone the store keeps mapped instances; a signed one reads nothing that is not signed."""
    store = MongoStore(db, "kept")
    store.put(Reader(id=1, email="ann@x", name="Ann"))
    assert store.get(Reader, {"email": "ann@x"}).name == "Ann"  # type: ignore[union-attr]
    signed = MongoStore(db, "kept", codec=SignedCodec(b"k" * 32))
    assert signed.get(Reader, {"id": 1}) is None
    assert signed.stats.corrupt == 1
    signed.put(Person(1, "a@x"))
    assert signed.get(Person, {"email": "a@x"}).id == 1  # type: ignore[union-attr]


def test_foreign_documents_are_counted_misses(db: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A document with other fields, or other bytes, is a miss that is counted and logged; a put mends it."""
    store = MongoStore(db, "kept")
    store.put(Person(1))
    for damage in (
        {"$unset": {"kind": 1}},
        {"$set": {"value": "text"}},
        {"$set": {"kind": "stockpyle:x:", "value": b"nonsense"}},
    ):
        db["kept"].update_many({}, damage)
        store.get(Person, {"id": 1})
    db["kept"].update_many({}, {"$set": {"kind": "stockpyle:stockpyle.testing.samples.Person:"}})
    assert store.get(Person, {"id": 1}) is None
    assert store.stats.corrupt == 3
    assert "id=1" in caplog.text
    store.put(Person(1))
    assert store.get(Person, {"id": 1}) is not None


def test_source_of_a_chain(db: Any) -> None:
    """Below a tier it is the source of plain classes, and not of mapped ones; the tier keeps what was loaded."""
    store, tier = MongoStore(db, "kept"), Tier()
    chain = ChainedStore([tier, store])
    chain.put(Person(1, "a@x", name="one"))
    assert chain.get(Person, {"email": "a@x"}).name == "one"  # type: ignore[union-attr]
    assert tier.holds(key(id=1)).value.name == "one"
    chain.put(Person(1, "b@x", name="two"))
    assert chain.get(Person, {"id": 1}).name == "two"  # type: ignore[union-attr]
    assert chain.get(Person, {"email": "a@x"}) is None
    chain.delete(Person(1))
    assert chain.get(Person, {"id": 1}) is None
    with pytest.raises(UnsupportedOperation, match="Reader"):
        chain.put(Reader(id=1, email="ann@x"))


def test_what_was_read_from_a_secondary_fills_no_tier(db: Any) -> None:
    """A secondary may be behind: what it says is handed out, and not kept."""
    MongoStore(db, "kept").put(Person(1))
    late = MongoStore(db, "kept")
    late.documents = db["kept"].with_options(read_preference=pymongo.ReadPreference.SECONDARY_PREFERRED)
    tier = Tier()
    assert ChainedStore([tier, late]).get(Person, {"id": 1}) is not None
    assert len(tier) == 0


def test_values_too_large_are_refused(db: Any) -> None:
    """An object of more than 16 MB is named, and nothing of its batch is written."""
    store = MongoStore(db, "kept")
    with pytest.raises(EncodeError, match=r"Person:id=2' takes \d+ bytes; mongodb takes 16760832"):
        store.batch_put([Person(1), Person(2, name="x" * 2**24)])
    assert store.get(Person, {"id": 1}) is None
    with pytest.raises(EncodeError, match=r"settings;large' takes \d+ bytes"):
        store.collection("settings").update(small=1, large=b"x" * 2**24)
    assert dict(store.collection("settings")) == {}


def test_collections_and_counters_beside_objects(db: Any) -> None:
    """Objects and the rest know nothing of each other, though they are in one collection; prefixes are kept apart."""
    store = MongoStore(db, "kept", polymorphic=True)
    store.collection("settings")["a"] = 1
    store.counter("visits").increment(7)
    store.put(Person(1, "ann@x"))
    assert [person.id for person in store.query(Person)] == [1]
    store.invalidate(Person)
    store.put(Person(2))
    store.clear()
    assert store.get(Person, {"id": 2}) is None
    assert store.stats.corrupt == 0
    assert (dict(store.collection("settings")), store.counter("visits").value) == ({"a": 1}, 7)
    other = MongoStore(db, "kept", prefix="app")
    assert (dict(other.collection("settings")), other.counter("visits").value) == ({}, 0)
    store.put(Person(3))
    store.collection("settings").drop()
    assert store.get(Person, {"id": 3}) is not None


def test_a_step_is_one_command(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is one find_one_and_update, also of a counter that is new, and any number of names one bulk write."""
    store = MongoStore(db, "kept")
    calls: list[str] = []
    for name in ("find_one_and_update", "bulk_write", "find_one"):
        real = getattr(store.documents, name)
        monkeypatch.setattr(
            store.documents, name, lambda *args, name=name, real=real, **more: calls.append(name) or real(*args, **more)
        )
    store.counter("visits").increment()
    store.counter("visits").reset()
    store.collection("settings").update({f"name {i}": i for i in range(50)})
    assert [call for call in calls if call != "find_one"] == ["find_one_and_update"] * 2 + ["bulk_write"]


def test_a_counter_that_others_make_at_the_same_moment(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that finds a counter there after all is sent again; it is not taken for one without room."""
    store = MongoStore(db, "kept")
    real, errors = store.documents.find_one_and_update, [pymongo.errors.DuplicateKeyError("it is there")]

    def first_fails(*args: Any, **options: Any) -> Any:
        if errors:
            store.documents.insert_one({"_id": "stockpyle;counter;visits", "number": 5})
            raise errors.pop()
        return real(*args, **options)

    monkeypatch.setattr(store.documents, "find_one_and_update", first_fails)
    assert store.counter("visits").increment() == 6


def test_foreign_documents_of_collections_and_counters(db: Any) -> None:
    """What stands where a value or a counter should be, and is none, is an error that names it."""
    store = MongoStore(db, "kept")
    store.collection("settings")["a"] = 1
    store.counter("visits").increment()
    db["kept"].update_many({}, {"$set": {"value": 5, "number": "many"}})
    for use in (lambda: store.collection("settings")["a"], lambda: store.counter("visits").value):
        with pytest.raises(DecodeError, match=r"stockpyle;\w+;\w+"):
            use()


def test_two_put_the_same_new_object(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upsert that finds the document there after all is sent again; any other error is raised."""
    store = MongoStore(db, "kept")
    real, codes = store.documents.bulk_write, [11000, 11000]

    def first_fails(operations: Any, **options: Any) -> Any:
        if codes:
            raise pymongo.errors.BulkWriteError({"writeErrors": [{"code": codes.pop(0), "errmsg": "no"}]})
        return real(operations, **options)

    monkeypatch.setattr(store.documents, "bulk_write", first_fails)
    store.put(Person(1))
    assert store.get(Person, {"id": 1}) is not None
    codes[:] = [121]
    with pytest.raises(StoreError) as told:
        store.put(Person(2))
    assert isinstance(told.value.__cause__, pymongo.errors.BulkWriteError)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (pymongo.errors.NetworkTimeout("late"), StoreTimeout),
        (pymongo.errors.ExecutionTimeout("late"), StoreTimeout),
        (pymongo.errors.AutoReconnect("gone"), StoreUnavailable),
        (pymongo.errors.OperationFailure("not authorized"), StoreError),
    ],
)
def test_errors_of_pymongo(db: Any, error: Exception, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each error of pymongo is the cause of one of ours."""
    store = MongoStore(db, "kept")

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    for name in ("find", "bulk_write", "delete_many"):
        monkeypatch.setattr(store.documents, name, fail)
    for use in (lambda: store.get(Person, {"id": 1}), lambda: store.put(Person(1)), store.clear):
        with pytest.raises(StoreError) as told:
            use()
        assert type(told.value) is kind
        assert told.value.__cause__ is error


def test_no_server() -> None:
    """pymongo itself, with nobody at the address: every verb is StoreUnavailable."""
    with pymongo.MongoClient(f"mongodb://{HOST}:{free_port()}", serverSelectionTimeoutMS=50) as client:
        store = MongoStore(client["app"], "kept")
        for use in (
            lambda: store.get(Person, {"id": 1}),
            lambda: store.put(Person(1)),
            lambda: store.delete(Person(1)),
        ):
            with pytest.raises(StoreUnavailable, match="mongodb"):
                use()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("app", "kept"), "db is a Database of pymongo, .* not str"),
        ((mongomock.MongoClient()["app"], ""), "collection is a name, not ''"),
        ((mongomock.MongoClient()["app"], 5), "collection is a name, not 5"),
        ((pymongo.AsyncMongoClient(connect=False)["app"], "kept"), "asynchronous"),
    ],
)
def test_what_makes_no_store(arguments: Any, says: str) -> None:
    """Each argument of the wrong kind is named."""
    with pytest.raises(ImproperlyConfigured, match=says):
        MongoStore(*arguments)
