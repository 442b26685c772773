"""What a chain does when a tier, or a part of one, cannot be reached."""

from __future__ import annotations

import gc
import itertools
import logging
import threading
import weakref
from typing import Any

import pytest

from stockpyle.classes import spec_of
from stockpyle.coherence.guards import Guards
from stockpyle.coherence.writer import Writer
from stockpyle.exceptions import EncodeError, ImproperlyConfigured, InvalidKeyType, StoreUnavailable
from stockpyle.protocols import Change, Outcome
from stockpyle.records import LOCKED, MISS, Lease, Lock, Record
from stockpyle.stores import BaseStore, ChainedStore, ProcessMemoryStore
from stockpyle.testing import Clock, Person
from tests.chain.cutoff import CutOff, Parted, chain_of
from tests.chain.parts import Source, Tier, key


def names(chain: ChainedStore, *ids: int) -> list[str | None]:
    """What a chain says that these people are called."""
    return [person and person.name for person in chain.batch_get(Person, [{"id": i} for i in ids])]


# reading


def test_dead_tier_costs_one_failure() -> None:
    """After one failed call reads leave the tier alone until a probe is due; the source answers meanwhile."""
    chain, tier, source, clock = chain_of(Person(1, name="ann"))
    with tier.off():
        for _ in range(5):
            assert names(chain, 1) == ["ann"]
        assert tier.took() == ["read"]
        clock.advance(1)
        for _ in range(5):
            assert names(chain, 1) == ["ann"]
        assert tier.took() == ["read"]
    assert source.took() == ["load 1"] * 10
    assert (tier.stats.errors, tier.stats.misses) == (2, 10)


def test_tier_that_works_again_is_used_again() -> None:
    """The probe that succeeds is an ordinary read, with its lease, and from then on the tier is warm."""
    chain, tier, source, clock = chain_of(Person(1))
    with tier.off():
        chain.get(Person, {"id": 1})
    chain.get(Person, {"id": 1})
    assert tier.took() == ["read"]
    clock.advance(1)
    chain.get(Person, {"id": 1})
    assert tier.took() == ["read", "fill"]
    source.took()
    chain.get(Person, {"id": 1})
    assert source.took() == []


def test_change_of_state_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """One line says that the tier has failed, and why, and one that it works again, however many calls there are."""
    chain, tier, _, clock = chain_of(Person(1))
    with tier.off():
        for _ in range(5):
            chain.get(Person, {"id": 1})
            clock.advance(1)
    for _ in range(5):
        chain.get(Person, {"id": 1})
    lines = [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "stockpyle"]
    assert lines == [
        (
            logging.WARNING,
            "memory could not be read; it is bypassed, and tried again every 1 seconds: OSError('cut off')",
        ),
        (logging.WARNING, "memory works again"),
    ]


def test_failure_keeps_nothing_of_its_caller() -> None:
    """What a reader had in hand when a tier failed is not kept as long as the tier is down."""
    chain, tier, _, _ = chain_of()

    class Held:
        """Anything."""

    def read() -> weakref.ref[Held]:
        held = Held()
        chain.get(Person, {"id": 1})
        return weakref.ref(held)

    tier.error = StoreUnavailable("cut off", "memory", "read")
    with tier.off():
        kept = read()
    gc.collect()
    assert kept() is None


def test_failure_leaves_its_callers_own_error_alone() -> None:
    """Who reads while handling an error still has its traceback, though the tier fails, and no longer than ever."""
    chain, tier, _, _ = chain_of()

    class Mistake(Exception):
        """The caller's own."""

    def read() -> tuple[weakref.ref[Mistake], bool]:
        try:
            raise Mistake
        except Mistake as error:
            chain.get(Person, {"id": 1})
            return weakref.ref(error), error.__traceback__ is not None

    with tier.off():
        kept, has_traceback = read()
    assert has_traceback
    gc.collect()
    assert kept() is None


def test_one_reader_probes_while_the_others_go_on() -> None:
    """While one thread tries a tier that hangs, others are answered without it."""
    chain, tier, _, clock = chain_of(Person(1, name="ann"))
    with tier.off("read"):
        chain.get(Person, {"id": 1})
    clock.advance(1)
    tier.took()
    answers: list[Any] = []

    def meanwhile() -> None:
        threads = [threading.Thread(target=lambda: answers.append(names(chain, 1))) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    tier.on["read"] = meanwhile
    assert names(chain, 1) == ["ann"]
    assert answers == [["ann"]] * 5
    assert tier.took() == ["read", "fill"]


def test_failed_fill_is_counted_and_opens() -> None:
    """A fill that fails is refused, the answer is given, and the tier is left alone."""
    chain, tier, _, _ = chain_of(Person(1, name="ann"))
    with tier.off("fill"):
        assert names(chain, 1) == ["ann"]
    assert names(chain, 1) == ["ann"]
    assert tier.took() == ["read", "fill"]
    assert (tier.stats.refused, tier.stats.fills, tier.stats.errors) == (1, 0, 1)


@pytest.mark.parametrize("error", [InvalidKeyType("no such key"), ImproperlyConfigured("not so")])
def test_mistake_is_the_callers(error: Exception) -> None:
    """An error about what was asked is raised, and is no failure of the tier."""
    chain, tier, _, _ = chain_of(Person(1))
    tier.error = error
    with tier.off("read"), pytest.raises(type(error)):
        chain.get(Person, {"id": 1})
    with tier.off("lock"), pytest.raises(type(error)):
        chain.put(Person(1))
    assert (tier.stats.errors, tier.stats.owed, tier.guards.parts[0].trusted) == (0, 0, True)


def test_store_used_alone_raises() -> None:
    """Without a chain there is nobody else to ask, so every failure is the caller's, and no breaker hides it."""

    class Failing(ProcessMemoryStore):
        def read(self, keys: Any, *, lease: bool = True) -> Any:
            raise OSError("down")

        lock = read

    store = Failing()
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            store.get(Person, {"id": 1})
    assert store.guards.parts[0].trusted


def test_guards_are_shared_by_all_chains_of_a_store() -> None:
    """What one chain owes a tier keeps another chain with it from believing it."""
    chain, tier, source, clock = chain_of(Person(1, name="old"))
    other = ChainedStore([tier, source])
    assert names(other, 1) == ["old"]
    with tier.off():
        chain.put(Person(1, name="new"))
        assert names(other, 1) == ["new"]
    assert names(other, 1) == ["new"]
    clock.advance(1)
    assert names(other, 1) == ["new"]
    assert tier.stats.delivered == 1


# proceeding


def test_commit_proceeds_and_owes() -> None:
    """A put without its tier commits, the debt is there when it returns, and this process reads the new state."""
    chain, tier, source, _ = chain_of(Person(1, "old@x", name="old"))
    assert names(chain, 1) == ["old"]
    with tier.off():
        chain.put(Person(1, "new@x", name="new"))
        assert tier.guards.parts[0].owes
        assert tier.stats.owed == 3
    assert source.rows[Person, (1,)].name == "new"
    assert tier.holds(key(id=1)).value.name == "old"
    assert names(chain, 1) == ["new"]


@pytest.mark.parametrize("how", ["read", "put"])
def test_debt_is_delivered_before_the_tier_is_trusted(how: str) -> None:
    """Whoever uses the tier first when it is back makes it forget what is owed, and only then is it asked."""
    chain, tier, _, clock = chain_of(Person(1, name="old"), Person(2, name="two"))
    assert names(chain, 1) == ["old"]
    with tier.off():
        chain.put(Person(1, name="new"))
    clock.advance(1)
    tier.took()
    if how == "read":
        assert names(chain, 1) == ["new"]
        assert tier.took() == ["lock", "publish", "read", "fill"]
    else:
        chain.put(Person(2, name="too"))
        assert tier.took() == ["lock", "publish", "lock", "publish"]
    assert names(chain, 1, 2) == ["new", "two" if how == "read" else "too"]
    assert (tier.stats.owed, tier.stats.delivered) == (1, 1)


def test_untrusted_tier_is_neither_read_nor_filled_nor_published_to() -> None:
    """As long as something is owed that cannot be delivered, nothing but the delivery reaches the tier."""
    chain, tier, _, clock = chain_of(Person(1, name="old"), Person(2))
    with tier.off():
        chain.put(Person(1, name="new"))
    tier.took()
    with tier.off("lock"):
        for _ in range(3):
            clock.advance(1)
            names(chain, 1, 2)
            chain.put(Person(2))
        assert set(tier.took()) == {"lock"}


def test_rollback_owes_nothing() -> None:
    """What was not committed is not owed."""
    chain, tier, source, _ = chain_of()
    for outcome in (Outcome.OPEN, Outcome.ROLLED_BACK):
        source.fail = outcome
        with tier.off(), pytest.raises(OSError, match="the source has failed"):
            chain.put(Person(1))
    assert (tier.stats.owed, tier.guards.parts[0].owes) == (0, False)


def test_unknown_outcome_is_owed_and_its_keys_stay_locked() -> None:
    """If the commit may still happen, the delivery leaves locks, so that nobody fills what it will replace."""
    chain, tier, source, clock = chain_of(Person(1, name="old"), lock_seconds=40)
    assert names(chain, 1) == ["old"]
    source.fail = Outcome.UNKNOWN
    with tier.off(), pytest.raises(OSError, match="the source has failed"):
        chain.put(Person(1, name="new"))
    assert tier.stats.owed == 1
    clock.advance(1)
    assert names(chain, 1) == ["old"]
    assert tier.holds(key(id=1)) is LOCKED
    source.rows[Person, (1,)] = Person(1, name="new")
    clock.advance(39)
    assert names(chain, 1) == ["new"]
    assert tier.holds(key(id=1)) is LOCKED
    clock.advance(2)
    assert names(chain, 1) == ["new"]
    assert tier.holds(key(id=1)).value.name == "new"


@pytest.mark.parametrize("unreachable", ["proceed", "refuse"])
def test_failed_publish_is_owed_in_both_modes(unreachable: str) -> None:
    """After the commit nothing can be refused: what could not be published is owed, and nothing raised."""
    chain, tier, _, clock = chain_of(Person(1, name="old"), unreachable=unreachable)
    with tier.off("publish"):
        chain.put(Person(1, name="new"))
    assert tier.stats.owed == 1
    assert names(chain, 1) == ["new"]
    clock.advance(1)
    assert names(chain, 1) == ["new"]
    assert tier.stats.delivered == 1


def test_publish_whose_answer_is_lost_is_owed() -> None:
    """A publish that took effect although it failed is made to be forgotten; nothing else can be known."""
    chain, tier, _, clock = chain_of(Person(1, name="old"))
    tier.lost = {"publish"}
    chain.put(Person(1, name="new"))
    tier.lost = set()
    assert tier.holds(key(id=1)).value.name == "new"
    clock.advance(1)
    tier.on["read"] = lambda: tier.took() and None
    assert names(chain, 1) == ["new"]
    assert tier.stats.delivered == 1


def test_lock_whose_answer_is_lost_runs_out() -> None:
    """A lock that took effect although it failed is nobody's: readers bypass it until it runs out."""
    chain, tier, _, clock = chain_of(Person(1, name="old"))
    tier.lost = {"lock"}
    chain.put(Person(1, name="new"))
    tier.lost = set()
    assert tier.holds(key(id=1)) is LOCKED
    clock.advance(1)
    assert names(chain, 1) == ["new"]
    assert tier.holds(key(id=1)) is LOCKED
    clock.advance(31)
    assert names(chain, 1) == ["new"]
    assert tier.holds(key(id=1)).value.name == "new"


def test_debt_is_delivered_at_once_where_the_tier_works() -> None:
    """A tier that works again by the end of the commit is told before the commit returns."""
    chain, tier, source, clock = chain_of(Person(1, name="old"))
    assert names(chain, 1) == ["old"]
    tier.cut = {"lock"}

    def mend() -> None:
        tier.cut = set()
        clock.advance(1)

    source.on["commit"] = mend
    chain.put(Person(1, name="new"))
    assert (tier.stats.owed, tier.stats.delivered) == (1, 1)
    assert tier.holds(key(id=1)) is MISS
    assert tier.guards.parts[0].trusted


def test_value_that_cannot_be_kept_is_removed(caplog: pytest.LogCaptureFixture) -> None:
    """An error about the value itself, after the commit, is logged; what was there before goes all the same."""

    class Picky(CutOff):
        def publish(self, locked: Any) -> None:
            if any(isinstance(value, Record) for _, value in locked):
                raise EncodeError("no such value")
            super().publish(locked)

    chain, tier, _, _ = chain_of(Person(1, name="old"), tier=Picky(Clock()))
    chain.put(Person(1, name="new"))
    assert "keeps nothing of this commit" in caplog.text
    assert not isinstance(tier.holds(key(id=1)), Record)
    assert (tier.stats.errors, tier.guards.parts[0].trusted) == (1, True)
    assert names(chain, 1) == ["new"]


def test_lease_of_a_reader_does_not_outlive_the_delivery() -> None:
    """A reader with a lease from before the commit fills nothing after the delivery."""
    chain, tier, source, clock = chain_of(Person(1, name="old"))

    def commit_meanwhile() -> None:
        with tier.off():
            chain.put(Person(1, name="new"))
        clock.advance(1)
        names(chain, 2)

    source.on["loaded"] = commit_meanwhile
    assert names(chain, 1) == ["old"]
    assert not isinstance(tier.holds(key(id=1)), Record)
    assert names(chain, 1) == ["new"]


def test_interrupted_commit_owes(caplog: pytest.LogCaptureFixture) -> None:
    """A Ctrl-C between the commit and the end of the publishing is raised, and nothing is forgotten in any tier."""
    clock = Clock()
    upper, lower, source = CutOff(clock), CutOff(clock), Source(Person(1, name="old"))
    chain = ChainedStore([upper, lower, source])
    lower.error = KeyboardInterrupt()
    with lower.off("publish"), pytest.raises(KeyboardInterrupt):
        chain.put(Person(1, name="new"))
    assert (upper.stats.owed, lower.stats.owed) == (1, 1)
    assert names(chain, 1) == ["new"]
    assert (upper.guards.parts[0].trusted, lower.guards.parts[0].trusted) == (True, True)


@pytest.mark.parametrize("when", ["lock", "publish"])
def test_interrupted_commit_owes_the_keys_that_the_database_has_given(when: str) -> None:
    """Nor is a key forgotten that is known only since the commit, by a trigger's doing for one."""
    clock = Clock()
    tier, source = CutOff(clock), Source()
    chain = ChainedStore([tier, source])
    assert chain.get(Person, {"email": "given"}) is None
    (layer,) = chain.layers
    change = Change(spec_of(Person), (key(id=1),), (key(id=1),))
    writer = Writer([layer], [change])
    writer.lock()
    source.rows[Person, 1] = Person(1, email="given")
    tier.error = KeyboardInterrupt()
    (record,) = source.load(Person, [key(id=1)])
    with tier.off(when), pytest.raises(KeyboardInterrupt):
        writer.publish({key(id=1).ident: record})
    clock.advance(1)
    assert chain.get(Person, {"email": "given"}).id == 1


def test_interrupted_part_owes_the_others() -> None:
    """A Ctrl-C while one part is told of a commit leaves the parts that were not told owed."""
    chain, tier, _, _ = chain_of(Person(0, name="old"), Person(1, name="old"), tier=Parted(Clock()))
    assert names(chain, 0, 1) == ["old", "old"]
    even, odd = tier.parts
    even.error = odd.error = KeyboardInterrupt()
    with even.off("publish"), odd.off("publish"), pytest.raises(KeyboardInterrupt):
        chain.batch_put([Person(0, name="new"), Person(1, name="new")])
    assert tier.stats.owed == 2
    assert names(chain, 0, 1) == ["new", "new"]


def test_owed_locks_are_not_unlocked() -> None:
    """A tier is never asked to take back a lock that it has not given."""
    chain, tier, _, _ = chain_of()
    (layer,) = chain.layers
    layer.unlock([Lock(key(id=1), owed=True)])
    assert tier.took() == []


def test_interrupted_load_after_a_commit_owes() -> None:
    """A Ctrl-C while the committed state is loaded is raised; what was owed is still recorded."""
    chain, tier, source, _ = chain_of(Person(1, name="old"), Person(2))
    upper = Tier()
    chain = ChainedStore([upper, tier, source])

    def interrupt() -> None:
        raise KeyboardInterrupt

    source.on["load"] = interrupt
    with tier.off(), pytest.raises(KeyboardInterrupt):
        chain.put(Person(1, name="new"))
    assert tier.stats.owed == 1
    assert upper.holds(key(id=1)) is MISS


# refusing


@pytest.mark.parametrize("by", ["chain", "tier"])
def test_refusal_writes_nothing(by: str) -> None:
    """With "refuse" a put without its tier is StoreUnavailable, from the driver's error, and nothing is written."""
    clock = Clock()
    upper, tier, source = CutOff(clock), CutOff(clock), Source(Person(1, name="old"))
    if by == "tier":
        tier.unreachable = "refuse"
    chain = ChainedStore([upper, tier, source], unreachable="refuse" if by == "chain" else None)
    for _ in range(2):
        with tier.off(), pytest.raises(StoreUnavailable) as caught:
            chain.put(Person(1, name="new"))
        assert (caught.value.store, caught.value.operation) == ("memory", "lock")
        assert caught.value.__cause__ is tier.error
    assert tier.took() == ["lock"]
    assert upper.took() == ["lock", "unlock", "lock", "unlock"]
    assert names(chain, 1) == ["old"]
    assert (tier.stats.owed, upper.stats.owed) == (0, 0)


def test_chain_overrides_its_tiers() -> None:
    """What the chain says holds for all its tiers."""
    chain, tier, _, _ = chain_of(unreachable="proceed")
    tier.unreachable = "refuse"
    chain = ChainedStore(chain.stores, unreachable="proceed")
    with tier.off():
        chain.put(Person(1))
    assert tier.stats.owed == 1


def test_debts_that_cannot_be_delivered_refuse() -> None:
    """A tier that is owed something and does not take it refuses the next commit; once it does, commits go on."""
    chain, tier, _, clock = chain_of(Person(1, name="old"), unreachable="refuse")
    with tier.off("publish"):
        chain.put(Person(1, name="new"))
    clock.advance(1)
    with tier.off("lock"), pytest.raises(StoreUnavailable):
        chain.put(Person(2))
    clock.advance(1)
    chain.put(Person(2, name="two"))
    assert (tier.stats.owed, tier.stats.delivered) == (1, 1)
    assert tier.holds(key(id=2)).value.name == "two"


@pytest.mark.parametrize("nonsense", ["ignore", True, 1])
def test_unreachable_is_checked(nonsense: Any) -> None:
    """Anything but "proceed" and "refuse" is an error when the chain is made, from chain and tier."""
    with pytest.raises(ImproperlyConfigured, match="proceed"):
        ChainedStore([ProcessMemoryStore()], unreachable=nonsense)
    tier = CutOff(Clock())
    tier.unreachable = nonsense
    with pytest.raises(ImproperlyConfigured, match="proceed"):
        ChainedStore([tier, Source()])


# parts


def test_parts_fail_by_themselves() -> None:
    """With one server down the keys of the others are read, filled and published as always."""
    chain, tier, source, clock = chain_of(*(Person(i, name=f"{i}") for i in range(4)), tier=Parted(Clock()))
    tier.down = {"odd"}
    assert names(chain, 0, 1, 2, 3) == ["0", "1", "2", "3"]
    tier.batches.clear()
    source.took()
    assert names(chain, 0, 1, 2, 3) == ["0", "1", "2", "3"]
    assert tier.batches == [("read", "even")]
    assert source.took() == ["load 2"]
    chain.batch_put([Person(i, name=f"new {i}") for i in range(4)])
    assert tier.stats.owed == 2
    tier.down = set()
    assert names(chain, 0, 1, 2, 3) == [f"new {i}" for i in range(4)]
    clock.advance(1)
    assert names(chain, 0, 1, 2, 3) == [f"new {i}" for i in range(4)]
    assert tier.stats.delivered == 2
    assert tier.holds(key(id=1)).value.name == "new 1"


def test_one_part_is_one_call() -> None:
    """Keys of one part go in one call, and answers of several come back in the order of the keys."""
    chain, tier, _, _ = chain_of(*(Person(i, name=f"{i}") for i in range(6)), tier=Parted(Clock()))
    assert names(chain, 5, 0, 3, 2) == ["5", "0", "3", "2"]
    tier.batches.clear()
    assert names(chain, 4, 2, 0) == ["4", "2", "0"]
    assert [part for what, part in tier.batches if what == "read"] == ["even"]


def test_refusal_of_one_part_unlocks_the_others() -> None:
    """With one server down a refused commit leaves no lock on the others."""
    chain, tier, _, _ = chain_of(tier=Parted(Clock()), unreachable="refuse")
    tier.down = {"odd"}
    with pytest.raises(StoreUnavailable):
        chain.batch_put([Person(0), Person(1)])
    assert tier.holds(key(id=0)) is MISS


def test_epoch_is_owed_to_the_part_that_was_not_told() -> None:
    """A class that one of the servers could not be made to forget is read from the others only, until it has."""
    chain, tier, source, clock = chain_of(Person(0, name="old"), Person(1, name="old"), tier=Parted(Clock()))
    assert names(chain, 0, 1) == ["old", "old"]
    for i in (0, 1):
        source.rows[Person, (i,)] = Person(i, name="new")
    tier.down = {"odd"}
    chain.invalidate(Person)
    assert names(chain, 0, 1) == ["new", "new"]
    assert isinstance(tier.holds(key(id=0)), Record)
    tier.down = set()
    assert names(chain, 0, 1) == ["new", "new"]
    assert tier.holds(key(id=1)).value.name == "old"
    clock.advance(1)
    assert names(chain, 0, 1) == ["new", "new"]
    assert tier.stats.delivered == 1
    assert tier.holds(key(id=1)).value.name == "new"


def test_epoch_that_one_part_refuses_is_changed_in_the_others() -> None:
    """invalidate() that raises, since one server is down, has dropped the class on the other, and locks nothing."""
    chain, tier, source, _ = chain_of(Person(0, name="old"), tier=Parted(Clock()), unreachable="refuse")
    assert names(chain, 0) == ["old"]
    source.rows[Person, (0,)] = Person(0, name="new")
    tier.down = {"odd"}
    with pytest.raises(StoreUnavailable):
        chain.invalidate(Person)
    assert tier.holds(key(id=0)) is MISS
    assert tier.stats.owed == 0
    assert names(chain, 0) == ["new"]


def test_clear_reaches_the_parts_that_are_up() -> None:
    """clear() empties the servers that can be reached, and the other as soon as it can be."""
    chain, tier, _, clock = chain_of(Person(0), Person(1), tier=Parted(Clock()))
    chain.batch_get(Person, [{"id": 0}, {"id": 1}])
    tier.down = {"odd"}
    chain.clear()
    assert tier.holds(key(id=0)) is MISS
    tier.down = set()
    clock.advance(1)
    chain.get(Person, {"id": 1})
    assert tier.stats.delivered == 1


# upkeep


@pytest.mark.parametrize("asked", [{"id": 1}, {"email": "ann@x"}, None])
def test_invalidation_is_owed(asked: Any) -> None:
    """invalidate() of what cannot be reached is delivered later."""
    chain, tier, source, clock = chain_of(Person(1, "ann@x", name="old"))
    chain.get(Person, {"email": "ann@x"})
    source.rows[Person, (1,)] = Person(1, "bob@x", name="new")
    with tier.off():
        chain.invalidate(Person, asked)
    assert names(chain, 1) == ["new"]
    clock.advance(1)
    assert names(chain, 1) == ["new"]
    assert tier.stats.delivered == tier.stats.owed > 0


def test_refused_invalidation_reaches_the_other_layers() -> None:
    """With "refuse" invalidate() and clear() raise, after they have done what can be done."""
    clock = Clock()
    upper, dead, lower = (CutOff(clock) for _ in range(3))
    source = Source(Person(1, name="old"))
    chain = ChainedStore([upper, dead, lower, source], unreachable="refuse")
    for work in (lambda: chain.invalidate(Person, {"id": 1}), lambda: chain.invalidate(Person), chain.clear):
        names(chain, 1)
        with dead.off(), pytest.raises(StoreUnavailable):
            work()
        assert [tier.holds(key(id=1)) for tier in (upper, lower)] == [MISS, MISS]
        clock.advance(1)


def test_clear_is_owed() -> None:
    """clear() of a tier that cannot be reached clears it before it is trusted, with classes unknown here too."""
    chain, tier, source, clock = chain_of(Person(1, name="old"))
    names(chain, 1)
    fresh = ChainedStore([tier, source])
    with tier.off():
        fresh.clear()
    source.rows[Person, (1,)] = Person(1, name="new")
    clock.advance(1)
    assert names(chain, 1) == ["new"]
    assert tier.took()[-3:] == ["clear", "read", "fill"]


# stores of six verbs


class Verbs(BaseStore):
    """A store of six verbs that can be cut off."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.guards = Guards(None, clock=clock, courier=None)
        self.held: dict[int, Person] = {}
        self.is_cut = False

    def put(self, obj: Any) -> None:
        self._check()
        self.held[obj.id] = obj

    def get(self, klass: Any, asked: Any) -> Any:
        self._check()
        return self.held.get(asked.get("id"))

    def delete(self, obj: Any) -> None:
        self._check()
        self.held.pop(obj.id, None)

    def _check(self) -> None:
        if self.is_cut:
            raise OSError("cut off")


def test_store_of_verbs_is_owed_too() -> None:
    """A six-verb cache that cannot be told of a commit is told before it is trusted again."""
    clock = Clock()
    store, source = Verbs(clock), Source(Person(1, name="old"))
    del store.guards
    chain = ChainedStore([store, source])
    guards = chain.layers[0]._guards
    assert guards is not None
    guards.parts[0]._breaker._clock, guards.courier = clock, None
    assert names(chain, 1) == ["old"]
    store.is_cut = True
    chain.put(Person(1, name="new"))
    store.is_cut = False
    assert store.held[1].name == "old"
    assert names(chain, 1) == ["new"]
    clock.advance(1)
    assert names(chain, 1) == ["new"]
    assert store.held[1].name == "new"
    source.rows[Person, (1,)] = Person(1, name="newer")
    store.is_cut = True
    chain.invalidate(Person, {"id": 1})
    store.is_cut = False
    clock.advance(1)
    assert names(chain, 1) == ["newer"]
    store.is_cut = True
    refusing = ChainedStore([store, source], unreachable="refuse")
    with pytest.raises(StoreUnavailable):
        refusing.put(Person(1))


# many threads


def test_many_readers_and_writers_while_a_tier_comes_and_goes() -> None:
    """Whatever the threads do while the tier fails and recovers, no read is older than a commit that has returned."""
    chain, tier, _, clock = chain_of(*(Person(i, name="0") for i in range(4)))
    committed = [0] * 4
    stop = threading.Event()
    wrong: list[str] = []

    steps = itertools.count()
    calls = ["lock", "publish", "read", "fill", "unlock"]

    def disturb() -> None:
        step = next(steps)
        tier.cut = {calls[step % 5], calls[step * 3 % 5]} if step % 3 else set()
        clock.advance(0.4)

    def write(i: int) -> None:
        for version in range(1, 150):
            disturb()
            chain.put(Person(i, name=str(version)))
            committed[i] = version

    def read() -> None:
        while not stop.is_set():
            least = list(committed)
            for i, name in enumerate(names(chain, 0, 1, 2, 3)):
                if int(name or -1) < least[i]:
                    wrong.append(f"{i} was {name} after {least[i]}")

    writers = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    others = [threading.Thread(target=read) for _ in range(3)]
    for thread in (*writers, *others):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in others:
        thread.join()
    tier.cut = set()
    clock.advance(1)
    assert names(chain, 0, 1, 2, 3) == ["149"] * 4
    assert wrong == []
    assert tier.stats.owed > 0
    assert not tier.guards.parts[0].owes


def test_no_lease_from_a_part_that_is_not_trusted() -> None:
    """A read of what is owed something is a miss without a lease."""
    chain, tier, _, _ = chain_of(Person(1))
    (layer,) = chain.layers
    assert isinstance(layer.read([key(id=1)], lease=True)[0], Lease)
    with tier.off():
        chain.put(Person(1))
    assert layer.read([key(id=1)], lease=True) == [MISS]
    assert spec_of(Person).space in key(id=1).ident


def test_invalidation_that_could_not_look_forgets_the_class() -> None:
    """If nobody could look what an alternate key leads to, the whole class is dropped as soon as the tier can be."""
    chain, tier, source, clock = chain_of(Person(1, "ann@x", name="old"))
    chain.get(Person, {"email": "ann@x"})
    source.rows[Person, (1,)] = Person(1, "bob@x", name="new")

    with tier.off("read"):
        tier.on["read"] = lambda: tier.on.update(read=tier.cut.clear)
        tier.error = KeyError("no answer")
        chain.invalidate(Person, {"email": "ann@x"})
    clock.advance(1)
    assert names(chain, 1) == ["new"]


def test_interrupted_group_of_tiers_does_not_keep_others_from_being_told() -> None:
    """A tier that answers with a Ctrl-C after the commit leaves the tiers above it owed, not forgotten."""
    clock = Clock()
    tiers = [CutOff(clock) for _ in range(3)]
    chain = ChainedStore([*tiers, Source(Person(1, name="old"))])
    tiers[1].error = KeyboardInterrupt()
    with tiers[1].off("publish"), pytest.raises(KeyboardInterrupt):
        chain.put(Person(1, name="new"))
    assert [tier.stats.owed for tier in tiers] == [1, 1, 0]


def test_interrupt_right_after_the_write_loses_no_debt(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt between the source's commit and the publishing leaves the tier owed what it could not be told."""
    chain, tier, _, clock = chain_of(Person(1, name="old"))
    assert chain.get(Person, {"id": 1}).name == "old"

    def interrupted(spec: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chain.seen, "add", interrupted)
    with tier.off(), pytest.raises(KeyboardInterrupt):
        chain.put(Person(1, name="new"))
    monkeypatch.undo()
    assert tier.guards.parts[0].owes
    clock.advance(1)
    assert chain.get(Person, {"id": 1}).name == "new"
