"""What a reader asks one memcached server: for records, for the leases of what is missing, for revisions.

See stockpyle.memcached.tier for the protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stockpyle.codecs import Kind, RecordCodec
from stockpyle.coherence.talks import Talk, finish
from stockpyle.keys import Key, KeySpec
from stockpyle.memcached.epochs import EPOCH, Epochs
from stockpyle.memcached.items import whole_seconds
from stockpyle.memcached.server import Server
from stockpyle.memcached.wire import CHUNK_COMMANDS, Connection, Reply, Values
from stockpyle.records import LOCKED, MISS, Busy, Found, Lease, Record
from stockpyle.remote.epochs import CLOSED, EPOCH_BYTES, Epoch
from stockpyle.remote.tier import BusyElsewhere, RemoteTier, Usual
from stockpyle.stats import Stats

CAS_BYTES = 8

_NOTHING = (-1, None)
"""In place of flags and value, where a key is empty."""


@dataclass(slots=True)
class Token:
    """What a lease or a lock is known by: the CAS id, in which run of the server, and the epoch it was taken in.

    The lock of an epoch is known by its mark; its CAS id is 0 if others' marks are with it. text is the key's, if it
    was at hand.
    """

    run: bytes
    cas: int
    epoch: bytes | None = None
    mark: bytes = b""
    text: bytes = b""


class Reading(RemoteTier):
    """The half of a tier that reads."""

    server: Server
    _cure = ": raise its -I"

    def __init__(
        self,
        server: Server,
        prefix: str,
        codec: RecordCodec,
        stats: Stats,
        lease_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(server, "memcached", "MemcacheStore", prefix, codec, stats, clock)
        self._lease_seconds = whole_seconds(lease_seconds)

    def ping(self) -> None:
        """Raise StoreUnavailable if the server does not answer."""
        self.server.call("ping", lambda connection: connection.get([self._everything]))

    def talk(self, operation: str, *args: Any, **kwargs: Any) -> Talk[Any]:
        """Do what the method of this name does, step by step; see stockpyle.coherence.talks."""
        talk: Talk[Any] = getattr(self, f"_{operation}")(*args, **kwargs)
        return talk

    # reading

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """See Tier.read."""
        return finish(self._read(keys, lease=lease))

    def _read(self, keys: Sequence[Key], *, lease: bool) -> Talk[list[Found]]:
        texts = self._texts(keys)
        return self.server.talk("read", lambda connection: self._ask(connection, texts, keys, lease))

    def read_one(self, key: Key, *, lease: bool = True) -> Found:
        """Return what read() does of one key, sooner if it is a record, or an alias of one."""
        usual = self._usual.get(key.spec)
        if usual is None:
            return self.read([key], lease=lease)[0]
        text = self._text(key)
        kind = Kind.RECORD if key.definition is key.spec.identity else Kind.ALIAS
        asks, head = b"get %b%b" % (text, usual.asks), b"VALUE %b %d " % (text, kind)

        def take(data: bytes) -> Any:
            now = self._clock()
            row = usual.read(key, data, now) if usual.read else None
            return row or self._codec.live(key, data, usual.epoch, now)

        found: Any = self.server.ask(Connection.value, asks, head, usual.tail, take)
        if found is None:
            return self.read([key], lease=lease)[0]
        if not isinstance(found, Connection):
            answer: Found = found
            return answer
        epochs = self._epochs([key])

        def work(connection: Connection) -> Talk[list[Found]]:
            held = connection.rest(1 + len(epochs.keys))
            return self._judge_all(connection, [text], [key], lease, epochs, held)

        return self.server.go_on(found, "read", work)[0]

    def read_revised(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """See Revised.read_revised."""
        return finish(self._read_revised(keys, lease=lease))

    def _read_revised(self, keys: Sequence[Key], *, lease: bool) -> Talk[list[Found]]:
        texts = self._texts(keys)
        return self.server.talk("read", lambda connection: self._ask(connection, texts, keys, lease, revised=True))

    def revisions(self, keys: Sequence[Key], expected: Sequence[bytes] = ()) -> Sequence[bytes | None]:
        """See Revised.revisions."""
        return finish(self._revisions(keys, expected))

    def _revisions(self, keys: Sequence[Key], expected: Sequence[bytes]) -> Talk[Sequence[bytes | None]]:
        texts = self._texts(keys)
        spaces = self._spaces(keys)
        asked = [self._everything, *spaces.values()]
        usual = _usual_answer(expected, asked)
        told = yield from self.server.talk("read", lambda connection: connection.ids(texts, asked, usual))
        return expected if told is None else self._revisions_of(keys, Epochs(self._everything, spaces), *told)

    @staticmethod
    def _revisions_of(
        keys: Sequence[Key], epochs: Epochs, ids: Sequence[int | None], held: Values
    ) -> list[bytes | None]:
        epochs.learn(held)
        return [
            None if cas is None else _revision(epochs.usable(key.spec.space), cas)
            for key, cas in zip(keys, ids, strict=True)
        ]

    def has_revision(self, key: Key, revision: bytes) -> bool:
        """True if that is the revision of a key."""
        usual = self._usual.get(key.spec)
        if usual is None or revision[:-CAS_BYTES] != usual.epoch:
            return self.revisions([key], [revision])[0] == revision
        asks = b"mg %b c\r\nget%b" % (self._text(key), usual.asks)
        expected = b"HD c%d%b" % (int.from_bytes(revision[-CAS_BYTES:], "big"), usual.tail)
        told = self.server.ask(Connection.tells, asks, expected)
        if not isinstance(told, Connection):
            return told or self.revisions([key], [revision])[0] == revision
        epochs = self._epochs([key])

        def work(connection: Connection) -> list[bytes | None]:
            return self._revisions_of([key], epochs, *connection.rest_of_ids(1, len(epochs.keys)))

        return self.server.go_on(told, "read", work)[0] == revision

    def _ask(
        self,
        connection: Connection,
        texts: Sequence[bytes],
        keys: Sequence[Key],
        lease: bool,
        *,
        revised: bool = False,
    ) -> Talk[list[Found]]:
        epochs = self._epochs(keys)
        ids: Mapping[bytes, int] | None = None
        if revised:
            held, ids = yield from connection.gets([*texts, *epochs.keys])
        else:
            held = yield from connection.get([*texts, *epochs.keys])
        return (yield from self._judge_all(connection, texts, keys, lease, epochs, held, ids))

    def _judge_all(
        self,
        connection: Connection,
        texts: Sequence[bytes],
        keys: Sequence[Key],
        lease: bool,
        epochs: Epochs,
        held: Values,
        ids: Mapping[bytes, int] | None = None,
    ) -> Talk[list[Found]]:
        """What a reader takes of all that it was told; and the leases of what is missing."""
        epochs.learn(held)
        epoch_of = epochs.by_space()
        busy = BusyElsewhere()
        now = self._clock()
        found: list[Found] = []
        left: dict[bytes, Key] = {}
        spec, read = None, None
        for text, key in zip(texts, keys, strict=True):
            flags, data = held.get(text, _NOTHING)
            answer: Found | None = None
            if data:
                if key.spec is not spec:
                    spec, usual = key.spec, self._usual_for(key.spec, epoch_of[key.spec.space])
                    read = None if usual is None else usual.read
                answer = None if read is None else read(key, data, now)
            if answer is None and data is not None:
                answer = self._judge(key, flags, data, epoch_of[key.spec.space], busy)
            if answer is None:
                left[text] = key
                answer = MISS
            elif ids is not None and isinstance(answer, Record):
                answer.revision = _revision(epochs.usable(key.spec.space), ids[text])
            found.append(answer)
        if left and lease:
            leased = yield from self._lease(connection, left, held, epochs, busy)
            return [leased.get(text, answer) for text, answer in zip(texts, found, strict=True)]
        return found

    def _usual_of(self, spec: KeySpec, epoch: bytes) -> Usual:
        own, half = self._epoch_texts[spec.space], EPOCH_BYTES
        tail = b"\r\nVALUE %b %d %d\r\n%b\r\nVALUE %b %d %d\r\n%b\r\nEND\r\n" % (
            *(self._everything, EPOCH, half, epoch[:half]),
            *(own, EPOCH, half, epoch[half:]),
        )
        asks = b" %b %b\r\n" % (self._everything, own)
        return Usual(epoch, self._codec.reader(spec, epoch), asks, tail)

    def _judge(
        self, key: Key, flags: int, data: bytes, epoch: Epoch, busy: Busy, *, again: bool = False
    ) -> Found | None:
        """What is there, as a reader takes it; None if it is of no use. again: this reader has been told before."""
        if epoch is CLOSED or (flags == Kind.LOCK and not data):
            return LOCKED
        if flags == Kind.LEASE and not data:
            return busy
        if not isinstance(epoch, bytes):
            return None
        return self._decode(key, data, epoch, again=again)

    def _lease(
        self,
        connection: Connection,
        left: Mapping[bytes, Key],
        held: Mapping[bytes, tuple[int, bytes]],
        epochs: Epochs,
        busy: Busy,
    ) -> Talk[dict[bytes, Found]]:
        """Take the leases of what is missing, or in place of what is there and of no use."""
        preamble = epochs.commands()
        asks = [b"mg %b v f c N%d\r\n" % (text, self._lease_seconds) for text in left]
        replies = yield from connection.meta([*preamble, *asks])
        epochs.learn_replies(replies[: len(preamble)])
        found: dict[bytes, Found] = {}
        useless: dict[bytes, bytes] = {}
        unwanted: list[bytes] = []
        for (text, key), reply in zip(left.items(), replies[len(preamble) :], strict=True):
            epoch = epochs.of(key.spec.space)
            if reply.status != b"VA":
                # no room for a lease, or evicted meanwhile
                found[text] = MISS
            elif reply.has(b"W"):
                found[text] = _leased(connection, key, reply, epoch)
                if not isinstance(epoch, bytes):
                    unwanted.append(b"md %b C%d\r\n" % (text, reply.number(b"c")))
            else:
                item = reply.number(b"f"), reply.data
                answer = self._judge(key, *item, epoch, busy, again=item == held.get(text))
                found[text] = MISS if answer is None else answer
                if answer is None and isinstance(epoch, bytes):
                    useless[text] = b"ms %b 0 C%d F%d T%d c\r\n\r\n" % (
                        text,
                        reply.number(b"c"),
                        Kind.LEASE,
                        self._lease_seconds,
                    )
        swapped = yield from connection.meta([*useless.values(), *unwanted, *epochs.repairs()])
        for text, reply in zip(useless, swapped, strict=False):
            if reply.status == b"HD":
                found[text] = _leased(connection, left[text], reply, epochs.of(left[text].spec.space))
        return found

    # keys

    def _epochs(self, keys: Iterable[Key]) -> Epochs:
        return Epochs(self._everything, self._spaces(keys))


def _revision(epoch: bytes | None, cas: int) -> bytes | None:
    return None if epoch is None else epoch + cas.to_bytes(CAS_BYTES, "big")


def _usual_answer(expected: Sequence[bytes], asked: Sequence[bytes]) -> bytes:
    """What memcached says if these revisions, all of one class, are those of the keys still; nothing if it is long."""
    if not expected or len(expected) > CHUNK_COMMANDS or len(asked) != 2:
        return b""
    epoch = expected[0][:-CAS_BYTES]
    if len({each[:-CAS_BYTES] for each in expected}) > 1:
        return b""
    ids = b"".join([b"HD c%d\r\n" % int.from_bytes(each[-CAS_BYTES:], "big") for each in expected])
    both = (asked[0], EPOCH, EPOCH_BYTES, epoch[:EPOCH_BYTES], asked[1], EPOCH, EPOCH_BYTES, epoch[EPOCH_BYTES:])
    return ids + b"VALUE %b %d %d\r\n%b\r\nVALUE %b %d %d\r\n%b\r\nEND\r\n" % both


def _leased(connection: Connection, key: Key, reply: Reply, epoch: Epoch) -> Found:
    if epoch is CLOSED:
        return LOCKED
    return Lease(key, Token(connection.run, reply.number(b"c"), epoch)) if isinstance(epoch, bytes) else MISS
