"""Engines of database URLs."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from stockpyle.exceptions import ImproperlyConfigured, MissingDependency
from stockpyle.masking import displayed, masked


def engine_for(uri: Any) -> tuple[sa.Engine, bool]:
    """Return an engine for a database URL, and True if the database is in memory, and so is new and empty."""
    try:
        url = sa.make_url(uri)
    except (sa.exc.ArgumentError, ValueError):
        # its error may show the password
        raise ImproperlyConfigured(f"{displayed(uri)} is no database URL, such as 'sqlite:///file.db'") from None
    in_memory = url.get_backend_name() == "sqlite" and (
        url.database in (None, "", ":memory:", "file::memory:") or url.query.get("mode") == "memory"
    )
    try:
        if in_memory:
            options: dict[str, Any] = {"connect_args": {"check_same_thread": False}, "poolclass": StaticPool}
            return sa.create_engine(url, **options), True
        return sa.create_engine(url), False
    except ModuleNotFoundError as error:
        raise MissingDependency(f"the driver of {_shown_url(url)} is not installed: {error}") from error
    except (sa.exc.SQLAlchemyError, TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"{_shown_url(url)}: {masked(str(error))}") from error


def _shown_url(url: sa.URL) -> str:
    """Return a database URL without its password, which may stand among its parameters too."""
    return masked(url.render_as_string(hide_password=False))
