"""memcached, as far as it matters here: an executable model of the commands that stockpyle sends.

It knows ``get`` and ``gets`` of one key, ``mg`` with v f s c t N, ``ms`` with C F T c ME and ``md`` with C, and refuses
all else. test_memcached.py compares each reply with a real server's. Items are plain tuples, so that a whole server can
be kept, compared and gone back to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

NEVER = -1
"""What ``t`` shows of an item that does not expire."""


class Item(NamedTuple):
    """What stands under a key. seconds: its time to live. leased: a reader has been told that it has won (W)."""

    flags: int
    data: bytes
    seconds: int
    cas: int
    leased: bool = False


Items = dict[bytes, Item]


class Command(NamedTuple):
    """One command; flags are ``(b"C", b"5")`` and such, in their order."""

    verb: bytes
    key: bytes
    flags: tuple[tuple[bytes, bytes], ...] = ()
    data: bytes = b""

    def flag(self, name: bytes) -> bytes | None:
        """Return what a flag carries, or None without that flag."""
        return next((value for flag, value in self.flags if flag == name), None)

    def __str__(self) -> str:
        flags = [(name + value).decode() for name, value in self.flags if name + value not in (b"v", b"f", b"c")]
        return " ".join([self.verb.decode(), self.key.decode(), *flags])


KNOWN = {b"mg": b"vfsctN", b"ms": b"CFTcM", b"md": b"C"}


@cache
def parse(sent: bytes) -> tuple[tuple[Command, ...], bytes]:
    """Return the commands in what a client has sent at once, ``get`` and ``gets`` as one a key, and the reply's end."""
    commands = []
    end = b""
    rest = sent
    while rest:
        line, _, rest = rest.partition(b"\r\n")
        verb, *parts = line.split(b" ")
        if verb in (b"get", b"gets"):
            commands += [Command(verb, key) for key in parts]
            end = b"END\r\n"
        elif verb == b"mn":
            end = b"MN\r\n"
        else:
            key, *parts = parts
            data = b""
            if verb == b"ms":
                size = int(parts.pop(0))
                data, rest = rest[:size], rest[size + 2 :]
            flags = tuple((part[:1], part[1:]) for part in parts)
            unknown = [flag for flag in flags if flag[0] not in [bytes([each]) for each in KNOWN[verb]]]
            if unknown or (verb == b"ms" and dict(flags).get(b"M", b"E") != b"E"):
                raise NotImplementedError(f"the model of memcached does not know {line!r}")
            commands.append(Command(verb, key, flags, data))
    return tuple(commands), end


def execute(items: Items, command: Command, new_cas: Callable[[], int]) -> bytes:
    """Do one command to `items`, and return the reply."""
    held = items.get(command.key)
    if command.verb in (b"get", b"gets"):
        if held is None:
            return b""
        cas = b" %d" % held.cas if command.verb == b"gets" else b""
        return b"VALUE %b %d %d%b\r\n%b\r\n" % (command.key, held.flags, len(held.data), cas, held.data)
    if command.verb == b"mg":
        return _meta_get(items, command, held, new_cas)
    if command.verb == b"md":
        status = _compare(command, held)
        if status == b"HD":
            del items[command.key]
        return status + b"\r\n"
    status = b"HD"
    if command.flag(b"M") is not None:
        status = b"HD" if held is None else b"NS"
    elif command.flag(b"C") is not None:
        status = _compare(command, held)
    cas = 0
    if status == b"HD":
        cas = new_cas()
        seconds = int(command.flag(b"T") or 0)
        items.pop(command.key, None)
        if seconds >= 0:
            items[command.key] = Item(int(command.flag(b"F") or 0), command.data, seconds or NEVER, cas)
    return status + (b"" if command.flag(b"c") is None else b" c%d" % cas) + b"\r\n"


def _compare(command: Command, held: Item | None) -> bytes:
    cas = command.flag(b"C")
    if held is None:
        return b"NF"
    return b"HD" if cas is None or int(cas) == held.cas else b"EX"


def _meta_get(items: Items, command: Command, held: Item | None, new_cas: Callable[[], int]) -> bytes:
    lease = command.flag(b"N")
    won = held is None and lease is not None
    if won:
        held = items[command.key] = Item(0, b"", int(lease or 0), new_cas(), leased=True)
    if held is None:
        return b"EN\r\n"
    numbers = {b"f": held.flags, b"s": len(held.data), b"c": held.cas, b"t": held.seconds}
    shown = [flag + str(numbers[flag]).encode() for flag, _ in command.flags if flag in numbers]
    if held.leased:
        shown.append(b"W" if won else b"Z")
    wanted = command.flag(b"v") is not None
    header = [b"VA", b"%d" % len(held.data), *shown] if wanted else [b"HD", *shown]
    return b" ".join(header) + b"\r\n" + (held.data + b"\r\n" if wanted else b"")


class Model:
    """A server of its own, that counts its CAS ids as memcached does."""

    def __init__(self) -> None:
        self.items: Items = {}
        self.last_cas = 0

    def send(self, sent: bytes) -> bytes:
        """Return the reply to what a client has sent."""
        commands, end = parse(sent)
        return b"".join(execute(self.items, command, self._new_cas) for command in commands) + end

    def _new_cas(self) -> int:
        self.last_cas += 1
        return self.last_cas

    def restart(self) -> None:
        """Begin anew: empty, and with the first CAS id."""
        self.__init__()
