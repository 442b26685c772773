"""``execution_options(stockpyle_invalidates=[...])``: what a statement changes, as the application says it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from stockpyle.exceptions import ImproperlyConfigured
from stockpyle.orm.mapping import MappedSpec, spec_of_mapped

OPTION = "stockpyle_invalidates"


def classes_told(context: Any, schemas: Any) -> list[MappedSpec] | None:
    """Return what a statement's option says it changes; None if it has none. Raises ImproperlyConfigured."""
    given = context.execution_options.get(OPTION)
    if given is None:
        return None
    if not isinstance(given, Iterable):
        raise _wrong(given)
    classes = list(given)
    for each in classes:
        if not isinstance(each, type) or sa.inspect(each, raiseerr=False) is None:
            raise _wrong(given)
    return [spec_of_mapped(each).translated(schemas) for each in classes]


def _wrong(given: Any) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{OPTION} is a list of mapped classes, such as [User, Org], not {given!r}")
