"""What the tiers on servers share: keys as text, records as bytes, and what is counted and logged of these."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from stockpyle.codecs import Kind, RecordCodec
from stockpyle.coherence.logs import Seldom
from stockpyle.exceptions import DecodeError, EncodeError, StoreError
from stockpyle.keys import Key, KeySpec, text_of, texts_of
from stockpyle.records import Alias, Busy, Found, Record
from stockpyle.remote.epochs import NO_EPOCH, Epoch, Epochs
from stockpyle.stats import Stats

ATTEMPTS = 100
"""How often others may come in between before an operation is given up."""

E = TypeVar("E", bound=Epochs)


class Server(Protocol):
    """What a tier's server is at least."""

    name: str

    def close(self) -> None:
        """Close the connections that nobody uses."""
        ...


class BusyElsewhere(Busy):
    """Another reader is loading, in this process or in another; the server does not tell when it has finished."""

    waited = False

    def __init__(self) -> None:
        # nobody here tells when it has finished: it takes no event
        pass

    def wait(self, seconds: float) -> None:
        """Wait a little, once, however many keys are waited for."""
        if not self.waited:
            self.waited = True
            pause(seconds)


def pause(most: float = 1.0) -> None:
    """Wait a moment that is not everybody's."""
    time.sleep(min(most, random.uniform(0.01, 0.03)))


def gave_up(where: str, text: bytes) -> StoreError:
    """Return the error that somebody else has always come in between at this key."""
    return StoreError(f"{where}: others change {text.decode('ascii')} all the time")


class Usual(NamedTuple):
    """What is usually told of one key of a class: a record of the class's epoch, and that epoch.

    read is the codec's reader, if there is one. asks and tail are what follows the key in the question, and its value
    in the answer.
    """

    epoch: bytes
    read: Callable[[Key, bytes, float], Record | None] | None
    asks: bytes
    tail: bytes


class RemoteTier:
    """What a tier on one server does without asking it. kind: what the server is called in messages."""

    server: Server

    def __init__(
        self,
        server: Server,
        kind: str,
        store: str,
        prefix: str,
        codec: RecordCodec,
        stats: Stats,
        clock: Callable[[], float],
    ) -> None:
        self.server = server
        self.where = f"{kind} at {server.name}"
        self._store = store
        self._prefix = prefix
        self._codec = codec
        self._stats = stats
        self._clock = clock
        self._everything = f"{prefix}::".encode("ascii")
        self._epoch_texts: dict[str, bytes] = {}
        self._seldom = Seldom()
        self._usual: dict[KeySpec, Usual] = {}

    @property
    def name(self) -> str:
        """The server's address."""
        return self.server.name

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self.server.close()

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """See Tier.read."""
        raise NotImplementedError

    def read_one(self, key: Key, *, lease: bool = True) -> Found:
        """Return what read() does of one key."""
        return self.read([key], lease=lease)[0]

    def _usual_for(self, spec: KeySpec, epoch: Epoch) -> Usual | None:
        """Return how what is usually there is read, as long as the class's epoch is this one."""
        if not isinstance(epoch, bytes):
            return None
        usual = self._usual.get(spec)
        if usual is None or usual.epoch != epoch:
            usual = self._usual[spec] = self._usual_of(spec, epoch)
        return usual

    def _usual_of(self, spec: KeySpec, epoch: bytes) -> Usual:
        raise NotImplementedError

    # values

    def _decode(self, key: Key, data: bytes, epoch: bytes, *, again: bool = False) -> Record | Alias | None:
        """Return what these bytes are, or None if they are of no use. again: this reader has been told before."""
        try:
            value = self._codec.decode(key, data, epoch)
        except DecodeError as error:
            if not again:
                self._stats.corrupt += 1
                self._seldom.log(logging.WARNING, "", "%s holds no record under %r: %s", self.where, key, error)
            return None
        if value is None or (value.deadline is not None and value.deadline <= self._clock()):
            return None
        return value

    def _encode(self, key: Key, value: Record | Alias | None, epoch: bytes | None) -> tuple[Kind, bytes] | None:
        """Return the bytes of a value; None if there is nothing to keep, or it cannot be kept, which is counted."""
        if value is None or epoch is None:
            return None
        try:
            return self._encode_strictly(key, value, epoch)
        except EncodeError as error:
            self._stats.errors += 1
            klass = key.spec.klass.__qualname__
            self._seldom.log(logging.ERROR, klass, "%s keeps no %s: %s", self.where, klass, error)
            return None

    def _encode_each(
        self, values: Iterable[tuple[Key, Record | Alias | None, bytes | None]]
    ) -> list[tuple[Kind, bytes] | None]:
        """Return what _encode does of each; what is the same under several keys of a class is encoded once."""
        found: list[tuple[Kind, bytes] | None] = []
        last: Record | Alias | None = None
        spec, in_epoch, encoded = None, None, None
        for key, value, epoch in values:
            if value is None:
                found.append(None)
                continue
            if value is not last or key.spec is not spec or epoch != in_epoch or self._codec.signs:
                last, spec, in_epoch, encoded = value, key.spec, epoch, self._encode(key, value, epoch)
            found.append(encoded)
        return found

    def _encode_strictly(self, key: Key, value: Record | Alias, epoch: bytes) -> tuple[Kind, bytes] | None:
        now = self._clock()
        if value.deadline is not None and value.deadline <= now:
            return None
        return self._codec.encode(key, value, epoch, now)

    def check(self, values: Mapping[Key, Record | Alias]) -> None:
        """Raise EncodeError for a value that cannot be kept here, before anything is written."""
        self._spaces(values)
        encoded = {key: self._encode_strictly(key, value, NO_EPOCH) for key, value in values.items()}
        largest = self._largest()
        for key, each in encoded.items():
            if each is not None and self._size(self._text(key), each[1]) > largest:
                raise EncodeError(
                    f"{key!r} takes {len(each[1])} bytes; {self.where} takes items of at most {largest} bytes"
                    f"{self._cure}"
                )

    _cure = ""
    """What can be done for larger items."""

    def _largest(self) -> float:
        """Return how many bytes an item may take."""
        raise NotImplementedError

    def _size(self, text: bytes, data: bytes) -> int:
        """Return about how many bytes an item takes under this key, rather more than less."""
        return len(text) + len(data)

    # keys and epochs

    def _text(self, key: Key) -> bytes:
        return text_of(key, self._prefix)

    def _texts(self, keys: Iterable[Key]) -> list[bytes]:
        return texts_of(keys, self._prefix)

    def _spaces(self, keys: Iterable[Key]) -> dict[str, bytes]:
        """Return the epoch keys of these keys' classes, by the classes' spaces."""
        texts = {}
        last = None
        for key in keys:
            if key.spec is last:
                continue
            last = key.spec
            space = key.spec.space
            text = self._epoch_texts.get(space)
            if text is None:
                key.spec.check_portable(self._store)
                text = self._epoch_texts[space] = self._text(key.spec.epoch)
            texts[space] = text
        return texts

    @staticmethod
    def _epoch_for(epochs: Epochs, key: Key) -> bytes | None:
        """Return the epoch that what a lock on this key is replaced by will have; None if nothing may replace it."""
        return None if key.is_epoch else epochs.usable(key.spec.space)

    def _wait_until_open(self, ask: Callable[[], E]) -> E:
        """Ask for epochs until nobody changes any of them, which takes a moment."""
        for _ in range(ATTEMPTS):
            epochs = ask()
            if epochs.are_open:
                return epochs
            pause()
        raise gave_up(self.where, epochs.keys[-1])
