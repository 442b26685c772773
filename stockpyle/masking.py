"""What errors, logs and reprs may show: passwords never."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

_SECRET_NAME = r"(?:pass|pwd|secret|token|credential|api_?key)"
_SECRET = re.compile(
    # names have bounds, so that a string that was made to take long does not
    rf"(?i)((?:[?&;]|%26|%3f)(?=[^=&%]{{0,60}}{_SECRET_NAME})[^=&%]{{1,90}}(?:=|%3d))(?:(?!%26)[^&])*"
)
_INNER = re.compile(r"(?i)(:|%3a)[^\s:/?#@%]{1,200}(@|%40)")
"""What stands in a string inside the string."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9.+-]*\Z")
_HOST = r"(?:\[[^\]/?#]*\]|[^,:/?#\[]*)"
_NO_PORT = re.compile(rf"^((?:{_HOST}(?::\d*)?,)*{_HOST}):(?![0-9]*(?:[,/?#]|\Z))[^/?#]*")


def is_secret(name: str) -> bool:
    """True if what has this name is not to be shown."""
    return re.search(_SECRET_NAME, name, re.IGNORECASE) is not None


def masked(text: str) -> str:
    """Return a connection string, or what was meant as one, as it may be shown: without passwords."""
    head, slashes, rest = text.partition("://")
    if not _SCHEME.match(head):
        head, rest = "", head + slashes + rest
        slashes = ""
    at = rest.rfind("@")
    if at >= 0:
        name, colon, _ = rest[:at].partition(":")
        rest = f"{name}:***{rest[at:]}" if colon else rest
    elif slashes:
        # where a port belongs there may be a password, if its @ was forgotten
        rest = _NO_PORT.sub(r"\1:***", rest)
    return _SECRET.sub(r"\1***", _INNER.sub(r"\1***\2", head + slashes + rest))


def displayed(value: Any) -> str:
    """Return a wrong value as an error may show it: without passwords, and of most objects only the type."""
    if isinstance(value, list | tuple):
        inner = (type(each).__name__ if isinstance(each, list | tuple) else displayed(each) for each in value)
        return f"[{', '.join(inner)}]"
    if isinstance(value, str):
        return repr(masked(value))
    if value is None or isinstance(value, bool | int | float | type):
        with suppress(Exception):  # an int may be too long to be shown, a type may have a repr of its own
            return repr(value)
    return f"{'an' if type(value).__name__[0] in 'aeiouAEIOU' else 'a'} {type(value).__name__}"
