"""A hit in process memory of a mapped row: as an instance of a Session, and detached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from sqlalchemy.orm import Session

from benchmarks.bench import Bench
from benchmarks.contestants import Role, Timed
from benchmarks.databases import engine_for
from benchmarks.measurements import Goal, Measurement
from benchmarks.peers.instances import in_memory
from benchmarks.shapes import create, shape
from stockpyle.stores import ChainedStore, ProcessMemoryStore, SqlAlchemyStore


def measurements(bench: Bench) -> Iterator[Measurement]:
    drawn, url = shape(bench.seed, "mapped hit"), bench.sqlite()
    klass, keys = drawn.mapped(), drawn.identity
    picks = list(range(1, bench.sized(1000, 1000, 10) + 1))
    create(url, drawn, len(picks))
    bench.dice("mapped hit").shuffle(picks)
    engine = engine_for(url)
    memory = ProcessMemoryStore(maxsize=2 * len(picks), lifetime=3600)
    chain = ChainedStore([memory, SqlAlchemyStore(engine=engine)])
    chain.batch_get(klass, [{keys.names[0]: pick} for pick in picks])
    has_dogpile = bench.has("dogpile.cache")
    for into_session in (True, False):
        with ExitStack() as stack, Session(engine) as session:
            call = f"get({keys.klass}, {keys.mapping}{', session=session' if into_session else ''})"
            names = {"get": chain.get, keys.klass: klass, "session": session}
            ours = Timed("stockpyle", Role.OURS, call, names, picks, keys.target, drawn.is_row(keys))
            peers = bench.elsewhere(
                stack, in_memory, drawn, url, picks, into_session=into_session, has_dogpile=has_dogpile
            )
            title = "into a Session" if into_session else "detached"
            goals = [Goal(1.9, "limit", note="1.0 us where that takes 0.52"), Goal(1 / 7.4, "peer")]
            before = memory.stats.misses
            yield Measurement(f"memory hit of a row, {title}", [ours, *peers], goals if into_session else goals[:1])
            assert memory.stats.misses == before, "a hit was none"
