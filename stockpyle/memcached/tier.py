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

from collections.abc import Iterable, Mapping, Sequence

from stockpyle.coherence.talks import Talk, finish
from stockpyle.coherence.writer import LOCK_SECONDS
from stockpyle.exceptions import StoreError
from stockpyle.keys import Key
from stockpyle.memcached import closing
from stockpyle.memcached.epochs import Epochs
from stockpyle.memcached.items import Item, item_size, time_to_live, whole_seconds
from stockpyle.memcached.locking import is_lock, take
from stockpyle.memcached.reading import Reading, Token
from stockpyle.memcached.wire import Connection
from stockpyle.records import Alias, Lease, Lock, Record
from stockpyle.remote.epochs import NO_EPOCH
from stockpyle.remote.tier import ATTEMPTS, gave_up


class MemcachedTier(Reading):
    """A Tier on one server."""

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
