"""Publish/subscribe in child processes."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from stockpyle.protocols import PubSub
from stockpyle.stores import BaseStore, ProcessMemoryStore
from tests.forks import child_says
from tests.pubsub.parts import Diary, Ear, Make, settle, wait_for
from tests.servers import PATIENCE, Postgres


def test_a_child_has_connections_of_its_own(store: BaseStore, make: Make) -> None:
    """A child hears with its parent's callbacks once it uses the pub/sub, and is told that it had lost the connection.

    The parent's is not disturbed. In memory parent and child do not hear each other.
    """
    diary, ear = Diary(), Ear()
    pubsub = make(**diary.options)
    pubsub.subscribe("news", ear)
    pubsub.psubscribe("n*", ear)
    pubsub.publish("news", b"1")
    assert len(ear.after(2)) == 2

    def work() -> bool:
        before = pubsub.connected
        wait_for(lambda: pubsub.connected)
        pubsub.publish("news", b"2")
        return not before and ear.after(4)[2:] == [("news", b"2")] * 2 and diary.entries == ["lost", "restored"]

    assert child_says(work)
    pubsub.publish("news", b"3")
    from_child = [] if isinstance(store, ProcessMemoryStore) else [b"2"] * 2
    settle(pubsub)
    assert [data for _, data in ear.heard] == [b"1"] * 2 + from_child + [b"3"] * 2
    assert diary.entries == []
    assert pubsub.connected


def test_a_child_that_only_publishes(pubsub: PubSub, make: Make) -> None:
    """A child sends on a connection of its own, and neither ends nor uses its parent's."""
    ear = Ear()
    pubsub.publish("news", b"1")

    def work() -> bool:
        pubsub.subscribe("news", ear)
        pubsub.publish("news", b"2")
        return ear.after(1) == [("news", b"2")]

    assert child_says(work)
    pubsub.subscribe("news", ear)
    pubsub.publish("news", b"3")
    # in a cluster the child's may come late
    wait_for(lambda: ("news", b"3") in ear.heard)


@pytest.mark.parametrize("kind", ["redis", "psycopg", "psycopg2"])
def test_a_child_that_does_nothing(kind: str, redis_server: str, postgres: Postgres) -> None:
    """A child that does not use the pub/sub, and ends as any process does, leaves its parent's connections alone."""
    store = f"RedisStore({redis_server!r})" if kind == "redis" else f"SqlAlchemyStore({postgres.url(kind)!r})"
    script = f"""
import os, queue, sys
from stockpyle.stores import RedisStore, SqlAlchemyStore
heard, lost = queue.Queue(), []
pubsub = {store}.pubsub(on_lost=lambda: lost.append(True))
pubsub.subscribe("news", lambda channel, data: heard.put(data))
pubsub.publish("news", b"1")
child = os.fork()
if not child:
    sys.exit(0)
os.waitpid(child, 0)
pubsub.publish("news", b"2")
print(heard.get(timeout={PATIENCE}), heard.get(timeout={PATIENCE}), lost)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("b'1' b'2' []\n", 0), done.stderr


def test_a_child_of_a_busy_parent(pubsub: PubSub) -> None:
    """A child that is forked while other threads publish and subscribe finds no lock held."""
    stop = threading.Event()

    def work(number: int) -> None:
        while not stop.is_set():
            ear = Ear()
            pubsub.subscribe(f"channel {number}", ear)
            pubsub.publish(f"channel {number}", b"")
            pubsub.unsubscribe(f"channel {number}", ear)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()

    def hears() -> bool:
        ear = Ear()
        pubsub.subscribe("child", ear)
        pubsub.publish("child", b"1")
        return ear.after(1) == [("child", b"1")]

    try:
        answers = [child_says(hears) for _ in range(5)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert all(answers)
