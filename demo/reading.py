"""Reads by every key, one by one and in batches: which layer answers, in what time, beside a bare Session."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import report
from models import KEYS, Country
from other import Other
from stack import Mismatch, Row, Stack, bare_get, key_of, row_of

Asked = tuple[dict[str, Any], Row]

SAMPLE = 500
"""How many rows are read one by one by each key, at most; the batches read all of them."""

BATCH = 500


@dataclass
class Line:
    """What was seen of one way to read, in seconds a read."""

    what: str
    by: str
    reads: int = 0
    database: int = 0
    layers: dict[str, int] = field(default_factory=dict)
    statements: int = 0
    first: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)

    def cells(self) -> list[str]:
        again, bare = statistics.median(self.again), statistics.median(self.bare)
        times = [times for times in (self.first, self.other, self.again, self.bare) if times]
        return [
            self.what,
            self.by,
            *([] if self.other else [report.count(self.reads)]),
            *(report.count(hits) for hits in self.layers.values()),
            report.count(self.database),
            report.count(self.statements),
            *(report.micros(statistics.median(each)) for each in times),
            report.times(bare / again),
        ]


def titles(stack: Stack, other: Other | None) -> list[str]:
    layers = [f"by {name}" for name in stack.layers]
    if other is None:
        return ["what", "by its", "reads", *layers, "by db", "SELECTs", "1st µs", "again µs", "bare µs", "gain"]
    narrow = ["by db", "SQL", "1st µs", "other µs", "again µs", "bare µs"]
    return ["what", "by its", *(title.replace(" ", "\n") for title in [*layers, *narrow]), "gain"]


def one_by_one(stack: Stack, other: Other | None) -> list[Line]:
    return [_measure(stack, other, klass, names, size=1) for klass in KEYS for names in KEYS[klass]]


def in_batches(stack: Stack, other: Other | None) -> list[Line]:
    return [_measure(stack, other, klass, names, size=BATCH) for klass in KEYS for names in KEYS[klass]]


def _measure(stack: Stack, other: Other | None, klass: type[Any], names: tuple[str, ...], size: int) -> Line:
    """Empty the chain, then read everything: first from the database, and again from the layers above it.

    The other process, if there is one, reads in between.
    """
    asked = _keys(stack, klass, names)
    random.Random(3166).shuffle(asked)
    if size == 1:
        del asked[SAMPLE:]
    batches = [asked[start : start + size] for start in range(0, len(asked), size)]
    line = Line(klass.__name__, " + ".join(names))
    stack.chain.clear()
    for times in (line.first, line.again):
        statements = line.statements
        for number, batch in enumerate(batches):
            # by turns, so that neither always finds the processor's caches warmed by the other
            for read in (_from_chain, _from_session) if number % 2 else (_from_session, _from_chain):
                read(stack, line, klass, batch, times)
        if other is not None and not line.other:
            _from_other(stack, other, line, klass, batches)
    if line.statements != statements:
        raise Mismatch(f"{line.what} by {line.by}: what was just read went to the database again")
    return line


def _from_chain(stack: Stack, line: Line, klass: type[Any], asked: list[Asked], times: list[float]) -> None:
    hits, statements = stack.hits(), stack.statements
    found, seconds = _timed(lambda: stack.read(klass, [key for key, _ in asked]))
    times.append(seconds / len(asked))
    _count(line, len(asked), _since(stack, hits), stack.statements - statements)
    stack.check(f"{line.what} by {line.by} from the chain", found, [row for _, row in asked])


def _count(line: Line, reads: int, hits: dict[str, int], statements: int) -> None:
    line.reads += reads
    line.database += reads - sum(hits.values())
    line.statements += statements
    for name, answered in hits.items():
        line.layers[name] = line.layers.get(name, 0) + answered


def _since(stack: Stack, hits: dict[str, int]) -> dict[str, int]:
    return {name: now - hits[name] for name, now in stack.hits().items()}


def _from_other(stack: Stack, other: Other, line: Line, klass: type[Any], batches: list[list[Asked]]) -> None:
    keys = [[key for key, _ in asked] for asked in batches]
    found, line.other, hits, statements = other.run(_with_cold_memory, klass, keys)
    _count(line, len(found), hits, statements)
    stack.check_rows(
        f"{line.what} by {line.by} in the other process", found, [row for each in batches for _, row in each]
    )


def _with_cold_memory(
    stack: Stack, klass: type[Any], batches: list[list[dict[str, Any]]]
) -> tuple[list[Row | None], list[float], dict[str, int], int]:
    """In the other process: read what its own memory has nothing of; return rows, seconds a read, hits, statements."""
    stack.layers["memory"].clear()
    hits, statements = stack.hits(), stack.statements
    rows, times = [], []
    for keys in batches:
        found, seconds = _timed(lambda keys=keys: stack.read(klass, keys))
        rows += [row_of(obj) for obj in found]
        times.append(seconds / len(keys))
    return rows, times, _since(stack, hits), stack.statements - statements


def _from_session(stack: Stack, line: Line, klass: type[Any], asked: list[Asked], times: list[float]) -> None:
    found, seconds = _timed(lambda: stack.bare_read(klass, [key for key, _ in asked]))
    line.bare.append(seconds / len(asked))
    stack.check(f"{line.what} by {line.by} from a Session", found, [row for _, row in asked])


def into_sessions(stack: Stack) -> Line:
    """Read countries into sessions of the caller's own, from memory and without it."""
    line = Line("Country", "alpha_2, into a session")
    for key, row in _keys(stack, Country, ("alpha_2",)):
        stack.chain.get(Country, key)
        for session_of, seconds in ((stack.session, line.again), (stack.bare_session, line.bare)):
            start = perf_counter()
            with session_of() as session:
                through = stack.chain.get(Country, key, session=session) if seconds is line.again else None
                found = through or bare_get(session, Country, key)
                seconds.append(perf_counter() - start)
                stack.check("into a session", [found], [row])
                if found not in session:
                    raise Mismatch(f"{found} was read into a session and is not in it")
    return line


def _timed(read: Callable[[], list[Any]]) -> tuple[list[Any], float]:
    start = perf_counter()
    found = read()
    return found, perf_counter() - start


def _keys(stack: Stack, klass: type[Any], names: tuple[str, ...]) -> list[Asked]:
    """Return the rows of a class that have this key, each with it."""
    return [(key, row) for row in stack.rows(klass) if (key := key_of(klass, row, names)) is not None]


def read_all(stack: Stack, *, memory: bool = True) -> int:
    """Read every row by every key in batches and compare; return how many reads that were."""
    chain = stack.chain if memory else stack.without_memory
    reads = 0
    for klass, all_keys in KEYS.items():
        for names in all_keys:
            asked = _keys(stack, klass, names)
            found = chain.batch_get(klass, [key for key, _ in asked])
            stack.check(f"{klass.__name__} by {' + '.join(names)}", found, [row for _, row in asked])
            reads += len(asked)
    return reads
