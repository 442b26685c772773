"""MemcacheStore: objects in memcached, shared by all processes."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from ipaddress import ip_address
from typing import Any

from stockpyle.codecs import Codec
from stockpyle.coherence.layers import Unreachable
from stockpyle.exceptions import ImproperlyConfigured, MissingDependency
from stockpyle.lifetimes import Lifetime, LifetimeCallback
from stockpyle.memcached.server import Server
from stockpyle.memcached.tier import MemcachedTier
from stockpyle.memcached.views import MemcachedNumbers
from stockpyle.stores._remote import TIMEOUT, RemoteStore, check_seconds
from stockpyle.views.counter import Numbers

Address = str | tuple[str, int]
"""Where a server is: "host:port", ("host", port) or "/path/to/socket"."""


class MemcacheStore(RemoteStore):
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
        super().__init__(polymorphic, lifetime_cb, prefix, namespace, codec, allow_pickle, lifetime, unreachable, clock)
        check_seconds("lease_seconds", lease_seconds)
        check_seconds("timeout", timeout, none=True)
        check_seconds("connect_timeout", connect_timeout, none=True)
        if tls_context is not None and not isinstance(tls_context, ssl.SSLContext):
            raise ImproperlyConfigured(f"tls_context is an ssl.SSLContext, not {tls_context!r}")
        if isinstance(pool_size, bool) or not isinstance(pool_size, int) or pool_size < 1:
            raise ImproperlyConfigured(f"pool_size is a number of connections, 1 or more, not {pool_size!r}")
        options = {"timeout": timeout, "connect_timeout": connect_timeout, "tls_context": tls_context, "no_delay": True}
        makers = _clients(client, servers, options)
        run_key = f"{self.prefix}::run".encode("ascii")
        self._servers = [Server(name, make, run_key, pool_size, self.name) for name, make in makers.items()]
        parts = [
            MemcachedTier(server, self.prefix, self._codec, self.stats, lease_seconds, clock)
            for server in self._servers
        ]
        self._use(parts, _ring(list(makers)))

    def _counters(self) -> Numbers:
        return MemcachedNumbers(self._servers, self._ring, self.prefix)


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
