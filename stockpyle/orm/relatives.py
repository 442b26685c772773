"""What else finds the rows of a mapped class: keys that its bases declare, and classes mapped to the same tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper

from stockpyle.keys import Ident, Key, KeyDefinition
from stockpyle.orm.mapping import MappedSpec, spec_of_mapped
from stockpyle.orm.registries import generation, known_registries, mappers_of, name_of


@dataclass(frozen=True)
class RelatedKey:
    """A key of another class, and what the class that is written calls its attributes, in the definition's order."""

    spec: MappedSpec
    definition: KeyDefinition
    attributes: tuple[str, ...]


@dataclass(frozen=True)
class Relatives:
    """What else finds the rows of a class: the keys that its bases declare, and classes mapped to the same tables.

    keys are those that an object's own attributes tell. Of other classes only the epoch is left: after every
    write if it is their identity that is not told, else after an insert, which may give the row such a key.
    """

    keys: list[RelatedKey]
    epochs: list[Key]
    epochs_on_insert: list[Key]


_related: dict[MappedSpec, tuple[tuple[int, int], Relatives]] = {}


def related(spec: MappedSpec) -> Relatives:
    """Return what else finds the rows of a class, in all registries of which stockpyle has met a class."""
    now = generation()
    known = _related.get(spec)
    if known is None or known[0] != now:
        known = _related[spec] = (now, _find_related(spec))
    return known[1]


def _find_related(spec: MappedSpec) -> Relatives:
    attribute_of = {
        (name_of(column.table), column.key): prop.key
        for prop in spec.mapper.column_attrs
        for column in prop.columns
        if isinstance(column, sa.Column) and prop.key in spec.columns_by_attribute
    }
    keys: dict[tuple[str, tuple[str, ...]], RelatedKey] = {}
    epochs: dict[Ident, Key] = {}
    epochs_on_insert: dict[Ident, Key] = {}
    own = {(definition.space, definition.names) for definition in spec.definitions}
    tables = set(table_names(spec.mapper))
    for mapper in [mapper for registry in known_registries() for mapper in mappers_of(registry)]:
        if tables.isdisjoint(table_names(mapper)):
            continue
        other = spec_of_mapped(mapper.class_).translated(spec.schemas)
        if other.base is spec.base and not spec.mapper.isa(mapper):
            continue
        for definition in other.definitions:
            if (definition.space, definition.names) in own:
                continue
            columns = [other.columns_by_attribute[name] for name in definition.attributes]
            names = [attribute_of.get((name_of(column.table), column.key)) for column in columns]
            told = [name for name in names if name is not None]
            if len(told) == len(names):
                keys[definition.space, definition.names] = RelatedKey(other, definition, tuple(told))
            elif definition is other.identity:
                epochs[other.epoch.ident] = other.epoch
            else:
                epochs_on_insert[other.epoch.ident] = other.epoch
    return Relatives(list(keys.values()), list(epochs.values()), list(epochs_on_insert.values()))


def table_names(mapper: Mapper[Any]) -> list[str]:
    """Return the names of the tables that a class is mapped to."""
    return [name_of(table) for table in mapper.tables]
