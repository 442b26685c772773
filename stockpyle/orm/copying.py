"""Objects that callers hand to a store, copied into a session of the store's own: neither moved nor flushed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.attributes import flag_modified, instance_state, set_committed_value
from sqlalchemy.sql import ClauseElement

from stockpyle.exceptions import InvalidKey, PendingElsewhere
from stockpyle.orm.mapping import spec_of_mapped


def refuse_pending(obj: Any) -> None:
    """Raise PendingElsewhere if a session is about to insert `obj`, or something that it refers to."""
    state = instance_state(obj)
    waiting = [state, *(found[2] for found in state.mapper.cascade_iterator("merge", state))]
    for each in waiting:
        if each.pending:
            raise PendingElsewhere(
                f"this {each.class_.__name__} is pending in another session, which would insert it once more: "
                "commit that session, or expunge the object first"
            )


def preload(session: Session, objs: Sequence[Any]) -> None:
    """Bring the rows of `objs` that exist into the session, in one SELECT a class."""
    by_mapper: dict[Mapper[Any], list[tuple[Any, ...]]] = {}
    for obj in objs:
        identity = identity_of(obj)
        if None not in identity:
            by_mapper.setdefault(instance_state(obj).mapper, []).append(identity)
    for mapper, identities in by_mapper.items():
        for start in range(0, len(identities), 400):
            chunk = identities[start : start + 400]
            columns = mapper.primary_key
            one = len(columns) == 1
            criterion = columns[0].in_([i[0] for i in chunk]) if one else sa.tuple_(*columns).in_(chunk)
            session.info.setdefault("kept", []).extend(session.scalars(sa.select(mapper.class_).where(criterion)))


def identity_of(obj: Any) -> tuple[Any, ...]:
    """Return the primary key of an object, with None for what is not known."""
    state = instance_state(obj)
    if state.key is not None:
        return tuple(state.key[1])
    return tuple(state.mapper.primary_key_from_instance(obj))


def copy_into(session: Session, obj: Any) -> Any:
    """Return the session's instance with the present state of `obj`: a new one, or the row it has, changed.

    Values are copied as they are: validators and other attribute events have seen them when they were set. Objects
    with loaded relationships go through Session.merge, which follows them.
    """
    state = instance_state(obj)
    if any(name in state.dict for name in state.mapper.relationships.keys()):  # noqa: SIM118  # no dict
        return session.merge(obj)
    spec = spec_of_mapped(type(obj))
    identity = identity_of(obj)
    mine = None if None in identity else session.get(state.mapper.class_, identity, populate_existing=False)
    if mine is None:
        mine = state.mapper.class_manager.new_instance()
        for name in spec.attributes:
            if isinstance(state.dict.get(name), ClauseElement):
                setattr(mine, name, state.dict[name])
            elif name in state.dict:
                set_committed_value(mine, name, state.dict[name])
        session.add(mine)
        return mine
    version = state.mapper.version_id_col
    for name, column in spec.columns_by_attribute.items():
        if name not in state.dict:
            continue
        value = state.dict[name]
        if isinstance(value, ClauseElement):
            setattr(mine, name, value)
        elif column is version:
            if value is not None and value != getattr(mine, name):
                return session.merge(obj)
        elif not column.type.compare_values(getattr(mine, name), value):
            set_committed_value(mine, name, value)
            flag_modified(mine, name)
    return mine


def find_for_delete(session: Session, obj: Any) -> Any | None:
    """Return the session's instance of the row that `obj` stands for, or None if there is none."""
    identity = identity_of(obj)
    if None in identity:
        names = ", ".join(spec_of_mapped(type(obj)).primary_key)
        raise InvalidKey(f"this {type(obj).__name__} has None in its primary key {{{names}}} and cannot be deleted")
    return session.get(type(obj), identity)


def copy_generated(mine: Any, obj: Any) -> None:
    """Set on `obj` what the flush has generated: keys, defaults, versions."""
    spec = spec_of_mapped(type(obj))
    mine_state, state = instance_state(mine), instance_state(obj)
    version = state.mapper.version_id_col
    for name, column in spec.columns_by_attribute.items():
        missing = state.dict.get(name) is None or isinstance(state.dict[name], ClauseElement) or column is version
        if missing and name in mine_state.dict and not (state.persistent and name not in state.dict):
            set_committed_value(obj, name, mine_state.dict[name])
