"""What a store in this process's memory is, whoever may see its table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from stockpyle.classes import spec_of
from stockpyle.keys import Key
from stockpyle.protocols import InThisProcess
from stockpyle.records import Alias, Found, Lease, Record
from stockpyle.stores._table import MemoryTable
from stockpyle.stores.base import listed
from stockpyle.stores.cache import CacheStore
from stockpyle.views.scanning import Scan, findable
from stockpyle.views.selection import Search

T = TypeVar("T")


class TableStore(InThisProcess, CacheStore):
    """A subclass says which table is asked now."""

    _table: MemoryTable

    def _refuse_alone(self) -> None:
        """Raise ImproperlyConfigured if it is of no use outside a chain."""

    def read(self, keys: Sequence[Key], *, lease: bool = True) -> list[Found]:
        """See Tier.read."""
        return self._table.read(keys, lease=lease)

    def fill(self, leased: Sequence[tuple[Lease, Record | Alias | None]]) -> int:
        """See Tier.fill."""
        return self._table.fill(leased)

    def _records(self, keys: Sequence[Key | None], *, revised: bool = False) -> list[Record | None]:
        table = self._table
        # a subclass may have a read() of its own
        if type(self).read is TableStore.read and table.lacks(keys):
            return [None] * len(keys)
        return super()._records(keys, revised=revised)

    def batch_put(self, objs: Iterable[Any]) -> None:
        """Keep several objects under all their keys. Nothing is written if one of them cannot be."""
        objs = listed(objs, "batch_put")
        if not objs:
            return
        self._refuse_alone()
        now = self.clock()
        values: list[tuple[Key, Record | Alias]] = []
        for obj in objs:
            spec, entries = self._entries(obj)
            deadline = self.lifetimes.deadline(obj, now)
            record = Record(spec, spec.dehydrate(obj), deadline)
            for _, (identity, *alternates) in entries:
                values.append((identity, record))
                values += [(key, Alias(identity, deadline)) for key in alternates]
            self.seen.add(spec)
        self._table.replace(values)

    def search(self, klass: type) -> Search:
        """Return what answers queries: it looks at all objects of the class, as get() finds them."""
        self._refuse_alone()
        spec = spec_of(klass)
        return Scan(spec, lambda: findable(spec, self._table.records(spec)))

    def scan(self, klass: type[T]) -> Iterable[T]:
        """Yield every object of a class."""
        self._refuse_alone()
        spec = spec_of(klass)
        yield from (record.spec.materialise(record.value) for record in findable(spec, self._table.records(spec)))

    def __len__(self) -> int:
        """Return how many objects are held, in a ThreadLocalStore by this thread."""
        return len(self._table)

    def __bool__(self) -> bool:
        """An empty store is a store."""
        return True
