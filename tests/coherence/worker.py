"""A worker: a process that does what its workload says, and writes down what it did and saw."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from tests.coherence import history, mutants
from tests.coherence.audit import WRITES, Transactions
from tests.coherence.bulk import BulkSteps
from tests.coherence.faults import AT_POINTS
from tests.coherence.models import CLASSES, WRITES_EACH, Account, Member, Person, seen
from tests.coherence.outside import Outside
from tests.coherence.pools import Ask, key_dict
from tests.coherence.steps import Step
from tests.coherence.systems import Keys, Settings, SystemUnderTest, find
from tests.coherence.workload import LEVELS, OUTSIDE, PAST, Plan, Workload, is_quiet, past_at

BATCH = 24
WRITING, WRITING_STEPS = 0.8, 0.5
"""The share of writes in what a worker does in busy phases: of all kinds, or of some, for which more is to be read."""
SELDOM = {"before-read": 0.1}
"""Points that are passed so often that it hesitates at fewer of them."""
COUNT_EVERY = 500_000_000
TRIES, AGAIN = 40, 0.05
"""How often the cache is told of what was written outside, until it can be, and after how many seconds again."""


@dataclass
class Job:
    """What a worker is told. Shared with the runner: started, the time or 0; ready, orders and stopping."""

    slot: int
    incarnation: int
    seed: int
    started: Any
    ready: Any
    folder: Path
    url: str
    cache: tuple[str, int] | None
    system: str
    unreachable: str
    mutant: str | None
    steps: str
    rows: int
    hesitate: float
    pause: float
    at: str
    lock_seconds: float
    lifetime: float
    orders: Any
    stopping: Any

    @property
    def path(self) -> Path:
        """Where the history is."""
        return self.folder / f"worker-{self.slot:02d}-{self.incarnation:05d}.history"


def make_engine(url: str) -> sa.Engine:
    """Return an engine that gives up soon on a lock that another transaction holds."""
    if sa.make_url(url).get_backend_name() == "sqlite":
        return sa.create_engine(url, connect_args={"timeout": 2.0})
    options = "-c lock_timeout=200 -c deadlock_timeout=60 -c jit=off"
    return sa.create_engine(url, connect_args={"options": options, "connect_timeout": 5})


def run(job: Job) -> None:
    """The process, from its start to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("stockpyle").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    writer = history.HistoryWriter(job.path)
    writer.add_now(history.START, job.slot)
    try:
        worker = Worker(job, writer)
        # what is there now stays: no use in looking for garbage in it again and again
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 10, 10)
        worker.work()
    except BaseException:
        writer.add_now(history.BROKEN, traceback.format_exc())
        raise
    finally:
        writer.close()


class Worker:
    """One process's engine, system, workload and history."""

    def __init__(self, job: Job, writer: history.HistoryWriter) -> None:
        self.job = job
        self.history = writer
        self.dice = random.Random(f"hesitate {job.seed}-{job.slot}-{job.incarnation}")
        groups = job.at.split("/")
        self.habits = groups[job.slot % len(groups)].split(",")
        self.engine = make_engine(job.url)
        self.transactions = Transactions(self.engine)
        self.sqlite = self.engine.dialect.name == "sqlite"
        if job.mutant is not None:
            mutants.apply(job.mutant)
        settings = Settings(self.engine, job.cache, job.lock_seconds, job.lifetime, unreachable=job.unreachable)
        self.system: SystemUnderTest = find(job.system)(settings)
        steps = "flushed" if job.steps == "all" and "bulk" in self.system.lacks else job.steps
        self.workload = Workload(f"{job.seed}-{job.slot}-{job.incarnation}", steps, job.rows)
        self.random = self.workload.random
        self.outside = Outside(self.engine, self._wid)
        self.errors = (SQLAlchemyError, *self.system.errors, *self.outside.errors)
        self.makers = {}
        for level in LEVELS[:1] if self.sqlite else LEVELS:
            options = {WRITES: True} if level == LEVELS[0] else {WRITES: True, "isolation_level": level}
            self.makers[level] = self.system.sessionmaker(self.engine.execution_options(**options))
        self.counts: Counter[str] = Counter()
        self.counted = self.system.counters()
        self.count_at = 0
        self.quiet = True
        self.past: Collection[str] = ()
        self.next_number = job.incarnation * 1_000_000
        self.sending = 0
        """The transaction whose commit is under way; ending: that of which the cache may not yet have been told."""
        self.ending = 0
        self.order = ""
        self._watch_points()
        self.system.watch_debts(self._owed, self._delivered)

    def work(self) -> None:
        """Work until told to stop."""
        draw = self.random.random
        self.job.ready[self.job.slot] = 1
        while not self.job.started.value:
            time.sleep(0.01)
        writing = WRITING if self.job.steps in ("all", "flushed") else WRITING_STEPS
        while not self.job.stopping.value:
            now = time.monotonic_ns()
            since = (now - self.job.started.value) / 1e9
            quiet, self.past = is_quiet(since), past_at(since)
            if quiet is not self.quiet or now > self.count_at:
                self._count(now)
                self.quiet, self.count_at = quiet, now + COUNT_EVERY
            if draw() < (0.02 if quiet else writing):
                self._write()
            elif draw() < 0.05:
                self._browse()
            elif draw() < 0.4:
                self._read_one()
            else:
                klass, keys = self.workload.asks(BATCH)
                self._read(klass, keys)
        self._count(time.monotonic_ns())

    # reading

    def _read(self, klass: int, keys: list[tuple[int, Any]]) -> None:
        asked = [key_dict(number, value) for number, value in keys]
        begin = time.monotonic_ns()
        try:
            objs = self.system.batch_get(CLASSES[klass], asked)
        except self.errors as error:
            self._read_failed(error)
            return
        end = time.monotonic_ns()
        frame: list[Any] = [history.READ, begin, end, klass]
        for (number, value), obj in zip(keys, objs, strict=True):
            frame += (number, value, seen(obj))
        self.history.add(*frame)
        self.counts["reads"] += len(keys)

    def _read_one(self) -> None:
        klass, [(number, value)] = self.workload.asks(1)
        asked = key_dict(number, value)
        begin = time.monotonic_ns()
        try:
            obj = self.system.get(CLASSES[klass], asked)
        except self.errors as error:
            self._read_failed(error)
            return
        end = time.monotonic_ns()
        self.history.add(history.READ, begin, end, klass, number, value, seen(obj))
        self.counts["reads"] += 1

    def _browse(self) -> None:
        """Read through the cache into a session that began a while ago, and so may see less than the cache has."""
        if "into session" in self.system.lacks:
            return
        begin = time.monotonic_ns()
        klass, keys = self.workload.asks(4)
        level = LEVELS[0] if self.sqlite else self.random.choice(LEVELS)
        with self.makers[level]() as session:
            try:
                session.execute(sa.select(sa.func.count()).select_from(Account))
                for number, value in keys:
                    self._hesitate("in-session")
                    self.system.get_into(session, CLASSES[klass], key_dict(number, value))
            except self.errors as error:
                self._read_failed(error)
        self.history.add(history.CALLS, begin, time.monotonic_ns())
        self.counts["reads"] += len(keys)

    def _read_failed(self, error: Exception) -> None:
        self.counts[f"read failed: {type(error).__name__}"] += 1
        self.history.add(history.READ_FAILED, time.monotonic_ns(), f"{type(error).__name__}: {error}"[:300])

    def _read_again(self, touched: list[Ask]) -> None:
        self._calls_end()
        by_class: dict[int, list[tuple[int, Any]]] = {}
        for klass, number, value in dict.fromkeys(touched):
            by_class.setdefault(klass, []).append((number, value))
        for klass, keys in by_class.items():
            self._read(klass, keys)

    # writing

    def _write(self) -> None:
        order = self.job.orders[self.job.slot]
        self.order = AT_POINTS[order - 1] if order else ""
        self.next_number += 1
        self.number = self.next_number
        self.wids = self.number * WRITES_EACH
        self.calls_began = time.monotonic_ns()
        try:
            if self.random.random() < 0.08 and "put" not in self.system.lacks:
                self._put()
            else:
                plan = self.workload.transaction(self.past)
                if plan.steps[0].name == OUTSIDE:
                    self._write_outside(plan)
                else:
                    self._transact(plan)
        finally:
            self.transactions.number = self.sending = self.ending = 0
            self.transactions.everywhere = False
            self._calls_end()

    def _calls_end(self) -> None:
        now = time.monotonic_ns()
        self.history.add(history.CALLS, self.calls_began, now)
        self.calls_began = now

    def _wid(self, count: int = 1) -> int:
        first = self.wids + 1
        self.wids += count
        return first

    def _transact(self, plan: Plan) -> None:
        self.transactions.number = self.number
        maker = self.makers[LEVELS[0] if self.sqlite else plan.level]
        with maker() as session:
            steps = BulkSteps(session, self._wid, self._finder(plan), counted=self._counted)
            try:
                for step in plan.steps:
                    steps.do(step)
                    self._hesitate("after-step")
                if self.job.steps in ("all", "flushed") and not (self.wids % WRITES_EACH or session.deleted):
                    # nothing was there to be changed so; a commit of nothing would tell nothing
                    steps.update_a(plan.steps[0])
                if plan.savepoint is not None:
                    self._in_savepoint(session, steps, plan)
                if plan.rolls_back:
                    session.flush()
                    session.rollback()
                    self.counts["rolled back"] += 1
                    return
                if plan.flushes:
                    session.flush()
                    if "into session" not in self.system.lacks and self.random.random() < 0.1:
                        self._read_own(session, plan)
            except self.errors as error:
                session.rollback()
                self.counts[f"gave up: {type(error).__name__}"] += 1
                return
            if self._commit(session.commit) and any(step.name in PAST for step in plan.steps):
                self.counts["commits past the unit of work"] += 1
        self.ending = 0
        if self.random.random() < 0.5:
            self._read_again(steps.touched)

    def _finder(self, plan: Plan) -> Callable[[Session, type, dict[str, Any]], Any]:
        if plan.into_session and "into session" not in self.system.lacks:
            return self.system.get_into
        return lambda session, klass, key: session.get(klass, key["id"])

    def _in_savepoint(self, session: Session, steps: BulkSteps, plan: Plan) -> None:
        assert plan.savepoint is not None
        session.flush()
        nested = session.begin_nested()
        steps.do(plan.savepoint)
        session.flush()
        if plan.savepoint_rolls_back:
            nested.rollback()
            self.counts["savepoints rolled back"] += 1
        else:
            nested.commit()
            self.counts["savepoints released"] += 1

    def _read_own(self, session: Session, plan: Plan) -> None:
        """Within a transaction, what it has written is read."""
        i = plan.steps[-1].account
        mine = session.get(Account, i)
        if mine is not None and mine.wid // WRITES_EACH == self.number:
            # of what it has not written itself, the session may hold what others have changed before it wrote
            session.refresh(mine)
            found = self.system.get_into(session, Account, {"email": mine.email})
            self.history.add(history.OWN, time.monotonic_ns(), 1, mine.email, seen(mine), seen(found))
            self.counts["own"] += 1

    def _counted(self, name: str, wrote: int, told: int) -> None:
        self.history.add(history.OWN, time.monotonic_ns(), -1, name, [wrote], [told])
        self.counts["results checked"] += 1

    def _write_outside(self, plan: Plan) -> None:
        """Write on a connection that SQLAlchemy knows nothing of, and tell the cache afterwards."""
        outside, step = self.outside, plan.steps[0]
        try:
            outside.begin(self.number)
            outside.write(step)
        except self.errors as error:
            outside.roll_back()
            self.counts[f"gave up: {type(error).__name__}"] += 1
            return
        if plan.rolls_back or not outside.touched:
            outside.roll_back()
            self.counts["rolled back"] += 1
            return
        self._commit(lambda: self._commit_outside(step), outside=True)
        self.ending = 0
        if self.random.random() < 0.5:
            self._read_again(outside.touched)

    def _commit_outside(self, step: Step) -> None:
        self._reached("after-lock")
        try:
            self.outside.commit()
        except self.outside.errors:
            self.outside.roll_back()
            # it may have happened all the same
            self._invalidate(step)
            raise
        self._reached("after-commit")
        self._invalidate(step)

    def _invalidate(self, step: Step) -> None:
        touched = dict.fromkeys(self.outside.touched)
        if step.way >> 9 & 1:
            targets: list[tuple[int, dict[str, Any] | None]] = [
                (klass, None) for klass in {klass for klass, *_ in touched}
            ]
        else:
            targets = [(klass, key_dict(number, value)) for klass, number, value in touched]
        for klass, key in targets:
            for left in reversed(range(TRIES)):
                try:
                    self.system.invalidate(CLASSES[klass], key)
                    break
                except self.errors:
                    if not left:
                        raise
                    time.sleep(AGAIN)
        self.counts["classes invalidated" if step.way >> 9 & 1 else "keys invalidated"] += len(targets)

    def _put(self) -> None:
        klass: Any = self.random.choice((Account, Account, Member))
        i = self.random.randrange(8 if self.random.random() < 0.3 else 32)
        try:
            obj = self.system.get(klass, {"id": i})
        except self.errors as error:
            self._read_failed(error)
            return
        if obj is None:
            return
        wid = self._wid()
        obj.wid = wid
        if isinstance(obj, Person):
            obj.p1 = obj.p2 = wid
            obj.mwid = obj.m1 = obj.m2 = self._wid()
        else:
            obj.a1 = obj.a2 = obj.b1 = obj.b2 = wid
        self.transactions.number, self.transactions.everywhere = self.number, True
        self._commit(lambda: self.system.put(obj))
        self.counts["puts"] += 1

    def _commit(self, commit: Callable[[], None], *, outside: bool = False) -> bool:
        number = self.number
        self.history.add_now(history.INTENT, number, outside)
        self.sending = self.ending = number
        try:
            commit()
        except self.errors as error:
            self.history.add_now(history.FAILED, number, f"{type(error).__name__}: {error}"[:200])
            self.counts[f"commit failed: {type(error).__name__}"] += 1
        else:
            self.history.add_now(history.RETURNED, number)
            self.counts["commits"] += 1
            return True
        finally:
            self.sending = 0
        return False

    def _owed(self, keys: Keys, unlocked: bool) -> None:
        # a reader may owe something, too: that an alias is removed which has misled it
        number = self.sending if unlocked else self.ending
        if number:
            self.history.add_now(history.OWED, number, unlocked, keys)

    def _delivered(self, keys: Keys) -> None:
        self.history.add_now(history.DELIVERED, keys)

    # faults at points of the write path

    def _watch_points(self) -> None:
        dialect: Any = self.engine.dialect
        do_commit = dialect.do_commit

        def commit(connection: Any) -> None:
            number = self.sending
            if number:
                self._reached("after-lock")
            do_commit(connection)
            if number:
                self._reached("after-commit")

        dialect.do_commit = commit
        for name, watch in self.system.points.items():
            watch(lambda name=name: self._reached(name))

    def _hesitate(self, point: str) -> None:
        share = 1.0 if point in self.habits else SELDOM.get(point, 1.0) if self.habits == ["all"] else 0.0
        if self.dice.random() < self.job.hesitate * share:
            time.sleep(self.dice.uniform(0.0, self.job.pause))

    def _reached(self, point: str) -> None:
        self._hesitate(point)
        if not self.order or not self.sending:
            return
        action, _, where = self.order.partition(" ")
        if where == "after-commit" and point == "after-lock":
            # others have time to meet with the lock of a writer that is about to die
            time.sleep(self.dice.uniform(0.0, self.job.lock_seconds / 8))
        if where != point:
            return
        order, self.order = self.order, ""
        self.job.orders[self.job.slot] = 0
        begin = time.monotonic_ns()
        if action == "kill":
            self.history.add(history.FAULT, begin, begin, order, self.sending)
            if point != "after-lock":
                # who dies here has seen that the database has committed
                self.history.add_now(history.WITNESSED, [self.sending])
            self.history.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.job.lock_seconds + 1.3)
        self.history.add(history.FAULT, begin, time.monotonic_ns(), order, self.sending)

    # counting

    def _count(self, now: int) -> None:
        counters = self.system.counters()
        self.counts.update({name: counters[name] - self.counted[name] for name in counters})
        self.counted = counters
        self.history.add(history.COUNTS, now, self.quiet, dict(self.counts))
        self.counts.clear()
