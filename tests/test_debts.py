"""What a tier is owed, how it is delivered, and the thread that does it in the background."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest

from stockpyle.classes import spec_of
from stockpyle.coherence.courier import Courier
from stockpyle.coherence.debts import Debt, Debts, deliver
from stockpyle.coherence.guards import Bypassed, Guards
from stockpyle.exceptions import ImproperlyConfigured, InvalidKeyType
from stockpyle.records import LOCKED, MISS, Record
from stockpyle.stores import ProcessMemoryStore
from stockpyle.testing import Car, Clock, Person
from tests.chain.cutoff import CutOff
from tests.chain.parts import key


def owed(*ids: int, left: bool = False, seconds: float = 30.0) -> list[Debt]:
    """Return debts for these people."""
    return [Debt(key(id=i), left, seconds) for i in ids]


def held(tier: Any, *ids: int) -> None:
    """Fill a tier with these people."""
    leases = tier.read([key(id=i) for i in ids])
    tier.fill([(lease, Record(lease.key.spec, Person(lease.key.values[0]))) for lease in leases])


def test_each_key_is_owed_once() -> None:
    """Debts for one key are merged: it is left if one of them is, and locked for the longest."""
    debts = Debts()
    assert debts.owe(owed(1, 2)) == 2
    assert debts.owe([Debt(key(id=1), True, 60.0), Debt(key(id=1), False, 5.0)]) == 0
    first, second = debts.some(10)
    assert (first.ident, first.left, first.seconds) == (key(id=1).ident, True, 60.0)
    assert second.ident == key(id=2).ident


def test_debt_of_a_key_that_is_being_delivered_is_another() -> None:
    """What was owed again since a batch was taken is not settled with it."""
    debts = Debts()
    debts.owe(owed(1, 2))
    batch = debts.some(10)
    debts.owe(owed(1))
    assert debts.settle(batch) == 1
    assert [debt.ident for debt in debts.some(10)] == [key(id=1).ident]


def test_above_the_limit_classes_are_owed() -> None:
    """More keys than the limit become one debt a class, which then stands for all its keys, new ones too."""
    debts = Debts(limit=3)
    debts.owe(owed(1, 2, 3))
    assert len(debts) == 3
    assert debts.owe([Debt(key(Car, vin=4), True, 60.0)]) == 1
    assert {debt.ident: (debt.left, debt.seconds) for debt in debts.some(10)} == {
        spec_of(Person).epoch.ident: (False, 30.0),
        spec_of(Car).epoch.ident: (True, 60.0),
    }
    batch = debts.some(10)
    assert debts.owe(owed(5)) == 1
    assert debts.settle(batch) == 1
    left = debts.some(10)
    assert [debt.ident for debt in left] == [spec_of(Person).epoch.ident]
    assert debts.settle(left) == 4


def test_delivery_removes_what_is_held_and_what_is_on_its_way() -> None:
    """After a delivery the keys are empty, and a lease from before it fills nothing."""
    tier = ProcessMemoryStore()
    held(tier, 1)
    (lease,) = tier.read([key(id=2)])
    deliver(tier, owed(1, 2), lambda: None)
    assert tier.fill([(lease, Record(spec_of(Person), Person(2)))]) == 0
    assert tier.read([key(id=1), key(id=2)], lease=False) == [MISS, MISS]


def test_delivery_of_an_unknown_commit_leaves_locks() -> None:
    """A key of a commit whose outcome is unknown is locked for the debt's seconds: the commit may still come."""
    clock = Clock()
    tier = ProcessMemoryStore(clock=clock)
    held(tier, 1, 2)
    deliver(tier, [*owed(1, left=True, seconds=40.0), *owed(2)], lambda: None)
    assert tier.read([key(id=1), key(id=2)], lease=False) == [LOCKED, MISS]
    clock.advance(39)
    assert tier.read([key(id=1)], lease=False) == [LOCKED]
    clock.advance(2)
    assert tier.read([key(id=1)], lease=False) == [MISS]


def test_delivery_leaves_a_contended_lock() -> None:
    """A delivery that replaces another writer's live lock leaves its own to run out."""
    clock = Clock()
    tier = ProcessMemoryStore(clock=clock)
    tier.lock([key(id=1)], 20)
    deliver(tier, owed(1), lambda: None)
    assert tier.read([key(id=1)], lease=False) == [LOCKED]


def test_debt_is_settled_once_its_key_is_locked() -> None:
    """A removal that fails leaves the delivery's lock, which runs out and leaves nothing: that is settled."""
    clock = Clock()
    tier = CutOff(clock)
    held(tier, 1)
    guard = tier.guards.parts[0]
    guard.owe(owed(1))
    with tier.off("publish"):
        assert guard.settle()
    assert tier.holds(key(id=1)) is LOCKED
    assert not guard.trusted
    assert (tier.stats.owed, tier.stats.delivered, tier.stats.errors) == (1, 1, 1)
    clock.advance(31)
    assert tier.holds(key(id=1)) is MISS


def test_debt_stays_if_its_key_cannot_be_locked() -> None:
    """A delivery whose lock fails leaves everything owed, though the lock may have taken effect."""
    tier = CutOff(Clock())
    guard = tier.guards.parts[0]
    guard.owe(owed(1))
    tier.lost = {"lock"}
    assert not guard.settle()
    assert (guard.owes, tier.stats.delivered) == (True, 0)


def test_key_that_the_tier_refuses_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    """A key that a tier cannot spell is logged and settled, the others of the batch are delivered."""

    class Picky(CutOff):
        def lock(self, keys: Any, seconds: float, **options: Any) -> Any:
            if key(id=2) in keys:
                raise InvalidKeyType("no twos")
            return super().lock(keys, seconds, **options)

    tier = Picky(Clock())
    held(tier, 1, 3)
    guard = tier.guards.parts[0]
    guard.owe(owed(1, 2, 3))
    assert guard.settle()
    assert guard.trusted
    assert [tier.holds(key(id=i)) for i in (1, 3)] == [MISS, MISS]
    assert caplog.text.count("refuses to forget a key") == 1
    assert tier.stats.errors == 1


def test_debt_added_during_a_delivery_is_delivered_too() -> None:
    """A key that is owed again while it is delivered is delivered again before the part is trusted."""
    tier = CutOff(Clock())
    guard = tier.guards.parts[0]
    guard.owe(owed(1))
    seen: list[bool] = []

    def again() -> None:
        guard.owe(owed(1))
        tier.on["publish"] = lambda: seen.append(guard.trusted)

    tier.on["lock"] = again
    assert guard.settle()
    assert seen == [False]
    assert tier.took() == ["lock", "publish", "lock", "publish"]
    assert guard.trusted


def test_two_threads_deliver_once() -> None:
    """While one thread delivers, another goes on without the part."""
    tier = CutOff(Clock())
    guard = tier.guards.parts[0]
    guard.owe(owed(1))
    answers: list[bool] = []
    other = threading.Thread(target=lambda: answers.append(guard.settle()))

    def meanwhile() -> None:
        other.start()
        other.join()

    tier.on["lock"] = meanwhile
    assert guard.settle()
    assert answers == [False]
    assert tier.took() == ["lock", "publish"]


def test_large_debts_are_delivered_in_batches() -> None:
    """Thousands of keys are not sent in one call."""
    tier = CutOff(Clock())
    guard = tier.guards.parts[0]
    guard.owe(owed(*range(1200)))
    assert guard.settle()
    assert tier.took() == ["lock", "publish"] * 3
    assert tier.stats.delivered == 1200


def test_interrupted_delivery_is_not_settled_and_lets_others_try() -> None:
    """A Ctrl-C in a delivery is raised; the debt stays, and the next caller delivers it."""
    tier = CutOff(Clock())
    guard = tier.guards.parts[0]
    guard.owe(owed(1))
    tier.error = KeyboardInterrupt()
    with tier.off("lock"), pytest.raises(KeyboardInterrupt):
        guard.settle()
    assert guard.owes
    assert guard.settle()


def test_a_commit_that_the_garbage_collector_ends_stops_nobody() -> None:
    """An abandoned session may be collected while the thread that collects it is noting something itself."""
    tier = CutOff(Clock())

    class Abandoned:
        """What is in a cycle, and owes something when it goes."""

        def __init__(self) -> None:
            self.own = self
            weakref.finalize(self, guard.owe, owed(2))

    def collecting() -> float:
        gc.collect()
        return 0.0

    guard = Guards(tier, clock=collecting, courier=None).parts[0]
    Abandoned()

    def fail() -> None:
        with tier.off(), pytest.raises(Bypassed):
            guard.use("read", lambda: tier.read([key(id=1)]))

    thread = threading.Thread(target=fail, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert guard.owes


def test_child_process_tries_although_a_thread_of_the_parent_does() -> None:
    """After a fork no thread of the parent's keeps the child from trying."""
    tier = CutOff(Clock())
    guard = tier.guards.parts[0]
    guard.owe(owed(1))
    answers: list[bool] = []

    def fork() -> None:
        tier.guards.after_fork()
        answers.append(guard.settle())

    tier.on["lock"] = fork
    guard.settle()
    assert answers == [True]


def test_courier_delivers_until_nothing_is_owed() -> None:
    """The courier comes by in each round until the tier has taken what it is owed, and then ends."""
    clock = Clock()
    rounds: list[bool] = []

    def pause(seconds: float) -> None:
        assert 2.5 <= seconds <= 7.5
        rounds.append(guard.owes)
        clock.advance(seconds)
        if len(rounds) == 3:
            tier.cut = set()

    courier = Courier(5.0, pause)
    tier = CutOff(clock)
    guard = tier.guards.parts[0]
    held(tier, 1)
    guard.owe(owed(1))
    tier.cut = {"lock"}
    courier.debtors.add(guard)
    courier.run()
    assert rounds == [True, True, True]
    assert tier.holds(key(id=1)) is MISS
    assert guard.trusted


def test_courier_starts_with_a_debt_and_ends_with_the_last() -> None:
    """One thread serves all debts of a process at a time; after the last it ends, and the next debt starts another."""
    go = threading.Semaphore(0)
    courier = Courier(1.0, lambda seconds: go.acquire())
    tier, other = CutOff(Clock(), courier=courier), CutOff(Clock(), courier=courier)
    for _ in range(2):
        tier.guards.parts[0].owe(owed(1))
        thread = courier.thread
        other.guards.parts[0].owe(owed(2))
        assert thread is not None
        assert thread is courier.thread
        assert thread.daemon
        go.release()
        thread.join()
        assert not tier.guards.parts[0].owes
        assert not other.guards.parts[0].owes
        assert courier.thread is None


def test_courier_keeps_no_store_alive() -> None:
    """Debts of a store that nobody has any more go with it, and the courier with them."""
    rounds: list[int] = []

    def pause(seconds: float) -> None:
        rounds.append(len(tiers))
        assert len(rounds) < 10
        if len(rounds) == 3:
            tiers.clear()
            gc.collect()

    class Debtor:
        waits = True

        def settle(self) -> bool:
            return False

    courier = Courier(1.0, pause)
    tiers = [Debtor()]
    courier.debtors.add(tiers[0])
    courier.run()
    assert rounds == [1, 1, 1]


def test_couriers_of_many_processes_do_not_march_in_step() -> None:
    """The pauses of a courier differ, each from a half to one and a half of what is asked for."""
    pauses: list[float] = []

    class Debtor:
        waits = True

        def settle(self) -> bool:
            self.waits = len(pauses) < 20
            return not self.waits

    courier, debtor = Courier(4.0, pauses.append), Debtor()
    courier.debtors.add(debtor)
    courier.run()
    assert len(set(pauses)) == 20
    assert 2.0 <= min(pauses) < 3.5
    assert 4.5 < max(pauses) <= 6.0


def test_child_process_has_a_courier_of_its_own() -> None:
    """After a fork the next debt starts a thread in the child."""
    go = threading.Semaphore(0)
    courier = Courier(1.0, lambda seconds: go.acquire())
    tier = CutOff(Clock(), courier=courier)
    tier.guards.parts[0].owe(owed(1))
    first = courier.thread
    courier.after_fork()
    tier.guards.parts[0].owe(owed(2))
    assert courier.thread not in (None, first)
    go.release(2)
    assert first is not None
    first.join()


def test_no_thread_can_be_started(caplog: pytest.LogCaptureFixture) -> None:
    """Without a courier, as when the interpreter ends, a debt is still recorded, and nothing raised."""

    class Gone(Courier):
        def call(self, debtor: Any) -> None:
            raise RuntimeError("can't start new thread")

    tier = CutOff(Clock(), courier=Gone())
    tier.guards.parts[0].owe(owed(1))
    assert tier.guards.parts[0].owes
    assert "in the background" in caplog.text


def test_failing_log_handler_hurts_nobody() -> None:
    """An application's own filter that raises does not come out of what is logged after a commit."""
    import logging

    def refuse(record: logging.LogRecord) -> bool:
        raise ValueError("no logs today")

    logger = logging.getLogger("stockpyle")
    logger.addFilter(refuse)
    try:
        tier = CutOff(Clock())
        tier.guards.parts[0].owe(owed(1))
        with tier.off("lock"):
            assert not tier.guards.parts[0].settle()
    finally:
        logger.removeFilter(refuse)


def test_guards_belong_to_the_store() -> None:
    """Whoever asks for the guards of a store gets the same; a store that brings none keeps those it was given."""
    from stockpyle.coherence.guards import guards_of
    from stockpyle.coherence.verbs import VerbTier

    class Own:
        pass

    class Slotted:
        __slots__ = ()

    store = ProcessMemoryStore()
    assert isinstance(store.guards, Guards)
    assert guards_of(store) is store.guards
    for tier in (Own(), Slotted()):
        assert guards_of(tier) is guards_of(tier)
    foreign: Any = Foreign()
    assert guards_of(VerbTier(foreign)) is guards_of(VerbTier(foreign))


class Foreign:
    def batch_put(self, objs: Any) -> None: ...


class Pinged(CutOff):
    """A tier that can be asked how it is."""

    def ping(self) -> None:
        self._call("ping", lambda: None)


def test_tier_that_comes_back_unfit_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """A server that cannot be used as it was started keeps the courier from nothing; it is logged once."""
    clock = Clock()
    courier = Courier(pause=lambda seconds: clock.advance(2))
    tier = CutOff(clock)
    tries: list[int] = []

    def ping() -> None:
        tries.append(1)
        if len(tries) < 4:
            raise ImproperlyConfigured("start it without -C")

    tier.ping = ping  # type: ignore[attr-defined]
    guard = Guards(tier, clock=clock, courier=None).parts[0]
    with pytest.raises(Bypassed):
        guard.run("read", lambda: 1 // 0)
    guard.owe(owed(1))
    courier.call(guard)
    thread = courier.thread
    if thread is not None:
        thread.join()
    assert guard.trusted
    assert len(tries) == 4
    assert caplog.text.count("start it without -C") == 1


def test_nobody_waits_for_a_tier_that_can_be_pinged() -> None:
    """Once a tier with a ping has failed, the courier alone tries it again; it works for all when that went well."""
    clock = Clock()
    rounds: list[int] = []

    def pause(seconds: float) -> None:
        clock.advance(seconds)
        rounds.append(len(tier.calls))
        with pytest.raises(Bypassed):
            guard.use("read", lambda: tier.read([key(id=1)]))
        if len(rounds) == 3:
            tier.cut = set()

    courier = Courier(5.0, pause)
    tier = Pinged(clock, courier=courier)
    guard = tier.guards.parts[0]
    courier.thread = threading.current_thread()
    tier.cut = {"read", "ping"}
    with pytest.raises(Bypassed):
        guard.use("read", lambda: tier.read([key(id=1)]))
    courier.run()
    assert tier.took() == ["read", "ping", "ping", "ping"]
    assert guard.trusted
    assert courier.thread is None


def test_tier_that_can_be_pinged_is_tried_by_its_callers_if_there_is_no_courier() -> None:
    """Without a courier the next caller after a while finds out that a tier works again."""
    clock = Clock()
    tier = Pinged(clock)
    guard = tier.guards.parts[0]
    with tier.off(), pytest.raises(Bypassed):
        guard.use("read", lambda: tier.read([key(id=1)]))
    clock.advance(1)
    assert len(guard.use("read", lambda: tier.read([key(id=1)]))) == 1
    assert guard.trusted
