"""The names of collections, of what is in them, and of counters."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from stockpyle.exceptions import InvalidKey, InvalidKeyType

_LONGEST = 200
"""Characters that a name may have in a key of memcached's, which has 250 bytes."""


def checked_name(name: Any, what: str) -> str:
    """Return `name`; InvalidKeyType if it is no str, InvalidKey if it is empty or has half a character in it.

    what: what it is the name of, for the error.
    """
    if not isinstance(name, str):
        raise InvalidKeyType(f"the name of {what} is a str, not {name!r} ({type(name).__name__})")
    if not name:
        raise InvalidKey(f"the name of {what} is empty")
    return checked_text(name, what)


def checked_text(name: str, what: str) -> str:
    """Return `name`; InvalidKey if it cannot be written as UTF-8."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidKey(f"the name of {what} has half a character in it: {name!r}") from None
    return name


def short_name(name: str) -> str:
    """Return a name of at most 200 printable ASCII characters without blanks: this one, or a BLAKE2b of it."""
    if len(name) <= _LONGEST and name.isascii() and name.isprintable() and " " not in name and name[0] != "#":
        return name
    return f"#{blake2b(name.encode('utf-8'), digest_size=32).hexdigest()}"
