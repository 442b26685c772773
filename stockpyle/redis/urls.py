"""What may stand in the URL of a Redis, checked: redis-py would overlook what is wrong, or notice it too late."""

from __future__ import annotations

import inspect
from typing import Any

from stockpyle.addresses import ConnectionString

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster", "rediss+sentinel", "rediss+cluster")

_OURS = {
    *("self", "host", "port", "path", "kwargs", "retry", "protocol", "decode_responses", "encoding", "encoding_errors"),
    *("parser_class", "redis_connect_func", "command_packer", "credential_provider", "legacy_responses"),
    *("socket_keepalive_options", "socket_type", "driver_info", "event_dispatcher", "himport_registry"),
    *("retry_on_timeout", "retry_on_error", "ssl_ocsp_context"),
}
"""What the store sets itself, or what no text can be."""


def check_url(url: ConnectionString) -> None:
    """Raise ImproperlyConfigured, naming the part, for what redis-py would overlook."""
    kind = url.scheme.partition("+")[2]
    # reading them checks them
    _ = url.user, url.password, url.path
    if url.scheme == "unix":
        if url.hosts:
            raise url.wrong("a UNIX socket has no host: it is unix:///path/to/socket")
        if url.path in ("", "/"):
            raise url.wrong("it names no socket: it is unix:///path/to/socket")
    elif not kind:
        if len(url.hosts) > 1:
            raise url.wrong("it names several hosts: that is redis+cluster:// or redis+sentinel://")
        number = url.path.strip("/")
        if number and not (number.isascii() and number.isdigit() and len(number) < 10):
            raise url.wrong(f"a database of Redis is a number, not {number!r}")
    else:
        if not url.hosts:
            raise url.wrong("it names no host")
    known = _known(secure=url.scheme.startswith("rediss"))
    for name, value in url.params.items():
        if name not in known:
            raise url.wrong(f"redis-py has no parameter {name!r}, or none for a URL; it has {', '.join(sorted(known))}")
        if isinstance(value, list):
            raise url.wrong(f"{name} is given {len(value)} times")
    options_of(url)


def options_of(url: ConnectionString) -> dict[str, Any]:
    """Return the parameters of a URL as what redis-py takes them for."""
    import redis.connection

    readers: Any = redis.connection.URL_QUERY_ARGUMENT_PARSERS
    options: dict[str, Any] = {}
    for name, value in url.params.items():
        try:
            options[name] = readers[name](value) if name in readers else value
        except (ValueError, TypeError):
            raise url.wrong(f"{value!r} is no {name}") from None
    return options


def _known(*, secure: bool) -> set[str]:
    import redis.connection

    own: Any = redis.connection
    classes = [own.AbstractConnection, own.SSLConnection] if secure else [own.AbstractConnection, own.Connection]
    names = {name for each in classes for name in inspect.signature(each.__init__).parameters}
    internal = {name for name in names if name.startswith(("orig_", "maint", "oss_", "himport", "_"))}
    if secure:
        names |= set(inspect.signature(own.Connection.__init__).parameters)
    return (names | {"max_connections"}) - internal - _OURS
