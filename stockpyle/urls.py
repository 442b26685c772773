"""Connection strings and settings become stores."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from ipaddress import IPv6Address
from typing import Any, TypeVar, overload

from stockpyle.addresses import EXAMPLE, ConnectionString
from stockpyle.exceptions import ImproperlyConfigured, NoSuchStoreBackend
from stockpyle.masking import displayed, masked
from stockpyle.parameters import converted, parameters_of, takes_any
from stockpyle.protocols import Store
from stockpyle.schemes import checked_class, data_stores, lacking, load, path_in, register_store
from stockpyle.stores._connected import arguments_of
from stockpyle.stores.base import BaseStore
from stockpyle.stores.chained import ChainedStore

S = TypeVar("S", bound=Store)

_PARTS = ("user", "username", "password", "host", "hosts", "port", "database", "path")
"""Settings that are parts of a connection string, where the constructor has no parameter of the name."""


@overload
def create_store(spec: list[Any] | tuple[Any, ...], **params: Any) -> ChainedStore: ...
@overload
def create_store(spec: str | Mapping[str, Any], **params: Any) -> BaseStore: ...
@overload
def create_store(spec: S) -> S: ...
def create_store(spec: Any, **params: Any) -> Any:
    """Make a store of what is written in settings; no connection is made yet.

    spec is a connection string, ``scheme://user:password@host:port/database?name=value``; or a mapping, whose
    "backend" is a scheme, the name of a class, the path of one ("package.module.Class") or a class, and whose other
    items are its parameters; or a list of any of these, which makes a ChainedStore; or a store, which is returned as
    it is. params win over what spec says.

    ImproperlyConfigured, or a NoSuchStoreBackend, which is one, says what is wrong.
    """
    if isinstance(spec, str):
        url = ConnectionString.parse(spec)
        klass = data_stores.class_of(url.scheme)
        if klass is None:
            raise _unknown(url.scheme)
        return _make(klass, url, params, keeps=True)
    if isinstance(spec, type):
        raise ImproperlyConfigured(
            f'{spec.__name__} is a class: give a store, {spec.__name__}(...), or settings, {{"backend": ...}}'
        )
    if not lacking(spec):
        if params:
            raise ImproperlyConfigured(f"{type(spec).__name__} is a store already: it cannot be given {_list(params)}")
        return spec
    if isinstance(spec, Mapping):
        return _of_settings(spec, params)
    if isinstance(spec, list | tuple):
        return _make(ChainedStore, ConnectionString("chain"), {"stores": spec, **params})
    raise ImproperlyConfigured(
        f"no store is made of {displayed(spec):.100}: give a connection string such as {EXAMPLE}, a mapping with a "
        '"backend", a store, or a list of these'
    )


# which class


def _of_settings(settings: Mapping[Any, Any], params: Mapping[str, Any]) -> Any:
    given = {**settings, **params}
    odd = [name for name in given if not isinstance(name, str)]
    if odd:
        raise ImproperlyConfigured(f"the names of settings are text, not {displayed(odd[0]):.100}")
    if "backend" not in given:
        raise NoSuchStoreBackend(
            'settings have a "backend": a scheme, the name of a class or the path of one; these have '
            f"{_list(given) or 'nothing'}"
        )
    klass, scheme = _class_of(given.pop("backend"))
    return _make(klass, ConnectionString(scheme), given)


def _class_of(backend: Any) -> tuple[type, str]:
    """Return the class that the settings of a store name, and its scheme, "" if it has none."""
    if isinstance(backend, type):
        klass: type | None = checked_class(backend, backend.__qualname__)
    elif not isinstance(backend, str):
        raise NoSuchStoreBackend(f'"backend" is a scheme, a class, its name or its path, not {displayed(backend):.200}')
    elif "://" in backend:
        raise NoSuchStoreBackend(
            f'"backend" is a scheme, a class, its name or its path; {masked(backend)!r} is a connection string, and '
            "makes a store alone"
        )
    elif (klass := data_stores.class_of(backend.lower())) is not None:
        return klass, backend.lower()
    elif (klass := _class_named(backend)) is None and ("." in backend or ":" in backend):
        try:
            path = path_in(backend)
        except ImproperlyConfigured as error:
            raise NoSuchStoreBackend(f"{error}; nor is it a scheme ({_list(data_stores)})") from None
        klass = load(path, f"the backend {backend!r}")
    if klass is None:
        raise _unknown(backend)
    return klass, next(iter(data_stores.schemes_of(klass)), "")


def _class_named(name: str) -> type | None:
    """A class by its own name: one of stockpyle's, or one that has a scheme."""
    ours = getattr(import_module("stockpyle.stores"), name, None)
    return ours if isinstance(ours, type) else data_stores.class_named(name)


def _unknown(name: str) -> NoSuchStoreBackend:
    near = get_close_matches(name.lower(), data_stores, 1, 0.75)
    hint = f" (do you mean {near[0]!r}?)" if near else ""
    return NoSuchStoreBackend(
        f"no store is called {displayed(name):.100}{hint}: it is none of the schemes {_list(data_stores)}, nor a "
        "name of their classes; another class is made known by register_store(), or named by its path in settings"
    )


# its parameters


def _make(klass: type, url: ConnectionString, params: Mapping[str, Any], *, keeps: bool = False) -> Any:
    """Make the store; keeps: its connection string is this one, and not made of the constructor's parameters."""
    names = parameters_of(klass)
    read = getattr(klass, "from_url", None)
    try:
        url = _with_settings(url, names, params, getattr(klass, "path_is_database", False))
        arguments = dict(arguments_of(klass, url) if read is None else read(url))
        if klass is ChainedStore:
            arguments["stores"] = _stores(arguments.get("stores"))
        unknown = [name for name in arguments if name not in names]
        if unknown and not takes_any(klass):
            raise ImproperlyConfigured(
                f"a {klass.__name__} has no parameter {_list(map(displayed, unknown))}; it has {_list(names) or 'none'}"
            )
        ready = {name: converted(name, value, names.get(name, Any)) for name, value in arguments.items()}
        store = klass(**ready)
    except ImproperlyConfigured:
        raise
    except Exception as error:  # a constructor may raise anything for what it was given
        raise ImproperlyConfigured(f"{klass.__name__}: {type(error).__name__}: {masked(str(error))}") from error
    if isinstance(store, BaseStore) and (keeps or url.rest):
        store._url = url
    return store


def _stores(specs: Any) -> Any:
    if isinstance(specs, str):
        return [create_store(specs)]
    return [create_store(each) for each in specs] if isinstance(specs, list | tuple) else specs


def _with_settings(
    url: ConnectionString, names: Mapping[str, Any], params: Mapping[str, Any], path_is_database: bool
) -> ConnectionString:
    """Return the connection string with the settings, each in its place."""
    if "" in params:
        raise ImproperlyConfigured("a parameter has an empty name")
    parts = {name: value for name, value in params.items() if name in _PARTS and name not in names}
    url = url.with_params({name: value for name, value in params.items() if name not in parts})
    # a part that is None is not given
    parts = {name: value for name, value in parts.items() if value is not None}
    for name, value in parts.items():
        fits = isinstance(value, str | int) and not isinstance(value, bool)
        if name == "hosts" and isinstance(value, list | tuple):
            fits = all(isinstance(each, str) for each in value)
        if not fits or (name == "port" and not str(value).isdecimal()):
            raise ImproperlyConfigured(
                f"{name} is {'a number' if name == 'port' else 'a text'}, not {type(value).__name__}"
            )
    if not parts:
        return url
    hosts = parts.get("hosts", parts.get("host"))
    listed = None if hosts is None else [hosts] if isinstance(hosts, str | int) else hosts
    path = parts.get("path")
    database = parts.get("database", path if path_is_database else None)
    if database is not None and "db" not in names:
        # the other name of it
        _, url = url.take({"db": None})
    if database is not None:
        path = f"/{database}"
    user = parts.get("user", parts.get("username"))
    made = url.with_parts(
        user=None if user is None else str(user),
        password=None if parts.get("password") is None else str(parts["password"]),
        hosts=None if listed is None else ConnectionString(url.scheme, ",".join(map(_bracketed, listed))).hosts,
        port=None if "port" not in parts else int(parts["port"]),
        path=None if path is None else str(path),
    )
    # reading them checks them
    return made if made.hosts or "port" not in parts else url


def _bracketed(host: Any) -> str:
    try:
        return f"[{IPv6Address(str(host))}]"
    except ValueError:
        return str(host)


def _list(names: Any) -> str:
    return ", ".join(names)


__all__ = ["create_store", "data_stores", "register_store"]
