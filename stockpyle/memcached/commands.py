"""Commands of memcached's text protocol, as a user writes them, and what their answers mean.

How an answer ends depends on the command, so only those known here can be sent. (memcached's doc/protocol.txt.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stockpyle.exceptions import InvalidKey, StoreError, UnsupportedOperation
from stockpyle.memcached.stream import Garbage

Line = Callable[[], bytes]
Block = Callable[[int], bytes]

_STORES = {"set": 2, "add": 2, "replace": 2, "append": 2, "prepend": 2, "cas": 3}
"""Commands with a value, and how many numbers stand between key and value: flags, expiry, and the CAS id."""

_FETCHES = {"get": 0, "gets": 0, "gat": 1, "gats": 1}
"""Commands that ask for keys, and how many numbers stand before them."""

_KEYED = ("delete", "incr", "decr", "touch")
_KEYLESS = ("version", "flush_all", "verbosity")
KNOWN = (*_STORES, *_FETCHES, *_KEYED, *_KEYLESS, "stats")
MOST_LINES = 100_000


class MemcachedCommand:
    """One command, checked, as it is sent. keys are those in it: they decide on its server."""

    def __init__(self, words: tuple[Any, ...]) -> None:
        self._name = _encoded(words[0]).decode("utf-8", "replace").lower()
        if self._name not in KNOWN:
            raise UnsupportedOperation(
                f"{self._name!r} is no command that can be sent to memcached: {', '.join(KNOWN)} are"
            )
        given = [_encoded(word) for word in words[1:]]
        self.keys: list[bytes] = []
        if self._name in _STORES:
            numbers = _STORES[self._name]
            names = ("flags", "expiry", "cas id")[:numbers]
            self._need(len(given) == numbers + 2, f"key, {', '.join(names)} and value")
            key, value = given[0], given[-1]
            middle = [given[1], given[2], b"%d" % len(value), *given[3:-1]]
            self.keys = [_checked_key(key)]
            self.data = b" ".join([self._name.encode(), key, *map(_checked, middle)]) + b"\r\n" + value + b"\r\n"
            return
        if self._name in _FETCHES:
            before = _FETCHES[self._name]
            self._need(len(given) > before, "an expiry and keys" if before else "keys")
            self.keys = [_checked_key(key) for key in given[before:]]
        elif self._name in _KEYED:
            self._need(bool(given), "a key")
            self.keys = [_checked_key(given[0])]
        self.data = b" ".join([self._name.encode(), *map(_checked, given)]) + b"\r\n"

    def _need(self, fits: bool, what: str) -> None:
        if not fits:
            raise UnsupportedOperation(f"{self._name} needs {what}")

    def read(self, line: Line, block: Block) -> Any:
        """Read the answer: values by their keys, statistics by their names, a number, or the words that were said."""
        first = line()
        if first.startswith((b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR")):
            raise StoreError(f"memcached refuses it: {_text(first)}")
        if self._name in _FETCHES:
            return self._values(first, line, block)
        if self._name == "stats":
            return _statistics(first, line)
        return int(first) if first.isdigit() and self._name in ("incr", "decr") else _text(first)

    def _values(self, first: bytes, line: Line, block: Block) -> dict[str, Any]:
        found: dict[str, Any] = {}
        each = first
        for _ in range(len(self.keys) + 1):
            if each == b"END":
                return found
            parts = each.split(b" ")
            has_cas = self._name in ("gets", "gats")
            if parts[0] != b"VALUE" or len(parts) != 4 + has_cas or not all(part.isdigit() for part in parts[2:]):
                break
            value = block(int(parts[3][:20]))
            found[_text(parts[1])] = (value, int(parts[4])) if has_cas else value
            each = line()
        raise Garbage(f"memcached answered {each[:80]!r} to {self._name}")


def _statistics(first: bytes, line: Line) -> Any:
    if first in (b"RESET", b"OK"):
        return _text(first)
    found: dict[str, str] = {}
    each = first
    for _ in range(MOST_LINES):
        if each == b"END":
            return found
        parts = each.split(b" ", 2)
        if parts[0] not in (b"STAT", b"ITEM") or len(parts) < 2:
            break
        found[_text(parts[1])] = _text(b" ".join(parts[2:]))
        each = line()
    raise Garbage(f"memcached answered {each[:80]!r} to stats")


def _encoded(word: Any) -> bytes:
    if isinstance(word, bytes | bytearray):
        return bytes(word)
    if isinstance(word, str | int) and not isinstance(word, bool):
        return str(word).encode("utf-8")
    raise TypeError(f"a command of memcached is made of text, bytes and whole numbers, not of {word!r:.100}")


def _checked(word: bytes) -> bytes:
    if not word or any(byte <= 0x20 or byte == 0x7F for byte in word):
        raise InvalidKey(f"{word[:80]!r} has blanks or control characters, or is empty: memcached would misread it")
    if word == b"noreply":
        raise UnsupportedOperation("noreply asks for no answer, which is waited for")
    return word


def _checked_key(key: bytes) -> bytes:
    if len(key) > 250:
        raise InvalidKey(f"{key[:80]!r}... has {len(key)} bytes: a key of memcached has at most 250")
    return _checked(key)


def _text(said: bytes) -> str:
    return said.decode("utf-8", "replace")
