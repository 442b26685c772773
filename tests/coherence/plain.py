"""Plain objects in a SqlTableStore behind shared caches: processes put, delete and find them by two keys.

It has a workload and a judge of its own: the other one's are about the rows of mapped classes.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from stockpyle.coherence.layers import Layer
from stockpyle.coherence.writer import Writer
from stockpyle.exceptions import StockpyleError
from stockpyle.stores import ChainedStore, MemcacheStore, ProcessMemoryStore, RedisStore, SqlTableStore
from tests.coherence.caches import Cache, SmallMemcached, SmallRedis
from tests.coherence.registers import NEVER, Judgement, Read, Write, judge
from tests.coherence.systems.stockpyle_chain import call_after, call_before
from tests.coherence.worker import make_engine
from tests.servers import Postgres

SYSTEMS = ("plain", "plain-redis", "plain-validated", "plain-look-aside")
"""A memcached over the table; a Redis; each process's memory, validated, over a Redis; and the usual pattern."""

ROWS = 30
COUNTED = ("hits", "refused", "locked", "fills", "errors")
FINE, VIOLATIONS, VOID, BROKEN = range(4)


class Item:
    """What is kept."""

    __stockpyle_keys__ = ("id", "email")

    def __init__(self, id: int, email: str, version: int) -> None:
        self.id, self.email, self.version = id, email, version


@dataclass(frozen=True)
class Job:
    """What a worker is told. Shared with the runner: ready; until, the time to end, or 0 as long as nobody begins."""

    slot: int
    incarnation: int
    seed: int
    ready: Any
    until: Any
    path: Path
    url: str
    cache: tuple[str, int]
    system: str
    lock_seconds: float
    lifetime: float
    hesitate: float
    pause: float


class LookAside:
    """A cache that is asked first, filled from the table, and emptied after a put: the usual pattern."""

    def __init__(self, cache: Any, table: Any, hesitate: Callable[[], None]) -> None:
        self.cache, self.table, self.hesitate = cache, table, hesitate

    def batch_get(self, klass: type, keys: list[dict[str, Any]]) -> list[Any]:
        """Return what the cache has, and else the table."""
        found = self.cache.batch_get(klass, keys)
        for i, key in enumerate(keys):
            if found[i] is None:
                found[i] = self.table.get(klass, key)
                self.hesitate()
                if found[i] is not None:
                    self.cache.put(found[i])
        return list(found)

    def put(self, obj: Any) -> None:
        """Write, and forget."""
        self.table.put(obj)
        self.hesitate()
        self.cache.delete(obj)

    def delete(self, obj: Any) -> None:
        """Delete, and forget."""
        self.table.delete(obj)
        self.hesitate()
        self.cache.delete(obj)


def work(job: Job) -> None:
    """The process: write down what it does, and what it is handed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    dice = random.Random(f"{job.seed}-{job.slot}-{job.incarnation}")

    def hesitate() -> None:
        if dice.random() < job.hesitate:
            time.sleep(dice.uniform(0, job.pause))

    tiers, store = _make(job, hesitate)
    job.ready[job.slot] = 1
    while not job.until.value:
        time.sleep(0.01)
    version = (job.slot * 1000 + job.incarnation) * 1_000_000
    counts: Counter[str] = Counter()
    with job.path.open("a", encoding="utf-8") as file:

        def note(*what: Any) -> None:
            file.write(json.dumps(what) + "\n")

        while time.monotonic() < job.until.value:
            if dice.random() < 0.12:
                version += 1
                i = dice.randrange(ROWS)
                # now and then the address of another, which that one then has no more
                email = f"{i if dice.random() < 0.7 else dice.randrange(ROWS)}@x"
                is_put = dice.random() < 0.8
                note("begin", time.monotonic_ns(), i, email if is_put else None, version)
                # who is killed from here on may have written it
                file.flush()
                try:
                    (store.put if is_put else store.delete)(Item(i, email, version))
                    note("end", time.monotonic_ns(), version)
                except StockpyleError as error:
                    counts[f"write failed: {type(error).__name__}"] += 1
                continue
            asked = [_choose(dice) for _ in range(1 if dice.random() < 0.6 else 6)]
            keys = [{"id": each} if isinstance(each, int) else {"email": each} for each in asked]
            begin = time.monotonic_ns()
            try:
                found = store.batch_get(Item, keys)
            except StockpyleError as error:
                counts[f"read failed: {type(error).__name__}"] += 1
                continue
            end = time.monotonic_ns()
            for each, obj in zip(asked, found, strict=True):
                note("read", begin, end, each, None if obj is None else (obj.id, obj.email, obj.version))
            note("counts", {**counts, **{name: sum(getattr(tier.stats, name) for tier in tiers) for name in COUNTED}})


def _choose(dice: random.Random) -> int | str:
    i = dice.randrange(ROWS)
    return i if dice.random() < 0.5 else f"{i}@x"


def _make(job: Job, hesitate: Callable[[], None]) -> tuple[list[Any], Any]:
    """Return the tiers, and the store."""
    of_a_server: dict[str, Any] = {"timeout": 0.4, "lifetime": job.lifetime, "unreachable": "refuse"}
    host, port = job.cache
    tier: Any
    if job.system in ("plain-redis", "plain-validated"):
        tier = RedisStore(f"redis://{host}:{port}/0", **of_a_server)
    else:
        tier = MemcacheStore(servers=[f"{host}:{port}"], **of_a_server)
    table = SqlTableStore(make_engine(job.url), sa.MetaData(), "kept")
    if job.system == "plain-look-aside":
        return [tier], LookAside(tier, table, hesitate)
    for owner, name in ((Writer, "lock"), (SqlTableStore, "load")):
        call_after(owner, name, hesitate)
    for owner, name in ((Writer, "publish"), (Layer, "fill")):
        call_before(owner, name, hesitate)
    above = [ProcessMemoryStore(validate=True)] if job.system == "plain-validated" else []
    tiers = [*above, tier]
    return tiers, ChainedStore([*tiers, table], lock_seconds=job.lock_seconds)


class Run:
    """Servers, workers, faults: killed workers, and a cache that stands still for a moment."""

    def __init__(self, options: Any) -> None:
        if options.faults not in ("all", "none") or options.mutant is not None:
            raise SystemExit(f"with {options.system} --faults is all or none, and there are no mutants")
        self.options = options
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["tests.coherence.plain"])
        self.ready = self.context.RawArray("i", options.workers)
        self.until = self.context.RawValue("d", 0)
        self.dice = random.Random(options.seed)
        self.incarnations: Counter[int] = Counter()

    def go(self) -> tuple[Judgement, Counter[str]]:
        """Run, and judge."""
        options = self.options
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coherence-")))
            is_redis = options.system in ("plain-redis", "plain-validated")
            cache: Cache = stack.enter_context(SmallRedis() if is_redis else SmallMemcached())
            url = f"sqlite:///{folder / 'kept.db'}"
            if options.database == "postgresql":
                url = stack.enter_context(Postgres()).create_database()
            engine = sa.create_engine(url)
            SqlTableStore(engine, sa.MetaData(), "kept").table.create()
            if options.database == "sqlite":
                with engine.connect() as connection:
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            engine.dispose()
            workers = {slot: self._start(slot, folder, url, cache) for slot in range(options.workers)}
            stack.callback(lambda: [process.kill() for process in workers.values()])
            while not all(self.ready):
                if any(process.exitcode is not None for process in workers.values()):
                    raise RuntimeError("the workers do not begin")
                time.sleep(0.02)
            until = self.until.value = time.monotonic() + options.seconds
            while options.faults == "all" and time.monotonic() < until - 2:
                time.sleep(self.dice.uniform(0.2, 0.8))
                if self.dice.random() < 0.7:
                    slot = self.dice.randrange(options.workers)
                    workers[slot].kill()
                    workers[slot].join()
                    workers[slot] = self._start(slot, folder, url, cache)
                else:
                    cache.signal(signal.SIGSTOP)
                    time.sleep(self.dice.uniform(0, 0.15))
                    cache.signal(signal.SIGCONT)
            for slot, process in workers.items():
                process.join(60)
                if process.exitcode != 0:
                    raise RuntimeError(f"worker {slot} has ended with {process.exitcode}")
            return _judged(folder)

    def _start(self, slot: int, folder: Path, url: str, cache: Cache) -> Any:
        options = self.options
        self.incarnations[slot] += 1
        incarnation = self.incarnations[slot]
        path = folder / f"{slot}-{incarnation}.history"
        cares = (options.lock_seconds, options.lifetime, options.hesitate, options.pause)
        shared = (self.ready, self.until)
        job = Job(slot, incarnation, options.seed, *shared, path, url, cache.address, options.system, *cares)
        process = self.context.Process(target=work, args=(job,), daemon=True)
        process.start()
        return process


def _judged(folder: Path) -> tuple[Judgement, Counter[str]]:
    writes: dict[int, Write] = {}
    reads: list[Read] = []
    counted: dict[Path, Counter[str]] = {}
    for path, (kind, *what) in _lines(folder):
        if kind == "begin":
            begin, ident, email, version = what
            writes[version] = Write(begin, NEVER, ident, email, version)
        elif kind == "end":
            writes[what[1]].end = what[0]
        elif kind == "read":
            begin, end, asked, found = what
            reads.append(Read(begin, end, asked, None if found is None else tuple(found)))
        else:
            # so far, in this process
            counted[path] = Counter(what[0])
    counts = sum(counted.values(), Counter[str]())
    counts["writes"] = len(writes)
    return judge(writes.values(), reads), counts


def _lines(folder: Path) -> Iterator[tuple[Path, Any]]:
    for path in folder.glob("*.history"):
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            # of who was killed the last may be the beginning of one
            if line.endswith("\n"):
                yield path, json.loads(line)


def why_void(judgement: Judgement, counts: Counter[str]) -> list[str]:
    """Return why a run proves nothing."""
    wanted = {"reads": judgement.reads, "overlaps": judgement.overlaps, "writes": counts["writes"]}
    least = {"reads": 2000, "overlaps": 100, "writes": 200}
    why = [f"only {wanted[name]} {name} of at least {least[name]}" for name in least if wanted[name] < least[name]]
    if counts["hits"] < 0.2 * judgement.reads:
        why.append(f"only {counts['hits']} of {judgement.reads} reads were hits")
    return why


def main(options: Any) -> int:
    """Run, print the report, and return what to exit with."""
    try:
        judgement, counts = Run(options).go()
    except (RuntimeError, OSError) as error:
        sys.stdout.write(f"the run could not be done: {error}\n")
        return BROKEN
    void = why_void(judgement, counts)
    counts.update(reads=judgement.reads, overlaps=judgement.overlaps)
    lines = [", ".join(f"{name}: {count}" for name, count in sorted(counts.items()))]
    lines += [f"wrong, {kind}: {count}" for kind, count in judgement.kinds.items()] + judgement.told[:10]
    lines += [f"void: {why}" for why in void]
    if judgement.kinds or void:
        lines.append(f"again: {options.command()}")
    else:
        lines.append("nobody was handed anything stale, dirty or of somebody else")
    sys.stdout.write("\n".join(lines) + "\n")
    return VIOLATIONS if judgement.kinds else VOID if void else FINE
