"""Collections and counters in Redis: a hash for each collection, a string for each counter."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from stockpyle.redis.server import RedisServer
from stockpyle.views.names import short_name

_WRITE = """
local puts = tonumber(ARGV[1])
for i = 2, 2 * puts, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
for i = 2 * puts + 2, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
"""
_GLOB = str.maketrans({character: f"\\{character}" for character in "\\*?[]^"})
_PAGE = 1000


class RedisEntries:
    """See Entries."""

    def __init__(self, server: RedisServer, prefix: str) -> None:
        self._server = server
        self._prefix = prefix

    def _key(self, collection: str) -> bytes:
        return f"{self._prefix}:collection:{short_name(collection)}".encode("ascii")

    def read(self, collection: str, name: str) -> bytes | None:
        """See Entries.read."""
        found: bytes | None = self._server.once(
            "collection", lambda client: client.hget(self._key(collection), _b(name))
        )
        return found

    def read_all(self, collection: str) -> dict[str, bytes]:
        """See Entries.read_all."""
        found = self._server.once("collection", lambda client: client.hgetall(self._key(collection)))
        return {name.decode("utf-8"): value for name, value in found.items()}

    def names(self, collection: str, prefix: str) -> list[str]:
        """See Entries.names."""

        def scan(client: Any) -> list[str]:
            match = prefix.translate(_GLOB) + "*"
            found = client.hscan_iter(self._key(collection), match=_b(match), count=_PAGE)
            # a hash that grows meanwhile is read in parts twice
            return list(dict.fromkeys(name.decode("utf-8") for name, _ in found))

        return self._server.once("collection", scan)

    def write(self, collection: str, puts: Mapping[str, bytes], deletes: Collection[str]) -> None:
        """See Entries.write. Others see all of it at once."""
        arguments = [each for name, value in puts.items() for each in (_b(name), value)]
        arguments += [_b(name) for name in deletes]
        self._server.once(
            "collection", lambda client: client.eval(_WRITE, 1, self._key(collection), len(puts), *arguments)
        )

    def drop(self, collection: str) -> None:
        """See Entries.drop."""
        self._server.once("collection", lambda client: client.delete(self._key(collection)))


class RedisNumbers:
    """See Numbers."""

    def __init__(self, server: RedisServer, prefix: str) -> None:
        import redis

        self._server = server
        self._prefix = prefix
        self._refusal = redis.ResponseError

    def _key(self, name: str) -> bytes:
        return f"{self._prefix}:counter:{short_name(name)}".encode("ascii")

    def read(self, name: str) -> int:
        """See Numbers.read."""
        return int(self._server.once("counter", lambda client: client.get(self._key(name))) or 0)

    def add(self, name: str, by: int) -> int | None:
        """See Numbers.add."""

        def add(client: Any) -> int | None:
            try:
                return int(client.incrby(self._key(name), by))
            except self._refusal as error:
                if "overflow" in str(error):
                    return None
                raise

        return self._server.once("counter", add)

    def swap(self, name: str, to: int) -> int:
        """See Numbers.swap."""
        return int(self._server.once("counter", lambda client: client.getset(self._key(name), to)) or 0)


def _b(text: str) -> bytes:
    return text.encode("utf-8")
