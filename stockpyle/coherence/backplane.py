"""The backplane: how the memory of other processes learns what a commit has changed.

A writer locks its keys in the shared tiers, commits, replaces or removes its locks there, and then tells the backplane
which keys these were. Whoever hears it forgets them in process memory. Why nothing stale survives that:

- An entry that is there when a message arrives is removed. So is every lease on the key, and what a lock's owner in
  the same process may publish: what was read before the message cannot come in after it.
- Who takes a lease later reads later than the writer has told it, hence after the writer was done with the shared
  tier. There it finds what was committed, or nothing and loads it, or a lock that is left to run out: then it fills
  nothing.
- Where the writer could not reach the shared tier, readers may still be handed from it what was replaced, and fill it
  into their memory. So whoever delivers that debt tells the backplane of it once more.
- What is told while a process does not listen is lost. So process memory is emptied when its connection is lost, and
  keeps nothing until the subscription is confirmed again; what it reads then is read after that. A connection that is
  silently broken is found out by the heartbeat of the pub/sub, and so long may old entries serve.

The one who tells need not hear it: in its own memory the keys were locked as in the shared tier. A message may come
late, twice, or about what did not change; it only makes others forget. That a writer dies between its commit and its
message is the gap that is left, and for which a commit can be announced from inside its transaction: see Announced.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, NoReturn

from stockpyle.coherence.announced import GRACE, Announced
from stockpyle.coherence.courier import COURIER, Courier
from stockpyle.coherence.debts import Debt
from stockpyle.coherence.logs import Seldom, logger
from stockpyle.coherence.messages import Changes, Messages, News, Unreadable
from stockpyle.coherence.outbox import LIMIT, Outbox, PlaneStats
from stockpyle.exceptions import ImproperlyConfigured, StoreUnavailable
from stockpyle.forks import renew_after_fork
from stockpyle.keys import Key
from stockpyle.masking import displayed
from stockpyle.protocols import Listening

MEMORY_BOUND = 86400.0
"""Seconds that process memory which listens keeps a record in a chain, if the user did not say."""

_FAILED_TRANSACTION = "25P02"
"""PostgreSQL's SQLSTATE for a statement in a transaction in which another has failed."""


class Backplane:
    """One chain's connection to the others: it tells what is committed here, and hears what is elsewhere.

    pubsub is a PubSub, or a store with one; the pub/sub of a store is closed with the backplane. listening are the
    tiers in process memory that are told what is heard; clean removes keys from the shared tiers, see Announced; None
    if there are none, so that nobody's announcements are of any consequence here.
    Nothing is connected before start(), or before something is told.
    """

    def __init__(
        self,
        pubsub: Any,
        channel: str,
        listening: Sequence[Listening] = (),
        clean: Callable[[Changes], None] | None = None,
        *,
        in_transaction: bool = False,
        grace: float = GRACE,
        limit: int = LIMIT,
        clock: Callable[[], float] = time.monotonic,
        courier: Courier | None = COURIER,
    ) -> None:
        self.stats = PlaneStats()
        self.channel = channel
        self.started = False
        """True as soon as somebody has tried to listen; who reads looks at it."""
        self.in_transaction = in_transaction
        self._listening = tuple(listening)
        self._has_ears = bool(listening) or in_transaction
        self._clean = clean
        self._courier = courier
        self._origin = secrets.token_bytes(8)
        self._number = 0
        self._confirmed = False
        self._losses = self._drops = 0
        self._closed = False
        self._seldom = Seldom()
        # reentrant: see Guard
        self._mutex = threading.RLock()
        me = weakref.ref(self)
        self._callback = _Ear(me)
        lost, restored = _weakly(me, Backplane._lost), _weakly(me, Backplane._restored)
        self._owned = not callable(getattr(pubsub, "subscribe", None))
        if not self._owned and callable(getattr(pubsub, "watch", None)):
            self.pubsub = pubsub
            pubsub.watch(on_lost=lost, on_restored=restored)
        elif self._owned and callable(getattr(pubsub, "pubsub", None)):
            self.pubsub = pubsub.pubsub(on_lost=lost, on_restored=restored)
        else:
            raise ImproperlyConfigured(
                "backplane is a store that has a pubsub(), such as a RedisStore, or a pub/sub of one, not "
                f"{displayed(pubsub)}"
            )
        weakref.finalize(self, self.pubsub.unsubscribe, channel, self._callback).atexit = False
        self._messages = Messages(self.pubsub.max_size)
        self._outbox = Outbox(
            channel, self._publish, self._messages, self.stats, origin=self._origin, limit=limit, courier=courier
        )
        self._announced = Announced(self._settle_for, grace, clock=clock, courier=courier)
        for tier in self._listening:
            tier.deafen(self)
        renew_after_fork(self)

    # telling

    def tell(self, keys: Iterable[Key]) -> None:
        """Tell the others that these keys, or classes, have changed. Returns when it is sent; raises nothing."""
        self._tell(lambda: self._outbox.tell(Changes.of(keys)))

    def tell_everything(self) -> None:
        """Tell the others to forget all they have."""
        self._tell(lambda: self._outbox.tell(Changes(everything=True)))

    def told_late(self, debts: Sequence[Debt]) -> None:
        """A tier has just been told of these keys. What was read from it before may be anywhere, here too."""
        keys = [debt.key for debt in debts if debt.key is not None]
        changes = Changes.of(keys)
        changes.everything = len(keys) < len(debts)
        self._drop(changes)
        self._tell(lambda: self._outbox.tell(changes, loud=True))

    def announce(self, connection: Any, keys: Iterable[Key]) -> bytes | None:
        """Send it from inside a transaction, by its Connection, for the others to hear when it commits.

        Returns the number by which it is settled later; None if the transaction has failed already, so that its COMMIT
        will roll it back, or the backplane is closed. Raises StoreUnavailable if it cannot be sent: then nothing may be
        committed.
        """
        if self._closed:
            return None
        with self._mutex:
            self._number += 1
            number = self._origin + self._number.to_bytes(6, "big")
        try:
            for data in self._messages.write(News(Changes.of(keys), self._origin, number)):
                self.pubsub.publish_in(connection, self.channel, data)
        except Exception as error:
            if _FAILED_TRANSACTION in (getattr(error, "sqlstate", None), getattr(error, "pgcode", None)):
                return None
            raise StoreUnavailable(
                f"it could not be told inside the transaction, so nothing is committed: {error}",
                "backplane",
                "announce",
            ) from error
        self.stats.announced += 1
        return number

    def settled(self, number: bytes) -> None:
        """Tell the others, with the next message or a second later, that nothing is left to do for this commit."""
        self.start()
        self._tell(lambda: self._outbox.tell_later(Changes(settled={number: None})))

    def _tell(self, tell: Callable[[], None]) -> None:
        if self._closed:
            self.stats.failures += 1
            self._seldom.log(logging.WARNING, "closed", "a commit is not told: %s is closed", self.channel)
            return
        try:
            tell()
        except Exception:  # whatever it is, the commit is durable and must not look like a failed one
            self.stats.failures += 1
            logger.exception("the backplane %s was not told what has changed", self.channel)

    def _publish(self, data: bytes) -> None:
        self.pubsub.publish(self.channel, data)

    # listening

    def start(self) -> None:
        """Listen. If that fails now, it is tried again in the background, and until then nothing is kept."""
        if self._closed or self.started or not self._has_ears:
            return
        self.started = True
        if not self._subscribe() and self._courier is not None:
            try:
                self._courier.call(self)
            except Exception:  # noqa: BLE001 - no more threads, or the interpreter ends; the next reader tries again
                self.started = False

    def _subscribe(self) -> bool:
        losses, drops = self._losses, self._drops
        try:
            self.pubsub.subscribe(self.channel, self._callback)
        except Exception as error:  # noqa: BLE001 - whatever a driver raises, the reader asks the next tier
            self.stats.failures += 1
            self._seldom.log(
                logging.WARNING, "", "process memory keeps nothing: the backplane %s: %r", self.channel, error
            )
            return False
        with self._mutex:
            if self._drops != drops:
                return False
            self._confirmed = True
            # if it was lost in between, who finds it again will say so
            if self._losses == losses or self.pubsub.connected:
                self._hear()
        return True

    @property
    def waits(self) -> bool:
        """True if the subscription is still to be made."""
        return self.started and not self._confirmed and not self._closed

    def settle(self) -> bool:
        """Try again to subscribe; True if it is done. Raises nothing."""
        return not self.waits or self._subscribe()

    def _hear(self) -> None:
        if not self._closed:
            for tier in self._listening:
                tier.hears(self)

    def _lost(self) -> None:
        with self._mutex:
            self._losses += 1
            self.stats.lost += 1
            for tier in self._listening:
                tier.deafen(self)

    def _restored(self) -> None:
        with self._mutex:
            if self._confirmed:
                self._hear()

    def _dropped(self) -> None:
        """Somebody else has unsubscribed it, or closed the pub/sub. The next reader tries to listen again."""
        with self._mutex:
            self._drops += 1
            if self._closed or not self._confirmed:
                return
            self.started = self._confirmed = False
            self._deafen()
        self._seldom.log(
            logging.WARNING,
            "dropped",
            "process memory is emptied: the backplane %s hears nothing, somebody has ended its subscription",
            self.channel,
        )

    def _receive(self, channel: str, data: bytes) -> None:
        self.stats.heard += 1
        try:
            news = self._messages.read(data)
        except Unreadable as error:
            self.stats.unreadable += 1
            self._seldom.log(
                logging.ERROR,
                data[:1],
                "the backplane %s said what nobody here understands, so all that is kept in "
                "process memory is dropped: %s",
                channel,
                error,
            )
            news = News(Changes(everything=True))
        try:
            self._apply(news)
        except Exception:
            # whatever a tier does; the message may have been about anything
            self._drop(Changes(everything=True))
            raise

    def _apply(self, news: News) -> None:
        if news.origin == self._origin:
            return
        changes = news.changes
        self._drop(changes)
        if self._clean is None:
            return
        if news.announced:
            self._announced.hear(news.announced, changes)
        if changes.settled:
            known = self._announced.settled(changes.settled)
            if news.origin:
                # until now the shared tier may have held what was replaced, if a lock was lost there
                self._drop(Changes(everything=True) if known is None else known)

    def _drop(self, changes: Changes) -> None:
        for tier in self._listening:
            if changes.everything:
                tier.clear()
            elif changes.idents or changes.spaces:
                tier.heard(changes.idents, changes.spaces)

    def _settle_for(self, changes: Changes) -> None:
        """Do for others what they have left undone in the shared tiers, and say so to everybody."""
        if self._clean is not None:
            self._clean(changes)
        self.stats.cleaned += len(changes.settled)
        self._drop(changes)
        self._outbox.tell(changes, loud=True)

    # its end

    def close(self) -> None:
        """Send what is left, if that is possible at once, and listen no more; what it listened for is emptied."""
        with self._mutex:
            self._closed = True
        with ExitStack() as stack:
            # the last of these is called first
            stack.callback(self._announced.forget)
            stack.callback(self._end_pubsub)
            stack.callback(self._deafen)
            stack.callback(self._outbox.close)

    def _deafen(self) -> None:
        for tier in self._listening:
            tier.deafen(self)

    def _end_pubsub(self) -> None:
        if self._owned:
            self.pubsub.close()
        else:
            self.pubsub.unsubscribe(self.channel, self._callback)

    def after_fork(self) -> None:
        """In a child process: it is somebody else, and has subscribed to nothing yet."""
        self._mutex = threading.RLock()
        self._origin = secrets.token_bytes(8)
        self._outbox.origin = self._origin
        self.started = self._confirmed = False

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Backplane holds locks and connections and cannot be pickled or copied")


class _Ear:
    """What a backplane subscribes with."""

    def __init__(self, me: weakref.ref[Backplane]) -> None:
        self._receive, self.dropped = _weakly(me, Backplane._receive), _weakly(me, Backplane._dropped)

    def __call__(self, channel: str, data: bytes) -> None:
        self._receive(channel, data)


def _weakly(me: weakref.ref[Backplane], method: Callable[..., None]) -> Callable[..., None]:
    """The method as a function that keeps no backplane alive which nobody has any more."""

    def call(*arguments: Any) -> None:
        backplane = me()
        if backplane is not None:
            method(backplane, *arguments)

    call.__module__, call.__qualname__ = method.__module__, method.__qualname__
    return call
