"""Rows of a mapped class by their keys, read by the driver alone.

Only what is plain to see is answered here: each row that was found has one of the keys asked for, and no other row has
it. Everything else is left to Loader, which asks anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stockpyle.keys import Key, KeyDefinition
from stockpyle.orm.collations import Collations
from stockpyle.orm.driver_reads import DriverReads
from stockpyle.orm.instances import Row
from stockpyle.orm.loading import Loader
from stockpyle.orm.mapping import MappedSpec
from stockpyle.orm.plans import KeysInArrays, KeysInList, OneKey, Plan

Object = tuple[MappedSpec, Row]
"""The class of an object, and its row."""


class DirectLoader:
    """Reads objects of one mapped class, subclasses included; see Loader."""

    def __init__(self, loader: Loader, reads: DriverReads, collations: Collations) -> None:
        self.loader = loader
        self._reads = reads
        self._collations = collations
        self._lone = loader.spec if len(loader.places) == 1 else None
        self._by_arrays = reads.dialect.name == "postgresql"
        self._for_one: dict[KeyDefinition, Plan] = {}
        self._for_many: dict[KeyDefinition, Plan] = {}

    def find(self, keys: Sequence[Key]) -> tuple[list[Object | None], bool] | None:
        """Return the object of each key, and whether they may be cached; None if Loader must read them.

        Raises StoreError, StoreUnavailable and StoreTimeout.
        """
        plan = self._plan(keys) if self._reads.are_possible else None
        if plan is None:
            return None
        try:
            sent = plan.sent(keys)
        except Exception:  # noqa: BLE001  # of a type that refuses a value, a Connection tells as SQLAlchemy does
            return None
        if sent is None:
            return None
        described = plan.is_described
        answer = self._reads.fetch(*sent, describe=not described)
        if answer is None:
            plan.forget()
            return None
        fetched, description, may_be_cached = answer
        if not described:
            plan.describe(description)
        found = self._one(plan, fetched) if len(keys) == 1 else self._many(plan, keys, fetched)
        return None if found is None else (found, may_be_cached)

    def absence_is_certain(self, key: Key) -> bool | None:
        """See Collations.absence_is_certain; None if the database must be asked first."""
        spec = self.loader.spec
        return self._collations.known(spec, key.definition) if spec.owns(key.definition) else False

    def _plan(self, keys: Sequence[Key]) -> Plan | None:
        definition = keys[0].definition
        if len(keys) == 1:
            plan = self._for_one.get(definition)
            if plan is None:
                plan = self._for_one[definition] = OneKey(self.loader, definition, self._reads.dialect)
            return plan
        if any(key.definition is not definition for key in keys):
            return None
        if self._by_arrays and not self._collations.known(self.loader.spec, definition):
            return None
        plan = self._for_many.get(definition)
        if plan is None:
            kind = KeysInArrays if self._by_arrays else KeysInList
            plan = self._for_many[definition] = kind(self.loader, definition, self._reads.dialect)
        return plan

    def _one(self, plan: Plan, fetched: list[Any]) -> list[Object | None] | None:
        if len(fetched) > 1:
            return None
        return [plan.row(fetched[0]) if fetched else None]

    def _many(self, plan: Plan, keys: Sequence[Key], fetched: list[Any]) -> list[Object | None] | None:
        own: dict[Any, Object]
        try:
            if self._lone is None:
                rows = [plan.row(each) for each in fetched]
                own = {plan.getters[spec](row): (spec, row) for spec, row in rows}
            else:
                lone, getter = self._lone, plan.getters[self._lone]
                own = {getter(row): (lone, row) for row in plan.rows(fetched)}
        except TypeError:
            # a list, say, in a column that is unique
            return None
        definition = keys[0].definition
        asked = [key.values for key in keys] if len(definition.attributes) > 1 else [key.values[0] for key in keys]
        found = [own.get(values) for values in asked]
        if len(own) < len(fetched) or not own.keys() <= set(asked):
            return None
        if own and None in found and not self._collations.known(self.loader.spec, definition):
            # a row that was found under its own key may be what the database finds under another one, too
            return None
        return found
