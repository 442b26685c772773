"""How long a chain keeps what, and under which classes."""

from __future__ import annotations

from typing import Any

import pytest

from stockpyle.exceptions import (
    InvalidLifetime,
)
from stockpyle.records import Alias, Record
from stockpyle.stores import (
    ChainedStore,
    ProcessMemoryStore,
)
from stockpyle.testing import Automobile, Car, Clock, Person, Pet, Truck
from tests.chain.parts import Source, Tier, key


def test_default_bounds() -> None:
    """Without a rule of the user's own a record lives 60 seconds in a memory tier, and for ever in the source."""
    clock = Clock()
    upper, lower = ProcessMemoryStore(clock=clock), ProcessMemoryStore(clock=clock)
    chain = ChainedStore([upper, lower])
    for put in (True, False):
        if put:
            chain.put(Person(1))
        chain.get(Person, {"id": 1})
        (record,) = upper.read([key(id=1)])
        assert isinstance(record, Record)
        assert record.deadline == clock.now + 60
        clock.advance(60)
        assert upper.get(Person, {"id": 1}) is None
        assert lower.get(Person, {"id": 1}).id == 1
    clock.advance(1e9)
    assert chain.get(Person, {"id": 1}).id == 1


def test_own_rule_replaces_the_bound() -> None:
    """A lifetime of the tier's own, also a longer one, holds instead of the bound."""
    clock = Clock()
    tier = ProcessMemoryStore(clock=clock, lifetime=3600)
    chain = ChainedStore([tier, Source()])
    chain.put(Person(1))
    clock.advance(3599)
    assert tier.get(Person, {"id": 1}).id == 1
    clock.advance(1)
    assert tier.get(Person, {"id": 1}) is None


def test_fill_lives_no_longer_than_where_it_came_from() -> None:
    """A record that is filled upwards keeps the end it has in the layer below, if that is earlier."""
    clock = Clock()
    upper, lower = ProcessMemoryStore(clock=clock, lifetime=3600), ProcessMemoryStore(clock=clock, lifetime=100)
    chain = ChainedStore([upper, lower, Source(Person(1, "ann@x"))])
    chain.get(Person, {"email": "ann@x"})
    upper.clear()
    clock.advance(70)
    chain.get(Person, {"email": "ann@x"})
    clock.advance(29)
    assert upper.get(Person, {"email": "ann@x"}).id == 1
    clock.advance(1)
    assert upper.get(Person, {"email": "ann@x"}) is None


def test_lifetimes_are_asked_before_anything_is_written() -> None:
    """A callback that fails for one object of a batch, in any layer, fails the put with nothing written."""

    def lives(obj: Any) -> int:
        return 1 // obj.id

    for depth in range(3):
        layers = [ProcessMemoryStore(lifetime_cb=lives if i == depth else None) for i in range(3)]
        chain = ChainedStore(layers)
        chain.put(Person(1, name="old"))
        with pytest.raises(InvalidLifetime, match=r"lives.*Person.*ZeroDivisionError"):
            chain.batch_put([Person(1, name="new"), Pet(5), Person(0)])
        assert chain.get(Person, {"id": 1}).name == "old"
        assert [len(layer) for layer in layers] == [1, 1, 1]
        assert isinstance(layers[0].read([key(id=1)])[0], Record)


def test_lifetimes_of_all_classes_are_asked_before_the_first_write() -> None:
    """A batch whose classes have different sources is not half written when a callback fails."""

    class OnlyPets(Source):
        def accepts(self, klass: type) -> bool:
            return klass is Pet

    def lives(obj: Any) -> int:
        return 1 // (obj.id - 2)

    people, pets = Source(), OnlyPets()
    chain = ChainedStore([ProcessMemoryStore(lifetime_cb=lives), people, pets])
    with pytest.raises(InvalidLifetime):
        chain.batch_put([Person(1), Pet(2)])
    assert people.rows == pets.rows == {}


def test_lifetime_failure_on_a_fill_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Where a loaded object's lifetime cannot be told it is returned, logged, counted and not filled."""

    def lives(obj: Any) -> Any:
        raise ValueError("no idea")

    tier = ProcessMemoryStore(lifetime_cb=lives)
    chain = ChainedStore([tier, Source(Person(1, "ann@x"))])
    assert chain.get(Person, {"id": 1}).id == 1
    assert len(tier) == 0
    assert (tier.stats.errors, tier.stats.fills, tier.stats.refused) == (1, 0, 0)
    assert "no idea" in caplog.text
    assert chain.get(Person, {"email": "ann@x"}).id == 1
    assert tier.stats.refused == 0


def test_lifetime_of_nothing_removes_from_the_tier() -> None:
    """A put whose lifetime in a tier is zero leaves nothing there, and the object in the source."""
    lives = [60]
    tier = ProcessMemoryStore(lifetime_cb=lambda _: lives[0])
    source = Source()
    chain = ChainedStore([tier, source])
    chain.put(Person(1, "ann@x"))
    assert len(tier) == 1
    lives[0] = 0
    chain.put(Person(1, "ann@x"))
    assert len(tier) == 0
    assert chain.get(Person, {"email": "ann@x"}).id == 1
    assert (len(tier), tier.stats.refused) == (0, 0)


def test_polymorphic_is_said_tier_by_tier() -> None:
    """What is loaded as an Automobile and is a Car stays out of a tier that is not polymorphic."""
    plain, poly = Tier(), Tier(polymorphic=True)
    chain = ChainedStore([plain, poly, Source(Car(1, "v1"))])
    for asked in ({"plate": 1}, {"vin": "v1"}):
        assert type(chain.get(Automobile, asked)) is Car
        assert not isinstance(plain.holds(key(Automobile, **asked)), Record | Alias)
        assert isinstance(poly.holds(key(Automobile, **asked)), Record | Alias)
    assert plain.stats.refused == 0
    assert type(chain.get(Car, {"plate": 1})) is Car
    assert isinstance(plain.holds(key(Car, plate=1)), Record)


def test_polymorphic_put_is_found_as_its_base_in_the_tier() -> None:
    """After a put a Car is a hit as an Automobile, by identity and alternate key, in a polymorphic tier."""
    source = Source()
    chain = ChainedStore([Tier(polymorphic=True), source])
    chain.put(Car(1, "v1"))
    source.took()
    for asked in ({"plate": 1}, {"vin": "v1"}):
        for klass in (Car, Automobile):
            assert type(chain.get(klass, asked)) is Car
    assert source.took() == []


def test_deleting_a_car_leaves_a_truck_findable() -> None:
    """A Truck with the Automobile's key stays findable as both when the Car is deleted."""
    for tiers in ([Tier(polymorphic=True)], [Tier()], [Tier(), Tier(polymorphic=True)]):
        chain = ChainedStore([*tiers, ProcessMemoryStore(polymorphic=True)])
        chain.put(Car(1))
        chain.put(Truck(1))
        chain.get(Automobile, {"plate": 1})
        chain.delete(Car(1))
        assert type(chain.get(Automobile, {"plate": 1})) is Truck
        assert type(chain.get(Truck, {"plate": 1})) is Truck
        assert chain.get(Car, {"plate": 1}) is None
