"""The small pools that ids and key values come from, so that readers and writers meet; and what is there at first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.coherence.models import KEYS, Account, Member, Person

ACCOUNTS_POOL = 64
PEOPLE_POOL = 32
ORGS = 4
HOT = 8
"""So many of each pool are asked for more often than the others."""

Ask = tuple[int, int, Any]
"""A key to read: the numbers of the class and of the key, and its value."""


def key_dict(number: int, value: Any) -> dict[str, Any]:
    """Return a key as stores take it."""
    names = KEYS[number].names
    return {names[0]: value} if len(names) == 1 else dict(zip(names, value, strict=True))


def email_of(i: int) -> str:
    """Return the e-mail address that goes with an id."""
    return f"e{i}@x.org"


def login_of(i: int) -> tuple[str, str]:
    """Return the organisation and login that goes with an id."""
    return f"o{i % ORGS}", f"l{i}"


def nick_of(i: int) -> str:
    """Return the nickname that goes with an id."""
    return f"n{i}"


def badge_of(i: int) -> str:
    """Return the badge that goes with an id."""
    return f"b{i}"


def initial(wid: Callable[[], int]) -> Sequence[Any]:
    """Return the objects that are there when a run begins."""
    found: list[Any] = []
    for i in range(ACCOUNTS_POOL):
        if i % 5 == 4:
            continue
        org, login = login_of(i)
        own = wid()
        found.append(
            Account(
                id=i, email=email_of(i), org=org, login=login, nick=nick_of(i), wid=own, a1=own, a2=own, b1=own, b2=own
            )
        )
    for i in range(PEOPLE_POOL):
        if i % 5 == 3:
            continue
        own = wid()
        values = {"id": i, "email": email_of(i), "wid": own, "p1": own, "p2": own}
        if i % 4:
            sub = wid()
            found.append(Member(**values, badge=badge_of(i), mwid=sub, m1=sub, m2=sub))
        else:
            found.append(Person(**values))
    return found
