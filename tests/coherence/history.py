"""A history: what one process did and saw, on disk as it happens.

A file of frames, each the length and a msgpack list whose first item tells what it is. Reads wait in a buffer; what
must survive a kill -9 (that a commit is about to be sent) goes to the operating system before it happens. Times are
of the monotonic clock, in nanoseconds, which all processes of a machine share.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

READ = 0
"""begin, end, number of the class, [number of the key, its value, what was seen or None], ..."""
INTENT = 1
"""time, transaction, is outside SQLAlchemy: its commit is sent from now on."""
RETURNED = 2
"""time, transaction: its commit has returned."""
FAILED = 3
"""time, transaction, error: its commit has raised."""
COUNTS = 4
"""time, phase is quiet, {what: how many} since the last such record."""
FAULT = 5
"""begin, end, name, detail."""
OWED = 6
"""time, transaction, not even locked, keys: the cache could not be told of it, after the commit or even before it."""
DELIVERED = 7
"""time, keys: now the cache knows all that it was owed about them."""
WITNESSED = 8
"""time, transaction: the database has it."""
OWN = 9
"""time, number of the key, its value, what its own transaction wrote, what it then saw; number -1: of a statement, how
many rows it wrote, and was told."""
BROKEN = 10
"""time, traceback: the process cannot go on."""
START = 11
"""time, slot: a worker begins."""
READ_FAILED = 12
"""time, error."""
CALLS = 13
"""begin, end: of something else in which the cache may have been filled."""

Frame = list[Any]

_LENGTH = struct.Struct("<I")
_encoder = msgspec.msgpack.Encoder()


class HistoryWriter:
    """Writes one process's history, from any of its threads."""

    LIMIT = 64 * 1024

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._buffer = bytearray()
        self._mutex = threading.RLock()

    def add(self, *frame: Any) -> None:
        """Write a frame, in a while."""
        with self._mutex:
            data = _encoder.encode(frame)
            self._buffer += _LENGTH.pack(len(data))
            self._buffer += data
            if len(self._buffer) > self.LIMIT:
                self.flush()

    def add_now(self, kind: int, *rest: Any) -> int:
        """Write a frame with the present time, so that nothing but the machine's end can lose it; return the time."""
        now = time.monotonic_ns()
        self.add(kind, now, *rest)
        self.flush()
        return now

    def flush(self) -> None:
        """Hand all to the operating system."""
        with self._mutex:
            view = memoryview(self._buffer)
            while view:
                view = view[os.write(self._file, view) :]
            view.release()
            self._buffer = bytearray()

    def close(self) -> None:
        """End the history."""
        self.flush()
        os.close(self._file)


def read_history(path: Path) -> Iterator[Frame]:
    """Yield the frames of a file; one that a kill has cut off at the end is left out."""
    decoder = msgspec.msgpack.Decoder()
    with path.open("rb") as file:
        while len(head := file.read(_LENGTH.size)) == _LENGTH.size:
            (length,) = _LENGTH.unpack(head)
            data = file.read(length)
            if len(data) < length:
                return
            yield decoder.decode(data)


def write_history(path: Path, frames: Sequence[Sequence[Any]]) -> None:
    """Write a whole history; for tests."""
    writer = HistoryWriter(path)
    for frame in frames:
        writer.add(*frame)
    writer.close()
