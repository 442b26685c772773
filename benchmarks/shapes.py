"""The classes that are cached: names, columns and keys are drawn from a seed.

The same seed draws the same classes in every process. They know nothing of stockpyle but `__stockpyle_keys__`.
"""

from __future__ import annotations

import random
import string
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, mapped_column

from benchmarks.databases import engine_for

WORDS = "amount article book branch city client color county email field grade house item lot mark note offer parcel"
WORDS += " phone place price queue rank region score shelf stage status store street team topic town unit weight year"

TYPES: dict[type, type[Any]] = {
    int: sa.Integer,
    str: sa.String,
    float: sa.Float,
    bool: sa.Boolean,
    datetime: sa.DateTime,
    date: sa.Date,
}
COLUMNS = 10


class Base(DeclarativeBase):
    """The declarative base."""


@dataclass(frozen=True)
class Keys:
    """Some attributes that identify an object, as Python writes them where `target` holds their values."""

    klass: str
    names: tuple[str, ...]

    @property
    def target(self) -> str:
        return ", ".join("ab"[: len(self.names)])

    @property
    def mapping(self) -> str:
        pairs = zip(self.names, "ab", strict=False)
        return "{" + ", ".join(f'"{name}": {variable}' for name, variable in pairs) + "}"

    @property
    def tuple(self) -> str:
        return f"({self.klass}, {self.target})"

    @property
    def text(self) -> str:
        return f'f"{self.klass}:' + ":".join(f"{{{variable}}}" for variable in self.target.split(", ")) + '"'


@dataclass(frozen=True)
class Shape:
    """A class, drawn: its name, and the names and types of its columns.

    The first column is the primary key, the second and the third are a key together, the fourth is one alone. With
    `composite`, the second and the third are the primary key, and the first is a plain column.
    """

    name: str
    columns: tuple[tuple[str, type], ...]
    seed: str
    composite: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.columns)

    @property
    def single(self) -> Keys:
        return Keys(self.name, self.names[:1])

    @property
    def pair(self) -> Keys:
        return Keys(self.name, self.names[1:3])

    @property
    def alternate(self) -> Keys:
        return Keys(self.name, self.names[3:4])

    @property
    def identity(self) -> Keys:
        return self.pair if self.composite else self.single

    @property
    def declared(self) -> list[Any]:
        single, pair, alternate = self.names[0], self.names[1:3], self.names[3]
        return [pair] if self.composite else [single, pair, alternate]

    def row(self, number: int) -> tuple[Any, ...]:
        """Return the values of one row; those of its keys no other row has."""
        dice = random.Random(f"{self.seed} {number}")
        _, second, third, _, *rest = (kind for _, kind in self.columns)
        keys = (
            number,
            number // 1000 if second is int else f"{number // 1000:06}",
            number % 1000,
            f"{number:x}@{third}",
        )
        return (*keys, *(drawn(kind, dice) for kind in rest))

    def picks(self, keys: Keys, numbers: Sequence[int]) -> list[Any]:
        """Return the values of a key of these rows."""
        places = [self.names.index(name) for name in keys.names]
        rows = [self.row(number) for number in numbers]
        if len(places) == 1:
            return [row[places[0]] for row in rows]
        return [tuple(row[place] for place in places) for row in rows]

    def plain(self) -> type:
        """Return a plain class of this shape, always the same; `numbered` makes objects of it."""
        return _plain(self)

    def mapped(self) -> type[Any]:
        """Return a mapped class of this shape, always the same."""
        return _mapped(self)

    def instance(self, klass: type, number: int) -> Any:
        """Return one object of a class of this shape."""
        made = klass()
        for name, value in zip(self.names, self.row(number), strict=True):
            setattr(made, name, value)
        return made

    def values(self, obj: Any) -> tuple[Any, ...]:
        """Return what `row` does, from an object."""
        return tuple(getattr(obj, name) for name in self.names)

    def key_of(self, obj: Any, keys: Keys) -> Any:
        """Return what picks an object by a key."""
        found = tuple(getattr(obj, name) for name in keys.names)
        return found if len(found) > 1 else found[0]

    def is_row(self, keys: Keys) -> Callable[[Any, Any], bool]:
        """Return what tells whether an object is whole, and the one that was picked by a key."""

        def right(obj: Any, pick: Any) -> bool:
            return self.key_of(obj, keys) == pick and self.values(obj) == self.row(self.number_of(obj))

        return right

    def are_rows(self, keys: Keys) -> Callable[[Any, Any], bool]:
        """Return what tells whether objects, in any order, are those that were picked."""
        right = self.is_row(keys)

        def all_right(objs: Any, picks: Any) -> bool:
            found = {self.key_of(obj, keys): obj for obj in objs}
            return found.keys() == set(picks) and all(right(obj, pick) for pick, obj in found.items())

        return all_right

    def number_of(self, obj: Any) -> int:
        return int(getattr(obj, self.names[0]))


def drawn(kind: type, dice: random.Random) -> Any:
    """Return a value of a type."""
    if kind is int:
        return dice.randrange(10**6)
    if kind is float:
        return round(dice.uniform(0, 1000), 2)
    if kind is bool:
        return dice.random() < 0.5
    if kind is str:
        return "".join(dice.choices(string.ascii_lowercase + " ", k=dice.randint(5, 40)))
    moment = datetime(2020, 1, 1) + timedelta(seconds=dice.randrange(10**8))
    return moment if kind is datetime else moment.date()


def shape(seed: int, what: str, columns: int = COLUMNS, composite: bool = False) -> Shape:
    """Draw a class for one purpose."""
    dice = random.Random(f"{seed} {what}")
    names = dice.sample(WORDS.split(), columns + 1)
    kinds: list[type] = [int, dice.choice([int, str]), int, str]
    kinds += [dice.choice(list(TYPES)) for _ in range(columns - len(kinds))]
    title = names.pop().title() + "".join(dice.choices(string.ascii_lowercase, k=3))
    return Shape(title, tuple(zip(names, kinds, strict=True)), f"{seed} {what}", composite)


def _numbered(module_name: str, klass: type) -> type:
    # found by this name when it is unpickled
    klass.__module__ = module_name
    klass.__qualname__ = klass.__name__
    setattr(sys.modules[module_name], klass.__name__, klass)
    return klass


@cache
def _plain(shape: Shape) -> type:
    return _numbered(__name__, type(f"Plain{shape.name}", (), {"__stockpyle_keys__": shape.declared}))


@cache
def _mapped(shape: Shape) -> type[Any]:
    identity = shape.identity.names
    columns = {
        name: mapped_column(
            TYPES[kind], primary_key=name in identity, unique=not shape.composite and name == shape.names[3]
        )
        for name, kind in shape.columns
    }
    extra: dict[str, Any] = {} if shape.composite else {"__table_args__": (sa.UniqueConstraint(*shape.names[1:3]),)}
    body = {"__tablename__": shape.name.lower(), "__stockpyle_keys__": shape.declared, **extra, **columns}
    return _numbered(__name__, type(shape.name, (Base,), body))


def create(url: str, shape: Shape, count: int) -> None:
    """Make the table of a mapped class, with rows 1 to `count`."""
    engine = engine_for(url)
    table = shape.mapped().__table__
    table.create(engine)
    with engine.begin() as connection:
        for start in range(1, count + 1, 1000):
            rows = [shape.row(number) for number in range(start, min(start + 1000, count + 1))]
            connection.execute(sa.insert(table), [dict(zip(shape.names, row, strict=True)) for row in rows])
    engine.dispose()
