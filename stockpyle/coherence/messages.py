"""What backplanes tell each other, as bytes: keys and classes that have changed, and which commits are settled.

A message is a msgpack list of a version and the fields of News; key values are those of stockpyle.packing. Nothing in
it names code, and nothing of it is run: whoever can send messages can make processes forget what they keep, and no
more. What cannot be read raises Unreadable, and its receiver forgets everything, for it may have been about anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from stockpyle.keys import Ident, Key
from stockpyle.packing import Packer, Unpackable
from stockpyle.values import normalise

VERSION = 1

LARGEST = 1 << 20
"""How many bytes a message may have where the channel itself knows no bound."""


class Unreadable(Exception):
    """These bytes are no message that this version of stockpyle knows."""


@dataclass(slots=True)
class Changes:
    """What has changed: keys by their idents, and whole classes by the names of their spaces; or anything at all.

    settled are the commits, by the numbers under which they were announced, of which nothing is left to be done.
    """

    idents: dict[Ident, None] = field(default_factory=dict)
    spaces: dict[str, None] = field(default_factory=dict)
    everything: bool = False
    settled: dict[bytes, None] = field(default_factory=dict)

    @staticmethod
    def of(keys: Iterable[Key]) -> Changes:
        """Return what these keys and epochs stand for."""
        made = Changes()
        for key in keys:
            if key.is_epoch:
                made.spaces[key.spec.space] = None
            else:
                made.idents[key.ident] = None
        return made

    def __bool__(self) -> bool:
        return bool(self.idents or self.spaces or self.everything or self.settled)

    def add(self, others: Changes, limit: int) -> None:
        """Add other changes. Of more than `limit` keys only the classes are kept, of as many classes only that."""
        self.idents.update(others.idents)
        self.spaces.update(others.spaces)
        self.settled.update(others.settled)
        self.everything = self.everything or others.everything
        if len(self.idents) > limit:
            self.widen()
        if len(self.spaces) > limit:
            self.everything = True
        if self.everything:
            self.idents.clear()
            self.spaces.clear()
        # who does not hear that a commit is settled does what is left to be done once more
        for old in list(self.settled)[: max(0, len(self.settled) - limit)]:
            del self.settled[old]

    def widen(self) -> None:
        """Let each key stand for its whole class."""
        self.spaces.update((ident[0], None) for ident in self.idents)
        self.idents.clear()

    def halves(self) -> tuple[Changes, Changes]:
        """Return the same in two parts, neither of which is empty if there were two things at least."""
        first, second = Changes(everything=self.everything), Changes()
        things: list[tuple[str, Any]] = []
        for name in ("idents", "spaces", "settled"):
            things += [(name, each) for each in getattr(self, name)]
        for number, (name, each) in enumerate(things):
            getattr(first if 2 * number < len(things) else second, name)[each] = None
        return first, second

    @property
    def size(self) -> int:
        """How many things have changed."""
        return len(self.idents) + len(self.spaces) + len(self.settled)


@dataclass(slots=True)
class News:
    """A message. origin: who sends it, or b"" if it is meant for the sender, too. announced: the number of a commit.

    A commit is announced from inside its transaction: by when it is heard it has happened, and it is settled later.
    """

    changes: Changes
    origin: bytes = b""
    announced: bytes = b""


class Messages:
    """Writes and reads messages of at most `largest` bytes."""

    def __init__(self, largest: int | None = None) -> None:
        self._largest = LARGEST if largest is None else min(largest, LARGEST)
        self._packer = Packer()

    def write(self, news: News) -> Iterator[bytes]:
        """Return as many messages as it takes. A key that cannot be sent is sent as its class.

        An announcement is one message, with whole classes in it if its keys do not fit.
        """
        data = self._packed(news)
        if len(data) <= self._largest:
            yield data
            return
        changes = news.changes
        if changes.size > 1 and not news.announced:
            for half in changes.halves():
                yield from self.write(News(half, news.origin))
            return
        if changes.idents:
            changes.widen()
        else:
            changes = Changes(everything=True)
        yield from self.write(News(changes, news.origin, news.announced))

    def _packed(self, news: News) -> bytes:
        changes = news.changes
        groups: dict[tuple[str, tuple[str, ...]], list[bytes]] = {}
        spaces = dict(changes.spaces)
        for space, names, values in changes.idents:
            try:
                groups.setdefault((space, names), []).append(self._packer.pack(values))
            except Unpackable:
                # an Enum, say: only the class could tell what it is
                spaces[space] = None
        packed = [[space, list(names), values] for (space, names), values in groups.items() if space not in spaces]
        return self._packer.pack(
            [VERSION, news.origin, packed, list(spaces), changes.everything, list(changes.settled), news.announced]
        )

    def read(self, data: bytes) -> News:
        """Return the message that these bytes are; raises Unreadable."""
        try:
            version, origin, groups, spaces, everything, settled, announced = self._packer.unpack(data)
            if version != VERSION:
                raise Unreadable(f"version {version!r}")
            changes = Changes(everything=_a(bool, everything))
            for space, names, packed in groups:
                own = tuple([_a(str, name) for name in names])
                for each in packed:
                    values = tuple([normalise(value) for value in self._packer.unpack(each)])
                    if len(values) != len(own):
                        raise Unreadable(f"{len(values)} values for {own}")
                    changes.idents[_a(str, space), own, values] = None
            changes.spaces.update((_a(str, space), None) for space in spaces)
            changes.settled.update((_a(bytes, each), None) for each in settled)
            return News(changes, _a(bytes, origin), _a(bytes, announced))
        except Unreadable:
            raise
        except Exception as error:  # bytes of any origin may raise any error
            raise Unreadable(repr(error)) from error


def _a(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise Unreadable(f"{value!r} is no {kind.__name__}")
    return value
