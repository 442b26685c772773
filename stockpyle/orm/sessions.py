"""Records as instances of a caller's session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from stockpyle.keys import Key
from stockpyle.orm.mapping import MappedSpec
from stockpyle.orm.transactions import written_in
from stockpyle.records import Record

Find = Callable[[Sequence[Key]], dict[Any, Record | None]]


def instances(session: Any, spec: MappedSpec, keys: Sequence[Key | None], find: Find) -> list[Any]:
    """Return the session's instances for `keys`.

    What its own transaction has written, or is about to, is asked of the session, not of a cache.
    """
    own: Session = getattr(session, "sync_session", session)
    asked = [key for key in keys if key is not None]
    if asked and _has_written(own, spec):
        found = {key.ident: _query(own, spec, key) for key in asked}
        return [None if key is None else found[key.ident] for key in keys]
    records = find(asked) if asked else {}
    results = []
    for key in keys:
        record = None if key is None else records[key.ident]
        target: Any = None if record is None else record.spec
        results.append(None if record is None else target.materialise_into(own, record.value))
    return results


def _has_written(session: Session, spec: MappedSpec) -> bool:
    base = spec.base.class_
    for obj in (*session.new, *session.deleted, *session.dirty):
        if isinstance(obj, base):
            return True
    return any(written.has_written(spec) for written in written_in(session))


def _query(session: Session, spec: MappedSpec, key: Key) -> Any:
    columns = [getattr(spec.klass, name) for name in key.definition.attributes]
    criteria = [column == value for column, value in zip(columns, key.values, strict=True)]
    return session.scalars(sa.select(spec.klass).where(*criteria)).one_or_none()
