"""Everything stockpyle raises, in one tree::

    StockpyleError
      ImproperlyConfigured(ValueError)        what a store was built with makes no sense
        NoSuchStoreBackend                    a connection string names no known store
        MissingDependency(ImportError)        an optional package is not installed
        InvalidKeysDeclaration(TypeError)     __stockpyle_keys__ is not a list of names and tuples of names
      InvalidKey(ValueError)                  a key, or an object's key attributes, identify nothing
        InvalidKeyType(TypeError)             a key value of a type that cannot be compared safely
        UndeclaredKeyError(LookupError)       attribute names that the class does not declare as a key
        AmbiguousKeyError(LookupError)        a key without a class that several classes declare
      InvalidLifetime(ValueError)             a lifetime, or what a lifetime_cb returned, is none
      PendingElsewhere(ValueError)            the object waits to be inserted by another session
      InvalidNumber(ValueError)               a counter cannot have, or be changed by, this number
      MessageTooLarge(ValueError)             a message has more bytes than the channel carries
      InvalidQuery(ValueError)                a query asks for what its class does not have, or what has no answer
      NotExactlyOne(LookupError)              a query that was to find one object finds none, or several
      NonUniqueKeyError                       several rows answer one key
      CodecError
        EncodeError, DecodeError              a record cannot be turned into bytes, or back
      StoreError                              a store failed
        StoreUnavailable                      it cannot be reached
          StoreTimeout                        it did not answer in time
      UnsupportedOperation(NotImplementedError)

StockpyleWarning(UserWarning) is what it warns with. All errors survive pickling. An error of a driver is the
``__cause__`` of ours.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AmbiguousKeyError",
    "CodecError",
    "DecodeError",
    "EncodeError",
    "ImproperlyConfigured",
    "InvalidKey",
    "InvalidKeyType",
    "InvalidKeysDeclaration",
    "InvalidLifetime",
    "InvalidNumber",
    "InvalidQuery",
    "MessageTooLarge",
    "MissingDependency",
    "NoSuchStoreBackend",
    "NonUniqueKeyError",
    "NotExactlyOne",
    "PendingElsewhere",
    "StockpyleError",
    "StockpyleWarning",
    "StoreError",
    "StoreTimeout",
    "StoreUnavailable",
    "UndeclaredKeyError",
    "UnsupportedOperation",
]


class StockpyleError(Exception):
    """The root: catching it catches all that stockpyle raises by itself."""


class ImproperlyConfigured(StockpyleError, ValueError):
    """A store, a chain or an extension was built with arguments that make no sense together."""


class NoSuchStoreBackend(ImproperlyConfigured):
    """A connection string or a setting names a store that nobody registered."""


class MissingDependency(ImproperlyConfigured, ImportError):
    """An optional package is not installed; the message has the pip line that installs it."""


class InvalidKeysDeclaration(ImproperlyConfigured, TypeError):
    """A class declares its ``__stockpyle_keys__`` wrongly, or not at all."""


class InvalidKey(StockpyleError, ValueError):
    """A key does not identify an object; the message names the class and the attribute."""


class InvalidKeyType(InvalidKey, TypeError):
    """A key value has a type that cannot be compared safely across stores and processes."""


class UndeclaredKeyError(InvalidKey, LookupError):
    """The class declares no key of these attributes; the message lists those it declares."""


class AmbiguousKeyError(InvalidKey, LookupError):
    """A key was given without a class, and objects of several classes have such a key."""


class InvalidLifetime(StockpyleError, ValueError):
    """A lifetime is neither seconds, a timedelta, a datetime nor None."""


class InvalidNumber(StockpyleError, ValueError):
    """A counter cannot have this value, or be changed by it: it is an int of 64 bits."""


class PendingElsewhere(StockpyleError, ValueError):
    """A mapped object was put that another session is about to insert."""


class MessageTooLarge(StockpyleError, ValueError):
    """A message has more bytes than one may carry there; the error has both numbers."""


class InvalidQuery(StockpyleError, ValueError):
    """A query has a lookup, an attribute or a value that cannot be; the message lists those that can."""


class NotExactlyOne(StockpyleError, LookupError):
    """A query that was asked for its one object found none, or several."""


class NonUniqueKeyError(StockpyleError):
    """Several rows answer one key that was declared to identify a single object.

    ``klass`` is the class that was asked for, ``key`` the mapping of attribute names to values.
    """

    def __init__(self, klass: type, key: Any) -> None:
        self.klass = klass
        self.key = key
        super().__init__(klass, key)

    def __str__(self) -> str:
        return f"the key {self.key!r} does not uniquely identify one {self.klass.__name__}: several rows have it"


class CodecError(StockpyleError):
    """A record and its bytes do not fit."""


class EncodeError(CodecError):
    """A record cannot be turned into bytes."""


class DecodeError(CodecError):
    """Bytes are not a record."""


class StoreError(StockpyleError):
    """A store failed. ``store`` is its name, ``operation`` what it was doing."""

    def __init__(self, message: str, store: str = "", operation: str = "") -> None:
        self.message = message
        self.store = store
        self.operation = operation
        super().__init__(message, store, operation)

    def __str__(self) -> str:
        where = ".".join(part for part in (self.store, self.operation) if part)
        return f"{where}: {self.message}" if where else self.message


class StoreUnavailable(StoreError):
    """A store cannot be reached."""


class StoreTimeout(StoreUnavailable):
    """A store did not answer in time."""


class UnsupportedOperation(StockpyleError, NotImplementedError):
    """The store cannot do this, or not for this class."""


class StockpyleWarning(UserWarning):
    """Something was done the slow or the coarse way, because the precise one was not possible."""
