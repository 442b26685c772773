"""The mapped classes, their keys, and what of an object goes into a history.

Every write of a row gives it a write id (`wid`) that no other write has, together with the columns that it writes:
so a state is known by its write id, and a row mixed from two versions is no state that ever was. A joined row has
a write id in each of its two tables, which different workers write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

WRITES_EACH = 4096
"""How many write ids a transaction has: those from its number times this on."""

CASELESS = sa.String(40).with_variant(sa.String(40, collation="NOCASE"), "sqlite")
CASELESS = CASELESS.with_variant(sa.String(40, collation="caseless"), "postgresql")
"""Text that the database compares regardless of case, which Python does not."""


class Base(DeclarativeBase): ...


class Account(Base):
    """One table, four keys, two groups of columns that are written apart."""

    __tablename__ = "accounts"
    __table_args__ = (sa.UniqueConstraint("org", "login"),)
    __stockpyle_keys__ = ["id", "email", ("org", "login"), "nick"]

    id: Mapped[int] = mapped_column(sa.Integer, primary_key=True, autoincrement=False)
    email: Mapped[str] = mapped_column(sa.String(40), unique=True)
    org: Mapped[str] = mapped_column(sa.String(40))
    login: Mapped[str] = mapped_column(sa.String(40))
    nick: Mapped[str] = mapped_column(CASELESS, unique=True)
    wid: Mapped[int] = mapped_column(sa.BigInteger)
    a1: Mapped[int] = mapped_column(sa.BigInteger)
    a2: Mapped[int] = mapped_column(sa.BigInteger)
    b1: Mapped[int] = mapped_column(sa.BigInteger)
    b2: Mapped[int] = mapped_column(sa.BigInteger)


class Person(Base):
    """The base of a joined inheritance."""

    __tablename__ = "people"
    __stockpyle_keys__ = ["id", "email"]

    id: Mapped[int] = mapped_column(sa.Integer, primary_key=True, autoincrement=False)
    email: Mapped[str] = mapped_column(sa.String(40), unique=True)
    kind: Mapped[str] = mapped_column(sa.String(8))
    wid: Mapped[int] = mapped_column(sa.BigInteger)
    p1: Mapped[int] = mapped_column(sa.BigInteger)
    p2: Mapped[int] = mapped_column(sa.BigInteger)

    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}


class Member(Person):
    """The other table of the joined rows, with a key in each of the two."""

    __tablename__ = "members"
    __stockpyle_keys__ = ["id", "email", "badge"]

    id: Mapped[int] = mapped_column(sa.ForeignKey("people.id", ondelete="CASCADE"), primary_key=True)
    badge: Mapped[str] = mapped_column(sa.String(40), unique=True)
    mwid: Mapped[int] = mapped_column(sa.BigInteger)
    m1: Mapped[int] = mapped_column(sa.BigInteger)
    m2: Mapped[int] = mapped_column(sa.BigInteger)

    __mapper_args__ = {"polymorphic_identity": "member"}


VOWS = sa.Table(
    "vows",
    Base.metadata,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kept_by", sa.ForeignKey("vows.id", deferrable=True, initially="DEFERRED"), nullable=False),
)
"""A row here that refers to none is allowed until the transaction commits: then the database refuses the commit."""


CLASSES: list[type[Any]] = [Account, Person, Member]
"""The classes by the number that stands for them in a history."""

ACCOUNT, PERSON, MEMBER = range(3)


@dataclass(frozen=True)
class TableLayout:
    """A table's columns, in the order of its states: the write id first."""

    name: str
    columns: tuple[str, ...]


TABLES = [
    TableLayout("accounts", ("wid", "id", "email", "org", "login", "nick", "a1", "a2", "b1", "b2")),
    TableLayout("people", ("wid", "id", "email", "kind", "p1", "p2")),
    TableLayout("members", ("mwid", "id", "badge", "m1", "m2")),
]
ACCOUNTS, PEOPLE, MEMBERS = range(3)

KIND = TABLES[PEOPLE].columns.index("kind")


@dataclass(frozen=True)
class KeyLayout:
    """A key: its table, and the places of its columns in the table's states."""

    table: int
    names: tuple[str, ...]
    caseless: bool = False

    @property
    def places(self) -> tuple[int, ...]:
        """Where its columns are in a state of its table."""
        return tuple(TABLES[self.table].columns.index(name) for name in self.names)


KEYS = [
    KeyLayout(ACCOUNTS, ("id",)),
    KeyLayout(ACCOUNTS, ("email",)),
    KeyLayout(ACCOUNTS, ("org", "login")),
    KeyLayout(ACCOUNTS, ("nick",), caseless=True),
    KeyLayout(PEOPLE, ("id",)),
    KeyLayout(PEOPLE, ("email",)),
    KeyLayout(MEMBERS, ("id",)),
    KeyLayout(MEMBERS, ("badge",)),
]
"""The keys by the number that stands for them in a history. That of `members.id` is never asked for by itself."""

PEOPLE_ID, PEOPLE_EMAIL, MEMBERS_ID, MEMBERS_BADGE = 4, 5, 6, 7

ALL_ACCOUNTS, ALL_PEOPLE = 8, 9
"""What stands for all objects of a class in a history, in place of a key's number; the value is then None."""


def whole_class(number: int) -> int:
    """Return what stands for all objects that a key can lead to."""
    return ALL_ACCOUNTS if number < PEOPLE_ID else ALL_PEOPLE


KEYS_OF = {ACCOUNT: (0, 1, 2, 3), PERSON: (PEOPLE_ID, PEOPLE_EMAIL), MEMBER: (PEOPLE_ID, PEOPLE_EMAIL, MEMBERS_BADGE)}
"""The keys by which each class is asked for."""

State = tuple[Any, ...]
"""A row's columns, as its table's layout orders them."""


def key_value(number: int, values: Any) -> Any:
    """Return a key's value as timelines are found by it: text that is compared regardless of case in small letters."""
    return values.lower() if number < len(KEYS) and KEYS[number].caseless else values


def keys_of_state(table: int, state: State) -> list[tuple[int, Any]]:
    """Return every key of a row: the number of the key, and its value."""
    return [(number, key_value(number, pick(state))) for number, pick in _PICKS[table]]


def _picker(places: tuple[int, ...]) -> Any:
    if len(places) == 1:
        (place,) = places
        return lambda state: state[place]
    return lambda state: tuple(state[place] for place in places)


_PICKS = [
    [(number, _picker(key.places)) for number, key in enumerate(KEYS) if key.table == table]
    for table in range(len(TABLES))
]

Seen = tuple[Any, ...]
"""An object as a reader saw it: the number of its class, then the states of its rows, one table after another."""


def seen(obj: Any) -> Seen | None:
    """Return what goes into a history of an object that somebody was given."""
    if obj is None:
        return None
    if isinstance(obj, Account):
        return (ACCOUNT, *map(obj.__dict__.__getitem__, TABLES[ACCOUNTS].columns))
    own = obj.__dict__
    base = (own["wid"], own["id"], own["email"], own["kind"], own["p1"], own["p2"])
    if isinstance(obj, Member):
        return (MEMBER, *base, own["mwid"], own["id"], own["badge"], own["m1"], own["m2"])
    return (PERSON, *base)
