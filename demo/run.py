"""The demonstration: make demo, or python demo/run.py. Exits with 1 if anything read is not what the database has."""

from __future__ import annotations

import platform
import sqlite3
import statistics
import sys
import tempfile
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from time import perf_counter

import reading
import report
import writing
from stack import Mismatch, Stack

import stockpyle


def show(stack: Stack) -> None:
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

    report.heading("One by one: every row* by every key, read twice, beside a bare Session each time")
    report.table(reading.titles(stack), [line.cells() for line in reading.one_by_one(stack)])
    report.note(f"* at most {reading.SAMPLE} rows a line, drawn at random.   gain: bare / again.")
    report.note("A first read by an alternate key costs two SELECTs: the row is read again under its own lease.")

    report.heading(f"In batches of {reading.BATCH}: every row by every key, beside a bare Session's IN (...)")
    report.table(reading.titles(stack), [line.cells() for line in reading.in_batches(stack)])

    into = reading.into_sessions(stack)
    again, bare = statistics.median(into.again), statistics.median(into.bare)
    report.heading("Into a new Session, as its own instance: chain.get(Country, key, session=session)")
    print(
        f"  from memory {report.micros(again)} µs, with session.get {report.micros(bare)} µs: "
        + report.paint(report.times(bare / again), "green")
    )

    report.heading("Writes, with an ordinary Session and the extension")
    writing.all_writes(stack)

    report.heading("In the end")
    reads = reading.read_all(stack)
    report.done(
        f"{reads:,} reads by every key of every row agree with the database",
        f"{stack.checks:,} answers were compared with what sqlite3 itself finds in the file; all were right",
    )


def main() -> int:
    start = perf_counter()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    with tempfile.TemporaryDirectory(prefix="stockpyle-demo-") as folder:
        stack = Stack(Path(folder))
        try:
            show(stack)
        except Mismatch as error:
            print(report.paint(f"\nWRONG  {error}", "red"), file=sys.stderr)
            return 1
        finally:
            stack.close()
    print()
    report.note(f"{perf_counter() - start:.1f} s; the database file is gone again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
