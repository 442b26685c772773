"""The reference limits: the least work that brings an answer of the same kind.

Nothing here is a cache that one could use. A memory hit cannot do with less than finding the class, finding the key and
looking at the deadline; a hit in memcached with less than a question and its answer on a socket; a row with less than
the driver's own SELECT; an instance of SQLAlchemy's with less than SQLAlchemy's own way to make an empty one.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from time import time
from typing import Any

FOREVER = 1e12


class ReferenceGetter:
    """Two dict lookups and a deadline, nothing else; it is asked as a store is: ``get(User, {"id": 5})``."""

    def __init__(self) -> None:
        self._tables: dict[type, dict[tuple[Any, ...], tuple[Any, float]]] = {}

    def put(self, klass: type, key: Mapping[str, Any], value: Any, deadline: float = FOREVER) -> None:
        self._tables.setdefault(klass, {})[tuple(key.values())] = value, deadline

    def get(self, klass: type, key: Mapping[str, Any]) -> Any:
        value, deadline = self._tables[klass][tuple(key.values())]
        if deadline < time():
            return None
        return value


class RawSocket:
    """Questions and answers on a socket. Nothing is read out of an answer but that it has ended."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(self, question: bytes, end: bytes) -> bytes:
        """Send, and receive until what has come ends so."""
        self._socket.sendall(question)
        answer = self._socket.recv(262_144)
        while not answer.endswith(end):
            answer += self._socket.recv(262_144)
        return answer

    def close(self) -> None:
        self._socket.close()


def memcached_get(keys: Sequence[str]) -> bytes:
    return b"get " + " ".join(keys).encode() + b"\r\n"


def memcached_set(values: Mapping[str, bytes]) -> bytes:
    """All in one; the answers end with that to ``mn``."""
    commands = [b"set %b 0 0 %d\r\n%b\r\n" % (key.encode(), len(value), value) for key, value in values.items()]
    return b"".join([*commands, b"mn\r\n"])


MEMCACHED_GOT = b"END\r\n"
MEMCACHED_SET = b"MN\r\n"


def redis_command(*words: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(words), b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))


def redis_get(keys: Sequence[str]) -> bytes:
    """One GET, or one MGET; the answers end with that to PING."""
    verb = b"GET" if len(keys) == 1 else b"MGET"
    return redis_command(verb, *(key.encode() for key in keys)) + redis_command(b"PING")


def redis_set(values: Mapping[str, bytes]) -> bytes:
    sets = [redis_command(b"SET", key.encode(), value) for key, value in values.items()]
    return b"".join([*sets, redis_command(b"PING")])


REDIS_DONE = b"+PONG\r\n"


def new_instance(klass: type) -> Callable[[], Any]:
    """Return what makes an empty instance of a mapped class, as SQLAlchemy does when it loads one."""
    import sqlalchemy as sa

    made: Callable[[], Any] = sa.inspect(klass).class_manager.new_instance
    return made


def driver_connection(url: str) -> Any:
    """Return a connection of the DBAPI driver that SQLAlchemy uses for this URL, without SQLAlchemy."""
    import sqlalchemy as sa

    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        import sqlite3

        return sqlite3.connect(str(parsed.database))
    import psycopg

    return psycopg.connect(
        host=parsed.host, port=parsed.port, user=parsed.username, dbname=parsed.database, autocommit=True
    )


def placeholder(url: str) -> str:
    return "?" if url.startswith("sqlite") else "%s"
