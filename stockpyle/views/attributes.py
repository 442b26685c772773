"""What a query of a class may name: attributes, and paths to those of related objects, such as ``org__name``."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from stockpyle.classes import spec_of
from stockpyle.exceptions import InvalidQuery, UnsupportedOperation
from stockpyle.keys import KeySpec, may_have
from stockpyle.values import UnusableValue
from stockpyle.views.lookups import Coerce, Lookup


@dataclass(frozen=True)
class Attribute:
    """An attribute of a class, or of what its objects are related to.

    names is the path, of one name or more. owner is the class that the last name is of, and column_type what SQLAlchemy
    knows of it, None for a plain class. many: the path leads to several objects. is_relation: it leads to an object.
    """

    klass: type
    names: tuple[str, ...]
    owner: type
    column_type: Any = None
    many: bool = False
    is_relation: bool = False

    def __str__(self) -> str:
        return f"{self.klass.__qualname__}.{'.'.join(self.names)}"

    def operand(self, lookup: Lookup, given: Any) -> Any:
        """Return what a caller asks for as the lookup compares it; InvalidQuery if it cannot be asked for."""
        if self.is_relation and lookup.name != "exists":
            raise InvalidQuery(f"{self} is a relationship: ask for an attribute of it, or if it exists")
        if self.is_relation and self.many:
            raise InvalidQuery(f"{self} is a relationship to several objects: ask for an attribute of theirs")
        try:
            return lookup.prepare(given, self._coercion(lookup.ordered))
        except UnusableValue as error:
            raise InvalidQuery(f"{lookup.name} of {self}: {error}") from None

    def _coercion(self, ordered: bool) -> Coerce:
        if self.column_type is None:
            return _as_it_is
        from stockpyle.orm.coercion import coercion_for

        coerce = coercion_for(self.column_type)
        if coerce is None:
            return _as_it_is
        own: Coerce = coerce

        def between_the_values(value: Any) -> Any:
            # 2.5 is no int, and yet some are greater
            if type(value) in (float, Decimal, Fraction) and math.isfinite(value):
                return int(value) if value == int(value) else value
            return own(value)

        return between_the_values if ordered and type(_or_none(own, 1)) is int else own


def _or_none(coerce: Coerce, value: Any) -> Any:
    try:
        return coerce(value)
    except UnusableValue:
        return None


def _as_it_is(value: Any) -> Any:
    return value


class Attributes:
    """Finds the attributes of one class. follows: the store can follow the relationships of mapped classes."""

    def __init__(self, spec: KeySpec, follows: bool) -> None:
        self._spec = spec
        self._follows = follows

    def find(self, names: Sequence[str]) -> Attribute:
        """Return the attribute that a path names; InvalidQuery lists the known ones if there is none."""
        klass = self._spec.klass
        if not self._spec.mapped:
            if not names[0] or not may_have(klass, names[0]) or not all(names):
                raise unknown(klass, names[0], known_of(klass))
            return Attribute(klass, tuple(names), klass)
        return self._mapped(klass, names)

    def _mapped(self, klass: type, names: Sequence[str]) -> Attribute:
        spec: Any = self._spec
        path: list[str] = []
        many = False
        for i, name in enumerate(names):
            synonym = spec.mapper.synonyms.get(name)
            name = synonym.name if synonym is not None else name
            path.append(name)
            column = spec.columns_by_attribute.get(name)
            if column is not None and i == len(names) - 1:
                return Attribute(klass, tuple(path), spec.klass, column.type, many)
            relation = spec.mapper.relationships.get(name)
            if relation is None or column is not None:
                known = [*spec.attributes, *(spec.mapper.relationships.keys() if self._follows else ())]
                raise unknown(spec.klass, name, known, f" that leads to {names[i + 1]!r}" if column is not None else "")
            if not self._follows:
                raise UnsupportedOperation(
                    f"{klass.__qualname__}.{'.'.join(names)}: the rows of mapped objects that this store keeps lead to "
                    "no other objects; a SqlAlchemyStore, or a chain above one, can follow relationships"
                )
            many = many or bool(relation.uselist)
            owner = spec.klass
            spec = spec_of(relation.mapper.class_)
        return Attribute(klass, tuple(path), owner, None, many, is_relation=True)


def unknown(klass: type, name: str, known: Sequence[str], what: str = "") -> InvalidQuery:
    """Return the error for a name that a class does not have."""
    return InvalidQuery(f"{klass.__qualname__} has no attribute {name!r}{what}; it has {', '.join(sorted(known))}")


def known_of(klass: type, obj: Any = None) -> list[str]:
    """Return what is known of the attributes of a plain class, and of one of its objects."""
    known: dict[str, None] = {}
    for base in klass.__mro__[:-1]:
        slots = vars(base).get("__slots__", ())
        known.update(dict.fromkeys([slots] if isinstance(slots, str) else slots))
        known.update(dict.fromkeys(getattr(base, "__annotations__", ())))
        known.update(dict.fromkeys(name for name, value in vars(base).items() if not _is_method(value)))
    if is_dataclass(klass):
        known.update(dict.fromkeys(field.name for field in fields(klass)))
    for definition in spec_of(klass).definitions:
        known.update(dict.fromkeys(definition.attributes))
    known.update(dict.fromkeys(getattr(obj, "__dict__", ())))
    return [name for name in known if not name.startswith("_")]


def _is_method(value: Any) -> bool:
    return callable(value) or isinstance(value, classmethod)


def ends(value: Any, names: Sequence[str]) -> list[Any]:
    """Follow a path from an object: return what it leads to, one value unless there is a collection on the way.

    A path through None ends in None. What has no such attribute leads to None as well.
    """
    reached = [value]
    for i, name in enumerate(names):
        following: list[Any] = []
        for each in reached:
            if i and _is_collection(each):
                following += [getattr(item, name, None) for item in _items(each)]
            else:
                following.append(getattr(each, name, None))
        reached = following
    return reached


def end(value: Any, attribute: Attribute) -> Any:
    """Follow a path that leads to one value; InvalidQuery if there is a collection on the way."""
    reached = value
    for i, name in enumerate(attribute.names):
        if i and _is_collection(reached):
            raise leads_to_several(attribute)
        reached = getattr(reached, name, None)
    return reached


def leads_to_several(attribute: Attribute) -> InvalidQuery:
    """Return the error for a path that is to lead to one value."""
    return InvalidQuery(f"{attribute} leads to several objects: only lookups can ask for it")


def _is_collection(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str | bytes)


def _items(value: Any) -> Any:
    return value.values() if isinstance(value, Mapping) else value
