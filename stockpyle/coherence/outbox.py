"""What is to be told to other processes: sent by whoever has something to tell, or by the courier when that failed.

While one thread sends, others put what they have to tell into the queue, and the next of them sends all of it as one
message. So many threads that commit at once cost few messages, and none waits for more than two.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from stockpyle.coherence.courier import COURIER, Courier
from stockpyle.coherence.logs import logger
from stockpyle.coherence.messages import Changes, Messages, News
from stockpyle.forks import renew_after_fork

LIMIT = 1000
"""How many keys may wait to be sent before their whole classes are sent instead."""


@dataclass(slots=True)
class PlaneStats:
    """What a backplane has done: plain integers, see stockpyle.stats.

    sent and heard are messages; announced are messages sent inside a transaction; failures are tries to send that
    failed; unreadable are messages that no backplane of this version has written; lost are the times that the
    connection was lost; cleaned are announced commits that nobody had settled, and this process did.
    """

    sent: int = 0
    announced: int = 0
    failures: int = 0
    heard: int = 0
    unreadable: int = 0
    lost: int = 0
    cleaned: int = 0


class Outbox:
    """The queue of what is to be told, and its sender.

    publish sends one message, or raises. What cannot be sent stays queued, is collapsed into whole classes when it
    becomes too much, and is tried again by the courier; None for nobody.
    """

    def __init__(
        self,
        name: str,
        publish: Callable[[bytes], object],
        messages: Messages,
        stats: PlaneStats,
        *,
        origin: bytes = b"",
        limit: int = LIMIT,
        courier: Courier | None = COURIER,
    ) -> None:
        self._name = name
        self._publish = publish
        self._messages = messages
        self._stats = stats
        self.origin = origin
        self._limit = limit
        self._courier = courier
        self._mine = Changes()
        """What this process knows already."""
        self._all = Changes()
        """What it must hear of as well."""
        self._added = self._sent = 0
        self._wanted = 0
        """How much of what was added must be sent by who is just sending."""
        self._busy = False
        self.error: Exception | None = None
        """What sending has failed with, if nobody has seen it work since."""
        # both reentrant: the garbage collector may end an abandoned session's commit anywhere in here
        self._mutex = threading.RLock()
        self._sending = threading.RLock()
        renew_after_fork(self)

    # what commits call

    def tell(self, changes: Changes, *, loud: bool = False) -> None:
        """Send it, and return when it is sent, or left to the courier. Raises nothing.

        loud: this process's own listeners are told, too.
        """
        if changes:
            mine = self._add(changes, loud)
            if self.error is not None and self._courier is not None:
                self._leave()
            else:
                self._send(mine)

    def tell_later(self, changes: Changes) -> None:
        """Send it with the next message, or when the courier comes."""
        self._add(changes, False)
        self._leave()

    def _add(self, changes: Changes, loud: bool) -> int:
        with self._mutex:
            (self._all if loud else self._mine).add(changes, self._limit)
            self._added += 1
            return self._added

    def _send(self, mine: int) -> None:
        done = False
        try:
            with self._sending:
                self._wanted = max(self._wanted, mine)
                # if it is this very thread that sends, further up, it goes on with this
                done = self._busy or self._send_wanted()
        finally:
            if not done:
                self._leave()

    def _send_wanted(self) -> bool:
        first, self._busy = self.error, True
        try:
            while self._sent < self._wanted:
                # others have waited for their turn meanwhile, and need not find out by themselves
                if self.error is not first or not self._send_all():
                    return False
            return True
        finally:
            self._busy = False

    def _send_all(self) -> bool:
        with self._mutex:
            mine, everybody, upto = self._mine, self._all, self._added
            self._mine, self._all = Changes(), Changes()
        try:
            for news in (News(mine, self.origin), News(everybody)):
                for data in self._messages.write(news) if news.changes else ():
                    self._publish(data)
                    self._stats.sent += 1
        except BaseException as error:
            with self._mutex:
                self._mine.add(mine, self._limit)
                self._all.add(everybody, self._limit)
            if not isinstance(error, Exception):
                raise
            self._failed(error)
            return False
        self._sent = upto
        if self.error is not None:
            self.error = None
            logger.warning("the backplane %s can be told again what has changed", self._name)
        return True

    def _failed(self, error: Exception) -> None:
        self._stats.failures += 1
        if self.error is None:
            logger.warning(
                "the backplane %s could not be told what has changed; it is tried again: %r", self._name, error
            )
        error.__traceback__ = None
        self.error = error

    # what the courier calls

    @property
    def waits(self) -> bool:
        """True if something is to be sent."""
        return bool(self._mine or self._all)

    def settle(self) -> bool:
        """Try to send all there is; True if nothing is left. Raises nothing."""
        with self._sending:
            if not self._busy and self.waits:
                self._busy = True
                try:
                    self._send_all()
                finally:
                    self._busy = False
        return not self.waits

    def close(self) -> None:
        """Try for the last time to send what there is, and give up what cannot be sent."""
        if not self.settle():
            logger.warning("the backplane %s is closed, and was not told of all that has changed", self._name)
            with self._mutex:
                self._mine, self._all = Changes(), Changes()

    def _leave(self) -> None:
        if self._courier is None:
            return
        try:
            self._courier.call(self)
        except Exception:  # no more threads, or the interpreter ends; the next commit tries again
            logger.exception("nobody tells the backplane %s in the background", self._name)
            self.error = None

    def after_fork(self) -> None:
        """In a child process: the parent sends what is the parent's."""
        self._mutex, self._sending = threading.RLock(), threading.RLock()
        self._mine, self._all = Changes(), Changes()
        self._sent, self._wanted, self._busy = self._added, self._added, False
