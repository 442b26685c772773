"""What stands between a chain and each part of a tier: a breaker, and the debts that come before any trust.

A part is what fails as one: a store of several servers has `parts` (see stockpyle.coherence.parts), any other is one
part itself. A part that has a ``ping()``, which raises what is wrong with it, is tried again in the background.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from stockpyle.coherence.breaker import PROBE_SECONDS, Breaker
from stockpyle.coherence.courier import COURIER, Courier
from stockpyle.coherence.debts import LIMIT, Debt, Debts, deliver
from stockpyle.coherence.logs import logger
from stockpyle.coherence.talks import Asked, begin, hold
from stockpyle.exceptions import (
    CodecError,
    ImproperlyConfigured,
    InvalidKey,
    InvalidLifetime,
    StoreError,
    UnsupportedOperation,
)
from stockpyle.forks import renew_after_fork
from stockpyle.protocols import InThisProcess
from stockpyle.stats import Stats

T = TypeVar("T")

MISTAKES = (ImproperlyConfigured, InvalidKey, InvalidLifetime, CodecError, UnsupportedOperation)
"""Errors that tell of what was asked, not of a tier that fails."""

BATCH = 500
"""How many debts are delivered in one call."""


class DebtListener(Protocol):
    """Who must know when a tier has been told late of what has changed."""

    def told_late(self, debts: Sequence[Debt]) -> None:
        """Nothing of this is held there any more. It raises nothing."""
        ...


class Bypassed(Exception):
    """A part of a tier is not to be used now. Its cause is the error of the tier."""


class Guard:
    """The breaker and the debts of one part.

    trusted: all is well. It is a plain attribute, so that a look at it costs a reader nothing. owes: something is
    still to be delivered.
    """

    def __init__(self, guards: Guards, tier: Any) -> None:
        self.trusted = True
        self.owes = False
        self.tier = tier
        self._ping = _ping_of(tier)
        self._guards = guards
        self._breaker = Breaker(guards.probe_seconds, guards.clock)
        self._debts = Debts(guards.limit)
        # reentrant: the garbage collector may end an abandoned session's commit here, while this thread has it
        self._mutex = threading.RLock()

    @property
    def name(self) -> str:
        """What logs call this part."""
        own = self._guards.name
        return own if self.tier is self._guards.tier else f"{own} ({self.tier.name})"

    @property
    def is_open(self) -> bool:
        """True if the part has failed, and nobody has seen it work since."""
        return self._breaker.is_open

    @property
    def error(self) -> Exception | None:
        """What the part has failed with, if nobody has seen it work since."""
        return self._breaker.error

    def use(self, doing: str, work: Callable[[], T]) -> T:
        """Call `work`, if the part may be used, and return what it returns; raises Bypassed if not, or if it fails.

        If the part has failed before, this may be the try that finds it working; what it is owed is delivered first.
        But where the courier can ask a part how it is, nobody else waits for the answer.
        """
        if self.trusted:
            return self.run(doing, work)
        if self._is_the_couriers():
            raise Bypassed from self.error
        return self._try(doing, work)

    def run(self, doing: str, work: Callable[[], T]) -> T:
        """Call `work`, whatever is known of the part; raises Bypassed if it fails."""
        try:
            return work()
        except Exception as error:
            self.judge(doing, error)
            raise Bypassed from error

    @property
    def waits(self) -> bool:
        """True if something is left for the courier."""
        return self.owes or (self.is_open and self._ping is not None)

    def settle(self) -> bool:
        """Try the part again and deliver what it is owed, if it is time; True if nothing is left. Raises nothing."""
        if self.waits:
            try:
                self._try("reached", self._ping or (lambda: None))
            except Bypassed:
                pass
            except MISTAKES as error:
                # a server that has come back and is not fit for use, say; it may be mended
                self._is_unfit(error)
        return not self.waits

    def _is_unfit(self, error: Exception) -> None:
        if repr(self._failed(error)) != repr(error):
            logger.error("%s cannot be used; it is tried again: %r", self.name, error)
        _let_go(error)

    def _failed(self, error: Exception) -> Exception | None:
        """Bypass the part from now on; return what it had failed with before, if it had."""
        with self._mutex:
            known = self._breaker.error
            self._breaker.failed(error)
            self._set_flags()
        self._guards.stats.errors += 1
        return known

    def settle_now(self) -> None:
        """Try to deliver what is owed, unless that may keep the caller waiting. Raises nothing."""
        if not self._is_the_couriers():
            self.settle()

    def _is_the_couriers(self) -> bool:
        return self.is_open and self._ping is not None and self._call_courier()

    def _call_courier(self) -> bool:
        """Have the courier come by until nothing is left; False if there is none."""
        if self._guards.courier is None:
            return False
        try:
            self._guards.courier.call(self)
        except Exception:  # no more threads, or the interpreter ends; whoever uses the part next tries
            logger.exception("nobody looks after %s in the background", self.name)
            return False
        return True

    def _try(self, doing: str, work: Callable[[], T]) -> T:
        with self._mutex:
            may, known = self._breaker.begin(), self._breaker.error
        if not may:
            raise Bypassed from known
        try:
            self.run("given what it is owed", self._deliver)
            done = self.run(doing, work)
            self._succeeded()
            return done
        finally:
            with self._mutex:
                self._breaker.end()

    def judge(self, doing: str, error: Exception) -> None:
        """Take an error for a failure of the part, which is bypassed from now on; raise it if it is the caller's."""
        if isinstance(error, MISTAKES):
            raise error
        if self._failed(error) is None:
            logger.warning(
                "%s could not be %s; it is bypassed, and tried again every %g seconds: %r",
                self.name,
                doing,
                self._guards.probe_seconds,
                error,
                # what a server of ours fails with is told by its error; what a tier of the user's does is not
                exc_info=None if isinstance(error, StoreError) else error,
            )
            if self._ping is not None:
                self._call_courier()
        _let_go(error)

    def _succeeded(self) -> None:
        with self._mutex:
            changed = self._breaker.succeeded()
            self._set_flags()
        if changed:
            logger.warning("%s works again", self.name)

    # debts

    def owe(self, debts: Sequence[Debt]) -> None:
        """Remember what could not be delivered; from now on the part is not trusted. Raises nothing."""
        if not debts:
            return
        with self._mutex:
            first = not len(self._debts)
            new = self._debts.owe(debts)
            self._set_flags()
        self._guards.stats.owed += new
        if first:
            logger.warning("%s could not be told what has changed; it is not believed until it is", self.name)
        self._call_courier()

    def _deliver(self) -> None:
        while True:
            with self._mutex:
                debts = self._debts.some(BATCH)
            if not debts:
                return
            self._pay(debts)

    def _pay(self, debts: list[Debt]) -> None:
        def settled() -> None:
            with self._mutex:
                told = self._debts.settle(debts)
                self._set_flags()
                last = not self.owes
            self._guards.stats.delivered += told
            for listener in list(self._guards.listeners):
                listener.told_late(debts)
            if last:
                logger.info("%s was told of all that has changed", self.name)

        try:
            deliver(self.tier, debts, settled)
        except MISTAKES:
            if len(debts) > 1:
                for debt in debts:
                    self._pay([debt])
                return
            # what a tier refuses to have asked it cannot hold either; nothing else may wait for it for ever
            self._guards.stats.errors += 1
            logger.exception("%s refuses to forget a key", self.name)
            settled()

    def _set_flags(self) -> None:
        self.owes = len(self._debts) > 0
        self.trusted = not self.owes and not self._breaker.is_open

    def after_fork(self) -> None:
        """In a child process: another thread may have held the mutex, or have been trying."""
        self._mutex = threading.RLock()
        self._breaker.end()
        self._set_flags()


def _ping_of(tier: Any) -> Callable[[], object] | None:
    """What tells if a part works; None if it has nothing that does: one in this process fails for other reasons."""
    ping: Callable[[], object] | None = getattr(tier, "ping", None)
    says_nothing = getattr(ping, "__func__", None) is InThisProcess.ping
    return None if says_nothing or "ping" not in getattr(tier, "supports", ("ping",)) else ping


class Guards:
    """The guards of one store: whoever uses the store, they are the same.

    probe_seconds: how long a part that has failed is left alone before one caller tries it again. clock: seconds
    from anywhere. limit: how many keys a part can be owed before whole classes are owed instead. courier delivers
    in the background; None for nobody.
    """

    def __init__(
        self,
        tier: Any,
        probe_seconds: float = PROBE_SECONDS,
        *,
        clock: Callable[[], float] = time.monotonic,
        limit: int = LIMIT,
        courier: Courier | None = COURIER,
    ) -> None:
        self.tier = tier
        self.stats: Stats = Stats.of(tier)
        self.probe_seconds = probe_seconds
        self.clock = clock
        self.limit = limit
        self.courier = courier
        self.listeners: weakref.WeakSet[DebtListener] = weakref.WeakSet()
        self.parts = tuple(Guard(self, part) for part in getattr(tier, "parts", (tier,)))
        renew_after_fork(self)

    def use(
        self,
        doing: str,
        asked: Mapping[int, Asked],
        done: dict[int, Any] | None = None,
        bypassed: dict[int, BaseException | None] | None = None,
        *,
        whatever: bool = False,
    ) -> tuple[dict[int, Any], dict[int, Exception]]:
        """Have each of these parts do what is asked of it, as Guard.use does; or, `whatever` is known of it, Guard.run.

        All those that are trusted are asked before the first is waited for. Returned is what they return, and the
        errors that are no failures of theirs; the others are in `bypassed`, with the causes. What is done when an
        interrupt comes between is in `done`.
        """
        done = {} if done is None else done
        bypassed = {} if bypassed is None else bypassed
        failed: dict[int, Exception] = {}
        together: list[int] = []
        if len(asked) > 1:
            together = [part for part in asked if whatever or self.parts[part].trusted]
            talks = {part: begin(self.parts[part].tier, asked[part]) for part in together}
            for part, error in hold(talks, done).items():
                try:
                    self.parts[part].judge(doing, error)
                    bypassed[part] = error
                except Exception as mistake:  # noqa: BLE001 - whoever asked is told
                    failed[part] = mistake
        for part, (operation, args, kwargs) in asked.items():
            if part in together:
                continue
            guard = self.parts[part]
            work = partial(getattr(guard.tier, operation), *args, **kwargs)
            try:
                done[part] = guard.run(doing, work) if whatever else guard.use(doing, work)
            except Bypassed as error:
                bypassed[part] = error.__cause__
            except Exception as mistake:  # noqa: BLE001 - whoever asked is told
                failed[part] = mistake
        return done, failed

    @property
    def name(self) -> str:
        """What logs call the store."""
        return str(getattr(self.tier, "name", type(self.tier).__name__))

    def after_fork(self) -> None:
        """In a child process: see Guard.after_fork."""
        for guard in self.parts:
            guard.after_fork()


def raise_first(failed: Mapping[int, Exception]) -> None:
    """Raise the first of the errors that Guards.use returns, if there is one."""
    for error in failed.values():
        raise error


def _let_go(error: BaseException) -> None:
    """Take the traceback from an error that is kept, and from its causes: it would keep all that the frames hold.

    The context goes whole: it may end with an error that a caller is just handling, who needs its traceback.
    """
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        each.__traceback__ = each.__context__ = None
        each = each.__cause__


_slotted: dict[int, tuple[Any, Guards]] = {}
"""The guards of tiers that take no attribute, by id(); these tiers are kept, so that no other has their id."""


def guards_of(tier: Any) -> Guards:
    """Return the guards of the store behind a tier, which it has made itself, or else was given here."""
    store = getattr(tier, "store", tier) if hasattr(tier, "forget") else tier
    for name in ("guards", "_stockpyle_guards"):
        own = getattr(store, name, None)
        if isinstance(own, Guards):
            return own
    kept = _slotted.get(id(store))
    if kept is not None:
        return kept[1]
    made = Guards(tier)
    try:
        store._stockpyle_guards = made
    except AttributeError:
        made = _slotted.setdefault(id(store), (store, made))[1]
    return made
