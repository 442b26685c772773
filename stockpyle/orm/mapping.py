"""Mapped classes: their keys, and their instances as rows.

Tiers never hold a live instance but its row, a tuple of column values: half the memory, nothing for the garbage
collector to follow, and nobody's later change to an instance can reach it. What is no column of the mapped
tables (relationships, SQL expressions) is not in a row; in an instance made from it, that is expired: a session
loads it, a detached instance raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.attributes import instance_state, set_committed_value

from stockpyle.exceptions import InvalidKey, InvalidKeysDeclaration, InvalidKeyType
from stockpyle.keys import Ident, Key, KeyDefinition, KeySpec, declared_keys
from stockpyle.orm.coercion import coercion_for, natural_type
from stockpyle.orm.instances import UNKNOWN, CarefulRow, Reviver, Row, attach, own_copy, row_of, tell_of_load
from stockpyle.orm.registries import meet
from stockpyle.values import ALWAYS_NORMAL


class MappedSpec(KeySpec):
    """The keys and the row of one mapped class.

    attributes and columns are parallel: a row of the class has their values in this order.
    """

    mapped = True

    def __init__(self, mapper: Mapper[Any], schemas: Mapping[str | None, str | None] | None = None) -> None:
        self.mapper = mapper
        self.schemas = schemas
        pairs = [(prop.key, _real_column(mapper, prop.columns)) for prop in mapper.column_attrs]
        self.columns_by_attribute: dict[str, sa.Column[Any]] = {k: column for k, column in pairs if column is not None}
        self.attributes = tuple(self.columns_by_attribute)
        self.columns = tuple(self.columns_by_attribute.values())
        self._position = {name: i for i, name in enumerate(self.attributes)}
        self.base = _base_of(mapper)
        self.primary_key = tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)
        self._identity_names = tuple(sorted(self.primary_key))
        self._revive = Reviver(mapper, self.attributes, self.columns)
        self._space = _space_of(self.base, schemas)
        self._owners: dict[KeyDefinition, Mapper[Any]] = {}
        super().__init__(mapper.class_, [self._define(names) for names in self._declared()])
        own = [mapper] if mapper.concrete else mapper.iterate_to_root()
        tables = all(isinstance(each.local_table, sa.Table) for each in own)
        self.cacheable = tables and self.union is None

    def translated(self, schemas: Mapping[str | None, str | None] | None) -> MappedSpec:
        """Return the spec of the same class in other schemas (an engine's ``schema_translate_map``)."""
        return self if not schemas and not self.schemas else _in_schemas(self.mapper, schemas)

    # keys

    def _declared(self) -> list[tuple[str, ...]]:
        mapper = self.mapper
        if hasattr(mapper.class_, "__stockpyle_keys__"):
            others = [tuple(sorted(self._resolve(name) for name in names)) for names in declared_keys(mapper.class_)]
        else:
            others = [names for names, _ in self._unique]
        return list(dict.fromkeys([self._identity_names, *others]))

    def _resolve(self, name: str) -> str:
        target = self.mapper.synonyms[name].name if name in self.mapper.synonyms else name
        if target in self.columns_by_attribute:
            return target
        raise InvalidKeysDeclaration(
            f"__stockpyle_keys__ of {self.mapper.class_.__qualname__} names {name!r}, which is not a mapped column; "
            f"its mapped columns are {', '.join(self.attributes)}"
        )

    @cached_property
    def _unique(self) -> list[tuple[tuple[str, ...], bool]]:
        """What the tables hold unique: sorted attribute names, and whether at once (not deferrable)."""
        attribute_of = {column: name for name, column in self.columns_by_attribute.items()}
        found: list[tuple[list[Any], bool]] = []
        for table in self.mapper.tables:
            if not isinstance(table, sa.Table):
                continue
            for constraint in table.constraints:
                if isinstance(constraint, sa.UniqueConstraint):
                    found.append((list(constraint.columns), not constraint.deferrable))
            for index in table.indexes:
                if index.unique and not any(option.endswith("where") for option in index.dialect_kwargs):
                    found.append((list(index.expressions), True))
        named = [
            (tuple(sorted(attribute_of[column] for column in columns)), at_once)
            for columns, at_once in found
            if columns and all(column in attribute_of for column in columns)
        ]
        return sorted(named)

    def _define(self, names: tuple[str, ...]) -> KeyDefinition:
        columns = [self.columns_by_attribute[name] for name in names]
        is_identity = names == self._identity_names
        owner = self.base if is_identity else self._owner_of(names)
        unique = is_identity or any(at_once and unique_names == names for unique_names, at_once in self._unique)
        prefix = "" if owner is self.base else f"{owner.class_.__name__}."
        coercions = tuple(coercion_for(column.type) for column in columns)
        definition = KeyDefinition(
            self._space,
            names,
            tuple(prefix + column.key for column in self._base_columns(names, owner)),
            coercions,
            row_locked=unique and len(self.mapper.tables) == 1,
            natural=tuple(map(natural_type, coercions)),
        )
        self._owners[definition] = owner
        return definition

    def _owner_of(self, names: Iterable[str]) -> Mapper[Any]:
        """The topmost mapper of the hierarchy that has all these attributes: the key means the same in all below."""
        owner = self.mapper
        while (
            owner is not self.base and owner.inherits is not None and all(owner.inherits.has_property(n) for n in names)
        ):
            owner = owner.inherits
        return owner

    def owns(self, definition: KeyDefinition) -> bool:
        """True if no base of the class has this key too: what is not found under it is no object of any class."""
        return self._owners[definition] is self.mapper

    def _base_columns(self, names: tuple[str, ...], owner: Mapper[Any]) -> list[sa.Column[Any]]:
        # in joined inheritance each subclass calls the primary key by a column of its own table
        columns = []
        for name in names:
            column = _real_column(owner, owner.get_property(name).columns) if owner.has_property(name) else None
            columns.append(self.columns_by_attribute[name] if column is None else column)
        return columns

    def _key_in_any_order(self, asked: Mapping[str, Any]) -> Key | None:
        # a declared synonym may stand for its column
        if self.mapper.synonyms and isinstance(asked, Mapping):
            resolved = {self._synonym(name): value for name, value in asked.items()}
            if len(resolved) < len(asked):
                raise self._undeclared(asked)
            asked = resolved
        return super()._key_in_any_order(asked)

    def _synonym(self, name: str) -> str:
        return self.mapper.synonyms[name].name if name in self.mapper.synonyms else name

    def key_of_values(self, definition: KeyDefinition, values: Mapping[str, Any]) -> Key | None:
        """Return one key of an object whose attributes have these values, or None if it is not known or has a None."""
        if any(name not in values for name in definition.attributes):
            return None
        return self._usable(definition, tuple([values[name] for name in definition.attributes]))

    # rows

    def dehydrate(self, obj: Any) -> Row:
        """Return the row of a live instance. What is expired is loaded, if the instance is in a session."""
        state = instance_state(obj)
        session = state.session
        row = []
        for name in self.attributes:
            if name in state.dict:
                row.append(state.dict[name])
            elif state.transient or state.pending:
                row.append(None)
            elif session is not None:
                with session.no_autoflush:
                    row.append(getattr(obj, name))
            else:
                row.append(UNKNOWN)
        return row_of(row, self.columns)

    def materialise(self, value: Row) -> Any:
        """Return a new detached instance of the row; it is the caller's own. ``load`` events run."""
        return self._revive.loaded(value)

    def materialise_all(self, values: Sequence[Row]) -> list[Any]:
        """See KeySpec.materialise_all."""
        return self._revive.each_loaded(values)

    def revive(self, value: Row) -> Any:
        """Return a new detached instance of the row, of which no event tells."""
        return self._revive(value)

    def materialise_into(self, session: Session, value: Row) -> Any:
        """Return the session's own instance for the row: the one it already has, or a new persistent one.

        An instance that the session has keeps every value it has; only one that is expired altogether is
        brought up to date.
        """
        existing = session.identity_map.get(self._revive.identity_of(value))
        if existing is None:
            instance = self._revive(value)
            attach(session, instance)
            tell_of_load(instance)
            return instance
        state = instance_state(existing)
        if state.dict.keys().isdisjoint(self.attributes):
            for name, column_value in zip(self.attributes, value, strict=True):
                if column_value is not UNKNOWN:
                    set_committed_value(existing, name, own_copy(column_value))
            state.manager.dispatch.refresh(state, None, None)
        return existing

    def stand_in(self, values: Mapping[str, Any]) -> Any:
        """Return a detached instance that has these attributes and no others."""
        return self.revive(CarefulRow(values.get(name, UNKNOWN) for name in self.attributes))

    def value_in(self, row: Row, name: str) -> Any:
        """Return the value of one attribute in a row."""
        return row[self._position[name]]

    def getter(self, attributes: tuple[str, ...]) -> Callable[[Any], Any]:
        """Return what reads these attributes of a row: a tuple, or of a single one its value."""
        return itemgetter(*(self._position[name] for name in attributes))

    def key_in(self, value: Row, definition: KeyDefinition) -> Key | None:
        """Return one key of a row."""
        own = tuple([value[self._position[name]] for name in definition.attributes])
        if tuple(map(type, own)) == definition.natural:
            return Key(self, definition, own)
        return None if any(part is UNKNOWN for part in own) else self._usable(definition, own)

    def idents_in(self, value: Row) -> list[Ident | None]:
        """Return the ident of each definition's key in a row; None where one cannot be told, or has a None in it."""
        found: list[Ident | None] = []
        for definition, read in self._readers:
            own = read(value)
            if tuple(map(type, own)) == definition.natural:
                found.append((definition.space, definition.names, own))
            else:
                key = self.key_in(value, definition)
                found.append(None if key is None else key.ident)
        return found

    @cached_property
    def _readers(self) -> list[tuple[KeyDefinition, Callable[[Row], tuple[Any, ...]]]]:
        places = [
            (definition, [self._position[name] for name in definition.attributes]) for definition in self.definitions
        ]
        return [(definition, _tuple_of(own)) for definition, own in places]

    def has(self, value: Row, key: Key) -> bool:
        """True if a row has the values of `key` itself."""
        for name, asked in zip(key.definition.attributes, key.values, strict=True):
            own = value[self._position[name]]
            if type(own) is not type(asked) or type(own) not in ALWAYS_NORMAL:
                return super().has(value, key)
            if own != asked:
                return False
        return True

    def _usable(self, definition: KeyDefinition, values: tuple[Any, ...]) -> Key | None:
        # a row may have values that nobody can ask for, such as a list in a column that is unique
        try:
            return self._make(definition, values)
        except InvalidKeyType:
            return None

    def keys_in(self, value: Row) -> list[Key]:
        """Return all keys of a row, its identity first."""
        keys = [self.key_in(value, definition) for definition in self.definitions]
        if keys[0] is None:
            raise InvalidKey(f"this row of {self.klass.__name__} has no complete primary key")
        return [key for key in keys if key is not None]

    def subclasses(self) -> list[KeySpec]:
        """Return nothing: the classes of a hierarchy share one epoch."""
        return []

    def serves(self, spec: KeySpec, value: Any) -> bool:
        """True if rows of the class of `spec` are objects of this class."""
        return issubclass(spec.klass, self.klass)

    def is_of_hierarchy(self, spec: KeySpec) -> bool:
        """True if the classes have one base, and so one identity; two mapped to one table apart have not."""
        return isinstance(spec, MappedSpec) and spec.base is self.base

    @property
    def hierarchy(self) -> list[MappedSpec]:
        """This class and its mapped subclasses whose rows are found with its own."""
        mappers = [
            m for m in self.mapper.self_and_descendants if m is self.mapper or not m.concrete or self.union is not None
        ]
        return [_in_schemas(mapper, self.schemas) for mapper in mappers]

    @property
    def union(self) -> Any | None:
        """The UNION of its own and its subclasses' tables, if the class is a concrete base with a discriminator."""
        on = getattr(self.mapper.polymorphic_on, "table", None)
        united = any(mapper.concrete for mapper in self.mapper.self_and_descendants if mapper is not self.mapper)
        return self.mapper.selectable if united and on is not None and on not in self.mapper.tables else None


def _tuple_of(places: list[int]) -> Callable[[Row], tuple[Any, ...]]:
    if len(places) == 1:
        (place,) = places
        return lambda row: (row[place],)
    return itemgetter(*places)


_specs: dict[tuple[Mapper[Any], tuple[tuple[str | None, str | None], ...]], MappedSpec] = {}


def spec_of_mapped(klass: type) -> MappedSpec:
    """Return the MappedSpec of a mapped class; raises InvalidKeysDeclaration if its declaration is wrong."""
    mapper: Mapper[Any] = sa.inspect(klass)
    return _in_schemas(mapper, None)


def own_schemas(schemas: Mapping[str | None, str | None] | None) -> dict[str | None, str | None]:
    """Return a copy of a ``schema_translate_map`` as the application has made it; empty if there is none.

    To the very dict that it was given SQLAlchemy adds "_none", another name of None, when it sends a statement.
    """
    given = schemas or {}
    return {name: schema for name, schema in given.items() if name != "_none" or None not in given}


def _in_schemas(mapper: Mapper[Any], schemas: Mapping[str | None, str | None] | None) -> MappedSpec:
    own = own_schemas(schemas)
    which = (mapper, tuple(sorted(own.items(), key=repr)))
    spec = _specs.get(which)
    if spec is None:
        meet(mapper.registry)
        spec = _specs.setdefault(which, MappedSpec(mapper, own or None))
    return spec


def _real_column(mapper: Mapper[Any], columns: Iterable[Any]) -> sa.Column[Any] | None:
    """The one of a property's columns that the class is stored in; None for an SQL expression."""
    stored = mapper.persist_selectable.c
    return next((column for column in columns if stored.contains_column(column)), None)


def _base_of(mapper: Mapper[Any]) -> Mapper[Any]:
    """The mapper whose identity all classes of the hierarchy share."""
    owner = mapper.identity_key_from_primary_key((None,) * len(mapper.primary_key))[0]
    base: Mapper[Any] = sa.inspect(owner)
    return base


def _leaves(selectable: Any) -> list[Any]:
    if isinstance(selectable, sa.Join):
        return _leaves(selectable.left) + _leaves(selectable.right)
    return [selectable]


def _space_of(base: Mapper[Any], schemas: Mapping[str | None, str | None] | None) -> str:
    names = []
    for leaf in _leaves(base.persist_selectable):
        if not isinstance(leaf, sa.Table):
            return f"{base.class_.__module__}.{base.class_.__qualname__}"
        schema = (schemas or {}).get(leaf.schema, leaf.schema)
        names.append(f"{schema}.{leaf.name}" if schema else leaf.name)
    return "+".join(names)
