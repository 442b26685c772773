"""The protocol of leases and locks on one memcached server.

Under a key stands a record, an alias, "known absent", a lease or a lock, told apart by the client flags; each change
gives the key a new CAS id, and "if unchanged" compares that. What no command can do at once is safe in steps:

- a reader asks with ``get``, and for what is missing once more with ``mg .. N``, which leaves an empty item, a lease,
  to exactly one of those who ask;
- a writer's lock replaces whatever is there. Where no row lock of the database's keeps other writers away, it must
  learn whether it replaced a live lock: so it adds, and only if something is there looks and swaps, if unchanged;
- what a writer finds under its key in place of its own lock it removes, if unchanged, unless it is a lock.

Every record carries the epoch of its class, and that of the whole prefix, as read no later than its lease or lock was
taken. An epoch is a random value under a key of its own; a record of another epoch is as good as none. An epoch has a
lock of its own kind, which several writers share: see stockpyle.memcached.closing.

The revision of a record is its CAS id and its epoch. While a server runs it gives no CAS id twice; when it begins anew
it counts from the start, but epochs are random and nobody puts an old one back, so that no record there has an epoch
that was there before. So the two together never come again, over whatever connection and of whichever server they are.
A lease and a lock have CAS ids of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stockpyle.codecs import Kind, RecordCodec
from stockpyle.coherence.talks import Talk, finish
from stockpyle.coherence.writer import LOCK_SECONDS
from stockpyle.exceptions import StoreError
from stockpyle.keys import Key, KeySpec
from stockpyle.memcached import closing
from stockpyle.memcached.epochs import EPOCH, Epochs
from stockpyle.memcached.items import Item, item_size, time_to_live, whole_seconds
from stockpyle.memcached.locking import is_lock, take
from stockpyle.memcached.server import Server
from stockpyle.memcached.wire import CHUNK_COMMANDS, Connection, Reply, Values
from stockpyle.records import LOCKED, MISS, Alias, Busy, Found, Lease, Lock, Record
from stockpyle.remote.epochs import CLOSED, EPOCH_BYTES, NO_EPOCH, Epoch
from stockpyle.remote.tier import ATTEMPTS, BusyElsewhere, RemoteTier, Usual, gave_up
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


class MemcachedTier(RemoteTier):
    """A Tier on one server."""

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
        now = self._clock()
        kind = Kind.RECORD if key.definition is key.spec.identity else Kind.ALIAS
        asks, head = b"get %b%b" % (text, usual.asks), b"VALUE %b %d " % (text, kind)

        def take(data: bytes) -> Any:
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

    # filling

    def fill(self, leased: Sequence[tuple[Lease, Record | Alias | None]]) -> int:
        """See Tier.fill."""
        return finish(self._fill(leased))

    def _fill(self, leased: Sequence[tuple[Lease, Record | Alias | None]]) -> Talk[int]:
        items = [self._item(lease.key, value, lease.token.epoch) for lease, value in leased]

        def work(connection: Connection) -> Talk[int]:
            own = [
                (lease, item)
                for (lease, _), item in zip(leased, items, strict=True)
                if lease.token.run == connection.run
            ]
            commands = [self._swap_for(connection, lease, item) for lease, item in own]
            replies = yield from connection.meta(commands)
            return sum(
                command.startswith(b"ms") and reply.done for command, reply in zip(commands, replies, strict=True)
            )

        return self.server.talk("fill", work)

    # writing

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> list[Lock]:
        """See Tier.lock."""
        return finish(self._lock(keys, seconds, without_row_lock=without_row_lock))

    def _lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key]) -> Talk[list[Lock]]:
        texts = self._texts(keys)
        closed = [key for key in keys if key.is_epoch]
        self._epochs(closed)
        marks = {text: closing.new_mark() for text in self._texts(closed)}
        loose = {text: None for text in self._texts(without_row_lock) if text not in marks}
        firm = list(dict.fromkeys(texts))
        if marks or loose:
            firm = [text for text in firm if text not in loose and text not in marks]
        lasts = whole_seconds(seconds)

        def work(connection: Connection) -> Talk[list[Lock]]:
            epochs = self._epochs([key for key in keys if key.values])
            held = yield from take(connection, self.where, epochs, firm, list(loose), marks, lasts)
            usable = {space: epoch if isinstance(epoch, bytes) else None for space, epoch in epochs.by_space().items()}
            run = connection.run
            locks = []
            for text, key in zip(texts, keys, strict=True):
                cas, contended = held[text]
                if key.values:
                    token = Token(run, cas, usable[key.spec.space], text=text)
                else:
                    token = Token(run, cas, None, marks[text], text)
                locks.append(Lock(key, token, contended))
            return locks

        return self.server.talk("lock", work)

    def publish(self, locked: Sequence[tuple[Lock, Record | Alias | None]]) -> None:
        """See Tier.publish."""
        finish(self._publish(locked))

    def _publish(self, locked: Sequence[tuple[Lock, Record | Alias | None]]) -> Talk[None]:
        items = self._items(locked)

        def work(connection: Connection) -> Talk[None]:
            own: list[Lock] = []
            commands: list[bytes] = []
            foreign: list[Lock] = []
            for (lock, _), item in zip(locked, items, strict=True):
                if lock.contended or lock.token.run != connection.run or not lock.token.cas:
                    foreign.append(lock)
                else:
                    own.append(lock)
                    commands.append(self._swap_for(connection, lock, item))
            replies = yield from connection.meta(commands)
            foreign += [lock for lock, reply in zip(own, replies, strict=True) if reply.status not in (b"HD", b"NF")]
            if not foreign:
                return
            yield from self._open(connection, [lock for lock in foreign if not lock.contended], committed=True)
            left = [lock for lock in foreign if lock.contended or not lock.token.mark]
            yield from self._remove_unless_locked(connection, [self._text(lock.key) for lock in left])

        return self.server.talk("publish", work)

    def _open(self, connection: Connection, locks: Iterable[Lock], *, committed: bool) -> Talk[None]:
        """Take one's marks out of epochs where they are not alone, or are there no more."""
        marks = {self._text(lock.key): lock.token.mark for lock in locks if lock.token.mark}
        stuck = yield from closing.take_out(connection, marks, committed=committed)
        if stuck:
            raise gave_up(self.where, stuck[0])

    def _remove_unless_locked(self, connection: Connection, texts: Sequence[bytes]) -> Talk[None]:
        left = list(texts)
        for _ in range(ATTEMPTS):
            looks = yield from connection.meta([b"mg %b f s c\r\n" % text for text in left])
            there = [
                (text, look.number(b"c"))
                for text, look in zip(left, looks, strict=True)
                if look.status == b"HD" and not is_lock(look)
            ]
            replies = yield from connection.meta([b"md %b C%d\r\n" % each for each in there])
            left = [text for (text, _), reply in zip(there, replies, strict=True) if reply.status == b"EX"]
            if not left:
                return
        raise gave_up(self.where, left[0])

    def unlock(self, locks: Sequence[Lock]) -> None:
        """See Tier.unlock."""
        finish(self._unlock(locks))

    def _unlock(self, locks: Sequence[Lock]) -> Talk[None]:
        def work(connection: Connection) -> Talk[None]:
            left = [lock for lock in locks if not lock.contended]
            own = [lock for lock in left if lock.token.run == connection.run and lock.token.cas]
            ends = [b"md %b C%d\r\n" % (self._text(lock.key), lock.token.cas) for lock in own]
            replies = yield from connection.meta(ends)
            gone = [id(lock) for lock, reply in zip(own, replies, strict=True) if reply.status != b"EX"]
            yield from self._open(connection, [lock for lock in left if id(lock) not in gone], committed=False)

        return self.server.talk("unlock", work)

    def clear(self, seconds: float = LOCK_SECONDS) -> None:
        """Change the epoch of everything under the prefix."""
        finish(self._clear(seconds))

    def _clear(self, seconds: float = LOCK_SECONDS) -> Talk[None]:
        marks = {self._everything: closing.new_mark()}

        def work(connection: Connection) -> Talk[None]:
            none = self._epochs([])
            held = yield from take(connection, self.where, none, [], [], marks, whole_seconds(seconds))
            ((_, contended),) = held.values()
            stuck = [] if contended else (yield from closing.take_out(connection, marks, committed=True))
            if stuck:
                raise gave_up(self.where, stuck[0])

        return self.server.talk("clear", work)

    # for a cache used alone, and for the source of plain objects

    def _largest(self) -> float:
        return self.server.call("put", lambda connection: connection.largest)

    def _size(self, text: bytes, data: bytes) -> int:
        return item_size(text, data)

    def replace(self, values: Mapping[Key, Record | Alias | None]) -> None:
        """Put these values in place of whatever is there, and remove the keys that have None."""

        def work(connection: Connection) -> Talk[None]:
            epochs = self._wait_until_open(lambda: finish(self._ask_epochs(connection, values)))
            commands = []
            for key, value in values.items():
                item = (
                    None if value is None else self._strict_item(key, value, epochs.usable(key.spec.space) or NO_EPOCH)
                )
                commands.append(b"md %b\r\n" % self._text(key) if item is None else item.command(self._text(key)))
            replies = yield from connection.meta(commands)
            for key, reply in zip(values, replies, strict=True):
                if reply.status not in (b"HD", b"NF"):
                    raise StoreError(f"{self.where} did not keep {key!r}: {reply.said}")

        self.server.call("put", work)

    def _ask_epochs(self, connection: Connection, keys: Iterable[Key]) -> Talk[Epochs]:
        epochs = self._epochs(keys)
        epochs.learn_replies((yield from connection.meta(epochs.commands())))
        if not epochs.are_open:
            yield from connection.meta(epochs.repairs())
        return epochs

    # items

    def _item(self, key: Key, value: Record | Alias | None, epoch: bytes | None) -> Item | None:
        encoded = self._encode(key, value, epoch)
        return None if encoded is None or value is None else Item(*encoded, time_to_live(value.deadline, self._clock()))

    def _items(self, locked: Sequence[tuple[Lock, Record | Alias | None]]) -> list[Item | None]:
        now = self._clock()
        encoded = self._encode_each([(lock.key, value, lock.token.epoch) for lock, value in locked])
        return [
            None if each is None or value is None else Item(*each, time_to_live(value.deadline, now))
            for (_, value), each in zip(locked, encoded, strict=True)
        ]

    def _strict_item(self, key: Key, value: Record | Alias, epoch: bytes) -> Item | None:
        encoded = self._encode_strictly(key, value, epoch)
        return None if encoded is None else Item(*encoded, time_to_live(value.deadline, self._clock()))

    def _swap_for(self, connection: Connection, own: Lease | Lock, item: Item | None) -> bytes:
        """The command that puts an item, or nothing, in place of one's own lease or lock.

        An item that is too large is not sent: memcached would refuse it, and remove whatever is there by then.
        """
        text, cas = own.token.text or self._text(own.key), own.token.cas
        if item is not None and item_size(text, item.data) > connection.largest:
            self._stats.oversize += 1
            item = None
        return b"md %b C%d\r\n" % (text, cas) if item is None else item.command(text, cas)

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
