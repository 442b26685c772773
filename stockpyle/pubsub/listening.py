"""The thread that listens, and goes on listening: it connects anew by itself, and says so.

All that is sent to and read from the listening connection, it sends and reads itself. Others tell it what they wish by
changing the callbacks, wake it, and wait until the server has confirmed their name. So no lock is held while anything
is called or waited for.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress

from stockpyle.coherence.logs import logger
from stockpyle.exceptions import StoreError, StoreTimeout, StoreUnavailable
from stockpyle.forks import renew_after_fork
from stockpyle.protocols import Callback
from stockpyle.pubsub.callbacks import Callbacks, Name
from stockpyle.pubsub.waking import Waker
from stockpyle.pubsub.wires import Inbox, Notice, Wire

PAUSE = 0.05
"""Seconds between the first two attempts to connect; it doubles with each."""
LONGEST_PAUSE = 2.0


class Listener:
    """Keeps one connection for all that is subscribed, as long as anything is.

    heartbeat: every so many seconds the server is asked if it is there. timeout: how many seconds a subscription may
    take to be confirmed. where names the server in messages, and store the store in errors.
    """

    def __init__(
        self,
        connect: Callable[[Inbox], Wire],
        where: str,
        store: str,
        on_lost: Notice | None,
        on_restored: Notice | None,
        heartbeat: float,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.callbacks = Callbacks()
        self.connected = False
        self._connect = connect
        self.where = where
        self._store = store
        self._on_lost: list[Notice] = []
        self._on_restored: list[Notice] = []
        self.watch(on_lost, on_restored)
        self._heartbeat = heartbeat
        self._timeout = timeout
        self._clock = clock
        self._changed = threading.Condition()
        """Guards what others wait for, and tells of every change of it."""
        self._closed = False
        self._thread: threading.Thread | None = None
        self._waker: Waker | None = None
        self._heard: frozenset[Name] = frozenset()
        """What the server has confirmed on this connection."""
        self._failures = 0
        self._error: Exception | None = None
        self._stale = False
        """True if the callbacks may stand for other names than the server was told."""
        self._hurry = False
        self._is_orphan = False
        self._wire: Wire | None = None
        """This, and what follows, is the thread's own."""
        self._inbox: Inbox = deque()
        self._broken: Exception | None = None
        self._is_lost = False
        renew_after_fork(self)

    # what others wish

    def watch(self, on_lost: Notice | None, on_restored: Notice | None) -> None:
        """Have these called, besides those there are, when nothing is heard any more, and when everything is again."""
        self._on_lost += [on_lost] if on_lost is not None else []
        self._on_restored += [on_restored] if on_restored is not None else []

    def subscribe(self, name: Name, callback: Callback, wait: bool) -> None:
        """Have the callback called, and return when the server has confirmed the name, unless wait is False."""
        with self._changed:
            if self._closed:
                raise self._closed_error("subscribe")
            is_new = self.callbacks.add(name, callback)
            failures = self._failures
        try:
            if self._is_this_thread():
                self._subscribe_here(wait)
            else:
                self.start()
                if wait:
                    self._await(name, failures)
        except BaseException:
            if is_new:
                self.unsubscribe([name], callback)
            raise

    def _await(self, name: Name, failures: int) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: name in self._heard or self._failures != failures or self._closed, self._timeout
            )
            if name in self._heard:
                return
            if self._closed:
                raise self._closed_error("subscribe")
            if self._failures != failures and self._error is not None:
                raise self._refusal(self._error)
        message = f"{self.where} has confirmed nothing within {self._timeout} s, unless a callback took that long"
        raise StoreTimeout(message, self._store, "subscribe")

    def _subscribe_here(self, wait: bool) -> None:
        """Subscribe in a callback, which runs in the thread that would do it."""
        if self._wire is None or self._broken is not None:
            if wait:
                raise StoreUnavailable(f"{self.where} is not connected", self._store, "subscribe")
        else:
            try:
                self._follow(self._wire)
            except Exception as error:  # whatever a driver raises; the connection is given up after the callback
                self._broken = error
                if wait:
                    raise self._refusal(error) from error

    def _refusal(self, error: BaseException) -> StoreUnavailable:
        kind = StoreTimeout if isinstance(error, StoreTimeout | TimeoutError) else StoreUnavailable
        message = error.message if isinstance(error, StoreError) else f"{self.where}: {error!r}"
        refusal = kind(message, self._store, "subscribe")
        refusal.__cause__ = error.__cause__ if isinstance(error, StoreError) else error
        return refusal

    def _closed_error(self, operation: str) -> StoreUnavailable:
        return StoreUnavailable("this pub/sub is closed", self._store, operation)

    def check_open(self, operation: str) -> None:
        """Raise StoreUnavailable if it is closed."""
        if self._closed:
            raise self._closed_error(operation)

    def unsubscribe(self, names: Collection[Name], callback: Callback | None = None) -> None:
        """Drop callbacks; the server is told, and not waited for."""
        with self._changed:
            gone = [each for name in names for each in self.callbacks.remove(name, callback)]
            self._tell()
        self.callbacks.tell_dropped(gone)

    def start(self) -> None:
        """Have the thread run, and look at once at what is to be done; RuntimeError if no thread can be started."""
        with self._changed:
            self._hurry = True
            if self._thread is None and self.callbacks.names:
                self._waker = Waker()
                thread = threading.Thread(target=self._run, name=f"stockpyle-pubsub {self.where}", daemon=True)
                # before it runs: it asks whether it is this one
                self._thread = thread
                try:
                    thread.start()
                except RuntimeError:
                    self._forget_thread()
                    raise
            self._tell()

    def revive(self) -> None:
        """In a child process that has callbacks of its parent's, and no thread yet: start one."""
        if self._is_orphan and self._thread is None and self.callbacks:
            # without a thread it is heard nothing, which `connected` says
            with suppress(RuntimeError):
                self.start()

    def wake(self) -> None:
        """Have the thread look for messages, and for what is to be done."""
        waker = self._waker
        if waker is not None:
            waker.wake()

    def close(self) -> None:
        """Drop all callbacks and end the thread; what it calls at the moment is waited for, but not for long."""
        with self._changed:
            self._closed = True
            self.connected = False
            gone = [each for name in self.callbacks.names for each in self.callbacks.remove(name)]
            self._tell()
            thread = self._thread
        self.callbacks.tell_dropped(gone)
        if thread is not None and not self._is_this_thread():
            thread.join(self._timeout)

    def _tell(self) -> None:
        self._stale = True
        self._changed.notify_all()
        self.wake()

    def _is_this_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def _forget_thread(self) -> None:
        waker, self._waker, self._thread = self._waker, None, None
        if waker is not None:
            waker.close()

    def after_fork(self) -> None:
        """In a child process: there is no thread, and what was sent before one is started is lost."""
        self._changed = threading.Condition()
        self._is_orphan = self._is_orphan or self._thread is not None
        self._forget_thread()
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.leave()
        self._heard = frozenset()
        self.connected = False

    # the thread

    def _run(self) -> None:
        if self._is_orphan:
            self._is_orphan = False
            self._call_lost()
        attempts = 0
        while self._is_wanted():
            try:
                self._inbox = deque()
                self._wire = self._connect(self._inbox)
                if self._follow(self._wire):
                    self._find()
                    attempts = 0
                    self._listen(self._wire)
            except Exception as error:  # noqa: BLE001 - whatever a driver raises, there is nobody above
                attempts += 1
                self._broken = error
                self._deliver()
                self._lose(error)
                self._hang_up()
                self._pause(attempts)
            else:
                self._hang_up()

    def _is_wanted(self) -> bool:
        with self._changed:
            if self.callbacks:
                return True
            self._forget_thread()
            return False

    def _hang_up(self) -> None:
        wire, self._wire = self._wire, None
        self._broken = None
        if wire is not None:
            with suppress(Exception):  # what is given up may be broken in any way
                wire.close()

    def _listen(self, wire: Wire) -> None:
        """Call the callbacks with what comes, until nothing is subscribed any more."""
        due = self._clock() + self._heartbeat
        while True:
            wire.receive()
            # whatever is done may have read more than it was waiting for, which no socket tells of any more
            is_busy = bool(self._inbox)
            self._deliver()
            if self._broken is not None:
                raise self._broken
            if self._stale:
                if not self._follow(wire):
                    return
                is_busy = True
            left = due - self._clock()
            if left <= 0:
                wire.ping()
                due = self._clock() + self._heartbeat
                is_busy = True
            if not is_busy and self._waker is not None:
                self._waker.wait(wire.fileno(), left)

    def _deliver(self) -> None:
        # what comes meanwhile, such as what a callback sends to itself, waits for the next round
        for _ in range(len(self._inbox)):
            self.callbacks.call(self._inbox.popleft())

    def _follow(self, wire: Wire) -> bool:
        """Tell the server what is subscribed now and what is not any more; False if nothing is."""
        with self._changed:
            self._stale = False
            wanted = self.callbacks.names
            added, dropped = wanted - self._heard, self._heard - wanted
            self._heard -= dropped
            if not wanted:
                self.connected = False
                return False
        if dropped:
            wire.unsubscribe(dropped)
        if added:
            wire.subscribe(added)
            with self._changed:
                self._heard |= added
                self._changed.notify_all()
        return True

    def _find(self) -> None:
        with self._changed:
            if self._closed:
                return
            self.connected = True
            was_lost, self._is_lost = self._is_lost, False
        if was_lost:
            logger.warning("the pub/sub on %s hears again; what was sent meanwhile is lost", self.where)
            self._notify(self._on_restored)

    def _lose(self, error: Exception) -> None:
        with self._changed:
            self.connected = False
            self._heard = frozenset()
            self._failures += 1
            self._error = error
            self._changed.notify_all()
        if not self._is_lost and not self._closed:
            logger.error("the pub/sub on %s hears nothing at the moment: %r", self.where, error)
            self._call_lost()

    def _call_lost(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._notify(self._on_lost)

    def _notify(self, notices: list[Notice]) -> None:
        for notice in tuple(notices):
            self.callbacks.run(notice)

    def _pause(self, attempts: int) -> None:
        longest = min(PAUSE * 2**attempts, LONGEST_PAUSE)
        with self._changed:
            self._changed.wait_for(lambda: self._hurry or not self.callbacks, random.uniform(longest / 2, longest))
            self._hurry = False
