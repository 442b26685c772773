"""Removing from shared tiers what somebody else has told of."""

from __future__ import annotations

import pytest

from stockpyle.classes import spec_of
from stockpyle.coherence.cleaning import clean
from stockpyle.coherence.layers import Layer
from stockpyle.coherence.messages import Changes
from stockpyle.coherence.verbs import VerbTier
from stockpyle.stores import BaseDictionaryStore, MemcacheStore, RedisStore
from stockpyle.stores.cache import CacheStore
from stockpyle.testing import Person

ANN, BOB = Person(1, "ann@x", 7, "ann"), Person(2, "bob@x", 7, "bob")


@pytest.fixture(params=["memcached", "redis"])
def shared(request: pytest.FixtureRequest, memcached: tuple[str, int], clean_redis: str) -> CacheStore:
    """A store on a server, with Ann and Bob in it."""
    servers = [f"{memcached[0]}:{memcached[1]}"]
    store = RedisStore(clean_redis) if request.param == "redis" else MemcacheStore(servers=servers, prefix="cleaning")
    store.batch_put([ANN, BOB])
    return store


@pytest.mark.parametrize("known", [True, False])
def test_keys_are_removed_by_their_names(shared: CacheStore, known: bool) -> None:
    """Whether or not this process knows the class, all the keys of an object are removed, and no other object."""
    clean([Layer(shared)], Changes.of(spec_of(Person).keys_of(ANN)), 30.0, [spec_of(Person)] if known else [])
    for key in ({"id": 1}, {"email": "ann@x"}, {"org": 7, "login": "ann"}):
        assert shared.get(Person, key) is None
    assert shared.get(Person, {"email": "bob@x"}).name == BOB.name


@pytest.mark.parametrize("known", [True, False])
def test_classes_and_everything_are_removed(shared: CacheStore, known: bool) -> None:
    """So are whole classes, and all there is."""
    specs = [spec_of(Person)] if known else []
    clean([Layer(shared)], Changes.of([spec_of(Person).epoch]), 30.0, specs)
    assert shared.batch_get(Person, [{"id": 1}, {"id": 2}]) == [None, None]
    shared.batch_put([ANN])
    clean([Layer(shared)], Changes(everything=True), 30.0, specs)
    assert shared.get(Person, {"id": 1}) is None


def test_store_of_verbs_forgets_what_is_known() -> None:
    """A store that only knows verbs is asked for objects of known classes, and left alone otherwise."""
    store = BaseDictionaryStore({})
    store.batch_put([ANN, BOB])
    for specs, left in (([], ["", ""]), ([spec_of(Person)], [None, ""])):
        clean([Layer(VerbTier(store))], Changes.of(spec_of(Person).keys_of(ANN)), 30.0, specs)
        assert [person and person.name for person in store.batch_get(Person, [{"id": 1}, {"id": 2}])] == left
