"""The protocol of leases and locks on Redis, or Valkey: one server, one that Sentinel names, or a cluster.

Under a key stands a record, an alias, "known absent", a lease or a lock; "if unchanged" compares the bytes of one's own
lease or lock, which are random. Each step is a script that Redis runs at once. All keys of a call go in one pipeline,
and so cost one round trip (in a cluster: one a node).

An epoch lives until somebody changes it. So that no epoch outlives the server's memory, see RedisServer.

The revision of a record is its epoch and its token, which is drawn anew for each writing. A server that comes back with
what it had saved has old tokens, but over another epoch.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stockpyle.codecs import Kind, RecordCodec
from stockpyle.coherence.writer import LOCK_SECONDS
from stockpyle.exceptions import StoreError
from stockpyle.keys import Key, KeySpec
from stockpyle.records import LOCKED, MISS, Alias, Busy, Found, Lease, Lock, Record
from stockpyle.redis.pipes import Pipe
from stockpyle.redis.scripts import (
    CLOSE_EPOCH,
    EPOCH,
    LEASE,
    LOCK,
    MAKE_EPOCH,
    MARK_BYTES,
    OPEN_EPOCH,
    PUBLISH,
    RECORD,
    SWAP,
    TAKE_LEASE,
    TAKE_LOCK,
    new_epoch,
)
from stockpyle.redis.scripts import CLOSED as MARKS
from stockpyle.redis.server import RedisServer
from stockpyle.remote.epochs import CLOSED, EPOCH_BYTES, NO_EPOCH, Epoch, Epochs
from stockpyle.remote.tier import BusyElsewhere, RemoteTier, Usual
from stockpyle.stats import Stats

TOKEN_BYTES = 12
HEAD = 9
"""As many bytes of a record are its kind and its token."""

LONGEST = 2**53
"""Milliseconds: more than anybody lives, and few enough for Lua's numbers."""

_MGET = b"*4\r\n$4\r\nMGET\r\n$"
_STRINGS = b"*3\r\n$"
_GETRANGE = b"*4\r\n$8\r\nGETRANGE\r\n$"
_TO_HEAD = b"\r\n$1\r\n0\r\n$1\r\n%d\r\n*3\r\n$4\r\nMGET" % (HEAD - 1)

_NOTHING = (b"", b"0")
"""In place of a value, and for how long: its key is to be empty."""


@dataclass(slots=True)
class Token:
    """What a lease or a lock is known by: the bytes that stand under its key, and the epoch it was taken in.

    text is the key's, if it was at hand.
    """

    value: bytes
    epoch: bytes | None = None
    text: bytes = b""


class RedisTier(RemoteTier):
    """A Tier on one server, or on what behaves like one."""

    server: RedisServer

    def __init__(
        self,
        server: RedisServer,
        prefix: str,
        codec: RecordCodec,
        stats: Stats,
        lease_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(server, "Redis", "RedisStore", prefix, codec, stats, clock)
        self._everything = server.everything
        self._lease_for = _milliseconds(lease_seconds)

    def ping(self) -> None:
        """Raise StoreUnavailable if the server does not answer."""
        self.server.call("ping", lambda: self.server.get([self._everything]))

    # reading

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """See Tier.read."""
        return self._read_all(keys, lease, revised=False)

    def read_one(self, key: Key, *, lease: bool = True) -> Found:
        """Return what read() does of one key, sooner if it is a record, or an alias of one."""
        usual = self._usual.get(key.spec)
        if usual is None or not self.server.can_be_asked:
            return self.read([key], lease=lease)[0]
        text = self._text(key)

        def take(value: bytes) -> Any:
            if not value.startswith(RECORD):
                return None
            data = value[HEAD:]
            now = self._clock()
            row = usual.read(key, data, now) if usual.read else None
            return row or self._codec.live(key, data, usual.epoch, now)

        asks = b"%b%d\r\n%b%b" % (_MGET, len(text), text, usual.asks)

        found: Any = self.server.ask(self._three, Pipe.value, asks, _STRINGS, usual.tail, take)
        if found is None:
            return self.read([key], lease=lease)[0]
        if not isinstance(found, list):
            answer: Found = found
            return answer
        return self.server.call("read", lambda: self._judge_all([text], [key], lease, found))[0]

    def _three(self, pipe: Pipe) -> list[bytes | None]:
        return self.server.strings(pipe.replies(1)[0], 3)

    def read_revised(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """See Revised.read_revised."""
        return self._read_all(keys, lease, revised=True)

    def revisions(self, keys: Sequence[Key], expected: Sequence[bytes] = ()) -> Sequence[bytes | None]:
        """See Revised.revisions."""
        epochs = Epochs(self._everything, self._spaces(keys))
        asked = epochs.keys
        texts = self._texts(keys)
        usual = _usual_answer(expected, asked)
        told = self.server.call("read", lambda: self.server.heads(texts, HEAD, asked, usual))
        if told is None:
            return expected
        return self._revisions_of(keys, epochs, *told)

    @staticmethod
    def _revisions_of(
        keys: Sequence[Key], epochs: Epochs, heads: Sequence[bytes], values: Sequence[Any]
    ) -> list[bytes | None]:
        for text, value in zip(epochs.keys, values, strict=True):
            epochs.know(text, _epoch(value))
        return [_revision(epochs.usable(key.spec.space), head) for key, head in zip(keys, heads, strict=True)]

    def has_revision(self, key: Key, revision: bytes) -> bool:
        """True if that is the revision of a key."""
        usual = self._usual.get(key.spec)
        if usual is None or not self.server.can_be_asked or revision[: len(usual.epoch)] != usual.epoch:
            return self.revisions([key], [revision])[0] == revision
        text = self._text(key)
        asks = b"%b%d\r\n%b%b%b" % (_GETRANGE, len(text), text, _TO_HEAD, usual.asks)
        expected = b"$%d\r\n%b%b\r\n*2%b" % (HEAD, RECORD, revision[len(usual.epoch) :], usual.tail)

        def rest(pipe: Pipe) -> bool:
            head, told = pipe.replies(2)
            values = self.server.strings(told, 2)
            if not isinstance(head, bytes):
                return False
            epochs = Epochs(self._everything, self._spaces([key]))
            return self._revisions_of([key], epochs, [head], values)[0] == revision

        told = self.server.ask(rest, Pipe.tells, asks, expected)
        return self.revisions([key], [revision])[0] == revision if told is None else told

    def _read_all(self, keys: Sequence[Key], lease: bool, *, revised: bool) -> list[Found]:
        texts = self._texts(keys)
        return self.server.call("read", lambda: self._read(texts, keys, lease, revised))

    def _read(self, texts: Sequence[bytes], keys: Sequence[Key], lease: bool, revised: bool) -> list[Found]:
        values = self.server.get([*texts, *Epochs(self._everything, self._spaces(keys)).keys])
        return self._judge_all(texts, keys, lease, values, revised=revised)

    def _judge_all(
        self,
        texts: Sequence[bytes],
        keys: Sequence[Key],
        lease: bool,
        values: Sequence[bytes | None],
        *,
        revised: bool = False,
    ) -> list[Found]:
        """What a reader takes of all that it was told; and the leases of what is missing."""
        epochs = Epochs(self._everything, self._spaces(keys))
        for text, value in zip(epochs.keys, values[len(texts) :], strict=True):
            epochs.know(text, _epoch(value))
        epoch_of = epochs.by_space()
        busy = BusyElsewhere()
        now = self._clock()
        found: list[Found] = []
        left: dict[bytes, tuple[Key, bytes]] = {}
        spec, read = None, None
        for text, key, value in zip(texts, keys, values, strict=False):
            answer: Found | None = None
            if value:
                if key.spec is not spec:
                    spec, usual = key.spec, self._usual_for(key.spec, epoch_of[key.spec.space])
                    read = None if usual is None else usual.read
                if read is not None and value.startswith(RECORD):
                    answer = read(key, value[HEAD:], now)
            if answer is None and value is not None:
                answer = self._judge(key, value, epoch_of[key.spec.space], busy)
            if answer is None:
                left[text] = key, value or b""
                answer = MISS
            elif revised and value and isinstance(answer, Record):
                answer.revision = _revision(epochs.usable(key.spec.space), value[:HEAD])
            found.append(answer)
        if left and lease:
            leased = self._lease(left, epochs, busy)
            return [leased.get(text, answer) for text, answer in zip(texts, found, strict=True)]
        return found

    def _usual_of(self, spec: KeySpec, epoch: bytes) -> Usual:
        own = self._epoch_texts[spec.space]
        asks = b"\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(self._everything), self._everything, len(own), own)
        tail = b"\r\n" + _both(epoch)
        return Usual(epoch, self._codec.reader(spec, epoch), asks, tail)

    def _judge(self, key: Key, value: bytes, epoch: Epoch, busy: Busy, *, again: bool = False) -> Found | None:
        """What is there, as a reader takes it; None if it is of no use. again: this reader has been told before."""
        kind = value[:1]
        if kind == RECORD and isinstance(epoch, bytes):
            return self._decode(key, value[HEAD:], epoch, again=again)
        if epoch is CLOSED or kind == LOCK:
            return LOCKED
        if kind == LEASE:
            return busy
        if not isinstance(epoch, bytes):
            return None
        return self._decode(key, value, epoch, again=again)

    def _lease(self, left: Mapping[bytes, tuple[Key, bytes]], epochs: Epochs, busy: Busy) -> dict[bytes, Found]:
        """Take the leases of what is missing, or in place of what is there and of no use."""
        makes = self._makes(epochs)
        mine = _drawn(LEASE, left)
        takes = [(TAKE_LEASE, text, mine[text], self._lease_for, useless) for text, (_, useless) in left.items()]
        replies = self.server.run([*makes, *takes])
        self._learn(epochs, replies)
        found: dict[bytes, Found] = {}
        unwanted = []
        for (text, (key, useless)), reply in zip(left.items(), replies[len(makes) :], strict=True):
            epoch = epochs.of(key.spec.space)
            if isinstance(reply, Exception):
                # no room for a lease
                found[text] = MISS
            elif reply is not None:
                answer = self._judge(key, reply, epoch, busy, again=reply == useless)
                found[text] = MISS if answer is None else answer
            elif isinstance(epoch, bytes):
                found[text] = Lease(key, Token(mine[text], epoch))
            else:
                found[text] = LOCKED if epoch is CLOSED else MISS
                unwanted.append((SWAP, text, mine[text], *_NOTHING))
        self.server.run(unwanted)
        return found

    # filling

    def fill(self, leased: Sequence[tuple[Lease, Record | Alias | None]]) -> int:
        """See Tier.fill."""
        commands = [
            (SWAP, self._text(lease.key), lease.token.value, *self._value(lease.key, value, lease.token.epoch))
            for lease, value in leased
        ]
        replies = self.server.call("fill", lambda: self.server.run(commands))
        return sum(reply == 1 and command[3] != b"" for command, reply in zip(commands, replies, strict=True))

    # writing

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> list[Lock]:
        """See Tier.lock."""
        loose = {key.ident for key in without_row_lock}
        lasts = _milliseconds(seconds)
        epochs_of = self._spaces([key for key in keys if not key.is_epoch])
        self._spaces([key for key in keys if key.is_epoch])
        texts = self._texts(keys)
        mine = _drawn(LOCK, [text for text, key in zip(texts, keys, strict=True) if not key.is_epoch])
        marks = {text: secrets.token_bytes(MARK_BYTES) for text, key in zip(texts, keys, strict=True) if key.is_epoch}

        def work() -> list[Lock]:
            epochs = Epochs(self._everything, epochs_of)
            makes = self._makes(epochs)
            locks = [(TAKE_LOCK, text, lock, lasts) for text, lock in mine.items()]
            closes = [(CLOSE_EPOCH, text, mark, lasts) for text, mark in marks.items()]
            replies = self.server.run([*makes, *locks, *closes])
            over = dict(zip([*mine, *marks], replies[len(makes) :], strict=True))
            self._refuse_failed(over, mine, marks)
            self._learn(epochs, replies)
            own = {**mine, **marks}
            usable = {space: epochs.usable(space) for space in epochs_of}
            return [
                Lock(
                    key,
                    Token(own[text], usable[key.spec.space] if key.values else None, text),
                    contended=over[text] == 1 and bool(loose) and key.ident in loose,
                )
                for text, key in zip(texts, keys, strict=True)
            ]

        return self.server.call("lock", work)

    def _refuse_failed(
        self, over: Mapping[bytes, Any], mine: Mapping[bytes, bytes], marks: Mapping[bytes, bytes]
    ) -> None:
        failed = [text for text, reply in over.items() if isinstance(reply, Exception)]
        if failed:
            undo = [(SWAP, text, lock, *_NOTHING) for text, lock in mine.items() if over[text] == 0]
            self.server.run([*undo, *((OPEN_EPOCH, text, mark, b"") for text, mark in marks.items())])
            text, error = failed[0], over[failed[0]]
            raise StoreError(f"{self.where} did not lock {text.decode('ascii')}: {error}") from error

    def publish(self, locked: Sequence[tuple[Lock, Record | Alias | None]]) -> None:
        """See Tier.publish."""
        commands: list[tuple[Any, ...]] = []
        # a lock that is left to run out is nobody's here; and so is one that was never taken
        tokens = [Token(b"") if lock.contended or lock.token is None else lock.token for lock, _ in locked]
        encoded = self._encode_each(
            [
                (lock.key, value, token.epoch if token.value else None)
                for (lock, value), token in zip(locked, tokens, strict=True)
            ]
        )
        for (lock, value), token, each in zip(locked, tokens, encoded, strict=True):
            text = token.text or self._text(lock.key)
            if lock.key.is_epoch:
                commands.append((OPEN_EPOCH, text, token.value, b"committed"))
            else:
                commands.append((PUBLISH, text, token.value, *self._stored(value, each)))
        self.server.call("publish", lambda: self._done(commands))

    def unlock(self, locks: Sequence[Lock]) -> None:
        """See Tier.unlock."""
        own = [lock for lock in locks if not lock.contended]
        commands = [
            (OPEN_EPOCH, self._text(lock.key), lock.token.value, b"")
            if lock.key.is_epoch
            else (SWAP, self._text(lock.key), lock.token.value, *_NOTHING)
            for lock in own
        ]
        self.server.call("unlock", lambda: self._done(commands))

    def clear(self, seconds: float = LOCK_SECONDS) -> None:
        """Change the epoch of everything under the prefix."""
        mark = secrets.token_bytes(MARK_BYTES)

        def work() -> None:
            self._done([(CLOSE_EPOCH, self._everything, mark, _milliseconds(seconds))])
            self._done([(OPEN_EPOCH, self._everything, mark, b"committed")])

        self.server.call("clear", work)

    def _done(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        replies = self.server.run(commands)
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, Exception):
                raise StoreError(f"{self.where} has refused {command[1].decode('ascii')}: {reply}") from reply
        return replies

    # for a cache used alone, and for the source of plain objects

    def replace(self, values: Mapping[Key, Record | Alias | None]) -> None:
        """Put these values in place of whatever is there, and remove the keys that have None."""
        spaces = self._spaces(values)

        def work() -> None:
            epochs = self._wait_until_open(lambda: self._ask_epochs(spaces))
            stored = []
            for key, value in values.items():
                epoch = epochs.usable(key.spec.space) or NO_EPOCH
                encoded = None if value is None else self._encode_strictly(key, value, epoch)
                stored.append((self._text(key), *self._stored(value, encoded)))
            for key, reply in zip(values, self.server.set(stored), strict=True):
                if isinstance(reply, Exception):
                    raise StoreError(f"{self.where} did not keep {key!r}: {reply}") from reply

        self.server.call("put", work)

    def _ask_epochs(self, spaces: Mapping[str, bytes]) -> Epochs:
        epochs = Epochs(self._everything, spaces)
        self._learn(epochs, self.server.run(self._makes(epochs)))
        return epochs

    def _largest(self) -> float:
        return math.inf

    # values and epochs

    def _value(self, key: Key, value: Record | Alias | None, epoch: bytes | None) -> tuple[bytes, bytes]:
        """Return the bytes, and for how many milliseconds; no bytes if there is nothing to keep."""
        return self._stored(value, self._encode(key, value, epoch))

    def _stored(self, value: Record | Alias | None, encoded: tuple[Kind, bytes] | None) -> tuple[bytes, bytes]:
        if value is None or encoded is None:
            return _NOTHING
        lasts = b"0" if value.deadline is None else _milliseconds(value.deadline - self._clock())
        return RECORD + secrets.token_bytes(HEAD - len(RECORD)) + encoded[1], lasts

    def _makes(self, epochs: Epochs) -> list[tuple[Any, ...]]:
        return [(MAKE_EPOCH, text, new_epoch()) for text in epochs.missing()]

    @staticmethod
    def _learn(epochs: Epochs, replies: Sequence[Any]) -> None:
        for text, reply in zip(epochs.missing(), replies, strict=False):
            epochs.know(text, _epoch(reply))


def _drawn(kind: bytes, texts: Iterable[bytes]) -> dict[bytes, bytes]:
    """Return a lease or a lock, as nobody else has, for each of these keys."""
    unique = dict.fromkeys(texts)
    drawn = secrets.token_bytes(TOKEN_BYTES * len(unique))
    return {text: kind + drawn[i * TOKEN_BYTES : (i + 1) * TOKEN_BYTES] for i, text in enumerate(unique)}


def _revision(epoch: bytes | None, head: bytes) -> bytes | None:
    if epoch is None or len(head) != HEAD or head[:1] != RECORD:
        return None
    return epoch + head[1:]


def _usual_answer(expected: Sequence[bytes], asked: Sequence[bytes]) -> bytes:
    """What Redis says if these revisions, all of one class, are those of the keys still."""
    if not expected or len(asked) != 2:
        return b""
    token = HEAD - len(RECORD)
    epoch = expected[0][:-token]
    if len({each[:-token] for each in expected}) > 1:
        return b""
    heads = b"".join([b"$%d\r\n%b%b\r\n" % (HEAD, RECORD, each[-token:]) for each in expected])
    return b"%b*2\r\n%b" % (heads, _both(epoch))


def _both(epoch: bytes) -> bytes:
    """What Redis says the two epochs are that make a class's."""
    halves = epoch[:EPOCH_BYTES], epoch[EPOCH_BYTES:]
    return b"".join([b"$%d\r\n%b%b\r\n" % (1 + EPOCH_BYTES, EPOCH, each) for each in halves])


def _epoch(value: Any) -> Epoch:
    if not isinstance(value, bytes):
        return None
    if value[:1] == MARKS:
        return CLOSED
    return value[1:] if value[:1] == EPOCH and len(value) == 1 + EPOCH_BYTES else None


def _milliseconds(seconds: float) -> bytes:
    return b"%d" % max(1, min(math.ceil(seconds * 1000), LONGEST))
