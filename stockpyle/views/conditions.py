"""What a query asks for: tests of attributes, joined by and, or and not. All of it is immutable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from reprlib import Repr
from typing import Any

from stockpyle.exceptions import InvalidQuery
from stockpyle.views.attributes import Attribute, Attributes
from stockpyle.views.lookups import LOOKUPS, Lookup
from stockpyle.views.ordering import Incomparable

Ends = Callable[[Attribute], Iterable[Any]]
"""What an attribute is, of the object that is looked at: one value, or several if the path leads to several objects."""

_short = Repr()
_short.maxstring = _short.maxother = 60


@dataclass(frozen=True)
class Test:
    """One lookup of one attribute. Of several values, one that passes is enough."""

    attribute: Attribute
    lookup: Lookup
    operand: Any

    def holds(self, ends: Ends) -> bool:
        """True of an object whose attributes are these."""
        return any(self.passes(value) for value in ends(self.attribute))

    def passes(self, value: Any) -> bool:
        """True of this value; InvalidQuery if it is nothing that the lookup can look at."""
        if value is None:
            return self.of_none
        try:
            return self.lookup.holds(value, self.operand)
        except Incomparable as error:
            raise InvalidQuery(f"{self.lookup.name} of {self.attribute}: {error}") from None

    @property
    def of_none(self) -> bool:
        """True if the test is true of None."""
        return self.lookup.of_none(self.operand)

    def __str__(self) -> str:
        suffix = "" if self.lookup.name == "equals" else f"__{self.lookup.name}"
        shown = getattr(self.operand, "pattern", self.operand)
        return f"{'__'.join(self.attribute.names)}{suffix}={_short.repr(shown)}"


@dataclass(frozen=True)
class All:
    """Several conditions, all of which hold; with none of them, everything does."""

    parts: tuple[Condition, ...] = ()

    def holds(self, ends: Ends) -> bool:
        """True of an object whose attributes are these."""
        return all(part.holds(ends) for part in self.parts)

    def __str__(self) -> str:
        return " and ".join(f"({part})" if isinstance(part, Either) else str(part) for part in self.parts)


@dataclass(frozen=True)
class Either:
    """Several conditions, one of which holds."""

    parts: tuple[Condition, ...]

    def holds(self, ends: Ends) -> bool:
        """True of an object whose attributes are these."""
        return any(part.holds(ends) for part in self.parts)

    def __str__(self) -> str:
        return " or ".join(str(part) or "anything" for part in self.parts)


@dataclass(frozen=True)
class Not:
    """A condition that does not hold."""

    part: Condition

    def holds(self, ends: Ends) -> bool:
        """True of an object whose attributes are these."""
        return not self.part.holds(ends)

    def __str__(self) -> str:
        return f"not {self.part}" if isinstance(self.part, Test) else f"not ({str(self.part) or 'anything'})"


Condition = Test | All | Either | Not


def both(one: Condition, other: Condition) -> Condition:
    """Return that both hold."""
    parts = [each.parts if isinstance(each, All) else (each,) for each in (one, other)]
    return All(parts[0] + parts[1])


def tests_of(condition: Condition) -> Iterator[Test]:
    """Yield all tests of a condition."""
    if isinstance(condition, Test):
        yield condition
    elif isinstance(condition, Not):
        yield from tests_of(condition.part)
    else:
        for part in condition.parts:
            yield from tests_of(part)


def condition_of(attributes: Attributes, lookups: Mapping[str, Any]) -> All:
    """Return what lookups such as ``age__gte=18`` ask for, all of them; InvalidQuery for what is none."""
    return All(tuple(_test(attributes, spelled, given) for spelled, given in lookups.items()))


def _test(attributes: Attributes, spelled: str, given: Any) -> Test:
    *names, last = spelled.split("__")
    lookup = LOOKUPS.get(last) if names else None
    if lookup is None:
        names.append(last)
        try:
            return _made(attributes.find(names), LOOKUPS["equals"], given)
        except InvalidQuery as error:
            if len(names) == 1 or not _is_attribute(attributes, names[:-1]):
                raise
            raise InvalidQuery(f"{error}; and there is no lookup {last!r}: there are {', '.join(LOOKUPS)}") from None
    return _made(attributes.find(names), lookup, given)


def _is_attribute(attributes: Attributes, names: list[str]) -> bool:
    try:
        attributes.find(names)
    except InvalidQuery:
        return False
    return True


def _made(attribute: Attribute, lookup: Lookup, given: Any) -> Test:
    return Test(attribute, lookup, attribute.operand(lookup, given))
