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

from stockpyle.addresses import ConnectionString, address
from stockpyle.codecs import Codec
from stockpyle.coherence.layers import Unreachable
from stockpyle.exceptions import ImproperlyConfigured, MissingDependency, StoreError, UnsupportedOperation
from stockpyle.lifetimes import Lifetime, LifetimeCallback, check_seconds
from stockpyle.masking import displayed
from stockpyle.memcached.commands import MemcachedCommand
from stockpyle.memcached.server import Server
from stockpyle.memcached.tier import MemcachedTier
from stockpyle.memcached.views import MemcachedNumbers
from stockpyle.parameters import converted
from stockpyle.stores._connected import command_of, with_text
from stockpyle.stores._remote import TIMEOUT, RemoteStore
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
    compress_over: compress what takes more bytes than that (2ki, say); by default nothing is.
    timeout and connect_timeout are in seconds, and apply to each exchange; at most pool_size connections a server are
    kept open while idle. lease_seconds: how long a reader may take to load before another may.
    unreachable: what happens to a commit that cannot be announced here: "proceed" or "refuse", see ChainedStore.

    As a connection string: "memcache://host1,host2:11212", "memcache:///path/to/socket"; "memcaches://..." with TLS,
    and the parameters ssl_ca_certs, ssl_certfile, ssl_keyfile, ssl_cert_reqs (required, none) and ssl_check_hostname.
    """

    schemes = ("memcache", "memcached", "memcaches")

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
        compress_over: int | None = None,
    ) -> None:
        super().__init__(
            polymorphic,
            lifetime_cb,
            prefix,
            namespace,
            codec,
            allow_pickle,
            lifetime,
            unreachable,
            clock,
            compress_over,
        )
        check_seconds("lease_seconds", lease_seconds)
        check_seconds("timeout", timeout, none=True)
        check_seconds("connect_timeout", connect_timeout, none=True)
        if tls_context is not None and not isinstance(tls_context, ssl.SSLContext):
            raise ImproperlyConfigured(f"tls_context is an ssl.SSLContext, not {displayed(tls_context)}")
        if isinstance(pool_size, bool) or not isinstance(pool_size, int) or pool_size < 1:
            raise ImproperlyConfigured(f"pool_size is a number of connections, 1 or more, not {pool_size!r}")
        options = {"timeout": timeout, "connect_timeout": connect_timeout, "tls_context": tls_context, "no_delay": True}
        makers = _clients(client, servers, options)
        self._addresses = [make.args[0] for make in makers.values()]
        run_key = f"{self.prefix}::run".encode("ascii")
        self._servers = [Server(name, make, run_key, pool_size, self.name) for name, make in makers.items()]
        parts = [
            MemcachedTier(server, self.prefix, self._codec, self.stats, lease_seconds, clock)
            for server in self._servers
        ]
        self._use(parts, _ring(list(makers)))

    def _counters(self) -> Numbers:
        return MemcachedNumbers(self._servers, self._ring, self.prefix)

    @classmethod
    def from_url(cls, url: ConnectionString) -> dict[str, Any]:
        """See BaseStore.from_url."""
        if not url.rest and not url.params.keys().isdisjoint(("client", "servers")):
            return url.params
        if url.user is not None or url.password is not None:
            raise url.wrong("memcached asks for no user and no password")
        arguments = url.params
        if url.hosts:
            if url.path not in ("", "/"):
                raise url.wrong(f"memcached has no databases such as {url.path[1:]!r}: give namespace=")
            servers: list[Any] = [(host, port or PORT) for host, port in url.hosts]
        else:
            servers = [url.path] if url.path not in ("", "/") else [("localhost", PORT)]
        if "servers" in arguments:
            raise url.wrong("it names servers before its parameters and among them")
        if url.scheme == "memcaches":
            tls = {name: arguments.pop(name) for name in TLS if name in arguments}
            if "tls_context" in arguments and tls:
                raise url.wrong(f"{', '.join(tls)} and a tls_context say the same: give one")
            if "tls_context" not in arguments:
                arguments["tls_context"] = _tls_context(url, tls)
        return {"servers": servers, **arguments}

    def to_url(self, scheme: str, arguments: Mapping[str, Any]) -> ConnectionString | None:
        """See BaseStore.to_url."""
        rest = {name: value for name, value in arguments.items() if name not in ("client", "servers")}
        url = ConnectionString("memcaches" if arguments.get("tls_context") is not None else scheme)
        if all(isinstance(each, tuple) for each in self._addresses):
            return with_text(url.with_parts(hosts=tuple(self._addresses)), rest)
        if len(self._addresses) == 1:
            return with_text(url.with_parts(path=self._addresses[0]), rest)
        return with_text(url, {"servers": [_shown(each) for each in self._addresses], **rest})

    def connect(self) -> Any:
        """Return a new, connected pymemcache Client. It is the caller's, who closes it. There must be one server."""
        return self._server_of([], "connect").client("connect")

    def execute(self, *command: Any) -> Any:
        """Run a command of memcached's text protocol on the server that has its key.

        ``execute("get", "key")`` returns a dict of the values found, ``execute("set", "key", flags, expiry, value)``
        what memcached says, "STORED"; incr and decr return numbers, gets and gats (value, CAS id), stats a dict.
        The keys are as written: no prefix is put before them. On several servers a command needs a key.
        """
        made = MemcachedCommand(command_of(command))
        server = self._server_of(made.keys, "execute")
        try:
            return server.once("execute", lambda connection: connection.exchange(made.data, made.read))
        except StoreError as error:
            if error.store:
                raise
            raise StoreError(f"{error.message} ({server.name})", self.name, "execute") from None

    def _server_of(self, keys: Sequence[bytes], operation: str) -> Server:
        numbers = {0}
        if len(self.parts) > 1:
            numbers = {self._ring(key.decode("utf-8", "surrogateescape")) for key in keys}
        if len(numbers) != 1:
            raise UnsupportedOperation(
                f"{operation} needs a key, or keys of one server, to choose one of the {len(self.parts)} by: make a "
                "store of one server"
            )
        server: Server = self.parts[numbers.pop()].server
        return server

    @property
    def database(self) -> str | None:
        """None: memcached has none."""
        return None


TLS = {"ssl_ca_certs": str, "ssl_certfile": str, "ssl_keyfile": str, "ssl_cert_reqs": str, "ssl_check_hostname": bool}
PORT = 11211


def _tls_context(url: ConnectionString, given: Mapping[str, Any]) -> ssl.SSLContext:
    tls = {name: converted(name, value, TLS[name]) for name, value in given.items()}
    reqs = tls.get("ssl_cert_reqs", "required")
    if reqs not in ("required", "none"):
        raise url.wrong(f"ssl_cert_reqs is required or none, not {reqs!r}")
    try:
        context = ssl.create_default_context(cafile=tls.get("ssl_ca_certs"))
        if "ssl_certfile" in tls:
            context.load_cert_chain(tls["ssl_certfile"], tls.get("ssl_keyfile"))
    except (OSError, ValueError) as error:
        names = " or ".join(name for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") if name in tls)
        raise url.wrong(f"{names} cannot be read: {error}") from error
    context.check_hostname = reqs == "required" and tls.get("ssl_check_hostname", True)
    context.verify_mode = ssl.CERT_REQUIRED if reqs == "required" else ssl.CERT_NONE
    return context


def _shown(where: Any) -> str:
    return where if isinstance(where, str) else address(*where)


def _clients(client: Any, servers: Any, options: Mapping[str, Any]) -> dict[str, partial[Any]]:
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
            raise ImproperlyConfigured(f"client is a pymemcache Client or PooledClient, not {displayed(client)}")
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
        raise ImproperlyConfigured(f'servers is a list such as ["host:11211"], not {displayed(servers)}')
    makers: dict[str, partial[Any]] = {}
    for server in listed:
        if isinstance(server, str) and "@" in server:
            raise ImproperlyConfigured(f"{displayed(server)}: memcached asks for no user and no password")
        try:
            address = _checked(normalize_server_spec(tuple(server) if isinstance(server, list) else server))
        except (ValueError, TypeError, AttributeError, MemcacheError) as error:
            raise ImproperlyConfigured(
                f'{displayed(server)} is no memcached server, such as "host:11211": {error}'
            ) from error
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
