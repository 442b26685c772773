"""What readers may be handed of plain objects that several processes put, delete, and find by two keys.

Nobody tells in which order writes were made that overlapped. So only this is wrong: something that was over, whatever
that order was, before the reader asked; something that nobody had written; and nothing, where something surely was.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

NEVER = float("inf")


@dataclass(slots=True)
class Write:
    """A put, or a delete if there is no e-mail address; end: when it had returned, NEVER if that is not known."""

    begin: float
    end: float
    ident: int
    email: str | None
    version: int


@dataclass(slots=True)
class Read:
    """By an id (an int) or an e-mail address; found: id, address and version, or None."""

    begin: float
    end: float
    asked: int | str
    found: tuple[int, str, int] | None


@dataclass
class Judgement:
    """What was wrong, by kind and in words, and at how many reads somebody wrote the object meanwhile."""

    kinds: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    reads: int = 0
    overlaps: int = 0

    def wrong(self, kind: str, read: Read, why: str) -> None:
        """Add something."""
        self.kinds[kind] += 1
        self.told.append(f"{kind}: {read.asked!r} at {read.begin:.0f}..{read.end:.0f} found {read.found}: {why}")


def judge(writes: Iterable[Write], reads: Iterable[Read]) -> Judgement:
    """Judge all reads."""
    by_ident: dict[int | None, list[Write]] = defaultdict(list)
    by_email: dict[str | None, list[Write]] = defaultdict(list)
    puts: dict[int, Write] = {}
    for write in writes:
        by_ident[write.ident].append(write)
        if write.email is not None:
            by_email[write.email].append(write)
            puts[write.version] = write
    reads = list(reads)
    for read in reads:
        if read.found is not None and read.found[2] in puts:
            # what was seen was written by then, though its writer was told nothing
            put = puts[read.found[2]]
            put.end = min(put.end, read.end)
    judgement = Judgement()
    for read in reads:
        judgement.reads += 1
        by_id = isinstance(read.asked, int)
        near = by_ident[read.asked] if by_id else by_email[str(read.asked)]  # type: ignore[index]
        judgement.overlaps += any(write.begin <= read.end and write.end >= read.begin for write in near)
        if read.found is None:
            why = _why_not_absent(read, near, by_ident) if not by_id else _why_not_deleted(read, near)
            if why:
                judgement.wrong("absent", read, why)
            continue
        ident, email, version = read.found
        put = puts.get(version, Write(NEVER, NEVER, ident, email, version))
        if put.begin > read.end:
            judgement.wrong("dirty", read, "nobody had put it by then")
        elif (put.ident, put.email) != (ident, email) or read.asked != (ident if by_id else email):
            judgement.wrong("wrong object", read, f"it was put as {put.ident}, {put.email!r}")
        else:
            later = [
                write
                for write in (*by_ident[ident], *(() if by_id else near))
                if write.begin > put.end and write.end < read.begin
            ]
            if later:
                judgement.wrong("stale", read, f"{later[0]} was over before, and began after {put} had ended")
    return judgement


def _why_not_deleted(read: Read, own: list[Write]) -> str:
    """The id was there, unless it is not known what was last."""
    puts = [write for write in own if write.email is not None and write.end < read.begin]
    for end in [-NEVER, *(write.end for write in own if write.email is None and write.begin <= read.end)]:
        if not any(put.begin > end for put in puts):
            return ""
    return f"it was put again: {puts[-1]}"


def _why_not_absent(read: Read, same: list[Write], by_ident: dict[int | None, list[Write]]) -> str:
    """The address was there if somebody had put it, and nobody has since touched it, or who had it."""
    for put in same:
        if put.end < read.begin:
            others = (write for write in (*same, *by_ident[put.ident]) if write is not put)
            if all(write.end < put.begin or write.begin > read.end for write in others):
                return f"{put} was the last"
    return ""
