"""A store of objects on servers that all processes share, made of a tier for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from stockpyle.classes import spec_of
from stockpyle.codecs import Codec, RecordCodec
from stockpyle.coherence.guards import Guards
from stockpyle.coherence.layers import Unreachable, checked_unreachable
from stockpyle.coherence.parts import Parts
from stockpyle.coherence.reader import fetch_one
from stockpyle.keys import Key, chosen_prefix
from stockpyle.lifetimes import Lifetime, LifetimeCallback
from stockpyle.masking import masked
from stockpyle.protocols import Tier
from stockpyle.records import Alias, Found, Lease, Lock, Record
from stockpyle.stores.cache import CacheStore
from stockpyle.views.collection import Values

DAY = 86400.0
TIMEOUT = 1.0
"""Seconds to wait for a connection or an answer."""


class Part(Tier, Protocol):
    """A tier on one server, and what a store used alone asks of it."""

    @property
    def name(self) -> str:
        """Where the server is."""
        ...

    def check(self, values: Mapping[Key, Record | Alias]) -> None:
        """Raise EncodeError for a value that cannot be kept here."""
        ...

    def replace(self, values: Mapping[Key, Record | Alias | None]) -> None:
        """Put these values in place of whatever is there."""
        ...

    def clear(self, seconds: float) -> None:
        """Forget everything under the prefix."""
        ...

    def ping(self) -> None:
        """Raise StoreUnavailable if the server does not answer."""
        ...

    def close(self) -> None:
        """Close the idle connections."""
        ...


class RemoteStore(CacheStore):
    """What a store on servers is, whatever the servers: a subclass makes the parts."""

    supports = frozenset({"shared"})
    shared = True
    revised = True
    chain_lifetime = DAY

    parts: tuple[Any, ...]

    def __init__(
        self,
        polymorphic: bool,
        lifetime_cb: LifetimeCallback | None,
        prefix: str | None,
        namespace: str | None,
        codec: Codec | None,
        allow_pickle: bool,
        lifetime: Lifetime,
        unreachable: Unreachable,
        clock: Callable[[], float],
        compress_over: int | None,
    ) -> None:
        super().__init__(polymorphic, lifetime_cb, lifetime=lifetime, clock=clock)
        self.prefix = chosen_prefix(prefix, namespace)
        self.unreachable = checked_unreachable(unreachable)
        self._value_codec = codec
        self._codec = RecordCodec(codec, allow_pickle=allow_pickle, prefix=self.prefix, compress_over=compress_over)

    def _use(self, parts: Iterable[Part], ring: Callable[[str], int] = lambda text: 0) -> None:
        """Use these parts. ring returns the number of the one that keeps a key."""
        self.parts = tuple(parts)
        self.guards = Guards(self)
        self._ring = ring
        self._tier: Any = self.parts[0] if len(self.parts) == 1 else Parts(self.parts, self.place)

    def place(self, key: Key) -> int:
        """Return the number of the server that keeps this key."""
        return 0 if len(self.parts) == 1 else self._ring(key.text(self.prefix))

    def _values(self) -> Values:
        return Values(self._value_codec)

    # the tier

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """See Tier.read."""
        found: list[Found] = self._tier.read(keys, lease=lease)
        return found

    def read_one(self, key: Key, *, lease: bool = True) -> Found:
        """Return what read() does of one key, sooner if it is a record."""
        found: Found = self._tier.read_one(key, lease=lease)
        return found

    def read_revised(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """See Revised.read_revised."""
        found: list[Found] = self._tier.read_revised(keys, lease=lease)
        return found

    def revisions(self, keys: Sequence[Key], expected: Sequence[bytes] = ()) -> Sequence[bytes | None]:
        """See Revised.revisions."""
        found: Sequence[bytes | None] = self._tier.revisions(keys, expected)
        return found

    def fill(self, leased: Sequence[tuple[Lease, Record | Alias | None]]) -> int:
        """See Tier.fill."""
        filled: int = self._tier.fill(leased)
        return filled

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> list[Lock]:
        """See Tier.lock."""
        locks: list[Lock] = self._tier.lock(keys, seconds, without_row_lock=without_row_lock)
        return locks

    def publish(self, locked: Sequence[tuple[Lock, Record | Alias | None]]) -> None:
        """See Tier.publish."""
        self._tier.publish(locked)

    def unlock(self, locks: Sequence[Lock]) -> None:
        """See Tier.unlock."""
        self._tier.unlock(locks)

    # used alone

    def _fetch_one(self, klass: type, asked: Mapping[str, Any]) -> Any:
        key = spec_of(klass).key(asked)
        record = None if key is None else fetch_one([self._layer(revised=False)], None, key)
        if record is None:
            self.stats.misses += 1
            return None
        self.stats.hits += 1
        return record.spec.materialise(record.value)

    def _check(self, values: Mapping[Key, Record | Alias]) -> None:
        for part, own in self._by_part(values).items():
            part.check(own)

    def _replace(self, values: Mapping[Key, Record | Alias | None]) -> None:
        for part, own in self._by_part(values).items():
            part.replace(own)

    def _by_part(self, values: Mapping[Key, Any]) -> dict[Part, dict[Key, Any]]:
        shares: dict[Part, dict[Key, Any]] = {}
        for key, value in values.items():
            shares.setdefault(self.parts[self.place(key)], {})[key] = value
        return shares

    def clear(self) -> None:
        """Forget every object under this prefix, in all processes. Other users of the servers keep theirs."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.callback(part.clear, self.lock_seconds)

    def ping(self) -> bool:
        """Return True if every server answers; StoreUnavailable, or StoreTimeout, names the first that does not."""
        for part in self.parts:
            part.ping()
        return True

    def close(self) -> None:
        """Close the idle connections; the objects stay for other processes."""
        for part in self.parts:
            part.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(servers={[masked(part.name) for part in self.parts]!r}, prefix={self.prefix!r})"
