"""``store.query(Person)``: objects by what they are like, instead of by their keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Generic, NoReturn, Protocol, TypeVar, overload

from stockpyle.exceptions import InvalidQuery, NotExactlyOne
from stockpyle.views.attributes import Attribute, Attributes, leads_to_several
from stockpyle.views.conditions import Condition, Either, Not, both, condition_of
from stockpyle.views.lookups import LOOKUPS
from stockpyle.views.selection import Order, Search, Selection

T = TypeVar("T")

DELETED_AT_ONCE = 500
"""How many objects delete() hands to the store's batch_delete at a time."""


class Query(Generic[T]):
    """The objects of a class that a store has, narrowed down step by step. Made by ``store.query(Person)``.

    A query is never changed: each method that narrows it returns another. The store is asked when the query is
    iterated over, counted and so on, each time anew. It can be used in any thread. An unknown attribute or
    lookup raises InvalidQuery, which lists the known ones.
    """

    def __init__(self, store: Any, klass: type[T]) -> None:
        self._store = store
        self._klass = klass
        self._search: Search = store.search(klass)
        self._attributes = Attributes(self._search.spec, self._search.follows)
        self._selection = Selection()

    # narrowing down

    def where(self, **lookups: Any) -> Query[T]:
        """Only objects that fit all of these lookups: ``where(name="Ann", age__gte=18)``."""
        return self._narrowed(condition_of(self._attributes, lookups))

    def where_not(self, **lookups: Any) -> Query[T]:
        """Only objects that do not fit all of these lookups."""
        return self._narrowed(Not(condition_of(self._attributes, lookups)))

    def _narrowed(self, condition: Condition) -> Query[T]:
        self._must_be_whole("narrow it down")
        return self._with(replace(self._selection, condition=both(self._selection.condition, condition)))

    def order_by(self, *names: str) -> Query[T]:
        """Sorted by these attributes, ``"-name"`` for the greatest first, in place of what it was sorted by.

        None comes last either way. What they do not tell apart is sorted by its identity key.
        """
        self._must_be_whole("sort it")
        return self._with(replace(self._selection, orders=tuple(self._order(name) for name in names)))

    def _order(self, name: str) -> Order:
        if not isinstance(name, str):
            raise InvalidQuery(f"a query is sorted by names, such as 'name' or '-name', not by {name!r}")
        return Order(self._single(name.removeprefix("-")), name.startswith("-"))

    def _single(self, name: str) -> Attribute:
        attribute = self._attributes.find(name.split("__"))
        if attribute.many:
            raise leads_to_several(attribute)
        if attribute.is_relation:
            raise InvalidQuery(f"{attribute} is a relationship: name an attribute of it")
        return attribute

    def _must_be_whole(self, what: str) -> None:
        if self._selection.is_sliced:
            raise InvalidQuery(f"{self!r} is a slice of a query: {what} before it is sliced")

    def _with(self, selection: Selection) -> Query[T]:
        other: Query[T] = object.__new__(type(self))
        vars(other).update(vars(self), _selection=selection)
        return other

    def __and__(self, other: Query[T]) -> Query[T]:
        """The objects that are in both queries, sorted as the first, or else as the second."""
        return self._joined(other, both(self._selection.condition, self._compatible(other).condition))

    def __or__(self, other: Query[T]) -> Query[T]:
        """The objects that are in one of the queries, sorted as the first, or else as the second."""
        return self._joined(other, Either((self._selection.condition, self._compatible(other).condition)))

    def __invert__(self) -> Query[T]:
        """The objects of the class that are not in the query."""
        self._must_be_whole("turn it round")
        return self._with(replace(self._selection, condition=Not(self._selection.condition)))

    def _compatible(self, other: Query[T]) -> Selection:
        if not isinstance(other, Query):
            raise TypeError(f"a query is joined with another query, not with {other!r}")
        if other._klass is not self._klass or other._store is not self._store:
            raise InvalidQuery(f"{self!r} and {other!r} are not queries of the same class and store")
        for query in (self, other):
            query._must_be_whole("join it")
        return other._selection

    def _joined(self, other: Query[T], condition: Condition) -> Query[T]:
        orders = self._selection.orders or other._selection.orders
        return self._with(Selection(condition, orders))

    @overload
    def __getitem__(self, which: slice) -> Query[T]: ...
    @overload
    def __getitem__(self, which: int) -> T: ...
    def __getitem__(self, which: slice | int) -> Query[T] | T:
        """``query[10:20]`` is a query of some of the objects; ``query[10]`` is one object, or IndexError."""
        if isinstance(which, slice):
            return self._with(self._selection.part(which))
        if isinstance(which, bool) or not isinstance(which, int):
            raise TypeError(f"a query has numbers and slices as indices, not {which!r}")
        for obj in self._with(self._selection.part(slice(which, which + 1))):
            return obj
        raise IndexError(f"{self!r} has no object number {which}")

    # asking

    def __iter__(self) -> Iterator[T]:
        """Ask the store for the objects, and yield each as ``store.get`` hands it out."""
        if self._selection.start == self._selection.stop:
            return iter(())
        return iter(self._search.objects(self._selection))

    def count(self) -> int:
        """Return how many objects there are."""
        return self._search.count(self._selection)

    def exists(self) -> bool:
        """True if there is an object."""
        return self._search.count(self._selection.part(slice(0, 1))) > 0

    def first(self) -> T | None:
        """Return the first object, or None if there is none."""
        return next(iter(self[:1]), None)

    def one(self) -> T:
        """Return the only object; NotExactlyOne, a LookupError, if there is none, or another."""
        found = list(self[:2])
        if len(found) != 1:
            raise NotExactlyOne(f"{self!r} finds {'several objects' if found else 'none'}, and not exactly one")
        return found[0]

    def values(self, *names: str) -> list[Any]:
        """Return an attribute of each object, or a tuple of several: ``values("name")``, ``values("id", "name")``.

        On a chain they are what its source has.
        """
        if not names:
            raise InvalidQuery('name the attributes whose values you want: values("name")')
        rows = self._search.values(self._selection, [self._single(name) for name in names])
        return [row[0] for row in rows] if len(names) == 1 else rows

    def delete(self) -> int:
        """Delete the objects through the store's batch_delete, so that caches stay right; return how many there were.

        They are deleted in batches of 500, of which each is a transaction of its own: after an error, the earlier ones
        are gone.
        """
        identities = self._search.identities(self._selection)
        deleted = 0
        for start in range(0, len(identities), DELETED_AT_ONCE):
            keys = [key.as_dict() for key in identities[start : start + DELETED_AT_ONCE]]
            objs = [obj for obj in self._store.batch_get(self._klass, keys) if obj is not None]
            if objs:
                self._store.batch_delete(objs)
                deleted += len(objs)
        return deleted

    def __bool__(self) -> NoReturn:
        raise TypeError(f"{self!r} is a query, and not what it finds: ask if it exists()")

    def __str__(self) -> str:
        """Ask the store, and return what a list of all the objects is printed as; repr() asks nobody."""
        return str(list(self))

    def __repr__(self) -> str:
        selection = self._selection
        text = f"<Query {self._klass.__qualname__}"
        if str(selection.condition):
            text += f" where {selection.condition}"
        if selection.orders:
            text += f" order by {', '.join(map(str, selection.orders))}"
        if selection.is_sliced:
            text += f" [{selection.start or ''}:{'' if selection.stop is None else selection.stop}]"
        return text + ">"


class CanQuery(Protocol):
    """A store that has queries."""

    def query(self, klass: type[T], /) -> Query[T]:
        """Return a query of all objects of a class."""
        ...


class Queryable:
    """A base for classes whose objects are asked for as ``Person.objects(store)``."""

    @classmethod
    def objects(cls: type[T], store: CanQuery) -> Query[T]:
        """Return a query of all objects of this class in a store."""
        return store.query(cls)


__all__ = ["LOOKUPS", "Query", "Queryable"]
