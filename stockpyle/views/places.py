"""The texts under which a durable store keeps the values of collections, and counters, beside its objects.

No key of an object begins like them: after the prefix comes a semicolon, and not a colon.
"""

from __future__ import annotations

from hashlib import blake2b
from urllib.parse import quote, unquote

AFTER = "\x7f"
"""A character that stands behind all others of these texts."""

_COLLECTION = 66
_COUNTER = 130


class Places:
    """The texts of one collection: printable ASCII without blanks, from which the names can be read.

    most: how many characters they may have, at least 250. That of a name which does not fit begins like `long`, and
    does not say it.
    """

    def __init__(self, prefix: str, collection: str, most: int | None = None) -> None:
        self.whole = f"{prefix};collection;{quoted(collection, None if most is None else _COLLECTION)}"
        """What stands for the collection itself."""
        self.long = f"{self.whole};#"
        self._room = None if most is None else most - len(self.whole) - 1

    def of(self, name: str) -> str:
        """Return the text of a name."""
        return f"{self.whole};{quoted(name, self._room)}"

    def beginning(self, prefix: str) -> str:
        """Return how the texts begin of those names that begin like this and are not too long."""
        return f"{self.whole};{quoted(prefix)}"

    def name(self, text: str) -> str | None:
        """Return the name that a text stands for; None if it was too long."""
        return None if text.startswith(self.long) else unquote(text[len(self.whole) + 1 :])


def counter_text(prefix: str, name: str) -> str:
    """Return the text of a counter: at most 250 printable ASCII characters."""
    return f"{prefix};counter;{quoted(name, _COUNTER)}"


def quoted(name: str, most: int | None = None) -> str:
    """Return a name with all but letters, digits and ``_.-~/`` written as ``%XX``, or a BLAKE2b of one too long."""
    text = quote(name, safe="/")
    if most is None or len(text) <= most:
        return text
    return f"#{blake2b(name.encode('utf-8'), digest_size=32).hexdigest()}"
