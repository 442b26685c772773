"""What finds the rows of one table: the keys of every class that is mapped to it.

A statement past the unit of work knows tables and columns, and no classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from stockpyle.keys import Key, KeyDefinition
from stockpyle.orm.mapping import MappedSpec, own_schemas, spec_of_mapped
from stockpyle.orm.registries import generation, known_registries, mappers_of, meet_those_who_map, name_of
from stockpyle.protocols import Change

Values = Mapping[str, Any]
"""A row, or what is known of it: values by the name of the column."""


@dataclass(frozen=True)
class KeyColumns:
    """One key, and the columns of the table that are its attributes."""

    spec: MappedSpec
    definition: KeyDefinition
    columns: tuple[sa.Column[Any], ...]

    @property
    def names(self) -> frozenset[str]:
        """The names of the columns."""
        return frozenset(column.name for column in self.columns)

    def key(self, row: Values) -> Key | None:
        """Return the key of a row; None if it has a None in it, or a value that nobody can ask for."""
        own = zip(self.definition.attributes, self.columns, strict=True)
        return self.spec.key_of_values(self.definition, {name: row[column.name] for name, column in own})


@dataclass
class Hierarchy:
    """The classes with one identity that are mapped to the table.

    partial are the columns of keys whose other columns are in another table; discriminator is the one that tells an
    object's class. spread: rows of theirs have parts in other tables, so that a statement on this one does not lock
    them. shared: other classes, of another identity, are mapped to the table, too; nobody knows as which of them an
    object is read.
    """

    spec: MappedSpec
    identity: KeyColumns | None = None
    alternates: list[KeyColumns] = field(default_factory=list)
    partial: set[str] = field(default_factory=set)
    spread: bool = False
    discriminator: str | None = None
    shared: bool = False

    def keys(self, kind: str) -> list[KeyColumns]:
        """Return the keys of which a write must know the values, the identity first.

        Where an object is deleted, who asks by another key finds it through an alias, which is believed only if the
        object says the same: that it is gone is enough. So it is with the values that a key had before an update.
        """
        found = [] if self.identity is None else [self.identity]
        return found if kind == "delete" else [*found, *self.alternates]

    def change(self, kind: str, row: Values) -> Change | None:
        """Return what the write of one row changes; None if nobody can name it.

        row has the columns of `keys(kind)`; of an alternate key, all or none, if the write has not touched it.
        """
        if self.identity is None or (identity := self.identity.key(row)) is None:
            return None
        told = [each for each in self.keys(kind)[1:] if each.names <= row.keys()]
        keys = (identity, *(key for each in told if (key := each.key(row)) is not None))
        loose = kind == "delete" or self.spread
        return Change(
            self.spec,
            () if kind == "insert" else (identity,),
            () if kind == "delete" else keys,
            tuple(key for key in keys if loose or not key.definition.row_locked),
        )


_known: dict[tuple[str, Any], tuple[tuple[int, int], list[Hierarchy]]] = {}


def hierarchies_of(table: str, schemas: Any) -> list[Hierarchy]:
    """Return what finds the rows of a table, for each hierarchy of classes that is mapped to it."""
    meet_those_who_map([table])
    which = (table, tuple(sorted(own_schemas(schemas).items(), key=repr)))
    now = generation()
    known = _known.get(which)
    if known is None or known[0] != now:
        known = _known[which] = (now, _find(table, schemas))
    return known[1]


def _find(table: str, schemas: Any) -> list[Hierarchy]:
    found: dict[Any, Hierarchy] = {}
    mappers = [mapper for registry in known_registries() for mapper in mappers_of(registry)]
    # a base before its subclasses: objects are loaded as what all of them are
    for mapper in sorted(mappers, key=lambda each: len(list(each.iterate_to_root()))):
        if table in map(name_of, mapper.tables):
            spec = spec_of_mapped(mapper.class_).translated(schemas)
            own = found.setdefault(spec.base, Hierarchy(spec))
            own.spread = own.spread or len(mapper.tables) > 1 or not spec.cacheable
            on = mapper.polymorphic_on
            own.discriminator = (
                on.name if isinstance(on, sa.Column) and name_of(on.table) == table else own.discriminator
            )
            for definition in spec.definitions:
                _add(own, spec, definition, table)
    for own in found.values():
        own.shared = len(found) > 1
    return list(found.values())


def _add(hierarchy: Hierarchy, spec: MappedSpec, definition: KeyDefinition, table: str) -> None:
    columns = [_column_in(spec, name, table) for name in definition.attributes]
    told = tuple(column for column in columns if column is not None)
    if len(told) < len(columns):
        # a key that is all in another table is none of this one's business, unless it is the identity
        hierarchy.partial.update(column.name for column in told)
        return
    own = KeyColumns(spec, definition, told)
    if definition is spec.identity:
        hierarchy.identity = hierarchy.identity or own
    elif all(_is_other(own.definition, each.definition) for each in hierarchy.alternates):
        hierarchy.alternates.append(own)


def _is_other(one: KeyDefinition, other: KeyDefinition) -> bool:
    return (one.space, one.names) != (other.space, other.names)


def _column_in(spec: MappedSpec, attribute: str, table: str) -> sa.Column[Any] | None:
    columns: Iterable[Any] = spec.mapper.column_attrs[attribute].columns
    return next((each for each in columns if isinstance(each, sa.Column) and name_of(each.table) == table), None)
