"""Connections to either kind of server: how they are made, kept, lost and replaced."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading

import pytest

from stockpyle.exceptions import StoreTimeout, StoreUnavailable
from stockpyle.records import MISS, Lease
from stockpyle.testing.samples import Person
from tests.remote.caches import Cache
from tests.remote.parts import ONE, TWO, fill, holds, key, record, wait_for
from tests.servers import StopMode


def test_pooled_connections_to_a_server_that_restarted_are_replaced_once(own_cache: Cache) -> None:
    """Whoever calls after a restart notices nothing but that the server is empty, on each verb of the tier."""
    store = own_cache.store()

    def restart(mode: StopMode = "immediate") -> None:
        own_cache.server.stop(mode)
        own_cache.server.start()

    fill(store, record(name="old"))
    restart("fast")
    assert holds(store) is MISS
    (lease,) = store.read([TWO])
    restart()
    (lock,) = store.lock([ONE], 30)
    restart()
    assert store.fill([(lease, record(2))]) == 0
    restart()
    store.publish([(lock, record())])
    restart()
    store.unlock([lock])
    restart()
    assert store.get(Person, {"id": 1}) is None
    restart()
    store.put(Person(1))
    restart()
    store.clear()


def test_server_that_is_down_is_unavailable_and_comes_back(own_cache: Cache) -> None:
    """While nobody listens every call raises StoreUnavailable, naming store, operation and server."""
    store = own_cache.store()
    fill(store, record(name="old"))
    own_cache.server.stop()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=rf"{store.name}.*read.*{own_cache.address[1]}") as caught:
            holds(store)
        assert not isinstance(caught.value, StoreTimeout)
        assert caught.value.__cause__ is not None
        assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    own_cache.server.start()
    assert holds(store) is MISS


def test_connects_when_it_is_first_used(own_cache: Cache) -> None:
    """A store can be made while its server is down."""
    own_cache.server.stop()
    store = own_cache.store()
    own_cache.server.start()
    own_cache.connections()
    # who has asked if the server is there yet is soon gone
    before = min(own_cache.connections() for _ in range(200))
    store.get(Person, {"id": 1})
    store.get(Person, {"id": 1})
    assert own_cache.connections() == before + 1


def test_close_gives_the_connections_back_and_the_store_can_be_used_again(own_cache: Cache) -> None:
    """close() twice, then a call: connected again, and the objects are still there."""
    store = own_cache.store()
    store.put(Person(1, name="kept"))
    assert store.revisions([ONE])[0]
    before = own_cache.connections()
    store.close()
    store.close()
    wait_for(lambda: own_cache.connections() == before - 1)
    assert store.get(Person, {"id": 1}).name == "kept"
    store.release()
    assert store.get(Person, {"id": 1}).name == "kept"


def test_threads_share_a_small_pool(own_cache: Cache) -> None:
    """16 threads read, fill, lock and publish through a small pool of connections; each sees what it has published."""
    store = own_cache.store(**own_cache.small_pool)
    before = own_cache.connections()
    errors: list[BaseException] = []
    start = threading.Barrier(16)

    def work(number: int) -> None:
        try:
            own, shared = key(id=number), key(id=999)
            start.wait()
            for i in range(100):
                (lock, _) = store.lock([own, shared], 30)
                store.publish([(lock, record(number, name=i))])
                assert holds(store, own) == i
                (found,) = store.read([shared])
                if isinstance(found, Lease):
                    store.fill([(found, record(999))])
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    wait_for(lambda: own_cache.connections() <= before + own_cache.pooled)


def test_fork_with_pooled_connections(own_cache: Cache) -> None:
    """Parent and child both go on with connections of their own, and never read each other's answers."""
    store = own_cache.store()
    store.batch_put([Person(i, name=str(i)) for i in range(100)])
    (revision,) = store.revisions([ONE])
    assert store.revisions([ONE], [revision]) == [revision]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # nothing of pytest may run in here
        told = b"failed"
        try:
            wrong = [i for i in range(50) if store.get(Person, {"id": i}).name != str(i)]
            wrong += [i for i in range(50) if store.revisions([ONE], [revision]) != [revision]]
            store.put(Person(1000, name="child"))
            told = b"wrong" if wrong else b"right"
        finally:
            os.write(writing, told)
            os._exit(0)
    for i in range(50, 100):
        assert store.get(Person, {"id": i}).name == str(i)
        assert store.revisions([ONE], [revision]) == [revision]
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"right"
    os.close(reading)
    os.close(writing)
    assert store.get(Person, {"id": 1000}).name == "child"


def test_store_is_neither_pickled_nor_copied(own_cache: Cache) -> None:
    """A store has connections: TypeError names the store."""
    store = own_cache.store()
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=own_cache.name):
            attempt(store)


def test_server_forgets_its_connections_with_the_store(own_cache: Cache) -> None:
    """A store that is dropped without close() gives its connections back."""
    before = own_cache.connections()
    store = own_cache.store()
    holds(store)
    store.revisions([ONE])
    assert own_cache.connections() == before + 1
    del store
    gc.collect()
    wait_for(lambda: own_cache.connections() == before)
