"""The objects that the contracts put into stores, and a clock to turn by hand."""

from __future__ import annotations

from typing import Any


class Person:
    """Has a key of each kind: an identity, an alternate key, a composite one."""

    __stockpyle_keys__ = ("id", "email", ("org", "login"))

    def __init__(self, id: Any, email: Any = None, org: Any = None, login: Any = None, name: str = "") -> None:
        self.id = id
        self.email = email
        self.org = org
        self.login = login
        self.name = name

    def __eq__(self, other: object) -> bool:
        raise AssertionError("stores never compare the objects of their users")

    __hash__ = None  # type: ignore[assignment]


class Pet:
    """Declares a key that Person declares as well."""

    __stockpyle_keys__ = ("id", "tag")

    def __init__(self, id: Any, tag: Any = None) -> None:
        self.id = id
        self.tag = tag


class Automobile:
    """A base class with keys of its own."""

    __stockpyle_keys__ = ("plate", "vin")

    def __init__(self, plate: Any, vin: Any = None) -> None:
        self.plate = plate
        self.vin = vin


class Car(Automobile):
    """One kind of Automobile."""


class Truck(Automobile):
    """Another."""


class Clock:
    """A clock that stands still until it is told to go on: ``clock()`` is the time, in seconds since the epoch."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
