"""Queries of stores that can only list their objects: every object is looked at."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from stockpyle.classes import spec_of
from stockpyle.exceptions import InvalidKey, InvalidQuery
from stockpyle.keys import Ident, Key, KeySpec
from stockpyle.records import Record
from stockpyle.views.attributes import Attribute, end, ends, known_of, unknown
from stockpyle.views.conditions import tests_of
from stockpyle.views.lookups import LOOKUPS
from stockpyle.views.ordering import Incomparable, sort
from stockpyle.views.selection import Selection


class Scan:
    """A Search of a list of records, which `list_records` makes anew for each query."""

    follows = False

    def __init__(self, spec: KeySpec, list_records: Callable[[], Iterable[Record]]) -> None:
        self.spec = spec
        self._list_records = list_records

    def identities(self, selection: Selection) -> list[Key]:
        """See Search.identities."""
        return [self._identity(record) for record in self._select(selection)]

    def objects(self, selection: Selection) -> Sequence[Any]:
        """See Search.objects."""
        return [record.spec.materialise(record.value) for record in self._select(selection)]

    def count(self, selection: Selection) -> int:
        """See Search.count."""
        return len(self._matching(selection)[selection.start : selection.stop])

    def values(self, selection: Selection, attributes: Sequence[Attribute]) -> list[tuple[Any, ...]]:
        """See Search.values."""
        chosen = self._select(selection, attributes)
        return [tuple(own_value(_end(record, each)) for each in attributes) for record in chosen]

    def _matching(self, selection: Selection, others: Sequence[Attribute] = ()) -> list[Record]:
        """Return the records of which the condition holds, in no order."""
        records = list(self._list_records())
        named = [test.attribute for test in tests_of(selection.condition)]
        self._check(records, [*named, *(order.attribute for order in selection.orders), *others])
        return [record for record in records if selection.condition.holds(partial(_ends, record))]

    def _select(self, selection: Selection, others: Sequence[Attribute] = ()) -> list[Record]:
        found = self._matching(selection, others)
        columns: list[tuple[Callable[[Record], Any], bool]] = [
            (partial(_end, attribute=order.attribute), order.descending) for order in selection.orders
        ]
        for i in range(len(self.spec.identity.attributes)):
            columns.append((partial(self._part_of_identity, i), False))
        try:
            sort(found, columns)
        except Incomparable as error:
            by = ", ".join(map(str, selection.orders)) or "identity"
            raise InvalidQuery(f"{self.spec.klass.__qualname__} cannot be sorted by {by}: {error}") from None
        return found[selection.start : selection.stop]

    def _part_of_identity(self, i: int, record: Record) -> Any:
        return self._identity(record).values[i]

    def _identity(self, record: Record) -> Key:
        # a subclass's identity may be another; but all rows of one hierarchy have the same
        own = record.key(record.spec.identity if record.spec.mapped else self.spec.identity)
        assert own is not None, "what is kept under its identity has one"
        return Key(self.spec, self.spec.identity, own.values)

    def _check(self, records: Sequence[Record], attributes: Iterable[Attribute]) -> None:
        """Raise InvalidQuery for an attribute that none of these plain objects has."""
        if self.spec.mapped or not records:
            return
        for attribute in attributes:
            for length in range(1, len(attribute.names) + 1):
                *way, name = attribute.names[:length]
                parents = [parent for record in records for parent in _parents(record.value, way)]
                if parents and not any(hasattr(parent, name) for parent in parents):
                    if not way:
                        raise unknown(self.spec.klass, name, known_of(self.spec.klass, parents[0]))
                    raise InvalidQuery(
                        f"{attribute}: {'.'.join(way)} has no attribute {name!r}, and there is no lookup of this name: "
                        f"there are {', '.join(LOOKUPS)}"
                    )


def scan_of(klass: type, scan: Callable[[type], Iterable[Any]]) -> Scan:
    """Return a Scan of the objects that a store lists."""
    return Scan(spec_of(klass), lambda: map(record_of, scan(klass)))


def findable(spec: KeySpec, held: Iterable[tuple[Ident, Record]]) -> list[Record]:
    """Return the records, of all that stand where a class keeps its own, that get() would find as objects of it."""
    return [record for ident, record in held if not record.is_absent and _is_findable(spec, ident, record)]


def _is_findable(spec: KeySpec, ident: Ident, record: Record) -> bool:
    if not spec.serves(record.spec, record.value):
        return False
    if spec.mapped:
        # a row is never changed, and stands under its own identity
        return True
    try:
        own = record.key(spec.identity)
    except InvalidKey:
        # a plain object may have lost its key attributes since it was put, or have others
        return False
    return own is not None and own.ident == ident


def record_of(obj: Any) -> Record:
    """Return the record of an object that a store holds."""
    spec = spec_of(type(obj))
    return Record(spec, spec.dehydrate(obj))


def _parents(obj: Any, way: Sequence[str]) -> list[Any]:
    found: list[Any] = []
    for value in ends(obj, way):
        several = bool(way) and isinstance(value, list | tuple | set | frozenset | dict)
        found += (value.values() if isinstance(value, dict) else value) if several else [value]
    return [parent for parent in found if parent is not None]


def _ends(record: Record, attribute: Attribute) -> list[Any]:
    if record.spec.mapped:
        return [_column(record, attribute)]
    return ends(record.value, attribute.names)


def _end(record: Record, attribute: Attribute) -> Any:
    return _column(record, attribute) if record.spec.mapped else end(record.value, attribute)


def _column(record: Record, attribute: Attribute) -> Any:
    from stockpyle.orm.instances import UNKNOWN

    spec: Any = record.spec
    value = spec.value_in(record.value, attribute.names[0])
    if value is UNKNOWN:
        raise InvalidQuery(f"{attribute} was not loaded in an object when it was put, and is not known here")
    return value


def own_value(value: Any) -> Any:
    """Return a value for the caller, who may change it without changing what is kept."""
    return copy.deepcopy(value) if isinstance(value, list | dict | set | bytearray) else value
