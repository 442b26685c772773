from __future__ import annotations

import threading
from datetime import datetime
from typing import Any

import pytest

from stockpyle.exceptions import ImproperlyConfigured, UnsupportedOperation
from stockpyle.stores import BaseDictionaryStore
from stockpyle.testing import Automobile, Car, Clock, Person, Pet, StoreContract


class TestContract(StoreContract):
    def make_store(self, **options: Any) -> BaseDictionaryStore:
        return BaseDictionaryStore(**options)


class Least:
    """What a mapping must be able to do, and no more."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.get, self.clear = self.data.get, self.data.clear

    def __setitem__(self, text: str, value: Any) -> None:
        self.data[text] = value

    def __getitem__(self, text: str) -> Any:
        return self.data[text]

    def __delitem__(self, text: str) -> None:
        del self.data[text]


class TestLeastMapping(StoreContract):
    def make_store(self, **options: Any) -> BaseDictionaryStore:
        return BaseDictionaryStore(Least(), **options)  # type: ignore[arg-type]

    def test_invalidated_class_is_gone(self) -> None:
        """A mapping that cannot be listed cannot forget a class, and the error names both."""
        with pytest.raises(UnsupportedOperation, match=r"BaseDictionaryStore.*Person"):
            self.make_store().invalidate(Person)


def test_objects_stand_with_their_expiration_under_readable_keys() -> None:
    """Under the identity's text stands the object and when it expires, under each alternate one a pointer."""
    clock, mapping = Clock(), dict[str, Any]()
    store = BaseDictionaryStore(mapping, lifetime=60, clock=clock, prefix="app")
    ann = Person(1, "ann@x")
    store.put(ann)
    identity = next(text for text in mapping if text.endswith("id=1"))
    assert identity.startswith("app:")
    obj, expires = mapping[identity]
    assert obj is ann
    assert expires == datetime.fromtimestamp(clock.now + 60)
    store.delete(ann)
    assert mapping == {}


def test_lifetime_of_a_put_is_an_upper_bound() -> None:
    """batch_put's lifetime holds where the store has none of its own, or a longer one."""
    for own, given, lives in ((None, 10, 10), (60, 10, 10), (5, 10, 5), (60, None, 60)):
        clock = Clock()
        store = BaseDictionaryStore(lifetime=own, clock=clock)
        store.batch_put([Person(1)], lifetime=given)
        clock.advance(lives - 1)
        assert store.get(Person, {"id": 1}) is not None
        clock.advance(1)
        assert store.get(Person, {"id": 1}) is None


def test_objects_changed_in_place_are_not_found_by_what_they_were() -> None:
    """An object that the caller changes without a put is found by neither its old identity nor alternate key."""
    store = BaseDictionaryStore()
    ann = Person(1, "ann@x")
    store.put(ann)
    ann.id, ann.email = 2, "other@x"
    assert store.get(Person, {"id": 1}) is None
    assert store.get(Person, {"email": "ann@x"}) is None


def test_invalidated_class_leaves_nothing_in_the_mapping() -> None:
    """When a class is forgotten its pointers go with its objects."""
    mapping: dict[str, Any] = {}
    store = BaseDictionaryStore(mapping)
    store.batch_put([Person(1, "ann@x", 7, "ann"), Pet(1)])
    store.invalidate(Person)
    assert len(mapping) == 1


def test_overwriting_put_is_one_step() -> None:
    """A reader never misses an object that is there before and after another thread's put of it."""
    store = BaseDictionaryStore()
    store.put(Person(1, "ann@x"))
    done = threading.Event()

    def put_again() -> None:
        for _ in range(1000):
            store.put(Person(1, "ann@x"))
        done.set()

    thread = threading.Thread(target=put_again)
    thread.start()
    missed = 0
    while not done.is_set():
        missed += store.get(Person, {"email": "ann@x"}) is None
    thread.join()
    assert missed == 0


@pytest.mark.parametrize("mapping", [5, (), "text", object()])
def test_what_is_no_mapping_is_refused(mapping: Any) -> None:
    """A store over something that cannot be written to is refused, and that is named."""
    with pytest.raises(ImproperlyConfigured, match="mutable mapping"):
        BaseDictionaryStore(mapping)


@pytest.mark.parametrize("wrong", [dict, [], bytearray()])
def test_what_only_looks_like_a_mapping_is_refused_at_once(wrong: Any) -> None:
    """A class or a list can be assigned to, but would fail at the first put."""
    with pytest.raises(ImproperlyConfigured, match=r"mutable mapping, not .*(?:dict|\[\]|bytearray)"):
        BaseDictionaryStore(wrong)


@pytest.mark.parametrize("asked", [Automobile, Car])
def test_an_object_is_invalidated_as_all_that_it_is(asked: type) -> None:
    """Of a polymorphic store's two entries for one object neither is left behind."""
    store = BaseDictionaryStore(polymorphic=True)
    store.put(Car("B 1"))
    store.invalidate(asked, {"plate": "B 1"})
    assert store.get(Car, {"plate": "B 1"}) is None
    assert store.get(Automobile, {"plate": "B 1"}) is None
