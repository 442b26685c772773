"""A run: servers, workers, faults, and the verdict."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.coherence import faults, history, proxies, worker
from tests.coherence.audit import WRITES, Transactions, Witness, create, read_log
from tests.coherence.caches import Cache, SmallMemcached, SmallRedis
from tests.coherence.checker import Verdict, judge
from tests.coherence.models import WRITES_EACH
from tests.coherence.pools import ACCOUNTS_POOL, initial
from tests.coherence.report import describe
from tests.coherence.results import SETUP, Results, collect, conditions, reads, why_void
from tests.coherence.systems import IN_MEMORY, ON_REDIS, Settings, find
from tests.coherence.timelines import BrokenHistory, Timelines, build
from tests.servers import Postgres

FIRST_LOOK = 0.8
"""After how many seconds is looked for something wrong for the first time, if the run ends with that."""

PATIENCE = 60.0
"""How many seconds workers may take to begin, or to end, on a machine with much else to do."""

FINE, VIOLATIONS, VOID, BROKEN = range(4)
"""What a run exits with. BROKEN: the checker itself, or a worker, has failed."""


@dataclass
class Options:
    """What can be said of a run."""

    seconds: float = 30.0
    workers: int = 8
    seed: int = 1
    database: str = "postgresql"
    faults: str = "all"
    rate: float = 1.0
    steps: str = "all"
    rows: int = ACCOUNTS_POOL
    hesitate: float = 0.02
    pause: float = 0.05
    at: str = "all"
    system: str = "stockpyle"
    mutant: str | None = None
    unreachable: str = "mixed"
    lock_seconds: float = 3.0
    lifetime: float = 10.0
    keep: bool = False
    until_found: bool = False

    def command(self) -> str:
        """The command that repeats the run."""
        given = {
            name: value
            for name, value in vars(self).items()
            if value != getattr(Options(), name) and name not in ("keep", "until_found")
        }
        given.update(seconds=self.seconds, workers=self.workers, seed=self.seed)
        words = [f"--{name.replace('_', '-')} {value}" for name, value in given.items()]
        return " ".join(["python -m tests.coherence", *words])


@dataclass
class Outcome:
    """How a run ended."""

    status: int
    results: Results
    timelines: Timelines
    verdict: Verdict
    void: list[str]
    start: int
    options: Options

    def lines(self) -> list[str]:
        """The report."""
        found = list(
            describe(self.results, self.timelines, self.verdict, self.void, self.start, self.options.seconds)
        )  # fmt: skip
        if self.status != FINE:
            found += ["", f"again: {self.options.command()}"]
        return found


class RunFailed(Exception):
    """The run could not be brought to its end."""


def run(options: Options, postgres: Postgres | None = None) -> Outcome:
    """Run, judge, and clean up. postgres: a server to use instead of one that is started for this run."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="coherence-"))
        if not options.keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        this = _Run(options, folder, stack, postgres)
        this.go()
        return this.judge()


class _Run:
    def __init__(self, options: Options, folder: Path, stack: ExitStack, postgres: Postgres | None) -> None:
        self.options = options
        self.folder = folder
        self.stack = stack
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.coherence.worker", "tests.coherence.proxies"])
        self.cache: Cache = stack.enter_context(SmallRedis() if options.system in ON_REDIS else SmallMemcached())
        self.url = self._database(postgres)
        self.engine = sa.create_engine(self.url)
        stack.callback(self.engine.dispose)
        self.transactions = Transactions(self.engine)
        self.history = history.HistoryWriter(folder / "runner.history")
        self.stopping = self.context.RawValue("i", 0)
        self.proxies_stopping = self.context.RawValue("i", 0)
        self.orders = self.context.RawArray("i", options.workers)
        self.workers: dict[int, BaseProcess] = {}
        self.helpers: list[BaseProcess] = []
        self.incarnations = 1
        self.paused = 0
        self.turns: list[tuple[float, int, Any]] = []
        probe = find(options.system)(Settings(self.engine, self.cache.address))
        self.lacks = probe.lacks
        self.faults = faults.chosen(
            options.faults, lacks=self.lacks, database=options.database, points=list(probe.points)
        )
        through = max(1, options.workers // 4)
        self.cut_database = range(through) if faults.CUT_COMMIT in self.faults else range(0)
        some = range(through, min(options.workers, 3 * through))
        self.cut_cache = some if faults.CUT_CACHE in self.faults else range(0)
        self.start = 0
        self.started = self.context.RawValue("q", 0)
        self.ready = self.context.RawArray("i", options.workers)

    def _database(self, postgres: Postgres | None) -> str:
        if self.options.database == "sqlite":
            url = f"sqlite:///{self.folder / 'test.db'}"
            engine = sa.create_engine(url)
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            engine.dispose()
            return url
        server: Postgres = postgres or self.stack.enter_context(Postgres())
        url = server.create_database()
        if postgres is not None:
            self.stack.callback(postgres.drop_database, url)
        return url

    # the run

    def go(self) -> None:
        create(self.engine)
        self._furnish()
        self._start_proxies()
        self.stack.callback(self._kill_all)
        for slot in range(self.options.workers):
            self._start_worker(slot)
        self._wait_until_all_are_there()
        self.start = self.started.value = time.monotonic_ns()
        planned = faults.plan(self.faults, self.options.seconds, self.options.seed, self.options.rate)
        witness = Witness(self.engine)
        look_at = 0.0
        judge_at = FIRST_LOOK if self.options.until_found else self.options.seconds
        while (now := self._now()) < self.options.seconds:
            while planned and planned[0].time <= now:
                self._strike(planned.pop(0))
            for turn in [turn for turn in self.turns if turn[0] <= now]:
                self.turns.remove(turn)
                turn[2]()
            if now >= look_at:
                self._look(witness)
                look_at = self._now() + 0.4
            if now >= judge_at:
                if self._something_is_wrong():
                    break
                # in the end, judging again and again takes no more than a part of the time
                judge_at = now + max(1.0, 4 * (self._now() - now))
            self._restart_workers()
            time.sleep(0.02)
        for _, _, turn in sorted(self.turns, key=lambda turn: turn[:2]):
            turn()
        self.stopping.value = 1
        self._wait()
        self._look(witness)
        self.history.close()

    def _something_is_wrong(self) -> bool:
        """Judge what there is so far."""
        results, _, verdict = self._judge(still_running=True)
        return bool(verdict.kinds or results.own)

    def _now(self) -> float:
        return (time.monotonic_ns() - self.start) / 1e9

    def _furnish(self) -> None:
        wids = iter(range(SETUP * WRITES_EACH, (SETUP + 1) * WRITES_EACH))
        self.transactions.number = SETUP
        self.history.add_now(history.INTENT, SETUP, False)
        with Session(self.engine.execution_options(**{WRITES: True})) as session:
            session.add_all(initial(lambda: next(wids)))
            session.commit()
        self.history.add_now(history.RETURNED, SETUP)

    def _look(self, witness: Witness) -> None:
        seen = witness.look()
        if seen:
            self.history.add_now(history.WITNESSED, sorted(seen))

    # processes

    def _start_proxies(self) -> None:
        def start(count: int, server: tuple[str, int], name: str) -> tuple[list[int], Any]:
            modes = self.context.RawArray("i", max(1, count))
            listeners = [proxies.listen() for _ in range(count)]
            if count:
                arguments = (listeners, server, modes, self.proxies_stopping, self.folder / f"{name}.history")
                process = self.context.Process(target=proxies.serve, args=arguments, daemon=True)
                process.start()
                self.helpers.append(process)
            ports = [listener.getsockname()[1] for listener in listeners]
            for listener in listeners:
                listener.close()
            return ports, modes

        url = sa.make_url(self.url)
        self.database_ports, self.database_modes = start(
            len(self.cut_database), (str(url.host), int(url.port or 0)), "database"
        )
        self.cache_ports, self.cache_modes = start(len(self.cut_cache), self.cache.address, "cache")

    def _start_worker(self, slot: int) -> None:
        self.incarnations += 1
        url, cache = self.url, self.cache.address
        if slot in self.cut_database:
            port = self.database_ports[self.cut_database.index(slot)]
            url = sa.make_url(url).set(port=port).render_as_string(hide_password=False)
        if slot in self.cut_cache:
            cache = ("127.0.0.1", self.cache_ports[self.cut_cache.index(slot)])
        unreachable = self.options.unreachable
        if unreachable == "mixed":
            unreachable = ("refuse", "proceed")[slot % 2]
        job = worker.Job(
            slot,
            self.incarnations,
            self.options.seed,
            self.started,
            self.ready,
            self.folder,
            url,
            None if "cache" in self.lacks else cache,
            self.options.system,
            unreachable,
            self.options.mutant,
            self.options.steps,
            self.options.rows,
            self.options.hesitate,
            self.options.pause,
            self.options.at,
            self.options.lock_seconds,
            self.options.lifetime,
            self.orders,
            self.stopping,
        )
        process = self.context.Process(target=worker.run, args=(job,), daemon=True)
        process.start()
        self.workers[slot] = process

    def _wait_until_all_are_there(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not all(self.ready):
            if time.monotonic() > deadline or any(process.exitcode is not None for process in self.workers.values()):
                raise RunFailed(self._last_words() or "the workers do not begin")
            time.sleep(0.02)

    def _restart_workers(self) -> None:
        for slot, process in list(self.workers.items()):
            if process.exitcode is None:
                continue
            if process.exitcode != -signal.SIGKILL:
                raise RunFailed(self._last_words() or f"worker {slot} has ended with {process.exitcode}")
            self._start_worker(slot)

    def _last_words(self) -> str:
        return "\n".join(collect(self.folder).broken)

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        for slot, process in self.workers.items():
            process.join(max(0.1, deadline - time.monotonic()))
            if process.exitcode is None:
                raise RunFailed(f"worker {slot} does not end")
            if process.exitcode not in (0, -signal.SIGKILL):
                raise RunFailed(self._last_words() or f"worker {slot} has ended with {process.exitcode}")
        self.proxies_stopping.value = 1
        for process in self.helpers:
            process.join(10)

    def _kill_all(self) -> None:
        for process in (*self.workers.values(), *self.helpers):
            if process.exitcode is None:
                process.kill()
                process.join()

    # faults

    def _strike(self, planned: faults.Planned) -> None:
        name = planned.name
        if name in faults.AT_POINTS:
            self._order(planned)
        elif name == faults.KILL:
            slot = planned.which % self.options.workers
            process = self.workers[slot]
            if process.exitcode is None:
                begin = time.monotonic_ns()
                process.kill()
                self._fired(begin, name, slot)
        elif name in (faults.PAUSE_SHORT, faults.PAUSE_LONG):
            begin = time.monotonic_ns()
            self.cache.signal(signal.SIGSTOP)
            self.paused += 1
            self._later(0.15 if name == faults.PAUSE_SHORT else 1.1, lambda: self._continue(begin, name))
        elif name == faults.RESTART:
            begin = time.monotonic_ns()
            self.cache.signal(signal.SIGCONT)
            self.cache.stop("immediate")
            self.cache.start()
            self._fired(begin, name)
        elif name == faults.FILL and self.paused:
            # who waits for a cache that is paused cannot wake it up
            self._later(0.2, lambda: self._strike(planned))
        elif name == faults.FILL:
            self._fill()
        elif name == faults.CUT_COMMIT:
            i = planned.which % len(self.cut_database)
            self.database_modes[i] = list(proxies.COMMITS)[planned.which // 4 % len(proxies.COMMITS)]
        else:
            i = planned.which % len(self.cut_cache)
            self.cache_modes[i] = proxies.OFF
            self._later(0.3 + planned.which % 10 / 5, lambda: self._open(i))

    def _order(self, planned: faults.Planned) -> None:
        for slot in range(planned.which, planned.which + self.options.workers):
            if not self.orders[slot % self.options.workers]:
                self.orders[slot % self.options.workers] = 1 + faults.AT_POINTS.index(planned.name)
                return

    def _later(self, seconds: float, turn: Any) -> None:
        self.turns.append((self._now() + seconds, len(self.turns), turn))

    def _continue(self, begin: int, name: str) -> None:
        self.paused -= 1
        self.cache.signal(signal.SIGCONT)
        self._fired(begin, name)

    def _open(self, i: int) -> None:
        self.cache_modes[i] = proxies.PASS

    def _fill(self) -> None:
        begin = time.monotonic_ns()
        before = self.cache.evictions()
        self.cache.fill()
        if self.cache.evictions() > before:
            self._fired(begin, faults.FILL)

    def _fired(self, begin: int, name: str, detail: Any = None) -> None:
        self.history.add(history.FAULT, begin, time.monotonic_ns(), name, detail)
        self.history.flush()

    # the verdict

    def _judge(self, *, still_running: bool = False) -> tuple[Results, Timelines, Verdict]:
        options = self.options
        until = time.monotonic_ns()
        with self.engine.connect() as connection:
            log = read_log(connection)
        if options.keep:
            (self.folder / "log.msgpack").write_bytes(msgspec.msgpack.encode(log))
        # after the log: who has committed has told before that it would
        results = collect(self.folder, still_running=still_running)
        timelines = build(log, results.transactions)
        verdict = judge(
            timelines,
            # a read that ended later may have seen what is not in the log yet
            (each for each in reads(self.folder) if each[1][2] < until),
            conditions(
                results,
                lock_seconds=options.lock_seconds,
                lifetime=options.lifetime,
                memory=IN_MEMORY.get(options.system, 0.0),
            ),
        )
        return results, timelines, verdict

    def judge(self) -> Outcome:
        options = self.options
        try:
            results, timelines, verdict = self._judge()
        except BrokenHistory as error:
            raise RunFailed(str(error)) from error
        void = why_void(
            results,
            verdict,
            seconds=options.seconds,
            faults=self.faults,
            lacks=self._not_asked_for(),
            memory=IN_MEMORY.get(options.system, 0.0),
        )
        status = VIOLATIONS if verdict.kinds or results.own else VOID if void else FINE
        if results.broken:
            raise RunFailed("\n".join(results.broken))
        return Outcome(status, results, timelines, verdict, void, self.start, options)

    def _not_asked_for(self) -> frozenset[str]:
        """Return what a run like this need not have had."""
        return self.lacks if self.options.steps == "all" and self.options.seconds >= 30 else self.lacks | {"bulk"}


def main(options: Options) -> int:
    """Run and write the report; return the exit code."""
    began = time.monotonic()
    try:
        outcome = run(options)
    except RunFailed as error:
        sys.stdout.write(f"broken: {error}\nagain: {options.command()}\n")
        return BROKEN
    sys.stdout.write("\n".join(outcome.lines()) + f"\n{time.monotonic() - began:.0f} s in all\n")
    return outcome.status
