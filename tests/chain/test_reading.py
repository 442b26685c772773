"""How a chain reads: down, filled up, by every key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from stockpyle.keys import Key
from stockpyle.records import LOCKED, Alias, Lease, Record
from stockpyle.stores import (
    BaseDictionaryStore,
    ChainedStore,
    ProcessMemoryStore,
)
from stockpyle.testing import Person, StoreContract
from tests.chain.parts import Source, Tier, build, key


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
        assert self.make_store().name == "chain"


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


def test_a_cached_object_that_lost_its_key_attributes_is_a_miss() -> None:
    """One damaged object neither fails the batch that it is in nor keeps others from being cached."""
    chain, (tier,), source, _ = build(Person(1, "ann@x"), Person(3, "cy@x"), tiers=1)
    damaged = chain.get(Person, {"id": 1})
    del damaged.id
    source._keep([Person(1, "ann@x")])
    found = chain.batch_get(Person, [{"id": 1}, {"id": 3}])
    assert [person.id for person in found] == [1, 3]
    assert isinstance(tier.read([key(id=3)], lease=True)[0], Record)


def test_alias_that_misleads_is_removed() -> None:
    """A reader that was led to another object gets the right one, and the next is no longer misled."""
    chain, (upper, lower), source, _ = build(Person(1, "ann@x"), Person(2, "bob@x"))
    for person in (1, 2):
        chain.get(Person, {"id": person})
    asked = key(email="bob@x")
    for tier in (upper, lower):
        (lease,) = tier.read([asked])
        assert tier.fill([(lease, Alias(key(id=1)))]) == 1
    source.took()
    assert chain.get(Person, {"email": "bob@x"}).id == 2
    assert source.took() == ["load 1"]
    assert chain.get(Person, {"email": "bob@x"}).id == 2
    chain.get(Person, {"email": "bob@x"})
    source.took()
    assert chain.get(Person, {"email": "bob@x"}).id == 2
    assert source.took() == []
