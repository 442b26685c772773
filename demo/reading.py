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
from stack import Mismatch, Row, Stack, bare_get, key_of

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
    again: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)

    def cells(self) -> list[str]:
        first, again, bare = (statistics.median(times) for times in (self.first, self.again, self.bare))
        return [
            self.what,
            self.by,
            report.count(self.reads),
            *(report.count(hits) for hits in self.layers.values()),
            report.count(self.database),
            report.count(self.statements),
            report.micros(first),
            report.micros(again),
            report.micros(bare),
            report.times(bare / again),
        ]


def titles(stack: Stack) -> list[str]:
    layers = [f"by {name}" for name in stack.layers]
    return ["what", "by its", "reads", *layers, "by db", "SELECTs", "1st µs", "again µs", "bare µs", "gain"]


def one_by_one(stack: Stack) -> list[Line]:
    return [_measure(stack, klass, names, size=1) for klass in KEYS for names in KEYS[klass]]


def in_batches(stack: Stack) -> list[Line]:
    return [_measure(stack, klass, names, size=BATCH) for klass in KEYS for names in KEYS[klass]]


def _measure(stack: Stack, klass: type[Any], names: tuple[str, ...], size: int) -> Line:
    """Empty the chain, then read everything twice: first from the database, then from the layers above it."""
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
    if line.statements != statements:
        raise Mismatch(f"{line.what} by {line.by}: what was just read went to the database again")
    return line


def _from_chain(stack: Stack, line: Line, klass: type[Any], asked: list[Asked], times: list[float]) -> None:
    hits = {name: layer.stats.hits for name, layer in stack.layers.items()}
    statements = stack.statements
    found, seconds = _timed(lambda: stack.read(klass, [key for key, _ in asked]))
    times.append(seconds / len(asked))
    line.reads += len(asked)
    line.database += len(asked)
    line.statements += stack.statements - statements
    for name, layer in stack.layers.items():
        answered = layer.stats.hits - hits[name]
        line.layers[name] = line.layers.get(name, 0) + answered
        line.database -= answered
    stack.check(f"{line.what} by {line.by} from the chain", found, [row for _, row in asked])


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


def read_all(stack: Stack) -> int:
    """Read every row by every key in batches and compare; return how many reads that were."""
    reads = 0
    for klass, all_keys in KEYS.items():
        for names in all_keys:
            asked = _keys(stack, klass, names)
            found = stack.chain.batch_get(klass, [key for key, _ in asked])
            stack.check(f"{klass.__name__} by {' + '.join(names)}", found, [row for _, row in asked])
            reads += len(asked)
    return reads
