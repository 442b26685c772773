"""What the chains of several processes tell each other, and what process memory makes of it."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from stockpyle.coherence import backplane as backplane_module
from stockpyle.exceptions import ImproperlyConfigured, InvalidKeysDeclaration, UnsupportedOperation
from stockpyle.protocols import Outcome
from stockpyle.records import LOCKED, MISS, Record
from stockpyle.stores import BaseDictionaryStore, ChainedStore, NullStore, ProcessMemoryStore, ThreadLocalStore
from stockpyle.stores._table import MemoryTable
from stockpyle.testing import Automobile, Car, Clock, Person
from tests.chain.parts import Source, Tier, key
from tests.chain.radio import Air, Process, Radio, Shared, unavailable


def human(i: int, email: str, name: str) -> Person:
    """A person with a name."""
    return Person(i, email, name=name)


def name(process: Process, i: int = 1) -> str | None:
    """What a process says that a person is called."""
    person = process.chain.get(Person, {"id": i})
    return person and person.name


def two(*people: Person, shared: bool = False, **options: Any) -> tuple[Process, Process, Air, Source]:
    """Two processes on one source, each with these people in its memory."""
    air, source = Air(), Source(*people)
    tiers = [Shared(clock=Clock())] if shared else []
    first, second = Process(air, source, *tiers, **options), Process(air, source, *tiers, **options)
    for process in (first, second):
        process.chain.batch_get(Person, [{"id": person.id} for person in people])
        process.memory.took()
    return first, second, air, source


# what is dropped


@pytest.mark.parametrize("shared", [False, True])
def test_commit_is_heard_by_others(shared: bool) -> None:
    """What one process puts, the others do not keep any longer, whether or not they share a tier."""
    first, second, _, _ = two(human(1, "a@x", "old"), shared=shared)
    first.chain.put(human(1, "a@x", "new"))
    assert second.memory.holds(key(id=1)) is MISS
    assert name(second) == "new"


def test_own_memory_keeps_what_was_published() -> None:
    """Who tells it does not hear it: what was published in its own memory is still there."""
    first, _, _, source = two(human(1, "a@x", "old"))
    first.chain.put(human(1, "a@x", "new"))
    source.took()
    assert name(first) == "new"
    assert source.took() == []


def test_deleted_object_is_dropped() -> None:
    """A delete is told as a put is."""
    first, second, _, source = two(Person(1))
    first.chain.delete(source.rows[Person, (1,)])
    assert name(second) is None


def test_all_keys_are_told_old_and_new() -> None:
    """A new address and the old one are both told: who knew that nobody has the new one finds out."""
    first, second, _, _ = two(Person(1, "old@x"))
    assert second.chain.get(Person, {"email": "new@x"}) is None
    assert second.chain.get(Person, {"email": "old@x"}).id == 1
    first.chain.put(Person(1, "new@x"))
    assert second.memory.holds(key(email="new@x")) is second.memory.holds(key(email="old@x")) is MISS
    assert second.chain.get(Person, {"email": "new@x"}).id == 1
    assert second.chain.get(Person, {"email": "old@x"}) is None


def test_fill_under_way_is_refused() -> None:
    """What a reader has loaded before it was told of the commit is not filled after it."""
    first, second, _, source = two()
    source._keep([human(1, "a@x", "old")])
    source.on["loaded"] = lambda: first.chain.put(human(1, "a@x", "new"))
    assert name(second) == "old"
    assert second.memory.holds(key(id=1)) is MISS
    assert name(second) == "new"


def test_class_wide_message_refuses_fills_too() -> None:
    """The same holds for a whole class that was invalidated."""
    first, second, _, source = two()
    source._keep([human(1, "a@x", "old")])

    def changed() -> None:
        source._keep([human(1, "a@x", "new")])
        first.chain.invalidate(Person)

    source.on["loaded"] = changed
    assert name(second) == "old"
    assert name(second) == "new"


def test_own_commit_publishes_nothing_older() -> None:
    """Who has loaded what it has committed, and then hears of a later commit, publishes nothing; readers load."""
    first, second, _, source = two(human(1, "a@x", "old"))
    source.on["loaded"] = lambda: second.chain.put(human(1, "a@x", "later"))
    first.chain.put(human(1, "a@x", "earlier"))
    assert first.memory.holds(key(id=1)) is MISS
    assert name(first) == "later"


def test_lock_stays_while_its_owner_is_told() -> None:
    """A message removes no lock: between lock and commit readers load, and fill nothing."""
    first, second, _, source = two(human(1, "a@x", "old"))
    seen = []

    def committing() -> None:
        second.chain.invalidate(Person, {"id": 1})
        seen.append(first.memory.holds(key(id=1)))

    source.on["commit"] = committing
    first.chain.put(human(1, "a@x", "new"))
    assert seen == [LOCKED]
    assert name(first) == "new"


@pytest.mark.parametrize("by", [{"id": 1}, {"email": "a@x"}])
def test_invalidate_is_heard(by: dict[str, Any]) -> None:
    """chain.invalidate of one object reaches the memory of others, by whichever key, and leaves the rest."""
    first, second, _, source = two(human(1, "a@x", "old"), Person(2, "b@x"))
    second.chain.get(Person, by)
    source._keep([human(1, "a@x", "new")])
    first.chain.invalidate(Person, by)
    assert second.chain.get(Person, by).name == "new"
    assert isinstance(second.memory.holds(key(id=2)), Record)


def test_invalidated_alias_takes_what_it_leads_to() -> None:
    """Who knows an object by a key that the source does not give it any more drops the object, too."""
    first, second, _, source = two(human(1, "a@x", "old"))
    second.chain.get(Person, {"email": "a@x"})
    source._keep([human(1, "b@x", "new")])
    first.chain.invalidate(Person, {"email": "a@x"})
    assert name(second) == "new"


def test_invalidate_class_and_clear_are_heard() -> None:
    """Whole classes, and everything, go over the backplane as well."""
    for drop in (lambda chain: chain.invalidate(Person), ChainedStore.clear):
        first, second, _, source = two(human(1, "a@x", "old"), human(2, "b@x", "old"))
        source._keep([human(1, "a@x", "new"), human(2, "b@x", "new")])
        drop(first.chain)
        assert [name(second, i) for i in (1, 2)] == ["new", "new"]


def test_class_of_polymorphic_memory() -> None:
    """To drop all cars drops them where a polymorphic memory keeps them as automobiles, too."""
    air, source = Air(), Source()
    first = Process(air, source)
    memory = Tier(polymorphic=True)
    source._keep([Car("p")])
    second = ChainedStore([memory, source], backplane=Radio(air))
    car_keys = [key(Car, plate="p"), key(Automobile, plate="p")]
    for klass in (Car, Automobile):
        second.get(klass, {"plate": "p"})
    assert all(isinstance(memory.holds(each), Record) for each in car_keys)
    first.chain.invalidate(Car)
    assert [memory.holds(each) for each in car_keys] == [MISS, MISS]


@pytest.mark.parametrize("klass", [Car, Automobile])
def test_object_in_polymorphic_memory(klass: type) -> None:
    """One object that is invalidated, as whatever class, goes as both where a polymorphic memory keeps it as both."""
    air, source, memory = Air(), Source(Car("p")), Tier(polymorphic=True)
    second = ChainedStore([memory, source], backplane=Radio(air))
    for each in (Car, Automobile):
        second.get(each, {"plate": "p"})
    Process(air, source).chain.invalidate(klass, {"plate": "p"})
    assert [memory.holds(each) for each in (key(Car, plate="p"), key(Automobile, plate="p"))] == [MISS, MISS]


def test_rollback_tells_nothing() -> None:
    """What was not committed changes nothing, and nobody is told."""
    first, _, air, source = two(Person(1))
    air.sent.clear()
    source.fail = Outcome.ROLLED_BACK
    with pytest.raises(OSError, match="failed"):
        first.chain.put(Person(1, "b@x"))
    assert air.sent == []


def test_unknown_outcome_is_told() -> None:
    """A commit of which nobody knows if it has happened is told: to forget is always safe."""
    first, second, _, source = two(Person(1))
    source.fail = Outcome.UNKNOWN
    with pytest.raises(OSError, match="failed"):
        first.chain.put(Person(1, "b@x"))
    assert second.memory.holds(key(id=1)) is MISS


def test_interrupted_publishing_is_told() -> None:
    """An interrupt between the commit and its publishing does not keep others from hearing of it."""
    first, second, _, source = two(Person(1))

    def interrupt() -> None:
        raise KeyboardInterrupt

    source.on["load"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        first.chain.put(Person(1, "b@x"))
    assert second.memory.holds(key(id=1)) is MISS


def test_on_write_invalidate_is_told() -> None:
    """A chain that only invalidates tells it as well."""
    first, second, _, _ = two(human(1, "a@x", "old"), on_write="invalidate")
    first.chain.put(human(1, "a@x", "new"))
    assert name(second) == "new"


def test_chain_without_memory_tells_others() -> None:
    """A chain that has no process memory, or no cache at all, tells those that have, and listens to nothing."""
    air, source = Air(), Source(human(1, "a@x", "old"))
    second = Process(air, source)
    assert name(second) == "old"
    radio = Radio(air)
    for stores in ([source], [Shared(), source]):
        ChainedStore(stores, backplane=radio).put(human(1, "a@x", "new"))
        assert second.memory.holds(key(id=1)) is MISS
        assert name(second) == "new"
    assert radio.callbacks == []


def test_told_after_the_shared_tier() -> None:
    """Others are told last: who hears it and reads the shared tier finds what was committed, not what was before."""
    first, second, air, _ = two(human(1, "a@x", "old"), shared=True)
    shared = first.chain.stores[1]
    seen: list[Any] = []

    def hear(channel: str, data: bytes) -> None:
        seen.append(shared.holds(key(id=1)).value.name)

    listener = Radio(air)
    listener.subscribe("stockpyle.backplane", hear)
    first.chain.put(human(1, "a@x", "new"))
    assert seen == ["new"]
    assert name(second) == "new"


def test_debt_is_told_when_it_is_delivered() -> None:
    """What a writer could not tell the shared tier others may have read from it since: they are told once more."""
    air, source, clock = Air(), Source(human(1, "a@x", "old")), Clock()

    class Table(Shared):
        """The shared tier."""

        def cut_off(self, *args: Any, **options: Any) -> Any:
            raise OSError("cut off")

    class Behind(Shared):
        """One process's way to the shared tier, which can be cut."""

        cut = False

        def __getattribute__(self, wanted: str) -> Any:
            if wanted in ("read", "fill", "lock", "publish", "unlock"):
                return table.__getattribute__("cut_off" if self.cut else wanted)
            return super().__getattribute__(wanted)

    table = Table(clock=clock)
    mine, theirs = Behind(clock=clock), Behind(clock=clock)
    first, second = Process(air, source, mine, clock=clock), Process(air, source, theirs, clock=clock)
    assert name(first) == name(second) == "old"
    mine.cut = True
    first.chain.put(human(1, "a@x", "new"))
    assert second.memory.holds(key(id=1)) is MISS
    assert name(second) == "old", "the second process has read what the first could not replace"
    mine.cut = False
    clock.advance(2)
    assert mine.guards.parts[0].settle()
    assert second.memory.holds(key(id=1)) is MISS
    assert name(second) == "new"


@pytest.mark.parametrize("kind", [ProcessMemoryStore, ThreadLocalStore])
def test_both_kinds_of_memory_listen(kind: Callable[[], Any]) -> None:
    """Memory that is each thread's own listens as well as memory that all have."""
    air, source = Air(), Source(human(1, "a@x", "old"))
    memory = kind()
    first, second = Process(air, source), ChainedStore([memory, source], backplane=Radio(air))
    assert second.get(Person, {"id": 1}).name == "old"
    assert len(memory) == 1
    first.chain.put(human(1, "a@x", "new"))
    assert len(memory) == 0
    assert second.get(Person, {"id": 1}).name == "new"


def test_same_memory_in_two_chains() -> None:
    """A memory tier of two chains in one process hears what either is told."""
    air, other_air, source = Air(), Air(), Source(human(1, "a@x", "old"))
    memory = Tier()
    chains = [ChainedStore([memory, source], backplane=Radio(each)) for each in (air, other_air)]
    assert chains[0].get(Person, {"id": 1}).name == "old"
    assert memory.holds(key(id=1)) is MISS, "the second chain's backplane does not listen yet"
    for chain in chains:
        chain.get(Person, {"id": 1})
    assert isinstance(memory.holds(key(id=1)), Record)
    Process(other_air, source).chain.put(human(1, "a@x", "new"))
    assert chains[0].get(Person, {"id": 1}).name == "new"


# when nothing is heard


def test_lost_connection_empties_memory_and_keeps_it_empty() -> None:
    """While nothing is heard, nothing is served from memory and nothing is filled into it."""
    first, second, _, _ = two(human(1, "a@x", "old"))
    second.radio.cut()
    assert second.memory.holds(key(id=1)) is MISS
    assert name(second) == "old"
    assert second.memory.holds(key(id=1)) is MISS
    first.chain.put(human(1, "a@x", "new"))
    assert name(second) == "new"
    second.chain.put(human(1, "a@x", "newer"))
    assert second.memory.holds(key(id=1)) is MISS
    second.radio.mend()
    assert name(second) == "newer"
    assert isinstance(second.memory.holds(key(id=1)), Record)


def test_lease_from_before_the_loss_fills_nothing() -> None:
    """What was read before the connection was lost is not filled after it was found again."""
    first, second, _, source = two()
    source._keep([human(1, "a@x", "old")])

    def loaded() -> None:
        second.radio.cut()
        first.chain.put(human(1, "a@x", "new"))
        second.radio.mend()

    source.on["loaded"] = loaded
    assert name(second) == "old"
    assert name(second) == "new"


def test_lock_from_during_the_loss_publishes_nothing() -> None:
    """What a writer has loaded while nothing was heard is not published after the connection was found again."""
    first, second, _, source = two(human(1, "a@x", "old"))

    def loaded() -> None:
        first.chain.put(human(1, "a@x", "later"))
        second.radio.mend()

    source.on["loaded"] = loaded
    second.radio.cut()
    second.chain.put(human(1, "a@x", "earlier"))
    assert name(second) == "later"


def test_nothing_is_kept_before_the_first_subscription() -> None:
    """As long as the subscription is not confirmed, readers are answered and memory stays empty."""
    air, source = Air(), Source(human(1, "a@x", "old"))
    process = Process(air, source)
    process.radio.error = unavailable()
    for _ in range(2):
        assert name(process) == "old"
        assert process.memory.holds(key(id=1)) is MISS
    process.radio.error = None
    assert process.backplane.waits
    assert process.backplane.settle()
    assert name(process) == "old"
    assert isinstance(process.memory.holds(key(id=1)), Record)


def test_loss_while_subscribing() -> None:
    """A connection that is lost right after the server has confirmed leaves memory empty until it is found again."""
    process = Process(Air(), Source(Person(1)))
    process.radio.on_subscribe = process.radio.cut
    name(process)
    assert process.memory.holds(key(id=1)) is MISS
    process.radio.mend()
    name(process)
    assert isinstance(process.memory.holds(key(id=1)), Record)


def test_dropped_while_subscribing() -> None:
    """A subscription that somebody ends before the chain knows that it stands is none: it is made again."""
    air, source = Air(), Source(Person(1))
    process = Process(air, source)

    def drop() -> None:
        process.radio.on_subscribe = lambda: None
        ((channel, callback),) = process.radio.callbacks
        process.radio.unsubscribe(channel, callback)
        callback.dropped()  # type: ignore[attr-defined]

    process.radio.on_subscribe = drop
    process.chain.get(Person, {"id": 1})
    assert process.memory.holds(key(id=1)) is MISS
    assert process.backplane.settle()
    process.chain.get(Person, {"id": 1})
    assert process.memory.holds(key(id=1)) is not MISS
    assert process.radio.callbacks


def test_found_again_while_subscribing() -> None:
    """One that is lost and found again meanwhile leaves memory in use."""

    def both() -> None:
        process.radio.cut()
        process.radio.mend()

    process = Process(Air(), Source(Person(1)))
    process.radio.on_subscribe = both
    name(process)
    assert isinstance(process.memory.holds(key(id=1)), Record)


# when nothing can be told


def test_failed_message_is_sent_later(caplog: pytest.LogCaptureFixture) -> None:
    """A commit whose message cannot be sent has happened all the same; it is told later, and logged once."""
    first, second, air, _ = two(human(1, "a@x", "old"), human(2, "b@x", "old"))
    first.radio.error = unavailable()
    for i in (1, 2):
        first.chain.put(human(i, f"{i}@x", "new"))
    assert [name(second, i) for i in (1, 2)] == ["old", "old"]
    first.radio.error = None
    air.sent.clear()
    assert first.backplane._outbox.settle()
    assert len(air.sent) == 1
    assert [name(second, i) for i in (1, 2)] == ["new", "new"]
    warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert warnings == [
        "the backplane stockpyle.backplane could not be told what has changed; it is tried again: "
        "StoreUnavailable('cut off', 'radio', 'publish')",
        "the backplane stockpyle.backplane can be told again what has changed",
    ]
    assert first.backplane.stats.failures == 2


def test_what_cannot_be_sent_is_bounded() -> None:
    """Of too many keys that wait only the class is kept, and told."""
    first, second, _, source = two(human(1, "a@x", "old"), human(2, "b@x", "old"))
    first.backplane._outbox._limit = 10
    first.radio.error = unavailable()
    first.chain.batch_put([Person(i, f"{i}@x") for i in range(10, 30)])
    source._keep([human(1, "a@x", "new")])
    assert not first.backplane._outbox._mine.idents
    first.radio.error = None
    assert first.backplane._outbox.settle()
    assert second.memory.holds(key(id=2)) is MISS
    assert name(second) == "new"


def test_long_messages_are_split() -> None:
    """What does not fit into one message is sent in several, and none is longer than the channel carries."""
    air, source = Air(max_size=300), Source(*[human(i, f"{i}@x", "old") for i in range(100)])
    first, second = Process(air, source), Process(air, source)
    second.chain.batch_get(Person, [{"id": i} for i in range(101)])
    first.chain.batch_put([human(i, f"{i}@x", "new") for i in range(100)])
    assert len(air.sent) > 5
    assert max(len(data) for _, data in air.sent) <= 300
    assert {name(second, i) for i in range(100)} == {"new"}
    assert not isinstance(second.memory.holds(key(id=100)), type(MISS)), "only what was told is dropped"


def test_what_is_no_message_drops_everything(caplog: pytest.LogCaptureFixture) -> None:
    """Bytes that nobody understands may have been about anything; they are counted, logged, and nothing is run."""

    class Bomb:
        def __reduce__(self) -> Any:
            raise AssertionError("unpickled")

    first, second, air, _ = two(Person(1))
    for i, data in enumerate([b"", b"\xff" * 9, b"\x97\x01", pickle.dumps({"a": 1}), b"\x81\xa1a\x01", b"\x97" * 5000]):
        name(second)
        assert isinstance(second.memory.holds(key(id=1)), Record)
        air.send(first.backplane.channel, data)
        assert second.memory.holds(key(id=1)) is MISS
        assert second.backplane.stats.unreadable == i + 1
    assert "is dropped" in caplog.text


def test_other_channels_are_not_heard() -> None:
    """Chains whose shared tiers have other prefixes, or that were given another channel, hear nothing of each other."""
    air, source = Air(), Source(human(1, "a@x", "old"))
    first, second = Process(air, source, backplane_channel="one"), Process(air, source, backplane_channel="two")
    name(second)
    first.chain.put(human(1, "a@x", "new"))
    assert name(second) == "old"


@pytest.mark.parametrize("prefix", ["shop", "p" * 100])
def test_channel_is_named_after_the_prefix(prefix: str) -> None:
    """The default channel is the shared tier's prefix and .backplane."""
    shared = Shared()
    shared.prefix = prefix  # type: ignore[attr-defined]
    assert Process(Air(), Source(), shared).backplane.channel == f"{prefix}.backplane"


@pytest.mark.parametrize("channel", ["", b"one", 5, "é" * 128])
def test_channel_is_one_that_all_carry(channel: Any) -> None:
    """A channel that is no text, or longer than PostgreSQL's pub/sub carries, is refused with the chain."""
    with pytest.raises(ImproperlyConfigured, match="backplane_channel is the name of a channel, of 1 to 255 bytes"):
        Process(Air(), Source(), backplane_channel=channel)


# lifetimes, settings and ends


@pytest.mark.parametrize(("connected", "seconds"), [(False, 60), (True, 86400)])
def test_bound_of_memory(connected: bool, seconds: float) -> None:
    """Memory that hears what others change keeps a record for a day, memory that does not for a minute."""
    clock = Clock()
    memory, source = Tier(clock=clock), Source(Person(1))
    options: dict[str, Any] = {"backplane": Radio(Air())} if connected else {}
    chain = ChainedStore([memory, source], **options)
    chain.get(Person, {"id": 1})
    assert memory.holds(key(id=1)).deadline == clock.now + seconds


def test_own_lifetime_replaces_the_bound_of_memory() -> None:
    """A lifetime that the user has given is kept to with a backplane, too."""
    clock = Clock()
    memory = Tier(clock=clock, lifetime=5)
    ChainedStore([memory, Source(Person(1))], backplane=Radio(Air())).get(Person, {"id": 1})
    assert memory.holds(key(id=1)).deadline == clock.now + 5


def test_memory_with_a_backplane_is_no_source() -> None:
    """What may be emptied at any moment is nothing's only place, and the error says so."""
    chain = ChainedStore([ProcessMemoryStore()], backplane=Radio(Air()))
    with pytest.raises(UnsupportedOperation, match="only keeps copies"):
        chain.put(Person(1))


def test_classes_without_a_name_are_refused() -> None:
    """A class that other processes cannot know by its name cannot be told of."""

    class Local:
        __stockpyle_keys__ = ("id",)
        id = 1

    with pytest.raises(InvalidKeysDeclaration, match="backplane"):
        Process(Air(), Source()).chain.put(Local())


@pytest.mark.parametrize("wrong", [object(), 5, "redis://localhost"])
def test_backplane_is_a_store_or_a_pubsub(wrong: Any) -> None:
    """Anything else is refused, naming what is needed."""
    with pytest.raises(ImproperlyConfigured, match=r"pubsub\(\)"):
        ChainedStore([Source()], backplane=wrong)


def test_store_without_pubsub_is_refused() -> None:
    """So is a store that carries no messages."""
    with pytest.raises(UnsupportedOperation, match="carries no messages"):
        ChainedStore([Source()], backplane=NullStore())


def test_in_transaction_needs_the_sources_postgresql() -> None:
    """Inside a transaction only the PostgreSQL of the source can send."""
    for options in ({"backplane": Radio(Air())}, {}):
        with pytest.raises(ImproperlyConfigured, match="backplane"):
            ChainedStore([Source()], backplane_in_transaction=True, **options)


def test_chain_in_a_chain_has_no_backplane() -> None:
    """Of two backplanes one would be ignored, so that is refused."""
    inner = ChainedStore([Source()], backplane=Radio(Air()))
    with pytest.raises(ImproperlyConfigured, match="outer"):
        ChainedStore([ProcessMemoryStore(), inner])


def test_stores_that_cannot_listen_keep_their_bound() -> None:
    """A mapping of the user's own does not listen, and keeps what it is given for a minute as without a backplane."""
    source = Source(Person(1))
    chain = ChainedStore([BaseDictionaryStore({}), source], backplane=Radio(Air()))
    assert chain.layers[0].deadline(Person(1)) is not None
    assert chain.layers[0].bound == 60


def test_close_ends_what_the_chain_has_made() -> None:
    """The pub/sub of a store is closed with the chain; one that was passed in only hears nothing for it any more."""
    first, _, air, _ = two(Person(1))
    first.chain.close()
    assert not first.radio.closed
    assert first.radio.callbacks == []
    first.chain.get(Person, {"id": 1})
    assert first.memory.holds(key(id=1)) is MISS

    class Station(NullStore):
        def pubsub(self, **notices: Any) -> Any:
            self.radio = Radio(air)
            self.radio.watch(**notices)
            return self.radio

    station = Station()
    ChainedStore([Source()], backplane=station).close()
    assert station.radio.closed


def test_close_sends_what_is_left() -> None:
    """What could not be sent before is tried once more."""
    first, second, _, _ = two(human(1, "a@x", "old"))
    first.radio.error = unavailable()
    first.chain.put(human(1, "a@x", "new"))
    first.radio.error = None
    first.chain.close()
    assert name(second) == "new"


def test_closed_backplane(caplog: pytest.LogCaptureFixture) -> None:
    """What could not be told before the end is given up, and what comes after it is not told; both are logged."""
    first, second, _, _ = two(human(1, "a@x", "old"))
    first.radio.error = unavailable()
    first.chain.put(human(1, "a@x", "new"))
    first.chain.close()
    assert "was not told of all that has changed" in caplog.text
    first.radio.error = None
    first.chain.put(human(1, "a@x", "newer"))
    assert "a commit is not told" in caplog.text
    assert first.backplane.announce(None, [key(id=1)]) is None
    assert not first.backplane._outbox.waits
    assert name(second) == "old"


def test_chain_with_a_backplane_cannot_be_pickled() -> None:
    """As no store can, nor its backplane."""
    first, _, _, _ = two()
    for thing in (first.chain, first.backplane):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(thing)


def test_chain_that_nobody_has_is_gone() -> None:
    """A pub/sub that lives longer keeps no chain alive."""
    import gc
    import weakref

    first, _, _, _ = two(Person(1))
    radio, gone = first.radio, weakref.ref(first.chain)
    del first
    gc.collect()
    assert gone() is None
    radio.cut()


# that these tests can fail


def without_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that removes records, and not the leases on them."""
    from stockpyle.stores._slots import LeaseSlot

    disown = MemoryTable._disown

    def wrong(self: MemoryTable, space: Any, ident: Any) -> None:
        index = space.index(ident[1])
        if not isinstance(index.slots.get(index.at(ident[2])), LeaseSlot):
            disown(self, space, ident)

    monkeypatch.setattr(MemoryTable, "_disown", wrong)


def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that lets the owner of a lock publish what it has loaded before."""

    def wrong(self: MemoryTable, space: Any, ident: Any) -> None:
        index = space.index(ident[1])
        self._held.remove(index, index.at(ident[2]))

    monkeypatch.setattr(MemoryTable, "_disown", wrong)


def without_emptying(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost connection that leaves in memory what is there."""
    monkeypatch.setattr(backplane_module.Backplane, "_lost", lambda self: None)


def without_emptying_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is found again, and leaves locks that were taken meanwhile as they are."""

    def wrong(self: MemoryTable, listener: object) -> None:
        self._deaf.discard(listener)

    monkeypatch.setattr(MemoryTable, "hears", wrong)


def with_filling_while_deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is emptied, and goes on to be filled while nothing is heard."""

    def wrong(self: MemoryTable, listener: object) -> None:
        self._drop_all()

    monkeypatch.setattr(MemoryTable, "deafen", wrong)


def without_telling_debts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debts that are delivered and not told."""
    monkeypatch.setattr(backplane_module.Backplane, "told_late", lambda self, debts: None)


MUTANTS: list[tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = [
    (without_leases, test_fill_under_way_is_refused),
    (without_locks, test_own_commit_publishes_nothing_older),
    (without_emptying, test_lost_connection_empties_memory_and_keeps_it_empty),
    (without_emptying_again, test_lock_from_during_the_loss_publishes_nothing),
    (with_filling_while_deaf, test_nothing_is_kept_before_the_first_subscription),
    (without_telling_debts, test_debt_is_told_when_it_is_delivered),
]


@pytest.mark.parametrize(("mutant", "test"), MUTANTS, ids=lambda each: each.__name__)
def test_a_wrong_version_is_found(
    mutant: Callable[[pytest.MonkeyPatch], None], test: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of these wrong versions makes a test above fail."""
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        test()
