"""How a chain is connected to its backplane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stockpyle.coherence.announced import GRACE
from stockpyle.coherence.backplane import Backplane
from stockpyle.coherence.cleaning import clean
from stockpyle.coherence.messages import Changes
from stockpyle.exceptions import ImproperlyConfigured
from stockpyle.lifetimes import check_seconds
from stockpyle.masking import displayed
from stockpyle.stores._levels import Levels

_MAX_CHANNEL = 255
"""How many bytes the name of a channel may have in every pub/sub; a prefix has 100 at most."""


def connected(
    backplane: Any,
    levels: Levels,
    lock_seconds: float,
    *,
    in_transaction: bool = False,
    channel: str | None = None,
    grace: float = GRACE,
) -> Backplane:
    """Return the backplane over a store or a pub/sub, which the levels that can hear listen to."""
    if in_transaction:
        _check_same_database(backplane, levels.stores)
    if channel is not None and (not isinstance(channel, str) or not 0 < len(channel.encode()) <= _MAX_CHANNEL):
        raise ImproperlyConfigured(
            f"backplane_channel is the name of a channel, of 1 to {_MAX_CHANNEL} bytes, not {channel!r}"
        )
    check_seconds("backplane_grace", grace)

    def clean_up(changes: Changes) -> None:
        clean(levels.shared, changes, lock_seconds, list(levels.routes))

    made = Backplane(
        backplane,
        channel or _channel_of(levels.stores),
        levels.listening,
        clean_up if levels.shared else None,
        in_transaction=in_transaction,
        grace=grace,
    )
    for layer in levels.shared:
        layer.told_late(made)
    return made


def _channel_of(stores: Sequence[Any]) -> str:
    """The default: chains whose shared tiers have the same keys tell each other, and nobody else."""
    prefix = next((str(store.prefix) for store in stores if hasattr(store, "prefix")), "stockpyle")
    return f"{prefix}.backplane"


def _check_same_database(backplane: Any, stores: Sequence[Any]) -> None:
    engine = getattr(backplane, "engine", None)
    sources = [store.engine for store in stores if getattr(store, "engine", None) is not None]
    if engine is not None and engine.dialect.name == "postgresql" and sources:
        from stockpyle.orm.databases import same_database

        if same_database(sources[-1], engine):
            return
    raise ImproperlyConfigured(
        "backplane_in_transaction=True needs a backplane on the PostgreSQL database that the source is on: give "
        f"that SqlAlchemyStore, or its pub/sub, not {displayed(backplane)}"
    )
