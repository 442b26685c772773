"""What is the same for all objects of a mapped class that units of work write, found out once for many of them.

Most flushes change what is in no key. Then the object has the same keys before and after, and all that is to be done
for it is to read these.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from operator import itemgetter
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE
from sqlalchemy.sql import ClauseElement

from stockpyle.keys import Key, KeyDefinition
from stockpyle.orm.cascades import referring, replaces_rows
from stockpyle.orm.coercion import coercion_for, natural_type
from stockpyle.orm.mapping import MappedSpec, spec_of_mapped
from stockpyle.orm.registries import metadata_generation, name_of
from stockpyle.orm.relatives import related, table_names
from stockpyle.orm.statements import specs_of_tables
from stockpyle.protocols import Change
from stockpyle.values import UnusableValue

Values = Mapping[str, Any]


class WritePlan:
    """How the objects of one class are noted that are written on connections of one dialect.

    tables are the names of those that the class is mapped to.
    """

    def __init__(self, spec: MappedSpec, dialect: str) -> None:
        self._made = metadata_generation()
        self._spec = spec
        self._described = self._describe()
        self.tables = table_names(spec.mapper)
        relatives = related(spec)
        own = [_WrittenKey(spec, spec, each, each.attributes) for each in spec.definitions]
        self._keys = own + [_WrittenKey(spec, each.spec, each.definition, each.attributes) for each in relatives.keys]
        self._key_attributes = frozenset(name for key in self._keys for name in key.attributes)
        self._attributes = frozenset(spec.attributes)
        self._primary_key = _tuple_getter(spec.primary_key)
        self._all_locked = all(key.row_locked for key in self._keys)
        # what is spread over tables no single row's lock protects
        self._none_locked = not spec.cacheable or len(self.tables) > 1
        self._discriminator = _discriminator(spec)
        self._epochs = relatives.epochs
        self._epochs_on_insert = relatives.epochs_on_insert
        self._replaces = [table for table in spec.mapper.tables if replaces_rows(table, dialect)]
        self._reached: dict[tuple[str, ...] | None, list[Key]] = {}
        self._spreads = bool(self._epochs or self._replaces or self._discriminator)

    @property
    def is_outgrown(self) -> bool:
        """True if classes were mapped since, or tables described."""
        return self._made != metadata_generation() or self._described != self._describe()

    def _describe(self) -> list[tuple[int, int]]:
        tables: Sequence[Any] = self._spec.mapper.tables
        return [(len(getattr(each, "constraints", ())), len(each.columns)) for each in tables]

    def of_columns(self, names: Iterable[str]) -> list[str]:
        """Return those of these attributes that have columns."""
        return [name for name in names if name in self._attributes]

    def changed(self, state: Any) -> list[str]:
        """Return the attributes, of those with columns, that the flush which ends now has changed."""
        return [
            name
            for name in state.committed_state
            if name in self._attributes and state.get_history(name, PASSIVE_NO_INITIALIZE).has_changes()
        ]

    def change(self, kind: str, state: Any, changed: Collection[str]) -> Change:
        """Return the keys of an object that was written. kind is "insert", "update" or "delete"."""
        before: tuple[Key, ...] = ()
        after: tuple[Key, ...] = ()
        values = state.dict
        if kind == "update" and self._key_attributes.isdisjoint(changed) and self._is_at_home(state, values):
            before = after = self._keys_in(values)
        else:
            if kind != "insert":
                before = self._keys_in(self._values_before(state))
            if kind != "delete":
                after = self._keys_in(self._values_after(state))
        # a DELETE that matches no row, since another transaction was faster, locks none
        if self._none_locked or kind == "delete" or state.identity_token is not None:
            return Change(self._spec, before, after, (*before, *after))
        if self._all_locked:
            return Change(self._spec, before, after)
        loose = tuple(key for key in (*before, *after) if not key.definition.row_locked)
        return Change(self._spec, before, after, loose)

    def _is_at_home(self, state: Any, values: Values) -> bool:
        """True if the session knows the object by the primary key that it has."""
        try:
            return state.key is not None and self._primary_key(values) == state.key[1]
        except KeyError:
            return False

    def _keys_in(self, values: Values) -> tuple[Key, ...]:
        found = [each.key(values) for each in self._keys]
        return tuple([key for key in found if key is not None])

    def _values_before(self, state: Any) -> Values:
        values = {}
        for name in self._key_attributes:
            if name not in state.committed_state:
                if name in state.dict:
                    values[name] = state.dict[name]
                continue
            history = state.get_history(name, PASSIVE_NO_INITIALIZE)
            if history.deleted:
                values[name] = history.deleted[0]
            elif history.unchanged:
                values[name] = history.unchanged[0]
        if state.key is not None:
            values.update(zip(self._spec.primary_key, state.key[1], strict=True))
        return values

    def _values_after(self, state: Any) -> Values:
        own = state.dict
        values = {name: own[name] for name in self._key_attributes if name in own}
        values = {name: value for name, value in values.items() if not is_expression(value)}
        if state.key is not None:
            for name, value in zip(self._spec.primary_key, state.key[1], strict=True):
                values.setdefault(name, value)
        return values

    # classes of which nobody can name the objects

    def epochs(self, kind: str, state: Any, changed: Collection[str], expressions: Collection[str]) -> list[Key]:
        """Return the epochs of the classes of which the write may have changed objects that nobody can name.

        expressions are the attributes that were set to SQL expressions.
        """
        if kind == "update" and not expressions and not self._spreads and self._has_its_keys(state, changed):
            return self._epochs_reached(tuple(changed))
        found = list(self._epochs)
        if kind != "delete":
            found += self._epochs_of_unknown_keys(kind, state, changed, expressions)
        if self._has_other_class(state):
            found.append(self._spec.epoch)
        if kind == "insert":
            found += self._epochs_on_insert
        elif kind == "delete":
            found += self._epochs_reached(None)
        else:
            found += self._epochs_reached(tuple({*changed, *expressions} & self._attributes))
        if kind != "delete" and self._replaces:
            found += self._epochs_of([*self.tables, *referring(self.tables, deleted=True)])
        return found

    def _epochs_of_unknown_keys(
        self, kind: str, state: Any, changed: Collection[str], expressions: Collection[str]
    ) -> list[Key]:
        """The epochs of classes in which the write may have given the object a key that only the database knows."""
        if kind == "update" and not expressions and self._has_its_keys(state, changed):
            return []
        after = self._values_after(state)
        return [key.owner.epoch for key in self._keys if key.is_unknown(kind, after, changed, expressions)]

    def _has_its_keys(self, state: Any, changed: Collection[str]) -> bool:
        """True if all keys that an object had it has still, and they are known."""
        return self._key_attributes.isdisjoint(changed) and self._key_attributes <= state.dict.keys()

    def _has_other_class(self, state: Any) -> bool:
        name = self._discriminator
        if name is None or name not in state.committed_state:
            return False
        return bool(state.get_history(name, PASSIVE_NO_INITIALIZE).deleted)

    def _epochs_reached(self, changed: tuple[str, ...] | None) -> list[Key]:
        """Those of the rows that refer to the one written, and that the database itself changes for that."""
        known = self._reached.get(changed)
        if known is None:
            spec = self._spec
            columns = None if changed is None else {spec.columns_by_attribute[name].name for name in changed}
            # the other tables of a joined inheritance refer by their primary keys: their rows are the object's own
            own = {(name_of(table), column.name) for table in spec.mapper.tables for column in table.primary_key}
            reached = referring(self.tables, deleted=changed is None, columns=columns, same_row=own)
            known = self._epochs_of(reached) if reached else []
            if len(self._reached) < _MOST:
                self._reached[changed] = known
        return known

    def _epochs_of(self, tables: Iterable[str]) -> list[Key]:
        return [each.epoch for each in specs_of_tables(tables, self._spec.schemas)]


_MOST = 100
"""Of how many sets of attributes that are changed together it is remembered what the database changes for that."""


class _WrittenKey:
    """A key that finds rows of a class, be it its own or that of another class, `owner`.

    attributes are what the class that is written calls those of the definition, in the definition's order.
    """

    def __init__(
        self, spec: MappedSpec, owner: MappedSpec, definition: KeyDefinition, attributes: Sequence[str]
    ) -> None:
        self.owner = owner
        self.attributes = tuple(attributes)
        self.row_locked = definition.row_locked
        self._definition = definition
        self._values = _tuple_getter(self.attributes)
        self._columns = [spec.columns_by_attribute[name] for name in attributes]
        self._coercions = [coercion_for(column.type) for column in self._columns]
        self._natural = tuple(map(natural_type, self._coercions))
        self._only: str | None = None
        self._only_natural: type | None = None
        if len(self.attributes) == 1 and definition.natural is not None:
            self._only, self._only_natural = self.attributes[0], definition.natural[0]

    def key(self, values: Values) -> Key | None:
        """Return this key of an object with these values, or None if it is not known or has a None."""
        definition = self._definition
        if self._only is not None:
            # most keys are of one attribute, whose values are of its column's type
            value = values.get(self._only)
            if type(value) is self._only_natural:
                return Key(self.owner, definition, (value,))
        try:
            own = self._values(values)
        except KeyError:
            return None
        if tuple(map(type, own)) == definition.natural:
            return Key(self.owner, definition, own)
        return self.owner.key_of_values(definition, dict(zip(definition.attributes, own, strict=True)))

    def is_unknown(self, kind: str, after: Values, changed: Collection[str], expressions: Collection[str]) -> bool:
        """True if the write may have given the object this key with a value that only the database knows."""
        try:
            own = self._values(after)
        except KeyError:
            return any(
                self._is_written(kind, name, column, after, changed, expressions)
                for name, column in zip(self.attributes, self._columns, strict=True)
            )
        is_new = kind == "insert" or not set(self.attributes).isdisjoint(changed)
        return is_new and tuple(map(type, own)) != self._natural and self._is_converted(own)

    @staticmethod
    def _is_written(
        kind: str,
        name: str,
        column: sa.Column[Any],
        after: Values,
        changed: Collection[str],
        expressions: Collection[str],
    ) -> bool:
        if name in expressions:
            return True
        if kind == "insert":
            return name not in after and (column.server_default is not None or column.default is not None)
        by_default = column.server_onupdate is not None or column.onupdate is not None
        return (by_default and name not in after) or name in changed

    def _is_converted(self, values: Iterable[Any]) -> bool:
        """True if these are no values of their columns' types: what the database has made of them, only it knows."""
        try:
            for value, coerce in zip(values, self._coercions, strict=True):
                if value is not None and coerce is not None:
                    coerce(value)
        except UnusableValue:
            return True
        return False


def is_expression(value: Any) -> bool:
    """True if a value is SQL, which the database is to evaluate, or stands for it as a mapped attribute does."""
    if type(value) in _NO_SQL:
        return False
    return isinstance(value, ClauseElement) or hasattr(value, "__clause_element__")


_NO_SQL = frozenset({type(None), bool, int, float, str, bytes, Decimal, UUID, datetime, date})
"""The types of most values, of which no more need be asked."""


def _tuple_getter(names: Sequence[str]) -> Callable[[Values], tuple[Any, ...]]:
    """Return what makes a tuple of the values under these names; KeyError if one is missing."""
    if len(names) == 1:
        (name,) = names
        return lambda values: (values[name],)
    return itemgetter(*names)


def _discriminator(spec: MappedSpec) -> str | None:
    """The attribute that says of which class a row is."""
    column = spec.mapper.polymorphic_on
    if column is None or not isinstance(column, sa.Column):
        return None
    return next((name for name, own in spec.columns_by_attribute.items() if own is column), None)


_plans: dict[tuple[type, str], WritePlan] = {}
_plans_in_schemas: dict[tuple[MappedSpec, str], WritePlan] = {}


def plan_for(klass: type, schemas: Mapping[str | None, str | None] | None, dialect: str) -> WritePlan:
    """Return the plan for objects of a class that are written on connections of a dialect.

    schemas are those that the connection calls by other names.
    """
    if schemas:
        spec = spec_of_mapped(klass).translated(schemas)
        plan = _plans_in_schemas.get((spec, dialect))
        if plan is None or plan.is_outgrown:
            plan = _plans_in_schemas[spec, dialect] = WritePlan(spec, dialect)
        return plan
    plan = _plans.get((klass, dialect))
    if plan is None or plan.is_outgrown:
        plan = _plans[klass, dialect] = WritePlan(spec_of_mapped(klass), dialect)
    return plan
