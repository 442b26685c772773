from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

import cachetools
import pytest

from stockpyle.classes import spec_of
from stockpyle.coherence import reader as reader_module
from stockpyle.exceptions import (
    ImproperlyConfigured,
    InvalidKeysDeclaration,
    InvalidLifetime,
    StoreError,
    UndeclaredKeyError,
    UnsupportedOperation,
)
from stockpyle.keys import Key
from stockpyle.protocols import Outcome, Pending
from stockpyle.records import ABSENT, LOCKED, Alias, Busy, Lease, Record
from stockpyle.stores import (
    BaseDictionaryStore,
    BaseStore,
    ChainedStore,
    NullStore,
    ProcessMemoryStore,
    ThreadLocalStore,
)
from stockpyle.testing import Automobile, Car, Clock, Person, Pet, StoreContract, Truck


def key(klass: type = Person, **names: Any) -> Key:
    """Return a key."""
    found = spec_of(klass).key(names)
    assert found is not None
    return found


class Tier(ProcessMemoryStore):
    """A memory tier that writes down how it is called, and refuses empty batches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[str] = []
        self.on: dict[str, Callable[[], Any]] = {}

    def _called(self, what: str, batch: Sequence[Any]) -> None:
        assert batch, f"{what} of nothing"
        self.calls.append(what)
        if what in self.on:
            self.on.pop(what)()

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> Any:
        self._called("read", keys)
        return super().read(keys, lease=lease)

    def fill(self, leased: Any) -> int:
        self._called("fill", leased)
        return super().fill(leased)

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> Any:
        self._called("lock", keys)
        return super().lock(keys, seconds, without_row_lock=without_row_lock)

    def publish(self, locked: Any) -> None:
        self._called("publish", locked)
        super().publish(locked)

    def unlock(self, locks: Any) -> None:
        self._called("unlock", locks)
        super().unlock(locks)

    def took(self) -> list[str]:
        """The calls since it was last asked."""
        calls, self.calls = self.calls, []
        return calls

    def holds(self, wanted: Key) -> Any:
        """What is held under a key, without a trace."""
        return self._table.read([wanted], lease=False)[0]


class Source(BaseStore):
    """A source of plain objects, in rows of its own, that writes down its calls and can be made to fail."""

    def __init__(self, *objs: Any) -> None:
        super().__init__()
        self.rows: dict[tuple[type, Any], Any] = {}
        self.calls: list[str] = []
        self.fail: Outcome | None = None
        self.on: dict[str, Callable[[], Any]] = {}
        self._keep(objs)

    def _keep(self, objs: Sequence[Any]) -> None:
        for obj in objs:
            self.rows[type(obj), spec_of(type(obj)).keys_of(obj)[0].values] = obj

    def batch_get(self, klass: type, keys: Any) -> list[Any]:
        raise AssertionError("a chain loads from a source")

    batch_put = batch_delete = batch_get  # type: ignore[assignment]

    def accepts(self, klass: type) -> bool:
        return klass is not Clock

    def load(self, klass: type, keys: Sequence[Key]) -> list[Record]:
        assert keys, "a load of nothing"
        self.calls.append(f"load {len(keys)}")
        if "load" in self.on:
            self.on.pop("load")()
        found = [self._find(klass, wanted) for wanted in keys]
        if "loaded" in self.on:
            self.on.pop("loaded")()
        return found

    def _find(self, klass: type, wanted: Key) -> Record:
        for obj in list(self.rows.values()):
            spec = spec_of(type(obj))
            if isinstance(obj, klass) and wanted in [spec_of(klass).key_of(obj, wanted.definition)]:
                return Record(spec, obj)
        return Record(spec_of(klass), ABSENT)

    @contextmanager
    def write(self, puts: Sequence[Any], deletes: Sequence[Any]) -> Iterator[Pending]:
        from stockpyle.protocols import Change

        self.calls.append("write")
        pending = Pending()
        for obj in puts:
            spec = spec_of(type(obj))
            keys = tuple(spec.keys_of(obj))
            old = self.rows.get((type(obj), keys[0].values))
            pending.changes.append(Change(spec, tuple(spec.keys_of(old)) if old else (), keys, obj=obj))
        for obj in deletes:
            spec = spec_of(type(obj))
            pending.changes.append(Change(spec, tuple(spec.keys_of(obj)), (), obj=obj))
        yield pending
        if "commit" in self.on:
            self.on.pop("commit")()
        if self.fail is not None:
            pending.outcome = self.fail
            raise OSError("the source has failed")
        self._keep(puts)
        for obj in deletes:
            self.rows.pop((type(obj), spec_of(type(obj)).keys_of(obj)[0].values), None)
        pending.outcome = Outcome.COMMITTED

    def took(self) -> list[str]:
        calls, self.calls = self.calls, []
        return calls


def build(*people: Any, tiers: int = 2, **options: Any) -> tuple[ChainedStore, list[Tier], Source, Clock]:
    """Return a chain of tiers over a source that has these people, and its parts."""
    clock = Clock()
    layers = [Tier(clock=clock) for _ in range(tiers)]
    source = Source(*people)
    return ChainedStore([*layers, source], **options), layers, source, clock


class TestContractOverMemory(StoreContract):
    # invalidate() leaves the source alone
    polymorphic = lifetimes = clears = False

    def make_store(self, **options: Any) -> ChainedStore:
        return ChainedStore([ProcessMemoryStore(), ProcessMemoryStore()])

    def test_store_is_true_and_says_its_name(self) -> None:
        """A chain's repr names its stores."""
        assert repr(self.make_store()) == "ChainedStore([<ProcessMemoryStore>, <ProcessMemoryStore>])"


class TestContractOverDictionaries(TestContractOverMemory):
    def make_store(self, **options: Any) -> ChainedStore:
        return ChainedStore([ProcessMemoryStore(), BaseDictionaryStore(), BaseDictionaryStore()])

    def test_store_is_true_and_says_its_name(self) -> None:
        """A chain has a name."""
        assert self.make_store().name == "ChainedStore"


# reading


def test_read_goes_down_and_fills_up() -> None:
    """The first layer that has an object answers; those above it are filled, those below not asked."""
    chain, (upper, lower), source, _ = build(Person(1, name="Ann"))
    assert chain.get(Person, {"id": 1}).name == "Ann"
    assert (upper.took(), lower.took(), source.took()) == (["read", "fill"], ["read", "fill"], ["load 1"])
    assert chain.get(Person, {"id": 1}).name == "Ann"
    assert (upper.took(), lower.took(), source.took()) == (["read"], [], [])
    upper.clear()
    assert chain.get(Person, {"id": 1}).name == "Ann"
    assert (upper.took(), lower.took(), source.took()) == (["read", "fill"], ["read"], [])
    assert isinstance(upper.holds(key(id=1)), Record)


def test_batch_is_one_read_a_tier_and_one_load() -> None:
    """However many keys a batch has, each layer is called once, with duplicates asked for once."""
    chain, (upper, lower), source, _ = build(*(Person(i) for i in range(50)))
    asked = [{"id": i % 60} for i in range(120)]
    found = chain.batch_get(Person, asked)
    assert [person and person.id for person in found] == [i % 60 if i % 60 < 50 else None for i in range(120)]
    assert (upper.took(), lower.took(), source.took()) == (["read", "fill"], ["read", "fill"], ["load 60"])
    again = chain.batch_get(Person, asked)
    assert all(one is other for one, other in zip(found, again, strict=True))
    assert (upper.took(), lower.took(), source.took()) == (["read"], [], [])


def test_batch_found_in_several_layers() -> None:
    """Each layer is asked only for what those above lack, and filled with it."""
    chain, (upper, lower), source, _ = build(*(Person(i) for i in range(3)))
    chain.batch_get(Person, [{"id": 0}, {"id": 1}])
    upper.clear()
    chain.get(Person, {"id": 0})
    for layer in (upper, lower, source):
        layer.took()
    assert [person.id for person in chain.batch_get(Person, [{"id": i} for i in range(3)])] == [0, 1, 2]
    assert (upper.took(), lower.took(), source.took()) == (["read", "fill"], ["read", "fill"], ["load 1"])


def test_nothing_asked_is_nothing_called() -> None:
    """Batches of nothing, or of keys with None in them, call no layer."""
    chain, (upper, lower), source, _ = build()
    assert chain.batch_get(Person, []) == []
    assert chain.batch_get(Person, [{"id": None}]) == [None]
    chain.batch_put([])
    chain.batch_delete(iter(()))
    assert (upper.took(), lower.took(), source.took()) == ([], [], [])


def test_cold_read_by_alternate_key_loads_again_under_the_identitys_lease() -> None:
    """The first load tells the identity, the second fills it; the next reads, by either key, are hits."""
    chain, (upper, lower), source, _ = build(Person(1, "ann@x"), tiers=2)
    assert chain.get(Person, {"email": "ann@x"}).id == 1
    assert (upper.took(), lower.took()) == (["read", "read", "fill"], ["read", "read", "fill"])
    assert source.took() == ["load 1", "load 1"]
    assert chain.get(Person, {"email": "ann@x"}).id == 1
    assert upper.took() == ["read", "read"]
    assert chain.get(Person, {"id": 1}).id == 1
    assert (lower.took(), source.took()) == ([], [])


def test_what_changes_between_the_two_loads_is_not_cached_as_it_was() -> None:
    """A write between the load by alternate key and that by identity leaves nothing old in any tier."""
    chain, (tier,), source, _ = build(Person(1, "ann@x", name="old"), tiers=1)
    source.on["loaded"] = lambda: chain.put(Person(1, "ann@x", name="new"))
    chain.get(Person, {"email": "ann@x"})
    assert chain.get(Person, {"email": "ann@x"}).name == "new"
    assert chain.get(Person, {"id": 1}).name == "new"
    assert tier.holds(key(id=1)).value.name == "new"


def test_alias_is_believed_only_if_the_record_has_the_value() -> None:
    """An alias that leads to an object without the asked-for value is a miss, and the source is asked."""
    chain, (tier,), source, _ = build(Person(1, "new@x"), Person(2, "old@x"), tiers=1)
    chain.get(Person, {"id": 1})
    (lease,) = tier._table.read([key(email="old@x")])
    assert isinstance(lease, Lease)
    tier._table.fill([(lease, Alias(key(id=1)))])
    source.took()
    assert chain.get(Person, {"email": "old@x"}).id == 2
    assert source.took() == ["load 1"]


def test_alias_to_what_is_gone_asks_for_the_asked_key() -> None:
    """An alias whose identity the source no longer has is not the answer: the key itself is loaded."""

    class Dangling(Tier):
        def read(self, keys: Sequence[Key], *, lease: bool = True) -> Any:
            found = super().read(keys, lease=lease)
            return [
                Alias(key(id=1)) if wanted == key(email="ann@x") else each
                for wanted, each in zip(keys, found, strict=True)
            ]

    source = Source(Person(2, "ann@x"))
    chain = ChainedStore([Dangling(), source])
    assert chain.get(Person, {"email": "ann@x"}).id == 2
    assert source.took() == ["load 1", "load 1"]
    assert chain.get(Person, {"id": 1}) is None
    assert source.took() == []


def test_absence_is_kept_and_ended_by_a_put() -> None:
    """That there is no such object is answered from the tier, by every key, until one is put."""
    chain, (upper, _), source, _ = build()
    for _ in range(2):
        assert chain.batch_get(Person, [{"id": 1}, {"email": "ann@x"}]) == [None, None]
    assert source.took() == ["load 2"]
    assert upper.holds(key(id=1)).is_absent
    assert upper.holds(key(email="ann@x")).is_absent
    chain.put(Person(1, "ann@x"))
    assert chain.get(Person, {"email": "ann@x"}).id == 1
    assert chain.get(Person, {"id": 1}).id == 1
    chain.delete(Person(1, "ann@x"))
    source.took()
    assert chain.get(Person, {"id": 1}) is None
    assert source.took() == []


def test_absence_of_which_the_source_is_not_sure_is_not_kept() -> None:
    """A record that is not fillable is answered and kept nowhere."""
    chain, (upper, lower), source, _ = build(Person(2))
    find = source._find

    def unsure(klass: type, wanted: Key) -> Record:
        found = find(klass, wanted)
        found.fillable = False
        return found

    source._find = unsure  # type: ignore[method-assign]
    for _ in range(2):
        assert chain.get(Person, {"id": 1}) is None
        assert chain.get(Person, {"id": 2}).id == 2
    assert source.took() == ["load 1"] * 4
    assert len(upper) == len(lower) == 0
    assert upper.stats.refused == 0


def test_locked_key_is_loaded_and_filled_nowhere() -> None:
    """While any tier has a lock on a key, its value comes from below and is filled into no tier."""
    chain, (upper, lower), _, _ = build(Person(1, "ann@x"), Person(2))
    (lock,) = lower._table.lock([key(id=1)], 30)
    for _ in range(2):
        assert [p.id for p in chain.batch_get(Person, [{"id": 1}, {"id": 2}])] == [1, 2]
        assert chain.get(Person, {"email": "ann@x"}).id == 1
    assert lower.holds(key(id=1)) is LOCKED
    assert not isinstance(upper.holds(key(id=1)), Record)
    assert not isinstance(upper.holds(key(email="ann@x")), Alias)
    assert isinstance(upper.holds(key(id=2)), Record)
    assert lower.stats.locked == 4
    lower._table.unlock([lock])
    assert chain.get(Person, {"email": "ann@x"}).id == 1
    assert isinstance(upper.holds(key(id=1)), Record)


def test_refused_fill_is_counted_and_not_retried() -> None:
    """A record whose lease was lost while it was loaded is returned, counted as refused, and kept nowhere."""
    chain, (tier,), source, _ = build(Person(1), tiers=1)

    def writer() -> None:
        tier._table.publish([(lock, None) for lock in tier._table.lock([key(id=1)], 30)])

    source.on["loaded"] = writer
    assert chain.get(Person, {"id": 1}).id == 1
    assert tier.took() == ["read", "fill"]
    assert (tier.stats.fills, tier.stats.refused) == (0, 1)
    assert len(tier) == 0


def test_lease_is_given_back_when_the_source_fails() -> None:
    """After a failed load the error is the caller's, and the next reader loads and fills at once."""
    chain, (upper, lower), source, _ = build(Person(1, "ann@x"))

    def fail() -> None:
        raise OSError("down")

    for asked in ({"id": 1}, {"email": "ann@x"}):
        source.on["load"] = fail
        with pytest.raises(OSError, match="down"):
            chain.get(Person, asked)
    chain.get(Person, {"email": "ann@x"})
    assert isinstance(upper.holds(key(id=1)), Record)
    assert isinstance(lower.holds(key(id=1)), Record)


def test_failing_tier_costs_speed_and_no_answers(caplog: pytest.LogCaptureFixture) -> None:
    """A tier that cannot be read or filled is logged and counted, and the others answer."""
    chain, (upper, lower), _, _ = build(Person(1))

    def fail() -> None:
        raise OSError("the cache is down")

    upper.on["read"] = fail
    lower.on["fill"] = fail
    assert chain.get(Person, {"id": 1}).id == 1
    assert (upper.stats.errors, lower.stats.errors) == (1, 1)
    assert "Tier could not be read" in caplog.text
    assert "Tier could not be filled" in caplog.text


def test_alias_is_filled_only_where_its_record_is() -> None:
    """A layer that was not asked for the record gets no alias that would lead to nothing there."""
    chain, (upper, lower), source, _ = build(Person(1, "ann@x"))
    chain.get(Person, {"id": 1})
    lower.clear()
    source.took()
    assert chain.get(Person, {"email": "ann@x"}).id == 1
    assert source.took() == ["load 1"]
    assert isinstance(upper.holds(key(email="ann@x")), Alias)
    assert not isinstance(lower.holds(key(email="ann@x")), Alias)
    assert upper.stats.refused == lower.stats.refused == 0


def test_counters() -> None:
    """Hits, misses and fills are counted once a key asked for, in each layer and for the chain."""
    chain, (upper, lower), _, _ = build(Person(1, "ann@x"), Person(2))
    chain.batch_get(Person, [{"id": 1}, {"id": 2}, {"id": 9}])
    assert [chain.stats.as_dict()[name] for name in ("hits", "misses")] == [2, 1]
    for tier in (upper, lower):
        assert (tier.stats.hits, tier.stats.misses, tier.stats.fills, tier.stats.refused) == (0, 3, 3, 0)
    chain.get(Person, {"id": 1})
    assert (upper.stats.hits, lower.stats.hits, lower.stats.misses) == (1, 0, 3)
    upper.clear()
    chain.get(Person, {"id": 2})
    assert (upper.stats.misses, lower.stats.hits) == (4, 1)
    chain.get(Person, {"email": "ann@x"})
    chain.get(Person, {"email": "ann@x"})
    assert upper.stats.hits == 2
    assert upper.stats.refused == lower.stats.refused == 0
    chain.stats.reset()
    assert set(chain.stats.as_dict().values()) == {0}


# lifetimes


def test_default_bounds() -> None:
    """Without a rule of the user's own a record lives 60 seconds in a memory tier, and for ever in the source."""
    clock = Clock()
    upper, lower = ProcessMemoryStore(clock=clock), ProcessMemoryStore(clock=clock)
    chain = ChainedStore([upper, lower])
    for write in (lambda: chain.put(Person(1)), lambda: chain.get(Person, {"id": 1})):
        write()
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


# polymorphic


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


# writing


def test_write_locks_each_tier_once_and_publishes_from_below() -> None:
    """A put of many objects is one lock and one publish a tier, one write and one load, in the right order."""
    order: list[str] = []
    chain, (upper, lower), source, _ = build(tiers=2)
    for name, tier in (("upper", upper), ("lower", lower)):
        for step in ("lock", "publish"):
            tier.on[step] = lambda what=f"{step} {name}": order.append(what)  # type: ignore[misc]
    source.on = {"commit": lambda: order.append("commit"), "load": lambda: order.append("load")}
    chain.batch_put([Person(i, f"{i}@x") for i in range(20)])
    assert order == ["lock upper", "lock lower", "commit", "load", "publish lower", "publish upper"]
    assert (upper.took(), lower.took(), source.took()) == (
        ["lock", "publish"],
        ["lock", "publish"],
        ["write", "load 20"],
    )
    assert [p.id for p in chain.batch_get(Person, [{"email": f"{i}@x"} for i in range(20)])] == list(range(20))
    assert (lower.took(), source.took()) == ([], [])


def test_moved_key_is_gone_from_the_tiers() -> None:
    """After a put that moves an alternate key no tier finds the object by the old one."""
    chain, (upper, lower), _, _ = build(Person(1, "old@x"))
    chain.get(Person, {"email": "old@x"})
    chain.put(Person(1, "new@x"))
    for tier in (upper, lower):
        assert not isinstance(tier.holds(key(email="old@x")), Alias)
    assert chain.get(Person, {"email": "old@x"}) is None
    assert chain.get(Person, {"email": "new@x"}).id == 1


def test_invalidating_chain_publishes_nothing() -> None:
    """With on_write="invalidate" a put leaves the tiers empty, and loads nothing."""
    chain, (upper, _), source, _ = build(on_write="invalidate")
    chain.put(Person(1))
    assert (source.took(), len(upper)) == (["write"], 0)


def test_failed_write_publishes_nothing_and_unlocks() -> None:
    """When the source rolls back, the error is the caller's and the next reader fills the old state."""
    chain, (upper, lower), source, _ = build(Person(1, name="old"))
    for outcome in (Outcome.ROLLED_BACK, Outcome.OPEN):
        source.fail = outcome
        with pytest.raises(OSError, match="has failed"):
            chain.put(Person(1, name="new"))
        assert upper.took() == ["lock", "unlock"]
        assert lower.took() == ["lock", "unlock"]
        assert chain.get(Person, {"id": 1}).name == "old"
        assert upper.holds(key(id=1)).value.name == "old"
        upper.took(), lower.took()


def test_unknown_outcome_leaves_the_locks_to_run_out() -> None:
    """When nobody knows if the commit happened, readers bypass the tiers until the locks run out by the clock."""
    chain, tiers, source, clock = build(Person(1, name="old"))
    source.fail = Outcome.UNKNOWN
    with pytest.raises(OSError, match="has failed"):
        chain.put(Person(1, name="new"))
    assert [tier.holds(key(id=1)) for tier in tiers] == [LOCKED, LOCKED]
    assert chain.get(Person, {"id": 1}).name == "old"
    clock.advance(29)
    source.rows[Person, (1,)] = Person(1, name="new")
    assert chain.get(Person, {"id": 1}).name == "new"
    assert [tier.holds(key(id=1)) for tier in tiers] == [LOCKED, LOCKED]
    clock.advance(2)
    assert chain.get(Person, {"id": 1}).name == "new"
    assert [tier.holds(key(id=1)).value.name for tier in tiers] == ["new", "new"]


def test_failed_load_after_a_commit_only_invalidates(caplog: pytest.LogCaptureFixture) -> None:
    """A commit whose result cannot be loaded again has happened: nothing is raised, the tiers are empty."""
    chain, (upper, _), source, _ = build(Person(1, name="old"))
    chain.get(Person, {"id": 1})

    def fail() -> None:
        raise OSError("gone")

    source.on["load"] = fail
    chain.put(Person(1, name="new"))
    assert len(upper) == 0
    assert "invalidated instead" in caplog.text
    assert chain.get(Person, {"id": 1}).name == "new"


def test_failing_publish_is_survived_and_its_locks_hold(caplog: pytest.LogCaptureFixture) -> None:
    """A tier that fails after the commit is counted; its locks keep readers off, and the others are published."""
    chain, (upper, lower), _, _ = build()

    def fail() -> None:
        raise OSError("gone")

    lower.on["publish"] = fail
    chain.put(Person(1, name="new"))
    assert lower.holds(key(id=1)) is LOCKED
    assert upper.holds(key(id=1)).value.name == "new"
    assert lower.stats.errors == 1
    assert "locks are left to run out" in caplog.text


def test_tier_that_cannot_lock_stops_the_write() -> None:
    """When a tier cannot be locked nothing is written, and the tiers locked before are unlocked."""
    chain, (upper, lower), source, _ = build()

    def fail() -> None:
        raise OSError("no lock")

    lower.on["lock"] = fail
    with pytest.raises(OSError, match="no lock"):
        chain.put(Person(1))
    assert source.rows == {}
    assert upper.took() == ["lock", "unlock"]


def test_invalidate_reaches_every_layer() -> None:
    """invalidate() by any key, or of a class, drops from the tiers what somebody else has changed."""
    chain, (upper, lower), source, _ = build()
    for asked in ({"id": 1}, {"email": "ann@x"}, None):
        chain.put(Person(1, "ann@x", name="old"))
        source.rows[Person, (1,)] = Person(1, "ann@x", name="new")
        chain.invalidate(Person, asked)
        assert chain.get(Person, {"id": 1}).name == "new"
        assert lower.holds(key(id=1)).value.name == "new"
    upper._table._remove(upper._table._spaces[spec_of(Person).space], key(email="ann@x").ident)
    lower._table._remove(lower._table._spaces[spec_of(Person).space], key(email="ann@x").ident)
    source.rows[Person, (1,)] = Person(1, "ann@x", name="newer")
    chain.invalidate(Person, {"email": "ann@x"})
    assert chain.get(Person, {"id": 1}).name == "newer"


def test_clear_empties_the_caches_only() -> None:
    """clear() forgets what the tiers hold; the source keeps its objects."""
    chain, (upper, lower), source, _ = build()
    chain.put(Person(1))
    chain.clear()
    assert (len(upper), len(lower), len(source.rows)) == (0, 0, 1)
    assert chain.get(Person, {"id": 1}).id == 1


# building a chain


@pytest.mark.parametrize("stores", [None, [], (), iter(())])
def test_chain_of_nothing(stores: Any) -> None:
    """A chain without stores is refused, with a hint."""
    with pytest.raises(ImproperlyConfigured, match="at least one store"):
        ChainedStore(stores)


@pytest.mark.parametrize("stores", [ProcessMemoryStore(), "memory", 5, {"a": 1}])
def test_chain_of_what_is_no_list(stores: Any) -> None:
    """What is no list of stores is refused, and named."""
    with pytest.raises(ImproperlyConfigured, match="list of stores"):
        ChainedStore(stores)


@pytest.mark.parametrize("store", [None, object(), "memory", ProcessMemoryStore])
def test_chain_of_what_is_no_store(store: Any) -> None:
    """What is no store, or the class of one, is refused, and named."""
    with pytest.raises(ImproperlyConfigured, match=r"no store: it lacks put|is a class"):
        ChainedStore([ProcessMemoryStore(), store])


def test_bad_on_write() -> None:
    """on_write is one of two words."""
    with pytest.raises(ImproperlyConfigured, match="sometimes"):
        ChainedStore([ProcessMemoryStore()], on_write="sometimes")


def test_class_that_no_store_accepts() -> None:
    """The error names the class and the stores."""

    class Stranger:
        __stockpyle_keys__ = ("id",)
        id = 1

    class Picky(Source):
        def accepts(self, klass: type) -> bool:
            return False

    chain = ChainedStore([NullStore(), Picky()])
    for use in (lambda: chain.put(Stranger()), lambda: chain.get(Stranger, {"id": 1})):
        with pytest.raises(UnsupportedOperation, match=r"Stranger.*NullStore, Picky"):
            use()


def test_class_without_keys() -> None:
    """A class that declares no keys is named, whatever the sources accept."""
    with pytest.raises(InvalidKeysDeclaration, match="Clock"):
        ChainedStore([ProcessMemoryStore(), BaseDictionaryStore()]).put(Clock())


def test_key_without_a_class_in_a_chain() -> None:
    """get(key) looks among the classes put or loaded through this very chain."""
    source = Source(Person(1, "ann@x"))
    chain = ChainedStore([ProcessMemoryStore(), source])
    with pytest.raises(UndeclaredKeyError):
        chain.get({"email": "ann@x"})
    chain.get(Person, {"id": 1})
    assert chain.get({"email": "ann@x"}).id == 1


def test_chains_in_chains_are_one() -> None:
    """A chain as a layer counts as its stores."""
    upper, lower, source = Tier(), Tier(), Source(Person(1))
    chain = ChainedStore([upper, ChainedStore([lower, source])])
    assert chain.stores == (upper, lower, source)
    assert chain.get(Person, {"id": 1}).id == 1
    assert len(upper) == len(lower) == 1


def test_every_store_is_closed_even_if_one_fails() -> None:
    """close() and release() reach all stores, and the failure is raised."""
    closed: list[str] = []

    class Closing(BaseDictionaryStore):
        def close(self) -> None:
            closed.append("close")
            raise OSError("cannot close")

        release = close

    with pytest.raises(OSError, match="cannot close"), ChainedStore([Closing(), Closing()]):
        pass
    with pytest.raises(OSError, match="cannot close"):
        ChainedStore([Closing(), Closing()]).release()
    assert len(closed) == 4


# stores of other people


class SixVerbs:
    """The least that is a store: no base class, no release, and a batch_put that takes a lifetime."""

    def __init__(self) -> None:
        self.by_key: dict[Any, Any] = {}
        self.calls: list[Any] = []

    def put(self, obj: Any) -> None:
        self.batch_put([obj])

    def get(self, klass: type, key: Any) -> Any:
        return self.batch_get(klass, [key])[0]

    def delete(self, obj: Any) -> None:
        self.batch_delete([obj])

    def batch_put(self, objs: Any, lifetime: Any = None) -> None:
        self.calls.append(("put", len(objs), lifetime))
        assert objs
        for obj in objs:
            for own in spec_of(type(obj)).keys_of(obj):
                self.by_key[own.ident] = obj

    def batch_get(self, klass: type, keys: Any) -> list[Any]:
        self.calls.append(("get", len(keys)))
        assert keys
        return [self.by_key.get(spec_of(klass).key(asked).ident) for asked in keys]  # type: ignore[union-attr]

    def batch_delete(self, objs: Any) -> None:
        self.calls.append(("delete", len(objs)))
        assert objs
        for obj in objs:
            for own in spec_of(type(obj)).keys_of(obj):
                self.by_key.pop(own.ident, None)


def test_six_verbs_are_a_source() -> None:
    """A store that subclasses nothing is the bottom of a chain."""
    tier, bottom = Tier(), SixVerbs()
    chain = ChainedStore([tier, bottom])
    chain.batch_put([Person(1, "ann@x"), Person(2)])
    assert bottom.calls == [("put", 2, None), ("get", 2)]
    tier.clear()
    assert [p and p.id for p in chain.batch_get(Person, [{"id": 1}, {"id": 2}, {"id": 3}])] == [1, 2, None]
    assert chain.get(Person, {"email": "ann@x"}).id == 1
    chain.delete(Person(1, "ann@x"))
    assert chain.get(Person, {"id": 1}) is None
    chain.release()
    chain.close()


def test_six_verbs_are_an_upper_layer() -> None:
    """As an upper layer it deletes before and after a write, and is filled on a miss for a bounded time."""
    upper, source = SixVerbs(), Source(Person(1, "ann@x"))
    chain = ChainedStore([upper, source])
    assert chain.get(Person, {"id": 1}).id == 1
    assert upper.calls[:1] == [("get", 1)]
    name, count, lifetime = upper.calls[1]
    assert (name, count) == ("put", 1)
    assert 59 < lifetime <= 60
    assert chain.get(Person, {"email": "ann@x"}).id == 1
    assert source.took() == ["load 1"]
    upper.calls.clear()
    source.on["commit"] = lambda: upper.calls.append("commit")
    chain.put(Person(1, "ann@x", name="new"))
    assert upper.calls == [("delete", 1), "commit", ("delete", 1)]
    assert source.took() == ["write"]
    assert chain.get(Person, {"id": 1}).name == "new"
    upper.calls.clear()
    chain.delete(Person(1, "ann@x"))
    assert upper.calls == [("delete", 1), ("delete", 1)]
    assert chain.get(Person, {"email": "ann@x"}) is None


def test_filled_verbs_keep_no_longer_than_the_layer_below() -> None:
    """What is filled into a store of verbs from a tier lives there no longer than in the tier."""
    upper = SixVerbs()
    tier = ProcessMemoryStore(lifetime=20)
    chain = ChainedStore([upper, tier, Source(Person(1))])
    chain.get(Person, {"id": 1})
    upper.by_key.clear()
    upper.calls.clear()
    chain.get(Person, {"id": 1})
    assert 0 < upper.calls[1][2] <= 20


def test_verbs_that_cannot_invalidate_a_class_say_so(caplog: pytest.LogCaptureFixture) -> None:
    """A class-wide change does not fail on a store that cannot follow it: that is logged."""
    from stockpyle.coherence.layers import Layer
    from stockpyle.coherence.verbs import VerbTier
    from stockpyle.coherence.writer import Writer

    for store in (SixVerbs(), ToyFromScratch()):
        writer = Writer([Layer(VerbTier(store))], [], [spec_of(Person).epoch])
        writer.lock()
        writer.publish()
    assert caplog.text.count("cannot forget all objects of Person") == 4


def test_invalidate_reaches_stores_of_verbs() -> None:
    """invalidate() by any key deletes the object from a store of verbs, or says that it cannot."""
    upper, source = SixVerbs(), Source(Person(1, "ann@x", name="old"))
    chain = ChainedStore([upper, source])
    for asked in ({"id": 1}, {"email": "ann@x"}):
        chain.get(Person, {"id": 1})
        chain.invalidate(Person, asked)
        assert upper.by_key == {}
    with pytest.raises(UnsupportedOperation, match=r"SixVerbs.*Person"):
        chain.invalidate(Person)


def test_failing_verbs_leave_the_outcome_unknown() -> None:
    """Nobody knows what a store of verbs has done when it raises, so the tiers are bypassed for a while."""

    class Failing(SixVerbs):
        def batch_put(self, objs: Any, lifetime: Any = None) -> None:
            raise OSError("half way")

    tier = Tier()
    chain = ChainedStore([tier, Failing()])
    with pytest.raises(OSError, match="half way"):
        chain.put(Person(1))
    assert tier.holds(key(id=1)) is LOCKED


def test_lifetimes_of_a_dictionary_source_are_asked_first() -> None:
    """A callback that fails in a source of verbs leaves no locks behind."""
    tier = Tier()
    chain = ChainedStore([tier, BaseDictionaryStore(lifetime_cb=lambda obj: obj.nonsense)])
    with pytest.raises(InvalidLifetime):
        chain.put(Person(1))
    assert tier.took() == []


def test_store_with_attributes_of_its_own_is_no_trouble() -> None:
    """Attributes that happen to be called like ours are not taken for ours."""

    class Named(SixVerbs):
        lifetimes = ("Person", 5)
        clock = "wall"

        def stats(self) -> str:
            return "fine"

    chain = ChainedStore([Named(), Source(Person(1))])
    assert chain.get(Person, {"id": 1}).id == 1
    assert chain.get(Person, {"id": 1}).id == 1


class ToyMapping(BaseDictionaryStore):
    """An outsider's store over a mapping of their own, with a limit that the mapping keeps."""

    class Mapping(dict):  # type: ignore[type-arg]
        def __setitem__(self, text: str, value: Any) -> None:
            super().__setitem__(text, value)
            while len(self) > 100:
                del self[next(iter(self))]

    def __init__(self, **options: Any) -> None:
        super().__init__(self.Mapping(), **options)


class ToyFromScratch(BaseStore):
    """An outsider's store from scratch: put, get and delete, one by one."""

    def __init__(self) -> None:
        self.objects: dict[Any, Any] = {}

    def put(self, obj: Any) -> None:
        self.objects[self.place(obj)] = obj

    def get(self, klass: type, key: Any) -> Any:
        for (kind, _), obj in self.objects.items():
            if kind is klass and all(getattr(obj, name) == value for name, value in key.items()):
                return obj
        return None

    def delete(self, obj: Any) -> None:
        self.objects.pop(self.place(obj), None)

    def place(self, obj: Any) -> Any:
        return type(obj), getattr(obj, type(obj).__stockpyle_keys__[0])


class TestToyMapping(StoreContract):
    def make_store(self, **options: Any) -> ToyMapping:
        return ToyMapping(**options)


class TestToyFromScratch(StoreContract):
    polymorphic = lifetimes = class_less = clears = strict_keys = False

    def make_store(self, **options: Any) -> ToyFromScratch:
        return ToyFromScratch()

    def test_none_in_an_alternate_key_is_not_indexed(self) -> None:
        """A toy may find None."""
        assert self.make_store().get(Person, {"id": 1}) is None

    def test_last_of_a_batch_wins(self) -> None:
        """A toy may find the first of two with one alternate key."""
        store = self.make_store()
        store.batch_put([Person(1, name="old"), Person(1, name="new")])
        assert store.get(Person, {"id": 1}).name == "new"


@pytest.mark.parametrize("toy", [ToyMapping, ToyFromScratch])
def test_toys_work_at_both_ends_of_a_chain(toy: Callable[[], Any]) -> None:
    """An outsider's store is a source, and an upper layer."""
    for chain in (ChainedStore([ProcessMemoryStore(), toy()]), ChainedStore([toy(), ProcessMemoryStore()])):
        chain.batch_put([Person(1, "ann@x"), Person(2, "bob@x")])
        assert chain.get(Person, {"email": "ann@x"}).id == 1
        assert chain.get(Person, {"id": 1}).email == "ann@x"
        chain.put(Person(1, "anna@x"))
        assert chain.get(Person, {"email": "anna@x"}).id == 1
        assert chain.get(Person, {"email": "ann@x"}) is None
        chain.delete(Person(2, "bob@x"))
        assert chain.batch_get(Person, [{"id": 2}, {"email": "bob@x"}]) == [None, None]


def test_base_store_asks_for_the_verbs_it_needs() -> None:
    """A subclass of BaseStore without a verb is refused when it is defined."""
    with pytest.raises(TypeError, match="Half must implement delete or batch_delete"):

        class Half(BaseStore):
            def put(self, obj: Any) -> None:
                """Keep it."""

            def get(self, klass: type, key: Any) -> Any:
                """Find it."""


@pytest.mark.parametrize("verb", ["put", "get", "delete", "batch_put", "batch_get", "batch_delete"])
def test_base_store_itself_has_no_verbs(verb: str) -> None:
    """It says so, and does not call itself until the stack is full."""
    several = [{"id": 1}] if verb == "batch_get" else [Person(1, "ann@x")]
    given = several if verb.startswith("batch") else several[0]
    with pytest.raises(UnsupportedOperation, match=f"BaseStore must implement {verb.removeprefix('batch_')} or"):
        getattr(BaseStore(), verb)(*([Person] if "get" in verb else []), given)


# threads


class Together:
    """Two threads that are stopped and let go at named points."""

    def __init__(self) -> None:
        self.reached: dict[str, threading.Event] = {}
        self.go: dict[str, threading.Event] = {}

    def stop(self, point: str) -> Callable[[], None]:
        """Return what waits at a point until it is let go."""
        reached, go = self.reached.setdefault(point, threading.Event()), self.go.setdefault(point, threading.Event())

        def wait() -> None:
            reached.set()
            assert go.wait(10), point

        return wait

    def until(self, point: str) -> None:
        assert self.reached[point].wait(10), point

    def let(self, point: str) -> None:
        self.go[point].set()


def start(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run `work` in a thread, and return that and the list that gets its result."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    return thread, results


def waiting_readers(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Return a semaphore that is released whenever a reader begins to wait for another's load."""
    waits = threading.Semaphore(0)
    wait = Busy.wait

    def counted(busy: Busy, seconds: float) -> None:
        waits.release()
        wait(busy, 10 if seconds > 0.1 else seconds)

    monkeypatch.setattr(Busy, "wait", counted)
    return waits


@pytest.mark.parametrize("asked", [{"id": 1}, {"email": "ann@x"}])
def test_stampede_is_one_load(asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that miss the same key wait for the first one's load, and do not load themselves."""
    waits, together = waiting_readers(monkeypatch), Together()
    chain, _, source, _ = build(Person(1, "ann@x"), tiers=1)
    source.on["load"] = together.stop("load")
    first, _ = start(lambda: chain.get(Person, asked).id)
    together.until("load")
    others = [start(lambda: chain.get(Person, asked).id) for _ in range(8)]
    for _ in others:
        assert waits.acquire(timeout=10)
    together.let("load")
    for thread, _ in others:
        thread.join(10)
    first.join(10)
    assert [results for _, results in others] == [[1]] * 8
    assert source.took() == (["load 1"] if "id" in asked else ["load 1", "load 1"])


def test_reader_that_waits_too_long_loads_without_filling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader whose predecessor does not finish loads for itself, and fills nothing."""
    monkeypatch.setattr(reader_module, "BUSY_SECONDS", 0.0)
    chain, (tier,), source, _ = build(Person(1), tiers=1)
    lease = tier._table.read([key(id=1)])[0]
    assert start(lambda: chain.get(Person, {"id": 1}).id)[0].join(10) is None
    assert source.took() == ["load 1"]
    assert len(tier) == 0
    assert isinstance(lease, Lease)
    assert tier._table.fill([(lease, None)]) == 0


def test_reader_waits_only_for_what_it_still_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cold read by alternate key whose identity another is loading has its answer, and does not wait."""
    waits = waiting_readers(monkeypatch)
    chain, (tier,), _, _ = build(Person(1, "ann@x"), tiers=1)
    tier._table.read([key(id=1)])
    thread, results = start(lambda: chain.get(Person, {"email": "ann@x"}).id)
    thread.join(10)
    assert results == [1]
    assert not waits.acquire(blocking=False)
    assert tier.stats.misses == 1


def test_reader_holds_no_lease_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch fills what it could load before it waits for others' keys, so that no two readers block each other."""
    waits, together = waiting_readers(monkeypatch), Together()
    chain, (tier,), source, _ = build(Person(1), Person(2), tiers=1)
    source.on["load"] = together.stop("load")
    first, one = start(lambda: [p.id for p in chain.batch_get(Person, [{"id": 1}])])
    together.until("load")
    second, two = start(lambda: [p.id for p in chain.batch_get(Person, [{"id": 2}, {"id": 1}])])
    assert waits.acquire(timeout=10)
    assert isinstance(tier.holds(key(id=2)), Record)
    together.let("load")
    first.join(10)
    second.join(10)
    assert (one, two) == ([[1]], [[2, 1]])
    assert source.took() == ["load 1", "load 1"]


@pytest.mark.parametrize("asked", [{"id": 1}, {"email": "ann@x"}])
@pytest.mark.parametrize("reader_at", ["load", "loaded"])
@pytest.mark.parametrize("writer_at", ["locked", "committed", "done"])
def test_reader_that_races_a_writer_leaves_nothing_old(asked: Any, reader_at: str, writer_at: str) -> None:
    """Wherever a reader stands when a writer passes, later readers get what was written."""
    together = Together()
    chain, (upper, lower), source, _ = build(Person(1, "ann@x", name="old"))
    source.on[reader_at] = together.stop("reader")
    reader, _ = start(lambda: chain.get(Person, asked))
    together.until("reader")
    if writer_at == "locked":
        source.on["commit"] = together.stop("writer")
    elif writer_at == "committed":
        lower.on["publish"] = together.stop("writer")
    writer, _ = start(lambda: chain.put(Person(1, "ann@x", name="new")))
    if writer_at == "done":
        writer.join(10)
    else:
        together.until("writer")
    together.let("reader")
    reader.join(10)
    if writer_at != "done":
        together.let("writer")
        writer.join(10)
    assert not reader.is_alive()
    assert not writer.is_alive()
    for name in ({"id": 1}, {"email": "ann@x"}):
        assert chain.get(Person, name).name == "new"
    for tier in (upper, lower):
        held = tier.holds(key(id=1))
        assert not isinstance(held, Record) or held.value.name == "new"


@pytest.mark.parametrize("asked", [{"id": 1}, {"email": "new@x"}])
def test_reader_in_the_middle_of_a_write(asked: Any) -> None:
    """Between lock and publish readers are answered by the source, with what is committed there."""
    seen: list[Any] = []
    chain, (upper, lower), source, _ = build(Person(1, "old@x", name="old"))
    chain.batch_get(Person, [{"id": 1}, asked])

    def look() -> None:
        thread, results = start(lambda: chain.get(Person, asked))
        thread.join(10)
        seen.append(results[0] and results[0].name)

    source.on["commit"] = look
    lower.on["publish"] = look
    upper.on["publish"] = look
    chain.put(Person(1, "new@x", name="new"))
    assert seen == ["old" if "id" in asked else None, "new", "new"]
    assert chain.get(Person, asked).name == "new"


def test_two_writers_of_one_object() -> None:
    """When two puts overlap, the tiers end with what the source has."""
    together = Together()
    chain, (upper, lower), _, _ = build(Person(1, name="old"))
    lower.on["publish"] = together.stop("first")
    first, _ = start(lambda: chain.put(Person(1, name="first")))
    together.until("first")
    chain.put(Person(1, name="second"))
    together.let("first")
    first.join(10)
    assert chain.get(Person, {"id": 1}).name == "second"
    assert [tier.holds(key(id=1)).value.name for tier in (upper, lower)] == ["second", "second"]


class RowLocking(Source):
    """A source whose writers hold their row from the first statement to the commit."""

    def __init__(self, *objs: Any) -> None:
        super().__init__(*objs)
        self.row = threading.Lock()

    @contextmanager
    def write(self, puts: Sequence[Any], deletes: Sequence[Any]) -> Iterator[Pending]:
        with self.row, super().write(puts, deletes) as pending:
            yield pending


@pytest.mark.parametrize(
    "tiers",
    [
        lambda: [ProcessMemoryStore(), ProcessMemoryStore()],
        lambda: [ProcessMemoryStore(maxsize=2), ProcessMemoryStore(maxsize=5)],
        lambda: [ThreadLocalStore(), ProcessMemoryStore(policy=cachetools.LRUCache(3))],
    ],
)
def test_no_reader_gets_less_than_was_committed(tiers: Callable[[], list[Any]]) -> None:
    """Under threads that write, read, delete and invalidate the same keys, nobody reads what a put had replaced."""
    people = range(4)
    chain = ChainedStore([*tiers(), RowLocking()])
    committed = dict.fromkeys(people, 0)
    versions = {i: iter(range(1, 10**9)) for i in people}
    writing = {i: threading.Lock() for i in people}
    errors: list[str] = []
    hits = 0
    until = monotonic() + 1.0

    def write(number: int) -> None:
        chance = random.Random(number)
        while monotonic() < until:
            i = chance.randrange(len(people))
            with writing[i]:
                version = next(versions[i])
                chain.put(Person(i, f"{i}@x", "v", version))
                committed[i] = version
            if chance.randrange(30) == 0:
                chain.invalidate(Person, chance.choice([None, {"id": i}, {"email": f"{i}@x"}]))

    def read(number: int) -> None:
        nonlocal hits
        chance = random.Random(number)
        while monotonic() < until:
            i = chance.randrange(len(people))
            floor = committed[i]
            found = chain.get(Person, chance.choice([{"id": i}, {"email": f"{i}@x"}]))
            hits += found is not None
            if (found.login if found else 0) < floor:
                errors.append(f"{i}: {found and found.login} after {floor}")

    threads = [threading.Thread(target=work, args=(n,)) for n, work in enumerate([write, read, write, read, read])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert hits > 100
    assert min(committed.values()) > 0


def test_nothing_of_a_quiet_chain_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Puts, gets and deletes that succeed log nothing."""
    with caplog.at_level(logging.DEBUG, logger="stockpyle"):
        chain, _, _, _ = build()
        chain.put(Person(1, "ann@x"))
        chain.get(Person, {"email": "ann@x"})
        chain.delete(Person(1, "ann@x"))
    assert caplog.records == []


def test_a_store_stands_in_a_chain_once() -> None:
    """Twice, even inside a chain that is part of it, would lock itself out and lose what is put."""
    memory = ProcessMemoryStore()
    for stores in ([memory, memory], [memory, ChainedStore([memory])]):
        with pytest.raises(ImproperlyConfigured, match=r"ProcessMemoryStore.* twice"):
            ChainedStore(stores)


@pytest.mark.parametrize("seconds", [0, -1, "30", None, True, float("nan")])
def test_locks_and_leases_last_some_seconds(seconds: Any) -> None:
    """Ones that last no time would protect nothing, silently."""
    with pytest.raises(ImproperlyConfigured, match=f"lock_seconds .* not {seconds!r}"):
        ChainedStore([ProcessMemoryStore()], lock_seconds=seconds)
    with pytest.raises(ImproperlyConfigured, match=f"lease_seconds .* not {seconds!r}"):
        ProcessMemoryStore(lease_seconds=seconds)


def test_a_cached_object_that_lost_its_key_attributes_is_a_miss() -> None:
    """One damaged object neither fails the batch that it is in nor keeps others from being cached."""
    chain, (tier,), source, _ = build(Person(1, "ann@x"), Person(3, "cy@x"), tiers=1)
    damaged = chain.get(Person, {"id": 1})
    del damaged.id
    source._keep([Person(1, "ann@x")])
    found = chain.batch_get(Person, [{"id": 1}, {"id": 3}])
    assert [person.id for person in found] == [1, 3]
    assert isinstance(tier.read([key(id=3)], lease=True)[0], Record)


def test_a_source_that_answers_with_too_little_is_named() -> None:
    """A user's store whose batch_get answers with the wrong number, or no object of the class, is named."""

    class Forgetful(BaseStore):
        answer: Any = []

        def batch_put(self, objs: Any) -> None: ...
        def batch_get(self, klass: Any, keys: Any) -> Any:
            return self.answer

        def batch_delete(self, objs: Any) -> None: ...

    store = Forgetful()
    chain = ChainedStore([ProcessMemoryStore(), store])
    for answer in ([], None, ["text"]):
        store.answer = answer
        with pytest.raises(StoreError, match=r"Forgetful\.batch_get"):
            chain.get(Person, {"id": 1})


def test_clear_reaches_the_caches_that_know_only_the_six_verbs() -> None:
    """Clearing a chain makes an upper dictionary store forget, and names a store that cannot."""
    upper = BaseDictionaryStore()
    chain = ChainedStore([upper, ProcessMemoryStore()])
    chain.put(Person(1, "ann@x"))
    chain.get(Person, {"id": 1})
    assert upper.get(Person, {"id": 1}) is not None
    chain.clear()
    assert upper.get(Person, {"id": 1}) is None

    class Stubborn(BaseStore):
        def put(self, obj: Any) -> None: ...
        def get(self, klass: Any, key: Any) -> Any: ...
        def delete(self, obj: Any) -> None: ...

    stubborn = ChainedStore([Stubborn(), ProcessMemoryStore()])
    stubborn.get(Person, {"id": 1})
    with pytest.raises(UnsupportedOperation, match="Stubborn"):
        stubborn.clear()


def test_a_class_in_place_of_an_object_is_named() -> None:
    """Putting a class says that an object is expected."""
    with pytest.raises(InvalidKeysDeclaration, match=r"a class .* where an object is expected"):
        ChainedStore([ProcessMemoryStore()]).put(Person)
