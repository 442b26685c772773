"""The thread that listens: when it asks, when it gives up, and what it says."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from typing import Any

import pytest

from stockpyle.exceptions import StoreTimeout, StoreUnavailable
from stockpyle.pubsub.callbacks import Message, Name
from stockpyle.pubsub.listening import Listener
from stockpyle.pubsub.waking import Waker
from stockpyle.pubsub.wires import Inbox
from stockpyle.testing import Clock
from tests.pubsub.parts import Diary, Ear, wait_for

NEWS = Name("news")


class Line:
    """A connection that a test speaks through, or breaks."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.told: list[Any] = []
        self.read: list[Message] = []
        """What was read from the server, together with an answer that was waited for."""
        self.breaks: dict[str, Exception] = {}
        self.confirms = threading.Event()
        self.confirms.set()

    def _do(self, what: str, *about: Any) -> None:
        self.told.append((what, *about))
        if what in self.breaks:
            raise self.breaks[what]

    def fileno(self) -> None:
        """Nothing to wait for but the waker."""

    def subscribe(self, names: Collection[Name]) -> None:
        self._do("subscribe", *sorted(names))
        self.confirms.wait()

    def unsubscribe(self, names: Collection[Name]) -> None:
        self._do("unsubscribe", *sorted(names))

    def receive(self) -> None:
        self.inbox.extend(self.read)
        self.read.clear()
        if "receive" in self.breaks:
            raise self.breaks["receive"]

    def ping(self) -> None:
        self._do("ping")

    def close(self) -> None:
        self._do("close")

    def leave(self) -> None:
        self._do("leave")


class Lines:
    """All connections that were made, the last one last."""

    def __init__(self) -> None:
        self.made: list[Line] = []
        self.fails: Exception | None = None
        self.next_confirms = True

    def __call__(self, inbox: Inbox) -> Line:
        if self.fails is not None:
            raise self.fails
        line = Line(inbox)
        if not self.next_confirms:
            line.confirms.clear()
        self.made.append(line)
        return line


@pytest.fixture
def lines() -> Lines:
    """What connects."""
    return Lines()


@pytest.fixture
def clock() -> Clock:
    """What time it is."""
    return Clock()


@pytest.fixture
def diary() -> Diary:
    """What is noted."""
    return Diary()


@pytest.fixture
def listener(lines: Lines, clock: Clock, diary: Diary) -> Iterator[Listener]:
    """A listener that asks every five seconds of the clock's."""
    made = Listener(lines, "there", "Store", heartbeat=5, timeout=0.2, clock=clock, **diary.options)
    yield made
    made.close()


def test_the_server_is_asked_at_every_heartbeat(listener: Listener, lines: Lines, clock: Clock) -> None:
    """Not before, and also while messages come: they may be those of a server that nobody else listens to."""
    ear = Ear()
    listener.subscribe(NEWS, ear, True)
    (line,) = lines.made

    def send() -> None:
        number = len(ear.heard)
        line.inbox.append(Message("news", b"", NEWS))
        listener.wake()
        ear.after(number + 1)

    clock.advance(4.9)
    send()
    send()
    assert ("ping",) not in line.told
    clock.advance(0.2)
    send()
    wait_for(lambda: line.told.count(("ping",)) == 1)
    clock.advance(4.9)
    send()
    send()
    assert line.told.count(("ping",)) == 1


@pytest.mark.parametrize("failure", [OSError("gone"), ValueError("what?"), StoreTimeout("late", "Store", "ping")])
def test_a_server_that_does_not_answer_is_lost(
    listener: Listener, lines: Lines, clock: Clock, diary: Diary, failure: Exception
) -> None:
    """Whatever the question raises, the connection is closed and made anew, with all names."""
    listener.subscribe(NEWS, Ear(), True)
    listener.subscribe(Name("n*", True), Ear(), True)
    lines.made[0].breaks["ping"] = failure
    clock.advance(5)
    listener.wake()
    diary.until("lost", "restored")
    first, second = lines.made
    assert first.told[-1] == ("close",)
    assert second.told == [("subscribe", Name("n*", True), NEWS)]


def test_what_has_come_is_delivered_before_the_loss(listener: Listener, lines: Lines, diary: Diary) -> None:
    """Messages that were received are not lost with the connection."""
    ear = Ear()
    listener.subscribe(NEWS, lambda channel, data: diary.note("heard"), True)
    listener.subscribe(NEWS, ear, True)
    (line,) = lines.made
    line.breaks["receive"] = OSError("gone")
    line.inbox.append(Message("news", b"", NEWS))
    listener.wake()
    diary.until("heard", "lost", "restored")


def test_it_is_not_connected_when_it_says_that_it_is_lost(lines: Lines) -> None:
    """on_lost finds it not connected, and on_restored finds it connected."""
    diary = Diary()
    listener: Listener

    def note(entry: str) -> None:
        diary.note(f"{entry} {listener.connected}")

    listener = Listener(lines, "there", "Store", lambda: note("lost"), lambda: note("restored"), 5, 1)
    listener.subscribe(NEWS, Ear(), True)
    lines.made[0].breaks["receive"] = OSError("gone")
    listener.wake()
    diary.until("lost False", "restored True")
    listener.close()


def test_it_is_told_once_however_often_it_fails(listener: Listener, lines: Lines, diary: Diary, caplog: Any) -> None:
    """Connecting in vain for some time is one loss, one return, and two lines in the log."""
    listener.subscribe(NEWS, Ear(), True)
    lines.fails = OSError("refused")
    lines.made[0].breaks["receive"] = OSError("gone")
    listener.wake()
    diary.until("lost")
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="refused"):
            listener.subscribe(Name("weather"), Ear(), True)
    lines.fails = None
    listener.start()
    diary.until("lost", "restored")
    assert [line.levelname for line in caplog.records] == ["ERROR", "WARNING"]


def test_a_confirmation_that_does_not_come(listener: Listener, lines: Lines) -> None:
    """subscribe gives up after its timeout, and the name is not subscribed."""
    lines.next_confirms = False
    with pytest.raises(StoreTimeout, match=r"Store.subscribe: there has confirmed nothing within 0.2 s"):
        listener.subscribe(NEWS, Ear(), True)
    assert not listener.callbacks
    lines.made[0].confirms.set()


def test_what_comes_with_an_answer_is_not_left(lines: Lines, clock: Clock) -> None:
    """A message that is read with a confirmation, or with the answer to a heartbeat, is delivered without waiting."""
    listener = Listener(lines, "there", "Store", None, None, 10_000, 1, clock)
    ear = Ear()
    listener.subscribe(NEWS, ear, True)
    (line,) = lines.made
    message = Message("news", b"", NEWS)

    def subscribe(names: Collection[Name]) -> None:
        line.read.append(message)

    def ping() -> None:
        line.read.append(message)

    line.subscribe, line.ping = subscribe, ping  # type: ignore[method-assign]
    listener.subscribe(Name("weather"), ear, True)
    ear.after(1)
    clock.advance(10_000)
    listener.wake()
    ear.after(2)
    listener.subscribe(NEWS, lambda channel, data: listener.subscribe(Name("sports"), ear, True), True)
    line.inbox.append(message)
    listener.wake()
    ear.after(4)
    listener.close()


def test_a_name_is_confirmed_anew_after_it_was_dropped(listener: Listener, lines: Lines) -> None:
    """A name that is dropped and wanted again waits for a confirmation of its own."""
    listener.subscribe(Name("other"), Ear(), True)
    for _ in range(3):
        listener.subscribe(NEWS, Ear(), True)
        listener.unsubscribe([NEWS])
    told = lines.made[0].told
    assert told.count(("subscribe", NEWS)) - told.count(("unsubscribe", NEWS)) in (0, 1)


def test_a_failure_inside_a_callback_is_seen_after_it(listener: Listener, lines: Lines, diary: Diary) -> None:
    """A callback whose subscribe fails is told so; the connection is given up when it has returned."""
    listener.subscribe(NEWS, Ear(), True)

    def more(channel: str, data: bytes) -> None:
        lines.made[0].breaks["subscribe"] = OSError("gone")
        for name in ("a", "b"):
            with pytest.raises(StoreUnavailable):
                listener.subscribe(Name(name), Ear(), True)
        diary.note("returned")

    listener.subscribe(NEWS, more, True)
    lines.made[0].inbox.append(Message("news", b"", NEWS))
    listener.wake()
    diary.until("returned", "lost", "restored")
    assert listener.callbacks.names == {NEWS}


def test_a_thread_that_cannot_be_started(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is subscribed, and the next attempt is like the first."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            listener.subscribe(NEWS, Ear(), True)
    assert not listener.callbacks
    listener.subscribe(NEWS, Ear(), True)
    assert listener.connected


def test_waking_is_not_forgotten() -> None:
    """Who wakes before the other waits ends its next wait; once, however often it was woken."""
    waker = Waker()
    for _ in range(3):
        waker.wake()
    waker.wait(None, 60)
    waker.wait(None, 0)
    waker.wake()
    waker.wait(None, 60)
    waker.close()
    waker.wake()
