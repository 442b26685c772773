"""What publish/subscribe is, wherever it is."""

from __future__ import annotations

import copy
import logging
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from stockpyle.exceptions import ImproperlyConfigured, StoreUnavailable
from stockpyle.protocols import PubSub
from stockpyle.stores import BaseStore, SqlAlchemyStore
from tests.pubsub.parts import Ear, Make, listening_threads, settle, wait_for
from tests.servers import PATIENCE


def counts(store: BaseStore) -> bool:
    """True if a message's receivers are counted here."""
    return not isinstance(store, SqlAlchemyStore) and "cluster" not in repr(store) and "," not in repr(store.pubsub())


def test_what_is_published_is_heard(make: Make) -> None:
    """A message reaches the callbacks of its channel, in all who listen, as bytes, and nobody else."""
    one, other, sender = make(), make(), make()
    ears = [Ear(), Ear(), Ear()]
    one.subscribe("news", ears[0])
    other.subscribe("news", ears[1])
    other.subscribe("weather", ears[2])
    sender.publish("news", b"\x00\xff")
    sender.publish("news", "süß")
    for ear in ears[:2]:
        assert ear.after(2) == [("news", b"\x00\xff"), ("news", "süß".encode())]
    sender.publish("weather", b"")
    assert ears[2].after(1) == [("weather", b"")]


def test_a_sender_hears_itself(pubsub: PubSub) -> None:
    """Who has subscribed hears what it publishes itself."""
    ear = Ear()
    pubsub.subscribe("news", ear)
    pubsub.publish("news", b"1")
    assert ear.after(1) == [("news", b"1")]


def test_it_is_a_pubsub(pubsub: PubSub) -> None:
    """It has all that the contract names."""
    assert isinstance(pubsub, PubSub)


def test_receivers_are_counted(store: BaseStore, make: Make) -> None:
    """Each subscription to a channel, and each pattern that fits, counts for each who listens; None: nobody counts."""
    one, other = make(), make()
    expected = [0, 1, 2, 3] if counts(store) else [None] * 4
    got = [one.publish("news", b"")]
    one.subscribe("news", Ear())
    got.append(one.publish("news", b""))
    one.psubscribe("n*", Ear())
    got.append(one.publish("news", b""))
    other.subscribe("news", Ear())
    other.subscribe("news", Ear())
    got.append(one.publish("news", b""))
    assert got == expected


def test_names_are_any_text(pubsub: PubSub) -> None:
    """A channel may have blanks, quotes, letters of all sorts, and be empty."""
    names = ["", "a b", "it's", 'a"b', "größe 漢字 \U0001f600", "\\", "a\x00b", "%s", "x" * 255]
    ear = Ear()
    for name in names:
        pubsub.subscribe(name, ear)
    for name in names:
        pubsub.publish(name, b"1")
    assert ear.after(len(names)) == [(name, b"1") for name in names]


def test_patterns(pubsub: PubSub) -> None:
    """A pattern stands for all channels that fit it, and its callbacks are told which one it was."""
    ear = Ear()
    for pattern in ("user:*", "?at", "[ab]-[0-9]", r"\*"):
        pubsub.psubscribe(pattern, ear)
    fits = ["user:", "user:1", "cat", "hat", "a-7", "*"]
    for channel in ["user", "chat", "c-1", "a-x", *fits, "x"]:
        pubsub.publish(channel, b"")
    settle(pubsub)
    assert [channel for channel, _ in ear.heard] == fits


def test_a_channel_and_a_pattern_are_two_subscriptions(pubsub: PubSub) -> None:
    """Who has subscribed to a channel and to patterns that fit it is called for each; a channel is no pattern."""
    ear = Ear()
    for pattern in ("n*", "*s", "a*"):
        pubsub.psubscribe(pattern, ear)
    pubsub.subscribe("news", ear)
    pubsub.subscribe("n*", ear)
    pubsub.publish("news", b"1")
    settle(pubsub)
    assert ear.heard == [("news", b"1")] * 3


def test_a_callback_is_called_once(pubsub: PubSub) -> None:
    """A callback that is subscribed to a channel twice is called once, and unsubscribed at once."""
    ear = Ear()
    pubsub.subscribe("news", ear)
    pubsub.subscribe("news", ear)
    pubsub.publish("news", b"1")
    settle(pubsub)
    assert ear.heard == [("news", b"1")]
    pubsub.unsubscribe("news", ear)
    pubsub.publish("news", b"2")
    settle(pubsub)
    assert ear.heard == [("news", b"1")]


def test_unsubscribe(pubsub: PubSub) -> None:
    """It drops one callback, or a channel's, or all channels'; patterns are dropped by punsubscribe."""
    ears = {name: Ear() for name in ("a1", "a2", "b", "all", "some")}
    pubsub.subscribe("a", ears["a1"])
    pubsub.subscribe("a", ears["a2"])
    pubsub.subscribe("b", ears["b"])
    pubsub.psubscribe("*", ears["all"])
    pubsub.psubscribe("[ab]", ears["some"])

    def round_of(number: int) -> dict[str, int]:
        for channel in ("a", "b"):
            pubsub.publish(channel, str(number))
        settle(pubsub)
        heard = {name: sum(channel != "settled" for channel, _ in ear.heard) for name, ear in ears.items()}
        for ear in ears.values():
            ear.heard.clear()
        return heard

    assert round_of(0) == {"a1": 1, "a2": 1, "b": 1, "all": 2, "some": 2}
    pubsub.unsubscribe("a", ears["a1"])
    pubsub.unsubscribe("a", ears["b"])
    pubsub.unsubscribe("never")
    assert round_of(1) == {"a1": 0, "a2": 1, "b": 1, "all": 2, "some": 2}
    pubsub.punsubscribe("[ab]")
    assert round_of(2) == {"a1": 0, "a2": 1, "b": 1, "all": 2, "some": 0}
    pubsub.unsubscribe(callback=ears["a2"])
    assert round_of(3) == {"a1": 0, "a2": 0, "b": 1, "all": 2, "some": 0}
    pubsub.unsubscribe()
    assert round_of(4) == {"a1": 0, "a2": 0, "b": 0, "all": 2, "some": 0}
    pubsub.punsubscribe()
    assert round_of(5) == {"a1": 0, "a2": 0, "b": 0, "all": 0, "some": 0}


def test_subscribed_again(pubsub: PubSub) -> None:
    """What was unsubscribed a moment ago is heard again when subscribe has returned."""
    ear = Ear()
    for number in range(50):
        pubsub.subscribe("news", ear)
        pubsub.publish("news", b"")
        assert len(ear.after(number + 1)) == number + 1
        pubsub.unsubscribe("news")


def test_nothing_is_missed_after_subscribe_has_returned(make: Make) -> None:
    """What is published after subscribe() has returned arrives, whoever publishes it."""
    sender, ear = make(), Ear()
    for number in range(20):
        listener = make()
        listener.subscribe("news", ear)
        sender.publish("news", str(number))
        wait_for(lambda number=number: ("news", str(number).encode()) in ear.heard)
        listener.close()


def test_a_callback_that_raises_stops_no_other(pubsub: PubSub, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its traceback, and the others, and the next messages, are not concerned."""

    def failing(channel: str, data: bytes) -> None:
        raise ZeroDivisionError(channel)

    ear = Ear()
    pubsub.subscribe("news", failing)
    pubsub.subscribe("news", lambda channel, data: sys.exit(1))
    pubsub.subscribe("news", ear)
    pubsub.publish("news", b"1")
    pubsub.publish("news", b"2")
    assert ear.after(2) == [("news", b"1"), ("news", b"2")]
    lines = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert [("failing" in line.getMessage(), line.exc_info is not None) for line in lines] == [
        (True, True),
        (False, True),
    ]


def test_a_callback_may_call_everything(pubsub: PubSub) -> None:
    """A callback publishes, subscribes and unsubscribes, itself too; what it has subscribed is heard from then on."""
    ear, later = Ear(), Ear()

    def once(channel: str, data: bytes) -> None:
        pubsub.unsubscribe("news", once)
        pubsub.subscribe("later", later)
        pubsub.psubscribe("lat*", later)
        pubsub.publish("later", data)
        pubsub.publish("news", b"2")
        ear("once", data)

    pubsub.subscribe("news", once)
    pubsub.subscribe("news", ear)
    pubsub.publish("news", b"1")
    assert ear.after(3) == [("once", b"1"), ("news", b"1"), ("news", b"2")]
    assert later.after(2) == [("later", b"1")] * 2


def test_a_callback_may_unsubscribe_those_behind_it(pubsub: PubSub) -> None:
    """Who is unsubscribed by a callback of the same message is not called any more."""
    ear = Ear()
    pubsub.subscribe("news", lambda channel, data: pubsub.unsubscribe("news"))
    pubsub.subscribe("news", ear)
    pubsub.publish("news", b"1")
    settle(pubsub)
    assert ear.heard == []


def test_messages_without_end_stop_nothing_else(make: Make) -> None:
    """Who is called all the time, here by what it sends itself, keeps no other thread from subscribing."""
    pubsub, ear = make(timeout=PATIENCE), Ear()
    pubsub.subscribe("news", lambda channel, data: pubsub.publish("news", data))
    pubsub.publish("news", b"again")
    pubsub.subscribe("weather", ear)
    pubsub.publish("weather", b"1")
    assert ear.after(1) == [("weather", b"1")]


def test_a_callback_is_told_that_it_is_dropped(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """One that has a `dropped` is told when it is unsubscribed, by whomever, or the pub/sub closed; and only then."""

    class Told(Ear):
        times = 0

        def dropped(self) -> None:
            self.times += 1
            pubsub.publish("news", b"dropped")
            raise ZeroDivisionError

    pubsub, ears = make(), [Told(), Told()]
    for ear in ears:
        pubsub.subscribe("news", ear)
        pubsub.psubscribe("n*", ear)
    pubsub.unsubscribe("weather")
    assert [ear.times for ear in ears] == [0, 0]
    pubsub.unsubscribe("news", ears[0])
    assert [ear.times for ear in ears] == [1, 0]
    pubsub.punsubscribe()
    assert [ear.times for ear in ears] == [2, 1]
    assert "Told.dropped" in caplog.text
    pubsub.close()
    assert [ear.times for ear in ears] == [2, 2]


def test_a_callback_may_close_it(pubsub: PubSub) -> None:
    """A callback ends the pub/sub that has called it."""
    pubsub.subscribe("news", lambda channel, data: pubsub.close())
    pubsub.publish("news", b"1")
    wait_for(lambda: not listening_threads())
    assert not pubsub.connected


def test_many_threads_publish(make: Make) -> None:
    """What 16 threads publish at once is heard by each listener once, and what one has sent in its order."""
    listeners, ears = [make(), make()], [Ear(), Ear()]
    sender = make(timeout=10)
    listeners[0].subscribe("news", ears[0])
    listeners[1].psubscribe("*", ears[1])

    def send(number: int) -> None:
        for i in range(50):
            sender.publish("news", f"{number} {i}")

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(send, range(16)))
    for ear in ears:
        heard = [tuple(map(int, data.split())) for _, data in ear.after(800)]
        assert sorted(heard) == [(number, i) for number in range(16) for i in range(50)]
        for number in range(16):
            assert [i for each, i in heard if each == number] == list(range(50))


def test_many_threads_subscribe(pubsub: PubSub) -> None:
    """Threads that subscribe, publish and unsubscribe at once, through one pub/sub, each hear their own message."""

    def work(number: int) -> None:
        for i in range(5):
            ear = Ear()
            pubsub.subscribe(f"channel {number}", ear)
            pubsub.publish(f"channel {number}", str(i))
            assert ear.after(1)[0] == (f"channel {number}", str(i).encode())
            pubsub.unsubscribe(f"channel {number}", ear)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(16)))


def test_connected(pubsub: PubSub) -> None:
    """It is connected from its first subscription to its last, and publishes all the same."""
    ear = Ear()
    assert not pubsub.connected
    pubsub.publish("news", b"")
    assert not pubsub.connected
    pubsub.subscribe("news", ear)
    assert pubsub.connected
    pubsub.unsubscribe()
    wait_for(lambda: not pubsub.connected)
    wait_for(lambda: not listening_threads())
    pubsub.subscribe("news", ear)
    assert pubsub.connected
    pubsub.publish("news", b"1")
    assert ear.after(1) == [("news", b"1")]


def test_it_need_not_wait(pubsub: PubSub) -> None:
    """subscribe(wait=False) returns at once, and hears from when it is connected on."""
    ear = Ear()
    pubsub.subscribe("news", ear, wait=False)
    wait_for(lambda: pubsub.connected)
    pubsub.psubscribe("n*", ear, wait=False)
    settle(pubsub)
    pubsub.publish("news", b"1")
    assert ear.after(2) == [("news", b"1")] * 2


def test_one_thread_listens(pubsub: PubSub) -> None:
    """A pub/sub that has subscribed has one daemon thread, whatever it listens to; one that has not has none."""
    pubsub.publish("news", b"")
    assert listening_threads() == []
    for name in ("a", "b"):
        pubsub.subscribe(name, Ear())
        pubsub.psubscribe(name, Ear())
    assert len(listening_threads()) == 1
    assert all(thread.daemon for thread in threading.enumerate() if thread.name in listening_threads())


def test_close(make: Make) -> None:
    """A closed pub/sub hears and sends nothing, and leaves no thread; others are not concerned."""
    ear, other = Ear(), make()
    with make() as pubsub:
        pubsub.subscribe("news", ear)
        pubsub.publish("news", b"1")
        ear.after(1)
    assert listening_threads() == []
    assert not pubsub.connected
    other.publish("news", b"2")
    for call in (lambda: pubsub.publish("news", b"3"), lambda: pubsub.subscribe("news", ear)):
        with pytest.raises(StoreUnavailable, match=r"(publish|subscribe): this pub/sub is closed"):
            call()
    pubsub.unsubscribe()
    pubsub.close()
    settle(other)
    assert ear.heard == [("news", b"1")]


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda it: it.publish(b"news", b""), TypeError, "a channel is a str, not b'news'"),
        (lambda it: it.publish("news", 5), TypeError, "a message is bytes or a str, not 5"),
        (lambda it: it.publish("news", bytearray(b"1")), TypeError, "a message is bytes or a str"),
        (lambda it: it.subscribe(None, print), TypeError, "a channel is a str, not None"),
        (lambda it: it.psubscribe(None, print), TypeError, "a pattern is a str, not None"),
        (lambda it: it.subscribe("news", "print"), TypeError, "'print' cannot be called"),
        (lambda it: it.subscribe("\ud800", print), ValueError, "surrogates not allowed"),
        (lambda it: it.psubscribe("\ud800*", print), ValueError, "surrogates not allowed"),
        (lambda it: it.publish("\ud800", b""), ValueError, "surrogates not allowed"),
    ],
)
def test_what_it_is_given(pubsub: PubSub, call: Any, error: type[Exception], says: str) -> None:
    """What is no channel, message or callback is refused, by name."""
    with pytest.raises(error, match=says):
        call(pubsub)


@pytest.mark.parametrize("option", ["heartbeat", "timeout"])
@pytest.mark.parametrize("seconds", [0, -1, "5", True, None, float("nan"), float("inf")])
def test_seconds(make: Make, option: str, seconds: Any) -> None:
    """heartbeat and timeout are seconds above 0."""
    with pytest.raises(ImproperlyConfigured, match=f"{option} is a number of seconds above 0"):
        make(**{option: seconds})


def test_it_is_not_pickled(pubsub: PubSub) -> None:
    """It has a thread and connections, which neither a pickle nor a copy can have."""
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            attempt(pubsub)
