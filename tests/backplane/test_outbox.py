"""The queue of what is to be told to other processes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from stockpyle.classes import spec_of
from stockpyle.coherence.courier import Courier
from stockpyle.coherence.messages import Changes, Messages
from stockpyle.coherence.outbox import Outbox, PlaneStats
from stockpyle.testing import Person


def changes(*ids: int) -> Changes:
    """Return that these people have changed."""
    return Changes.of([key for i in ids if (key := spec_of(Person).key({"id": i})) is not None])


class Post:
    """What a test sends by, and stops at will."""

    def __init__(self, **options: Any) -> None:
        self.messages = Messages()
        self.stats = PlaneStats()
        self.sent: list[Changes] = []
        self.error: BaseException | None = None
        self.open = threading.Event()
        self.open.set()
        self.sending = threading.Event()
        self.during: Any = lambda: None
        self.box = Outbox("test", self.publish, self.messages, self.stats, **{"courier": None, **options})

    def publish(self, data: bytes) -> None:
        """Send a message."""
        self.sending.set()
        assert self.open.wait(30)
        if self.error is not None:
            raise self.error
        self.sent.append(self.messages.read(data).changes)
        during, self.during = self.during, lambda: None
        during()

    @property
    def ids(self) -> list[list[int]]:
        """Who was told of in each message."""
        return [[ident[2][0] for ident in each.idents] for each in self.sent]


def test_what_waits_is_sent_together() -> None:
    """While one thread sends, others wait, and the next of them sends for all; each returns when its own is sent."""
    post = Post()
    post.open.clear()
    threads = [threading.Thread(target=post.box.tell, args=(changes(i),)) for i in range(10)]
    threads[0].start()
    assert post.sending.wait(30)
    for thread in threads[1:]:
        thread.start()
    while len(post.box._mine.idents) < 9:
        assert all(thread.is_alive() for thread in threads)
    post.open.set()
    for thread in threads:
        thread.join()
    assert [len(each) for each in post.ids] == [1, 9]
    assert sorted(i for each in post.ids for i in each) == list(range(10))


def test_who_comes_in_between_is_sent_by_who_sends() -> None:
    """What ends while this thread sends, as an abandoned session may, is sent when it is done, and waits for nobody."""
    post = Post()
    post.during = lambda: post.box.tell(changes(2))
    post.box.tell(changes(1))
    assert post.ids == [[1], [2]]
    assert not post.box.waits


def test_nobody_waits_for_a_channel_that_fails() -> None:
    """After one failure nobody tries but the courier; when it works again, all that has waited is one message."""
    resumed = threading.Event()

    def pause(seconds: float) -> None:
        assert resumed.wait(30)

    courier = Courier(pause=pause)
    post = Post(courier=courier)
    post.error = OSError("no route")
    for i in range(5):
        post.box.tell(changes(i))
    assert post.stats.failures == 1
    post.error = None
    resumed.set()
    thread = courier.thread
    if thread is not None:
        thread.join(30)
    assert post.ids == [[0, 1, 2, 3, 4]]
    assert post.box.error is None


def test_interrupted_sender_leaves_it_to_the_courier() -> None:
    """An interrupt while a message is sent is raised, and what was to be sent is not lost."""
    post = Post()
    post.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        post.box.tell(changes(1))
    post.error = None
    assert post.box.waits
    assert post.box.settle()
    assert post.ids == [[1]]


def test_what_is_told_later_goes_with_the_next_message() -> None:
    """Settled commits make no message of their own, as long as another comes."""
    post = Post()
    post.box.tell_later(Changes(settled={b"1": None}))
    assert post.sent == []
    post.box.tell(changes(1))
    assert [(len(each.idents), list(each.settled)) for each in post.sent] == [(1, [b"1"])]


def test_nothing_is_no_message() -> None:
    """A commit that has changed nothing which anybody keeps is not told."""
    post = Post()
    post.box.tell(Changes())
    assert post.sent == []
    assert not post.box.waits
