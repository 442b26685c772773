"""How a chain writes, and what it is made of."""

from __future__ import annotations

from typing import Any

import pytest

from stockpyle.classes import spec_of
from stockpyle.exceptions import (
    ImproperlyConfigured,
    InvalidKeysDeclaration,
    StoreUnavailable,
    UndeclaredKeyError,
    UnsupportedOperation,
)
from stockpyle.protocols import Outcome
from stockpyle.records import LOCKED, Alias
from stockpyle.stores import (
    BaseDictionaryStore,
    ChainedStore,
    NullStore,
    ProcessMemoryStore,
)
from stockpyle.testing import Clock, Person
from tests.chain.parts import Source, Tier, build, key


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
    """A tier that fails after the commit is counted; its locks stay, nobody asks it, and the others are published."""
    chain, (upper, lower), _, _ = build()

    def fail() -> None:
        raise OSError("gone")

    lower.on["publish"] = fail
    chain.put(Person(1, name="new"))
    assert lower.holds(key(id=1)) is LOCKED
    assert upper.holds(key(id=1)).value.name == "new"
    assert lower.stats.errors == 1
    assert "Tier could not be told of a commit" in caplog.text
    assert (upper.stats.owed, lower.stats.owed) == (0, 1)


def test_tier_that_cannot_lock_stops_the_write() -> None:
    """When a tier that refuses cannot be locked nothing is written, and the tiers locked before are unlocked."""
    chain, (upper, lower), source, _ = build(unreachable="refuse")

    def fail() -> None:
        raise OSError("no lock")

    lower.on["lock"] = fail
    with pytest.raises(StoreUnavailable, match=r"Tier\.lock: .*no lock") as caught:
        chain.put(Person(1))
    assert isinstance(caught.value.__cause__, OSError)
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
    for store in (upper, lower):
        store._table._held.remove(*store._table._spaces[spec_of(Person).space].place(key(email="ann@x")))
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


def test_a_class_in_place_of_an_object_is_named() -> None:
    """Putting a class says that an object is expected."""
    with pytest.raises(InvalidKeysDeclaration, match=r"a class .* where an object is expected"):
        ChainedStore([ProcessMemoryStore()]).put(Person)
