"""Batches of commands, cut into chunks that are sent one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def chunks_of(commands: Sequence[bytes], most: int, size: int) -> Iterator[Sequence[bytes]]:
    """Yield the commands in chunks of at most so many, and of so many bytes, unless a single one is longer."""
    if len(commands) <= most and sum(map(len, commands)) <= size:
        if commands:
            yield commands
        return
    chunk: list[bytes] = []
    taken = 0
    for command in commands:
        if chunk and (len(chunk) >= most or taken + len(command) > size):
            yield chunk
            chunk, taken = [], 0
        chunk.append(command)
        taken += len(command)
    yield chunk
