"""Connection strings: ``scheme://user:password@host1:port,host2/path?name=value``, taken apart and put together.

The scheme and the parameters are read at once, the rest only when it is asked for: some backends have an own
spelling of it. What is wrong with a string is said without its password.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

from stockpyle.exceptions import ImproperlyConfigured
from stockpyle.masking import displayed, masked

EXAMPLE = '"redis://user:password@host:6379/0?namespace=app"'
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9.+-]*\Z")
_HOST = re.compile(r"[^\s\x00-\x20\x7f,/@:\[\]%?#\\]+\Z")
_SAFE = "/:,@!$'()*~[]"
"""What need not be escaped in the value of a parameter."""

Values = str | list[str]


@dataclass(frozen=True)
class Parameter:
    """One parameter, and how it was written."""

    name: str
    value: Any
    written: str | None = None

    def text(self, text_of: Callable[[Any], str | list[str] | None]) -> str | None:
        """Return it as it stands in a string; None if it has no text."""
        if self.written is not None:
            return self.written
        value = text_of(self.value)
        if value is None:
            return None
        values = value if isinstance(value, list) else [value]
        return "&".join(f"{quote(self.name, safe='')}={quote(each, safe=_SAFE)}" for each in values)


@dataclass(frozen=True)
class ConnectionString:
    """A connection string. rest is what stands between ``://`` and ``?``, as written.

    The values of `params` are text, or a list if a name was given more than once; those added by keyword are whatever
    they are.
    """

    scheme: str
    rest: str = ""
    parameters: tuple[Parameter, ...] = ()

    @classmethod
    def parse(cls, text: str) -> ConnectionString:
        """Take a connection string apart; ImproperlyConfigured names the part that is wrong."""
        scheme, slashes, rest = text.partition("://")
        if not slashes or not _SCHEME.match(scheme):
            near = f": write {text}://" if _SCHEME.match(text) else ""
            raise ImproperlyConfigured(f"{masked(text)!r} is no connection string, such as {EXAMPLE}{near}")
        if re.search(r"[\x00-\x1f\x7f]", text) or text != text.strip():
            raise _wrong(text, "it has a control character, or a blank at an end")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _wrong(text, "it has half a character (a surrogate)") from None
        rest, mark, query = rest.partition("?")
        return cls(scheme.lower(), rest, _parameters(text, query) if mark else ())

    # its parts

    @property
    def params(self) -> dict[str, Any]:
        """The parameters by their names."""
        return {each.name: each.value for each in self.parameters}

    @property
    def inner(self) -> str:
        """What follows the first + of the scheme: "postgresql" in "sqltable+postgresql://..."."""
        return self.scheme.partition("+")[2]

    @cached_property
    def _split(self) -> tuple[str, str, str]:
        """The credentials (up to and with their @), the hosts and the path."""
        authority, slash, path = self.rest.partition("/")
        credentials, at, hosts = authority.rpartition("@")
        return credentials + at, hosts, slash + path

    @property
    def user(self) -> str | None:
        """The user's name, if there is one."""
        return self._decoded(self._split[0][:-1].partition(":")[0], "the user's name") or None

    @property
    def password(self) -> str | None:
        """The password; "" if it is blank (``user:@host``), None if there is none."""
        _, colon, password = self._split[0][:-1].partition(":")
        return self._decoded(password, "the password") if colon else None

    @cached_property
    def hosts(self) -> tuple[tuple[str, int | None], ...]:
        """Each host, and its port if it has one."""
        listed = self._split[1]
        return tuple(self._host(each) for each in listed.split(",")) if listed else ()

    @property
    def path(self) -> str:
        """The path, with the / that it begins with; "" if there is none."""
        return self._decoded(self._split[2], "the path")

    def _host(self, listed: str) -> tuple[str, int | None]:
        host, colon, port = listed.rpartition(":") if not listed.endswith("]") else (listed, "", "")
        if not colon:
            host = listed
        hint = ""
        if "@" in self._split[2] or any("@" in str(each.written) for each in self.parameters):
            hint = " (in a password, / is written as %2F, and ? as %3F)"
        if colon and not (port.isascii() and port.isdigit() and 0 < int(port[:9]) < 65536 and len(port) < 9):
            raise self.wrong(
                f"{_harmless(port, hint) if port.isdigit() or not port else '***'} is no port, 1 to 65535{hint}"
            )
        number = int(port) if colon else None
        if host.startswith("[") and host.endswith("]"):
            try:
                return str(IPv6Address(unquote(host[1:-1]))), number
            except ValueError:
                raise self.wrong(f"{_harmless(host, hint)} is no IPv6 address{hint}") from None
        if ":" in host:
            raise self.wrong(f"an IPv6 address stands in brackets, [::1]:6379, not {_harmless(host, hint)}{hint}")
        if not _HOST.match(host):
            raise self.wrong(f"{_harmless(host, hint)} is no host{hint}")
        return host, number

    def _decoded(self, written: str, part: str) -> str:
        if "#" in written:
            raise self.wrong(f"{part} has a #: write it as %23")
        try:
            return unquote(written, errors="strict")
        except UnicodeDecodeError:
            raise self.wrong(f"{part} is not UTF-8") from None

    def wrong(self, what: str) -> ImproperlyConfigured:
        """Return the error that says what is wrong with this string."""
        return _wrong(str(self), what)

    # put together

    def with_params(self, params: Mapping[str, Any]) -> ConnectionString:
        """Return it with these parameters, in place of those it has of the same names."""
        kept = tuple(each for each in self.parameters if each.name not in params)
        return replace(self, parameters=(*kept, *(Parameter(name, value) for name, value in params.items())))

    def take(self, names: Mapping[str, Any]) -> tuple[dict[str, Any], ConnectionString]:
        """Return the parameters of these names, and the string without them."""
        left = tuple(each for each in self.parameters if each.name not in names)
        return {each.name: each.value for each in self.parameters if each.name in names}, replace(self, parameters=left)

    def with_parts(
        self,
        user: str | None = None,
        password: str | None = None,
        hosts: tuple[tuple[str, int | None], ...] | None = None,
        port: int | None = None,
        path: str | None = None,
    ) -> ConnectionString:
        """Return it with these parts in place of its own."""
        credentials, listed, own_path = self._split
        if user is not None or password is not None:
            user = self.user if user is None else user
            password = self.password if password is None else password
            credentials = quote(user or "", safe="")
            credentials += "" if password is None else f":{quote(password, safe='')}"
            credentials += "@" if credentials else ""
        if hosts is not None or port is not None:
            named = hosts or self.hosts or (("localhost", None),)
            listed = ",".join(address(host, own if port is None else port) for host, own in named)
        return replace(self, rest=f"{credentials}{listed}{own_path if path is None else quote(path, safe='/:@')}")

    def written(self, text_of: Callable[[Any], str | list[str] | None]) -> str:
        """Return the string, with the parameters that have a text."""
        texts = [text for each in self.parameters if (text := each.text(text_of)) is not None]
        return f"{self.scheme}://{self.rest}" + (f"?{'&'.join(texts)}" if texts else "")

    def __str__(self) -> str:
        return self.written(lambda value: value if isinstance(value, str) else displayed(value))

    def __repr__(self) -> str:
        return f"<{masked(str(self))}>"


def address(host: str, port: int | None) -> str:
    """Return a host and its port as they stand in a connection string."""
    host = f"[{host.replace('%', '%25')}]" if ":" in host else host
    return host if port is None else f"{host}:{port}"


def _harmless(part: str, hint: str) -> str:
    """What stands where a host or a port belongs, quoted; hidden if it may be a password, or the end of one."""
    harmless = not hint and (":" not in part or re.fullmatch(r"[0-9a-fA-F:.\[\]]*", part))
    return repr(part) if harmless else "***"


def _parameters(text: str, query: str) -> tuple[Parameter, ...]:
    found: dict[str, Parameter] = {}
    for written in query.split("&"):
        if not written:
            continue
        name, equals, value = (_unquoted(text, each) for each in written.partition("="))
        if not equals or not name:
            raise _wrong(text, _misspelt(name or value, "@" in query))
        before = found.get(name)
        if before is None:
            found[name] = Parameter(name, value, written)
        else:
            earlier = before.value if isinstance(before.value, list) else [before.value]
            found[name] = Parameter(name, [*earlier, value], f"{before.written}&{written}")
    return tuple(found.values())


def _misspelt(parameter: str, in_password: bool) -> str:
    if in_password:
        return "a parameter is written as name=value (in a password, ? is written as %3F)"
    return f"the parameter {parameter!r} is written as name=value"


def _unquoted(text: str, written: str) -> str:
    try:
        return unquote_plus(written, errors="strict")
    except UnicodeDecodeError:
        raise _wrong(text, "its parameters are not UTF-8") from None


def _wrong(text: str, what: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{masked(text)!r}: {what}")
