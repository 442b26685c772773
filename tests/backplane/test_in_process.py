"""The backplane over the pub/sub within a process: a real one, with a thread that delivers."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from stockpyle.stores import ChainedStore, ProcessMemoryStore
from stockpyle.testing import Person
from tests.backplane.peers import until
from tests.chain.parts import Source, key
from tests.pubsub.parts import listening_threads


def test_chains_of_one_process_hear_each_other() -> None:
    """Several chains with memory of their own, connected by a store of this process, follow each other's commits."""
    hub, source = ProcessMemoryStore(), Source(Person(1, name="old"))
    memories = [ProcessMemoryStore() for _ in range(3)]
    chains = [ChainedStore([memory, source], backplane=hub) for memory in memories]
    for chain in chains:
        assert chain.get(Person, {"id": 1}).name == "old"
    assert [len(memory) for memory in memories] == [1, 1, 1]
    chains[0].put(Person(1, name="new"))
    until(lambda: [len(memory) for memory in memories] == [1, 0, 0])
    assert {chain.get(Person, {"id": 1}).name for chain in chains} == {"new"}
    for chain in chains:
        chain.close()


def test_threads_that_read_and_write_settle_on_the_last() -> None:
    """Whatever threads of several chains read and write at once, in the end all say what the source has."""
    hub, source = ProcessMemoryStore(), Source(*[Person(i, name="0") for i in range(5)])
    chains = [ChainedStore([ProcessMemoryStore(), source], backplane=hub) for _ in range(3)]
    failures: list[BaseException] = []

    def work(chain: ChainedStore, seed: int) -> None:
        try:
            for n in range(200):
                if n % 10 == seed:
                    # only one writes an object, as in a database one at a time has its row locked
                    chain.put(Person(seed, name=str(n)))
                chain.batch_get(Person, [{"id": i} for i in range(5)])
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(chains[i % 3], i)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    final = [source.rows[Person, (i,)].name for i in range(5)]
    for chain in chains:
        until(lambda chain=chain: [p.name for p in chain.batch_get(Person, [{"id": i} for i in range(5)])] == final)  # type: ignore[misc]
        chain.close()


@pytest.mark.parametrize("passed", ["store", "pubsub"])
def test_whose_the_pubsub_is(passed: str) -> None:
    """A chain ends the pub/sub that it has made of a store, and leaves one that it was given as it is."""
    hub, source = ProcessMemoryStore(), Source(Person(1))
    pubsub = hub.pubsub()
    chain = ChainedStore([ProcessMemoryStore(), source], backplane=hub if passed == "store" else pubsub)
    other = ChainedStore([ProcessMemoryStore(), source], backplane=pubsub)
    memory = other.stores[0]
    for each in (chain, other):
        each.get(Person, {"id": 1})
    chain.close()
    assert isinstance(memory, ProcessMemoryStore)
    assert len(memory) == 1
    ChainedStore([source], backplane=hub).put(Person(1, name="new"))
    until(lambda: len(memory) == 0)
    assert other.get(Person, {"id": 1}).name == "new"
    assert memory.read([key(id=1)], lease=False)[0].value.name == "new"
    pubsub.close()


@pytest.mark.parametrize("passed", ["store", "pubsub"])
def test_chain_that_nobody_has_listens_no_more(passed: str) -> None:
    """A chain that is not closed and that nobody has any more leaves no thread and no subscription."""
    hub, source = ProcessMemoryStore(), Source(Person(1))
    pubsub = hub.pubsub()
    chain = ChainedStore([ProcessMemoryStore(), source], backplane=hub if passed == "store" else pubsub)
    chain.get(Person, {"id": 1})
    assert listening_threads()
    gone = weakref.ref(chain)
    del chain
    gc.collect()
    assert gone() is None
    until(lambda: not listening_threads())


@pytest.mark.parametrize("again", [True, False], ids=["unsubscribed", "closed"])
def test_pubsub_that_is_taken_away(again: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A chain whose subscription somebody else has ended keeps nothing in memory, until it has subscribed anew."""
    hub, source = ProcessMemoryStore(), Source(Person(1, name="old"))
    pubsub, memory = hub.pubsub(), ProcessMemoryStore()
    chain, other = ChainedStore([memory, source], backplane=pubsub), ChainedStore([source], backplane=hub)
    chain.get(Person, {"id": 1})
    assert len(memory) == 1
    if again:
        pubsub.unsubscribe()
    else:
        pubsub.close()
    assert len(memory) == 0
    assert "somebody has ended its subscription" in caplog.text
    assert chain.get(Person, {"id": 1}).name == "old"
    assert len(memory) == again
    other.put(Person(1, name="new"))
    until(lambda: len(memory) == 0)
    assert chain.get(Person, {"id": 1}).name == "new"
    chain.close()
    other.close()
    pubsub.close()
