"""What publish/subscribe does when the server, or the connection to it, is gone."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from stockpyle.exceptions import StoreTimeout, StoreUnavailable
from stockpyle.protocols import PubSub
from tests.pubsub.parts import Diary, Ear, Place, settle, wait_for
from tests.pubsub.proxies import Proxy

QUICK: dict[str, Any] = {"heartbeat": 0.1, "timeout": 0.3}


@pytest.fixture
def diary() -> Diary:
    """What is noted."""
    return Diary()


@pytest.fixture
def pubsub(place: Place, diary: Diary) -> Iterator[PubSub]:
    """A pub/sub on a server of its own that is quick to notice."""
    with place.store().pubsub(**diary.options, **QUICK) as made:
        yield made


def of_stockpyle(caplog: pytest.LogCaptureFixture) -> list[int]:
    """Return the levels of what was logged."""
    return [line.levelno for line in caplog.records if line.name == "stockpyle"]


def test_a_server_that_is_started_anew(
    place: Place, pubsub: PubSub, diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """It says when it hears nothing, connects by itself, says so, and has all subscriptions again; each is logged."""
    ear, other = Ear(), Ear()
    pubsub.subscribe("news", ear)
    pubsub.psubscribe("[n]ews", ear)
    pubsub.subscribe("weather", other)
    place.server.stop("immediate")
    diary.until("lost")
    assert not pubsub.connected
    assert of_stockpyle(caplog) == [logging.ERROR]
    place.server.start()
    diary.until("lost", "restored")
    assert pubsub.connected
    pubsub.publish("weather", b"1")
    pubsub.publish("news", b"2")
    assert ear.after(2) == [("news", b"2")] * 2
    assert other.after(1) == [("weather", b"1")]
    assert of_stockpyle(caplog) == [logging.ERROR, logging.WARNING]


def test_a_connection_that_the_server_ends(place: Place, pubsub: PubSub, diary: Diary) -> None:
    """It is made anew, as often as it takes."""
    ear = Ear()
    pubsub.subscribe("news", ear)
    for times in (1, 2):
        place.kill_connections()
        diary.until(*["lost", "restored"] * times)
        pubsub.publish("news", b"1")
        assert len(ear.after(times)) == times


def test_a_server_that_hangs(place: Place, pubsub: PubSub, diary: Diary) -> None:
    """A server that answers nothing is noticed by the heartbeat; calls end in time; it is heard when it goes on."""
    ear = Ear()
    pubsub.subscribe("news", ear)
    pubsub.publish("news", b"1")
    ear.after(1)
    with place.server.hung():
        diary.until("lost")
        with pytest.raises(StoreTimeout) as failure:
            pubsub.publish("news", b"in vain")
        assert failure.value.operation == "publish"
        assert failure.value.__cause__ is not None
        with pytest.raises(StoreUnavailable):
            pubsub.subscribe("weather", ear)
    diary.until("lost", "restored")
    pubsub.publish("news", b"2")
    wait_for(lambda: ("news", b"2") in ear.heard)


def test_messages_that_vanish(place: Place, diary: Diary) -> None:
    """A connection that stands and carries nothing is lost as well, while the server is well."""
    with Proxy(place.url) as proxy, place.store(proxy.url).pubsub(**diary.options, **QUICK) as pubsub:
        ear = Ear()
        pubsub.subscribe("news", ear)
        proxy.loses_all = True
        diary.until("lost")
        assert not pubsub.connected
        proxy.loses_all = False
        diary.until("lost", "restored")
        pubsub.publish("news", b"1")
        ear.after(1)


@pytest.mark.parametrize("said", [b"!what?\r\n", b":7\r\n", b"*1\r\n$3\r\nyes\r\n", b"\xff" * 100, b"\x00" * 100])
def test_garbage(place: Place, diary: Diary, said: bytes) -> None:
    """A server that says what makes no sense is left, and connected anew."""
    with Proxy(place.url) as proxy, place.store(proxy.url).pubsub(**diary.options, **QUICK) as pubsub:
        ear = Ear()
        pubsub.subscribe("news", ear)
        proxy.say(said)
        diary.until("lost", "restored")
        pubsub.publish("news", b"1")
        ear.after(1)


def test_a_server_that_is_down(place: Place, pubsub: PubSub, diary: Diary) -> None:
    """publish and subscribe raise, naming store and operation; what was not confirmed is not subscribed."""
    ear = Ear()
    place.server.stop("immediate")
    for operation, call in (
        ("publish", lambda: pubsub.publish("news", b"1")),
        ("subscribe", lambda: pubsub.subscribe("news", ear)),
        ("subscribe", lambda: pubsub.psubscribe("*", ear)),
    ):
        with pytest.raises(StoreUnavailable) as failure:
            call()
        assert (failure.value.store, failure.value.operation) == (place.store().name, operation)
        assert str(place.server.port) in str(failure.value)
        assert failure.value.__cause__ is not None
    place.server.start()
    heard = Ear()
    pubsub.subscribe("news", heard)
    pubsub.publish("news", b"2")
    heard.after(1)
    settle(pubsub)
    assert ear.heard == []
    diary.until("lost", "restored")


def test_it_need_not_wait_for_a_server(place: Place, pubsub: PubSub, diary: Diary) -> None:
    """What is subscribed with wait=False is heard once the server is there."""
    ear = Ear()
    place.server.stop("immediate")
    pubsub.subscribe("news", ear, wait=False)
    diary.until("lost")
    assert not pubsub.connected
    place.server.start()
    diary.until("lost", "restored")
    pubsub.publish("news", b"1")
    ear.after(1)


def test_a_sender_finds_the_server_again(place: Place, pubsub: PubSub) -> None:
    """A connection that was ended while nobody sent is replaced, without an error."""
    pubsub.publish("news", b"1")
    place.server.stop("fast")
    place.server.start()
    pubsub.publish("news", b"2")


def test_notices_may_call_everything(place: Place) -> None:
    """on_lost cannot subscribe, which it is told; it may publish, if it can; on_restored may do everything."""
    diary, ear = Diary(), Ear()

    def lost() -> None:
        with pytest.raises(StoreUnavailable, match="is not connected"):
            pubsub.subscribe("weather", ear)
        with pytest.raises(StoreUnavailable):
            pubsub.publish("news", b"in vain")
        pubsub.subscribe("sports", ear, wait=False)
        diary.note("lost")

    def restored() -> None:
        pubsub.subscribe("weather", ear)
        pubsub.publish("weather", b"1")
        diary.note("restored")

    with place.store().pubsub(on_lost=lost, on_restored=restored, **QUICK) as pubsub:
        pubsub.subscribe("news", ear)
        place.server.stop("immediate")
        diary.until("lost")
        place.server.start()
        diary.until("lost", "restored")
        assert ear.after(1) == [("weather", b"1")]
        pubsub.publish("sports", b"2")
        assert ear.after(2)[1] == ("sports", b"2")


def test_a_notice_that_raises(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """What on_lost and on_restored raise is logged, and nothing else comes of it."""
    ear = Ear()

    def fail() -> None:
        raise ZeroDivisionError

    with place.store().pubsub(on_lost=fail, on_restored=fail, **QUICK) as pubsub:
        pubsub.subscribe("news", ear)
        place.kill_connections()
        wait_for(lambda: len(of_stockpyle(caplog)) >= 3 and pubsub.connected)
        pubsub.publish("news", b"1")
        ear.after(1)
    raised = [line for line in caplog.records if "fail" in line.getMessage() and line.exc_info]
    assert len(raised) == 1, "of a kind one message a minute is logged"


def test_close_while_it_is_lost(place: Place, pubsub: PubSub, diary: Diary) -> None:
    """A pub/sub that tries to connect can be closed, and says nothing any more."""
    pubsub.subscribe("news", Ear())
    place.server.stop("immediate")
    diary.until("lost")
    pubsub.close()
    place.server.start()
    diary.until("lost")


def test_who_sends_while_it_is_closed_opens_nothing(
    pubsub: PubSub, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that is on its way into a pub/sub when that is closed is refused, and leaves no connection behind."""
    publish: Any = pubsub._publish  # type: ignore[attr-defined]

    def late(channel: str, data: bytes) -> Any:
        pubsub.close()
        monkeypatch.setattr(pubsub, "_open" if place.driver != "redis" else "_new_client", pytest.fail)
        return publish(channel, data)

    monkeypatch.setattr(pubsub, "_publish", late)
    with pytest.raises(StoreUnavailable, match="publish: this pub/sub is closed"):
        pubsub.publish("news", b"1")
