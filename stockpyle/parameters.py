"""What a class is made with: the parameters of its constructor, and how text becomes what they are.

Their annotations say it: a number of seconds may be written as a duration (``5m``, ``1h30m``, ``250ms``), a whole
number with k, M or G (thousands), or ki, Mi, Gi (1024), a bool as true or false, yes or no, on or off, 1 or 0.
"""

from __future__ import annotations

import inspect
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from stockpyle.exceptions import ImproperlyConfigured
from stockpyle.masking import displayed, is_secret

_NUMBER = re.compile(r"[+-]?\d{1,18}(\.\d{1,20})?(e[+-]?\d{1,2})?\Z", re.ASCII | re.IGNORECASE)
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(ms|s|m|h|d|w)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_UNREADABLE = 10**18
_SIZE = re.compile(r"([+-]?\d{1,18})(k|m|g|ki|mi|gi)?b?\Z", re.ASCII | re.IGNORECASE)
_TIMES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_BOOLS = {**dict.fromkeys(("true", "yes", "on", "1"), True), **dict.fromkeys(("false", "no", "off", "0"), False)}
_SIMPLE = (bool, int, float, str, types.NoneType, timedelta, datetime, Path)
_WORDS = {
    bool: "true or false",
    int: "a whole number, such as 500 or 10k",
    float: "a number of seconds, or a duration such as 250ms, 30s or 5m",
    timedelta: "a duration such as 30s, 5m or 1h30m, or a time such as 2030-01-31T12:00",
    str: "a text",
    Path: "a path",
}


def parameters_of(klass: type) -> Mapping[str, Any]:
    """Return the parameters of a class's constructor, each with its type; Any where that is not known.

    One that takes ``**options`` has the parameters of the class above it, too, and one that does not say the type of a
    parameter means that of the same name there.
    """
    found: dict[str, Any] = {}
    hands_on = True
    for each in klass.__mro__:
        function: Any = each.__dict__.get("__init__")
        if function is None:
            continue
        names = getattr(inspect.unwrap(function), "__globals__", {})
        declared = _declared(function)
        for parameter in declared:
            if parameter.kind not in _REST and found.get(parameter.name, Any if hands_on else None) is Any:
                found[parameter.name] = _type_of(parameter.annotation, names)
        hands_on = hands_on and any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in declared)
    return found


_REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def takes_any(klass: type) -> bool:
    """True if the constructor takes parameters that it does not name."""
    function: Any = inspect.getattr_static(klass, "__init__")
    return any(each.kind is inspect.Parameter.VAR_KEYWORD for each in _declared(function))


def _declared(function: Any) -> list[inspect.Parameter]:
    if function is object.__init__:
        return []
    try:
        return list(inspect.signature(function).parameters.values())[1:]
    except (TypeError, ValueError):
        # one written in C, which tells nothing
        return []


def _type_of(annotation: Any, names: dict[str, Any]) -> Any:
    if annotation is inspect.Parameter.empty:
        return Any
    if isinstance(annotation, str):
        try:
            return eval(annotation, names)
        except Exception:  # noqa: BLE001  # a name that is there for type checkers only, say
            return Any
    return annotation


def converted(name: str, value: Any, kind: Any) -> Any:
    """Return what a parameter of this type is to be given for a value, which may be text.

    Raises ImproperlyConfigured, naming the parameter, for what does not fit.
    """
    members = tuple(_members(kind))
    if Any in members or object in members:
        return value
    if isinstance(value, str):
        return _of_text(name, value, members)
    if isinstance(value, list) and all(isinstance(each, str) for each in value) and not _is_listed(members):
        raise ImproperlyConfigured(f"{name} is given {len(value)} times")
    known = all(each in _SIMPLE or get_origin(each) in (Literal, Callable) for each in members)
    if known and not any(_is(value, each) for each in members):
        raise _wrong(name, value, members)
    return value


def _members(kind: Any) -> Iterable[Any]:
    if get_origin(kind) in (Union, types.UnionType):
        for each in get_args(kind):
            yield from _members(each)
    else:
        yield kind


def _is_listed(members: tuple[Any, ...]) -> bool:
    return any(
        inspect.isclass(origin) and issubclass(origin, Iterable) and not issubclass(origin, Mapping)
        for origin in (get_origin(each) or each for each in members)
        if origin not in (str, bytes)
    )


def _is(value: Any, member: Any) -> bool:
    if get_origin(member) is Literal:
        return value in get_args(member)
    if get_origin(member) is Callable:
        return callable(value)
    if isinstance(value, bool):
        return member is bool
    return isinstance(value, (int, float) if member is float else member)


def _of_text(name: str, text: str, members: tuple[Any, ...]) -> Any:
    if str in members:
        return text
    if types.NoneType in members and text.lower() == "none":
        return None
    choices = [choice for each in members if get_origin(each) is Literal for choice in get_args(each)]
    if choices:
        if text in choices:
            return text
        raise ImproperlyConfigured(f"{name} is {' or '.join(map(repr, choices))}, not {_shown(name, text):.200}")
    for member, read in ((timedelta, _lifetime), (bool, _bool), (float, _seconds), (int, _size), (Path, Path)):
        if member in members:
            found = read(text)
            if found is None:
                raise _wrong(name, text, members)
            return found
    if _is_listed(members):
        return [text]
    raise ImproperlyConfigured(f"{name} cannot be given as text: give create_store the object itself, {name}=...")


def _wrong(name: str, value: Any, members: tuple[Any, ...]) -> ImproperlyConfigured:
    word = next((word for kind, word in reversed(_WORDS.items()) if kind in members), None)
    if word is None and any(get_origin(each) is Callable for each in members):
        word = "a function"
    if word is None:
        choices = [repr(choice) for each in members for choice in get_args(each)]
        word = " or ".join(choices) or "none"
    none = " (or none)" if types.NoneType in members else ""
    return ImproperlyConfigured(f"{name} is {word}{none}, not {_shown(name, value):.200}")


def _shown(name: str, value: Any) -> str:
    return "***" if is_secret(name) else displayed(value)


def _bool(text: str) -> bool | None:
    return _BOOLS.get(text.lower())


def _size(text: str) -> int | None:
    found = _SIZE.match(text)
    return None if found is None else int(found[1]) * _TIMES[(found[2] or "").lower()]


def _seconds(text: str) -> float | int | None:
    if _NUMBER.match(text):
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    total = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return int(total) if total == int(total) else round(total, 9)


def _lifetime(text: str) -> float | int | datetime | None:
    seconds = _seconds(text)
    if seconds is not None:
        return seconds
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def text_of(value: Any) -> str | list[str] | None:
    """Return the text that stands for a value in a connection string; None if there is none."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, timedelta):
        return text_of(value.total_seconds())
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float):
        return repr(value).removesuffix(".0") if math.isfinite(value) else None
    if isinstance(value, int):
        return str(value) if abs(value) < _UNREADABLE else None
    if isinstance(value, str | Path):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        texts = [text_of(each) for each in value]
        if texts and all(isinstance(each, str) for each in texts):
            return [str(each) for each in texts]
    return None
