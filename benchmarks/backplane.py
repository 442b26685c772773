"""How long it takes until what one process commits has left the memory of the others.

Eight processes, each with a chain of process memory, Redis and PostgreSQL, together commit so many changes a second
through sessions, at moments drawn at random. In between, at the same rate and over the same connections, they publish
messages of the same size that nobody acts upon. All are pinned to nothing, and the servers run on the same machine.

    python -m benchmarks.backplane --seconds 20

For each kind of backplane it prints percentiles, in milliseconds:

- told: from when the writer has begun to tell (with "in transaction": has put the message into its transaction, so that
  the COMMIT itself is in it) until another process has dropped the keys from its memory;
- bare: from when a message is published until another process's callback has it;
- returned: from when commit() has returned until the drop; it is below zero where the drop came first, as in so many of
  all cases as the next column, before, has;
- cores: how many cores' time the processes have used, without the servers.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.keys import Ident
from stockpyle.stores import ChainedStore, ProcessMemoryStore, RedisStore, SqlAlchemyStore
from tests.servers import Postgres, Redis

KINDS = ("redis", "postgresql", "in transaction")
ROWS = 50
"""How many rows each process writes; nobody else writes them."""

PATIENCE = 120.0
now = time.perf_counter_ns
"""On Linux it is the same clock in all processes."""


class Base(DeclarativeBase):
    """The declarative base."""


class Item(Base):
    """What is written. Each commit gives one item a code that no other has ever had, by which its message is known."""

    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]


@dataclass
class Job:
    """What a process has to do."""

    number: int
    kind: str
    database: str
    redis: str
    workers: int
    rate: float
    seconds: float
    reads: int


@dataclass
class Result:
    """What a process has seen: moments, in nanoseconds, by the code of a commit or the number of a bare message."""

    told: dict[str, int] = field(default_factory=dict)
    returned: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    published: dict[bytes, int] = field(default_factory=dict)
    received: dict[bytes, int] = field(default_factory=dict)
    late: float = 0.0
    """By how many seconds it ended later than planned."""
    cpu: float = 0.0
    """How many seconds of a core it has used."""


class Noting(ProcessMemoryStore):
    """Process memory that notes when it has dropped what."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped: dict[str, int] = {}

    def heard(self, idents: Collection[Ident], spaces: Collection[str]) -> None:
        """Drop, and note it."""
        super().heard(idents, spaces)
        moment = now()
        for _, names, values in idents:
            if names == ("code",):
                self.dropped.setdefault(values[0], moment)


def work(job: Job, pipe: Any) -> None:
    """A process."""
    result, memory = Result(), Noting()
    source = SqlAlchemyStore(engine=sa.create_engine(job.database))
    shared = RedisStore(job.redis)
    pubsub = (shared if job.kind == "redis" else source).pubsub()
    inside = job.kind == "in transaction"
    chain = ChainedStore([memory, shared, source], backplane=pubsub, backplane_in_transaction=inside)
    makes = sessionmaker(source.engine, extension=StockpyleSessionExtension(chain))
    backplane: Any = chain.backplane
    tell, announce = backplane.tell, backplane.announce
    code = ""

    def noting_tell(keys: Any) -> None:
        result.told.setdefault(code, now())
        tell(keys)

    def noting_announce(*args: Any) -> Any:
        announced = announce(*args)
        result.told[code] = now()
        return announced

    backplane.tell, backplane.announce = noting_tell, noting_announce
    pubsub.subscribe("bare", lambda channel, data: result.received.setdefault(data[:8], now()))
    chain.batch_get(Item, [{"id": i} for i in range(job.workers * ROWS)])
    dice = random.Random(job.number)
    gc.freeze()
    pipe.send(None)
    begin = pipe.recv()
    count = int(job.seconds * job.rate / job.workers)
    cpu = time.process_time()
    moments = sorted((dice.uniform(0, job.seconds), kind) for kind in ("commit", "bare") for _ in range(count))
    for n, (moment, kind) in enumerate(moments):
        pause = begin + moment - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        if kind == "bare":
            number = job.number.to_bytes(4, "big") + n.to_bytes(4, "big")
            result.published[number] = now()
            pubsub.publish("bare", number + b"x" * 72)
            continue
        code = f"{job.number} {n}"
        with makes() as session:
            session.get_one(Item, job.number * ROWS + dice.randrange(ROWS)).code = code
            session.commit()
            result.returned[code] = now()
        for _ in range(job.reads):
            chain.get(Item, {"id": dice.randrange(job.workers * ROWS)})
    result.late = max(0.0, time.monotonic() - begin - job.seconds)
    result.cpu = time.process_time() - cpu
    pipe.send(None)
    pipe.recv()
    result.dropped = memory.dropped
    pipe.send(result)
    pipe.recv()
    chain.close()
    pubsub.close()


def run(kind: str, database: str, redis: str, options: argparse.Namespace) -> list[Result]:
    """Let all processes work, and return what they have seen."""
    engine = sa.create_engine(database)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add_all(Item(id=i, code=f"old {i}", name="x" * 50) for i in range(options.workers * ROWS))
    engine.dispose()
    RedisStore(redis).clear()
    context = multiprocessing.get_context("spawn")
    pipes = []
    for number in range(options.workers):
        mine, other = context.Pipe()
        job = Job(number, kind, database, redis, options.workers, options.rate, options.seconds, options.reads)
        context.Process(target=work, args=(job, other), daemon=True).start()
        pipes.append(mine)
    for pipe in pipes:
        assert pipe.poll(PATIENCE), "a process has not begun"
        pipe.recv()
    begin = time.monotonic() + 1.0
    for pipe in pipes:
        pipe.send(begin)
    for pipe in pipes:
        assert pipe.poll(options.seconds + PATIENCE), "a process has not ended"
        pipe.recv()
    # until everybody has heard everything
    time.sleep(2.0)
    results = []
    for pipe in pipes:
        pipe.send(None)
        results.append(pipe.recv())
    for pipe in pipes:
        pipe.send(None)
    return results


def delays(sent: list[dict[Any, int]], arrived: list[dict[Any, int]]) -> tuple[list[float], int]:
    """Return how many milliseconds each message took to each other process, and how many never came."""
    found, missing = [], 0
    for writer, own in enumerate(sent):
        for reader, seen in enumerate(arrived):
            if reader == writer:
                continue
            for what, begun in own.items():
                if what in seen:
                    found.append((seen[what] - begun) / 1e6)
                else:
                    missing += 1
    return found, missing


def percentiles(values: list[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile."""
    cuts = statistics.quantiles(values, n=100)
    return cuts[49], cuts[98]


def main() -> None:
    """Measure each kind, and print a line of a table for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rate", type=float, default=500.0, help="commits a second of all processes together")
    parser.add_argument("--reads", type=int, default=2, help="reads after each commit")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("kinds", nargs="*", help=f"of {KINDS}; by default all")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load before: {', '.join(f'{each:.2f}' for each in os.getloadavg())}")
    columns = "over, commits/s, told p50, p99, bare p50, p99, ratio p50, p99, returned p50, p99, before, cores"
    print(f"| {columns.replace(', ', ' | ')} |")
    with Postgres() as postgres, Redis() as redis:
        for _ in range(options.rounds):
            for kind in options.kinds or KINDS:
                print(line(kind, run(kind, postgres.create_database(), redis.url, options), options), flush=True)
    print(f"load after: {', '.join(f'{each:.2f}' for each in os.getloadavg())}")


def line(kind: str, results: list[Result], options: argparse.Namespace) -> str:
    """Return a line of the table."""
    dropped = [each.dropped for each in results]
    told, lost = delays([each.told for each in results], dropped)
    bare, bare_lost = delays([each.published for each in results], [each.received for each in results])
    returned, _ = delays([each.returned for each in results], dropped)
    commits = sum(len(each.returned) for each in results)
    speed = commits / (options.seconds + max(each.late for each in results))
    figures = [*percentiles(told), *percentiles(bare)]
    ratios = [figures[0] / figures[2], figures[1] / figures[3]]
    before = sum(each <= 0 for each in returned) / len(returned)
    cells = [f"{speed:.0f}", *(f"{each:.2f}" for each in (*figures, *ratios, *percentiles(returned))), f"{before:.0%}"]
    busy = sum(each.cpu for each in results) / (options.seconds + max(each.late for each in results))
    cells.append(f"{busy:.1f}")
    note = f" ({lost} drops and {bare_lost} bare messages never came)" if lost or bare_lost else ""
    return f"| {kind} | {' | '.join(cells)} |{note}"


if __name__ == "__main__":
    main()
