"""MemcacheStore: objects in memcached, shared by all processes."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from hashlib import blake2b
from ipaddress import ip_address
from threading import TIMEOUT_MAX
from typing import Any

from stockpyle.codecs import Codec, RecordCodec
from stockpyle.coherence.guards import Guards
from stockpyle.coherence.layers import Unreachable, checked_unreachable
from stockpyle.coherence.parts import Parts
from stockpyle.exceptions import ImproperlyConfigured, MissingDependency
from stockpyle.keys import Key, checked_prefix
from stockpyle.lifetimes import Lifetime, LifetimeCallback
from stockpyle.memcached.server import Server
from stockpyle.memcached.tier import MemcachedTier
from stockpyle.protocols import Tier
from stockpyle.records import Alias, Found, Lease, Lock, Record
from stockpyle.stores.cache import CacheStore

DAY = 86400.0
TIMEOUT = 1.0
"""Seconds to wait for a connection or an answer."""

Address = str | tuple[str, int]
"""Where a server is: "host:port", ("host", port) or "/path/to/socket"."""


class MemcacheStore(CacheStore):
    """Objects in memcached (1.6.13 or later), shared by all processes that use it with the same prefix.

    Give the servers ("host:port", ("host", port), "/path/to/socket") or one pymemcache Client, of which the address,
    the timeouts and the TLS context are used. Keys are spread over several servers by rendezvous hashing; all processes
    must name the same servers in the same way. What a server that is down had is missing until it is back.

    prefix (or namespace, which is the same) begins all keys. Plain objects are pickled, unless `codec` says otherwise;
    mapped objects are rows in msgpack, and are never unpickled. allow_pickle: pickle column values that need it.
    timeout and connect_timeout are in seconds, and apply to each exchange; at most pool_size connections a server are
    kept open while idle. lease_seconds: how long a reader may take to load before another may.
    unreachable: what happens to a commit that cannot be announced here: "proceed" or "refuse", see ChainedStore.
    """

    shared = True
    chain_lifetime = DAY

    def __init__(
        self,
        client: Any = None,
        servers: Address | Sequence[Address] | None = None,
        polymorphic: bool = False,
        lifetime_cb: LifetimeCallback | None = None,
        prefix: str | None = None,
        codec: Codec | None = None,
        *,
        namespace: str | None = None,
        lifetime: Lifetime = None,
        allow_pickle: bool = False,
        timeout: float | None = TIMEOUT,
        connect_timeout: float | None = TIMEOUT,
        tls_context: ssl.SSLContext | None = None,
        pool_size: int = 16,
        lease_seconds: float = 10.0,
        unreachable: Unreachable = "proceed",
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(polymorphic, lifetime_cb, lifetime=lifetime, clock=clock)
        if prefix is not None and namespace is not None:
            raise ImproperlyConfigured("give either prefix or namespace: both mean the beginning of all keys")
        _check_number("lease_seconds", lease_seconds)
        _check_number("timeout", timeout, none=True)
        _check_number("connect_timeout", connect_timeout, none=True)
        if tls_context is not None and not isinstance(tls_context, ssl.SSLContext):
            raise ImproperlyConfigured(f"tls_context is an ssl.SSLContext, not {tls_context!r}")
        if isinstance(pool_size, bool) or not isinstance(pool_size, int) or pool_size < 1:
            raise ImproperlyConfigured(f"pool_size is a number of connections, 1 or more, not {pool_size!r}")
        own = namespace if prefix is None else prefix
        self.prefix = checked_prefix("stockpyle" if own is None else own)
        self.unreachable = checked_unreachable(unreachable)
        options = {"timeout": timeout, "connect_timeout": connect_timeout, "tls_context": tls_context, "no_delay": True}
        makers = _clients(client, servers, options)
        records = RecordCodec(codec, allow_pickle=allow_pickle, prefix=self.prefix)
        run_key = f"{self.prefix}::run".encode("ascii")
        self.parts = tuple(
            MemcachedTier(
                Server(name, make, run_key, pool_size, self.name),
                self.prefix,
                records,
                self.stats,
                lease_seconds,
                clock,
            )
            for name, make in makers.items()
        )
        self.guards = Guards(self)
        self._ring = _ring([part.name for part in self.parts])
        self._tier: Tier = self.parts[0] if len(self.parts) == 1 else Parts(self.parts, self.place)

    def place(self, key: Key) -> int:
        """Return the number of the server that keeps this key."""
        return 0 if len(self.parts) == 1 else self._ring(key.text(self.prefix))

    # the tier

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """See Tier.read."""
        return self._tier.read(keys, lease=lease)

    def fill(self, leased: Sequence[tuple[Lease, Record | Alias | None]]) -> int:
        """See Tier.fill."""
        return self._tier.fill(leased)

    def lock(self, keys: Sequence[Key], seconds: float, *, without_row_lock: Sequence[Key] = ()) -> list[Lock]:
        """See Tier.lock."""
        return self._tier.lock(keys, seconds, without_row_lock=without_row_lock)

    def publish(self, locked: Sequence[tuple[Lock, Record | Alias | None]]) -> None:
        """See Tier.publish."""
        self._tier.publish(locked)

    def unlock(self, locks: Sequence[Lock]) -> None:
        """See Tier.unlock."""
        self._tier.unlock(locks)

    # used alone

    def _check(self, values: Mapping[Key, Record | Alias]) -> None:
        for part, own in self._by_part(values).items():
            part.check(own)

    def _replace(self, values: Mapping[Key, Record | Alias | None]) -> None:
        for part, own in self._by_part(values).items():
            part.replace(own)

    def _by_part(self, values: Mapping[Key, Any]) -> dict[MemcachedTier, dict[Key, Any]]:
        shares: dict[MemcachedTier, dict[Key, Any]] = {}
        for key, value in values.items():
            shares.setdefault(self.parts[self.place(key)], {})[key] = value
        return shares

    def clear(self) -> None:
        """Forget every object under this prefix, in all processes. Other users of the servers keep theirs."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.callback(part.clear, self.lock_seconds)

    def close(self) -> None:
        """Close the idle connections; the objects stay for other processes."""
        for part in self.parts:
            part.server.close()

    def __repr__(self) -> str:
        return f"MemcacheStore(servers={[part.name for part in self.parts]!r}, prefix={self.prefix!r})"


def _check_number(name: str, seconds: Any, *, none: bool = False) -> None:
    if none and seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= TIMEOUT_MAX:
        raise ImproperlyConfigured(f"{name} is a number of seconds above 0, not {seconds!r}")


def _clients(client: Any, servers: Any, options: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
    """What makes a connection to each server, by the server's name."""
    try:
        from pymemcache.client.base import Client, PooledClient, normalize_server_spec
        from pymemcache.client.hash import HashClient
        from pymemcache.exceptions import MemcacheError
    except ImportError as error:
        raise MissingDependency("MemcacheStore needs pymemcache: pip install 'stockpyle[memcache]'") from error
    if (client is None) == (servers is None):
        raise ImproperlyConfigured('give MemcacheStore either servers=["host:11211", ...] or one pymemcache client=')
    if client is not None:
        if isinstance(client, HashClient):
            raise ImproperlyConfigured(
                "a HashClient moves the keys of a dead server to another one, and so brings old values back when it "
                "returns: give servers=[...] instead"
            )
        if not isinstance(client, Client | PooledClient):
            raise ImproperlyConfigured(f"client is a pymemcache Client or PooledClient, not {client!r}")
        if client.key_prefix:
            raise ImproperlyConfigured(f"the client's key_prefix {client.key_prefix!r} is not used: give prefix=")
        try:
            address = _checked(client.server)
        except ValueError as error:
            raise ImproperlyConfigured(
                f"the client's server {client.server!r} is no memcached server: {error}"
            ) from None
        own = {
            **{name: _own(client, name, options[name], default) for name, default in _DEFAULTS.items()},
            "socket_module": client.socket_module,
            "socket_keepalive": client.socket_keepalive,
            "no_delay": True,
        }
        return {_name(address): partial(Client, address, **own)}
    listed = [servers] if isinstance(servers, str) or _is_pair(servers) else servers
    if not isinstance(listed, Sequence) or isinstance(listed, bytes) or not listed:
        raise ImproperlyConfigured(f'servers is a list such as ["host:11211"], not {servers!r}')
    makers: dict[str, Callable[[], Any]] = {}
    for server in listed:
        try:
            address = _checked(normalize_server_spec(tuple(server) if isinstance(server, list) else server))
        except (ValueError, TypeError, AttributeError, MemcacheError) as error:
            raise ImproperlyConfigured(f'{server!r} is no memcached server, such as "host:11211": {error}') from error
        if _name(address) in makers:
            raise ImproperlyConfigured(f"{server!r} is named twice")
        makers[_name(address)] = partial(Client, address, **options)
    return makers


_DEFAULTS = {"timeout": TIMEOUT, "connect_timeout": TIMEOUT, "tls_context": None}


def _own(client: Any, name: str, given: Any, default: Any) -> Any:
    own = getattr(client, name)
    if own is None:
        return given
    if given not in (default, own):
        raise ImproperlyConfigured(f"the client has {name}={own!r}, and MemcacheStore was given {given!r}: give one")
    return own


def _is_pair(servers: Any) -> bool:
    return isinstance(servers, tuple) and len(servers) == 2 and isinstance(servers[1], int)


def _checked(address: Any) -> Any:
    if isinstance(address, str):
        if not address.startswith("/"):
            raise ValueError("the path of a socket begins with /")
        return address
    host, port = address
    if not isinstance(host, str) or not host:
        raise ValueError("it names no host")
    if ":" in host and not _is_ipv6(host):
        raise ValueError("it is one host and one port, an IPv6 address in brackets: [::1]:11211")
    if not re.fullmatch(r"[^\s,/]+", host):
        raise ValueError(f"{host!r} is no host")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise ValueError(f"{port!r} is no port")
    return address


def _is_ipv6(host: str) -> bool:
    try:
        return ip_address(host).version == 6
    except ValueError:
        return False


def _name(address: Any) -> str:
    return address if isinstance(address, str) else f"{address[0]}:{address[1]}"


def _ring(names: Sequence[str]) -> Callable[[str], int]:
    from pymemcache.client.rendezvous import RendezvousHash

    # its own hash, in Python, would take longer than memcached does
    ring = RendezvousHash(list(names), hash_function=_score)
    numbers = {name: i for i, name in enumerate(names)}
    return lambda text: numbers[ring.get_node(text)]


def _score(text: str, seed: int) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")


__all__ = ["MemcacheStore"]
