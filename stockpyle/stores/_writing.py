"""A store whose put and delete are one write of a source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from stockpyle.classes import is_mapped
from stockpyle.protocols import Pending
from stockpyle.stores.base import ConcreteStore, listed


class WritingStore(ConcreteStore, abstract=True):
    """A source of plain classes, which brings write: the verbs that write are made of it."""

    def accepts(self, klass: type) -> bool:
        """True for plain classes that declare keys: those that are mapped have tables of their own."""
        return not is_mapped(klass) and hasattr(klass, "__stockpyle_keys__")

    def write(self, puts: Sequence[Any], deletes: Sequence[Any]) -> AbstractContextManager[Pending]:
        """See Source.write."""
        raise NotImplementedError

    def batch_put(self, objs: Iterable[Any]) -> None:
        """Keep several objects under all their keys. Nothing is written if one of them cannot be."""
        objs = listed(objs, "batch_put")
        if objs:
            with self.write(objs, []):
                pass

    def batch_delete(self, objs: Iterable[Any]) -> None:
        """Forget several objects; one that is not there is no error."""
        objs = listed(objs, "batch_delete")
        if objs:
            with self.write([], objs):
                pass
