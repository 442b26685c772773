from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest

from stockpyle import exceptions
from stockpyle.exceptions import (
    ImproperlyConfigured,
    MissingDependency,
    NonUniqueKeyError,
    StockpyleError,
    StockpyleWarning,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
)

TREE: dict[str, tuple[str, tuple[type, ...]]] = {
    "ImproperlyConfigured": ("StockpyleError", (ValueError,)),
    "NoSuchStoreBackend": ("ImproperlyConfigured", ()),
    "MissingDependency": ("ImproperlyConfigured", (ImportError,)),
    "InvalidKeysDeclaration": ("ImproperlyConfigured", (TypeError,)),
    "InvalidKey": ("StockpyleError", (ValueError,)),
    "InvalidKeyType": ("InvalidKey", (TypeError,)),
    "UndeclaredKeyError": ("InvalidKey", (LookupError,)),
    "AmbiguousKeyError": ("InvalidKey", (LookupError,)),
    "InvalidLifetime": ("StockpyleError", (ValueError,)),
    "InvalidNumber": ("StockpyleError", (ValueError,)),
    "PendingElsewhere": ("StockpyleError", (ValueError,)),
    "MessageTooLarge": ("StockpyleError", (ValueError,)),
    "InvalidQuery": ("StockpyleError", (ValueError,)),
    "NotExactlyOne": ("StockpyleError", (LookupError,)),
    "NonUniqueKeyError": ("StockpyleError", ()),
    "CodecError": ("StockpyleError", ()),
    "EncodeError": ("CodecError", ()),
    "DecodeError": ("CodecError", ()),
    "StoreError": ("StockpyleError", ()),
    "StoreUnavailable": ("StoreError", ()),
    "StoreTimeout": ("StoreUnavailable", ()),
    "UnsupportedOperation": ("StockpyleError", (NotImplementedError,)),
}


class User:
    pass


def error_named(name: str) -> type[StockpyleError]:
    """Return an error by its name."""
    found: type[StockpyleError] = getattr(exceptions, name)
    return found


@pytest.mark.parametrize("name", TREE)
def test_the_tree_is_as_drawn(name: str) -> None:
    """Each error has its one place in the tree, and the built-in bases by which callers may know it."""
    parent, extra = TREE[name]
    assert error_named(name).__bases__ == (getattr(exceptions, parent), *extra)


def test_the_tree_is_drawn_in_the_docstring() -> None:
    """The module's docstring draws every error, under its parent and with its extra base."""
    assert exceptions.__doc__ is not None
    drawn: dict[str, tuple[str, str]] = {}
    parents: list[str] = []
    for line in exceptions.__doc__.split("::", 1)[1].partition("\n\nStockpyleWarning")[0].splitlines():
        if line.strip():
            depth = (len(line) - len(line.lstrip())) // 2 - 2
            for name, extra in re.findall(r"\b([A-Z]\w+)(?:\((\w+)\))?(?=,|  |$)", line):
                drawn[name] = (parents[depth - 1] if depth else "", extra)
                parents[depth:] = [name]
    assert drawn.pop("StockpyleError") == ("", "")
    assert drawn == {name: (parent, extra[0].__name__ if extra else "") for name, (parent, extra) in TREE.items()}


def test_all_errors_are_exported() -> None:
    """__all__ has every public class of the module, in order, and nothing else."""
    public = {
        name for name, value in vars(exceptions).items() if getattr(value, "__module__", "") == exceptions.__name__
    }
    assert exceptions.__all__ == sorted(public)
    assert public == {"StockpyleError", "StockpyleWarning", *TREE}


def test_the_root_catches_everything_but_warnings() -> None:
    """Every error is a StockpyleError; the warning is a UserWarning and none."""
    assert all(issubclass(error_named(name), StockpyleError) for name in TREE)
    assert issubclass(StockpyleWarning, UserWarning)
    assert not issubclass(StockpyleWarning, StockpyleError)


def made(name: str) -> StockpyleError:
    """Return an error as the package makes it."""
    klass = error_named(name)
    if issubclass(klass, NonUniqueKeyError):
        return klass(User, {"email": "a@b.c"})
    if issubclass(klass, StoreError):
        return klass("no route", "sessions", "batch_get")
    return klass("it went wrong")


@pytest.mark.parametrize("name", ["StockpyleError", *TREE])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_pickling(name: str, protocol: int) -> None:
    """Type, message, arguments and attributes come back from a pickle."""
    error = made(name)
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.args == error.args
    assert vars(back) == vars(error)


@pytest.mark.parametrize("name", ["StockpyleError", *TREE])
def test_every_error_survives_copying(name: str) -> None:
    """Type, message and attributes come back from a copy."""
    error = made(name)
    back = copy.copy(error)
    assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("klass", [StoreError, StoreUnavailable, StoreTimeout])
def test_a_store_error_says_where(klass: type[StoreError]) -> None:
    """A StoreError carries the store's name and the operation, and its message begins with them."""
    error = pickle.loads(pickle.dumps(klass("no route", "sessions", "batch_get")))
    assert (error.store, error.operation) == ("sessions", "batch_get")
    assert str(error) == "sessions.batch_get: no route"
    assert str(klass("no route", store="sessions")) == "sessions: no route"
    assert str(klass("no route")) == "no route"


def test_a_non_unique_key_says_which() -> None:
    """NonUniqueKeyError carries class and key, and its message has both."""
    error: Any = pickle.loads(pickle.dumps(NonUniqueKeyError(User, {"email": "a@b.c"})))
    assert (error.klass, error.key) == (User, {"email": "a@b.c"})
    assert "User" in str(error)
    assert "{'email': 'a@b.c'}" in str(error)


def test_a_missing_dependency_is_an_import_error() -> None:
    """Code that guards an optional import catches MissingDependency too, with its message intact."""
    with pytest.raises(ImportError, match=r"^pip install stockpyle\[redis\]$"):
        raise MissingDependency("pip install stockpyle[redis]")


def test_a_message_reads_as_it_was_written() -> None:
    """No error quotes its message, as a KeyError would."""
    assert all(str(error_named(name)("a sentence")) == "a sentence" for name in TREE if name != "NonUniqueKeyError")


def test_configuration_errors_are_value_errors() -> None:
    """Whoever catches ValueError around building a store catches them all."""
    for name in ("NoSuchStoreBackend", "MissingDependency", "InvalidKeysDeclaration"):
        assert issubclass(error_named(name), ImproperlyConfigured)
        assert issubclass(error_named(name), ValueError)
