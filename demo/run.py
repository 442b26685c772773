"""The demonstration: make demo, or python demo/run.py.

With MEMCACHE=host:port, or several with commas between them, a memcached is the layer between memory and database.
Exits with 1 if anything read is not what the database has, and with 2 if that memcached cannot be used.
"""

from __future__ import annotations

import os
import platform
import secrets
import sqlite3
import statistics
import sys
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from time import perf_counter

import reading
import report
import sharing
import writing
from other import Other
from stack import LIFETIME, Mismatch, Stack

import stockpyle
from stockpyle.exceptions import ImproperlyConfigured, StoreError


def show(stack: Stack, other: Other | None, memcache: str) -> None:
    counts = stack.fill_database()
    print(report.paint(f"stockpyle {stockpyle.__version__}, at work on the codes that the world has agreed on", "bold"))
    print()
    named = {"Country": "countries", "Subdivision": "subdivisions", "Language": "languages", "Currency": "currencies"}
    print("  " + "   ".join(f"{number:,} {named[klass.__name__]}" for klass, number in counts.items()))
    report.note(f"pycountry {version('pycountry')}: ISO 3166-1, 3166-2, 639-3 and 4217")
    report.note(f"chain: {' -> '.join([*stack.layers, f'SQLite {sqlite3.sqlite_version}, a file'])}")
    report.note(
        f"Python {platform.python_version()}, SQLAlchemy {version('SQLAlchemy')}; "
        "medians, in µs a read; no server was started"
    )
    if other is None:
        report.note("With MEMCACHE=localhost:11211 make demo, a memcached is the layer between the two.")
    else:
        report.note(f"memcached: {memcache}; a second process with a chain of its own shares it")

    times = "twice" if other is None else "three times"
    report.heading(f"One by one: every row* by every key, read {times}, beside a bare Session each time")
    report.table(reading.titles(stack, other), [line.cells() for line in reading.one_by_one(stack, other)])
    report.note(f"* at most {reading.SAMPLE} rows a line, drawn at random.   gain: bare / again.")
    report.note("A first read by an alternate key costs two SELECTs: the row is read again under its own lease.")
    if other is not None:
        report.note("other: a first read in the second process, whose memory has nothing and whose memcached is warm;")
        report.note("       bare reads a local file within its own process, memcached is a server.")

    report.heading(f"In batches of {reading.BATCH}: every row by every key, beside a bare Session's IN (...)")
    report.table(reading.titles(stack, other), [line.cells() for line in reading.in_batches(stack, other)])

    into = reading.into_sessions(stack)
    again, bare = statistics.median(into.again), statistics.median(into.bare)
    report.heading("Into a new Session, as its own instance: chain.get(Country, key, session=session)")
    print(
        f"  from memory {report.micros(again)} µs, with session.get {report.micros(bare)} µs: "
        + report.paint(report.times(bare / again), "green")
    )

    report.heading("Writes, with an ordinary Session and the extension")
    writing.all_writes(stack)

    if other is not None:
        report.heading("Across processes: who commits here, and what the very next read there is handed")
        sharing.all_of_it(stack, other)

    report.heading("In the end")
    if other is None:
        reads, checks = reading.read_all(stack), stack.checks
    else:
        reads = sharing.read_all(stack) + other.run(sharing.read_all)
        checks = stack.checks + other.run(sharing.checks)
    report.done(
        f"{reads:,} reads by every key of every row agree with the database",
        f"{checks:,} answers were compared with what sqlite3 itself finds in the file; all were right",
    )


def main() -> int:
    start = perf_counter()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    memcache = os.environ.get("MEMCACHE", "").strip()
    # of this run alone: what another run has left there is about another database
    prefix = f"stockpyle-demo-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="stockpyle-demo-") as folder, ExitStack() as at_the_end:
        try:
            stack = Stack(Path(folder), memcache, prefix)
            at_the_end.callback(stack.close)
            for layer in stack.layers.values():
                layer.clear()
        except (ImproperlyConfigured, StoreError) as error:
            print(report.paint(f"MEMCACHE={memcache} cannot be used: {error}", "red"), file=sys.stderr)
            return 2
        other = Other(Path(folder), memcache, prefix) if memcache else None
        if other is not None:
            at_the_end.callback(other.close)
        try:
            show(stack, other, memcache)
        except Mismatch as error:
            print(report.paint(f"\nWRONG  {error}", "red"), file=sys.stderr)
            return 1
    print()
    if memcache:
        report.note(f"the objects that this left in memcached expire within {LIFETIME // 60} minutes")
    report.note(f"{perf_counter() - start:.1f} s; the database file is gone again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
