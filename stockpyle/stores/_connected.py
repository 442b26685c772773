"""A store as a connection: what it is called, where it is, what it can do, and the verbs of its backend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from stockpyle.addresses import ConnectionString, address
from stockpyle.capabilities import METHODS, PAIRS, PROVIDERS
from stockpyle.exceptions import ImproperlyConfigured, UnsupportedOperation
from stockpyle.parameters import parameters_of, text_of
from stockpyle.schemes import data_stores, path_of

Self = TypeVar("Self", bound="Connected")


class Connected:
    """What every store is besides the six verbs.

    A class that declares `schemes` can be made by ``create_store("scheme://...")``. What a connection string says
    becomes the parameters of its constructor: ``?name=value`` the parameter of that name, by its annotation; user,
    password, host and port (or hosts, servers), database or path those of these names, where the constructor has them.
    A class whose constructor takes something else has its own `from_url`, and `to_url` for the way back.
    """

    schemes: ClassVar[tuple[str, ...]] = ()
    """Schemes of connection strings; the first is the store's name."""

    supports: frozenset[str] = frozenset()
    """What the store can do: names in stockpyle.capabilities. A capability that is a method needs no mention."""

    is_root: ClassVar[bool] = True
    """Set in a class itself: what it has is only there to be replaced."""

    _given: tuple[tuple[Any, ...], dict[str, Any]]
    _url: ConnectionString | None = None

    def __new__(cls: type[Self], *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        self._given = args, kwargs
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        inherited = frozenset[str]().union(*(getattr(base, "supports", ()) for base in cls.__bases__))
        cls.supports = inherited | frozenset(cls.__dict__.get("supports", ())) | _methods_of(cls)
        for scheme in cls.__dict__.get("schemes", ()):
            data_stores.add(scheme, path_of(cls), cls)

    # what it is called, and where it is

    @property
    def name(self) -> str:
        """What errors and logs call the store: the first scheme of its class, or the name of its class."""
        return next(iter(data_stores.schemes_of(type(self))), type(self).__name__)

    @property
    def database(self) -> str | None:
        """The database, or whatever the backend calls what it keeps apart; None if there is no such thing."""
        url = self._address()
        if url is None:
            return None
        names = parameters_of(type(self))
        return (url.path if "path" in names and "database" not in names else url.path.lstrip("/")) or None

    @property
    def dns(self) -> str | None:
        """The connection string with its parameters, and its password: ``create_store(store.dns)`` is an equal store.

        What has no text, such as a client or a callback, is not in it. None for a class that has no scheme.
        """
        url = self._address()
        return None if url is None or not url.scheme else url.written(text_of)

    def _address(self) -> ConnectionString | None:
        if self._url is not None:
            return self._url
        scheme = next(iter(data_stores.schemes_of(type(self))), None)
        if scheme is None:
            return None
        args, kwargs = self._given
        return self.to_url(scheme, {**dict(zip(parameters_of(type(self)), args, strict=False)), **kwargs})

    @classmethod
    def from_url(cls, url: ConnectionString) -> dict[str, Any]:
        """Return the parameters of the constructor that a connection string stands for. Nothing is connected to.

        Values may be text: it is read by the constructor's annotations afterwards. Names that the constructor does not
        know are refused afterwards too. ImproperlyConfigured says what is wrong with the string.
        """
        return arguments_of(cls, url)

    def to_url(self, scheme: str, arguments: Mapping[str, Any]) -> ConnectionString | None:
        """Return the connection string of a store that was made with these parameters of its constructor."""
        parts = {name: arguments[name] for name in _PARTS if arguments.get(name) is not None}
        hosts = parts.get("hosts", parts.get("servers", parts.get("host")))
        path = parts.get("path")
        if "database" in parts:
            path = f"/{parts['database']}"
        listed = ",".join([hosts] if isinstance(hosts, str) else map(str, hosts or ()))
        url = ConnectionString(scheme, listed).with_parts(
            user=parts.get("user", parts.get("username")),
            password=parts.get("password"),
            port=parts.get("port"),
            path=None if path is None else str(path),
        )
        rest = {name: value for name, value in arguments.items() if name not in parts}
        return with_text(url, rest)

    # what its backend does

    def ping(self) -> bool:
        """Return True if the backend answers; StoreUnavailable, or StoreTimeout, if it does not."""
        raise self._lacks("ping")

    def connect(self) -> Any:
        """Return a new connection to the backend, as its driver makes them. It is the caller's, who closes it."""
        raise self._lacks("connect")

    def execute(self, *command: Any) -> Any:
        """Run a command of the backend and return its answer.

        StoreUnavailable, or StoreTimeout, if the backend cannot be used: then it may have been run, or may not.
        StoreError if the backend refuses it.
        """
        raise self._lacks("execute")

    def execute_transaction(self, commands: Iterable[Any]) -> list[Any]:
        """Run several commands, each as `execute` takes it, in one transaction, and return their answers."""
        raise self._lacks("transactions")

    def _lacks(self, capability: str, what: str = "") -> UnsupportedOperation:
        able = sorted({each.__name__ for each in _all_stores(Connected) if capability in each.supports})
        others = f": {', '.join(able)} can" if able else ""
        return UnsupportedOperation(f"{type(self).__name__} {what or f'has no {METHODS[capability]}()'}{others}")


_PARTS = ("user", "username", "password", "host", "port", "hosts", "servers", "database", "path")


def _methods_of(cls: type) -> frozenset[str]:
    """What a class has methods of its own for, or has inherited from one that has."""
    own: set[str] = set()
    for each in cls.__mro__:
        if "is_root" in each.__dict__:
            break
        own.update(each.__dict__)
    found = {name for name, method in METHODS.items() if method in own or PROVIDERS.get(name) in own}
    return frozenset(found | {one for pair in PAIRS.items() for one in pair if found.intersection(pair)})


def _all_stores(cls: type[Connected]) -> Iterator[type[Connected]]:
    for each in cls.__subclasses__():
        if each.__dict__.get("schemes") and each.__module__.startswith("stockpyle."):
            yield each
        yield from _all_stores(each)


def with_text(url: ConnectionString, arguments: Mapping[str, Any]) -> ConnectionString:
    """Return the string with those of these parameters that have a text."""
    return url.with_params({name: value for name, value in arguments.items() if text_of(value) is not None})


def command_of(command: Any) -> tuple[Any, ...]:
    """Return one command, which may be a single word, as a tuple."""
    words = tuple(command) if isinstance(command, list | tuple) else (command,)
    if not words:
        raise TypeError("a command has at least one word")
    return words


def arguments_of(cls: type, url: ConnectionString) -> dict[str, Any]:
    """Return what a connection string says as the parameters of a constructor that names them as usual."""
    names = parameters_of(cls)
    arguments = dict(url.params)

    def give(part: str, value: Any, *known: str) -> None:
        if value is None or value == "":
            return
        name = next((each for each in known if each in names), None)
        if name is None:
            raise ImproperlyConfigured(f"{url!r}: a {cls.__name__} has no {part}")
        arguments.setdefault(name, value)

    give("user", url.user, "user", "username")
    give("password", url.password, "password")
    hosts = url.hosts
    if len(hosts) == 1 and "host" in names:
        give("host", hosts[0][0], "host")
        give("port", hosts[0][1], "port")
    elif hosts:
        give("list of hosts" if len(hosts) > 1 else "host", [address(*each) for each in hosts], "hosts", "servers")
    if url.path not in ("", "/"):
        give("database", url.path if "database" not in names else url.path[1:], "database", "path")
    return arguments
