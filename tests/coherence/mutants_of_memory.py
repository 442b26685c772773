"""Wrong systems: tiers in a process's own memory, which other processes' commits do not reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from stockpyle.coherence.layers import Layer
from stockpyle.coherence.validated import ValidatedLayer
from stockpyle.coherence.writer import Writer
from stockpyle.keys import Key
from stockpyle.records import Alias, Found, Lease, Record
from stockpyle.stores import ProcessMemoryStore
from tests.coherence.mutation import Real, instead_of

_MEMORY = "--system stockpyle-memory --rows 16 --steps update_a,update_b"


@instead_of(ProcessMemoryStore, "fill", _MEMORY)
def memory_without_end(real: Real, store: Any, leased: Sequence[tuple[Lease, Record | Alias | None]]) -> int:
    """A copy in memory has no end: it lives as long as the store says, which bounds how old it can be."""
    return int(real(store, [(lease, value and replace(value, deadline=None)) for lease, value in leased]))


@instead_of(Writer, "_keys_for", _MEMORY)
def memory_keeps_what_its_own_process_writes(real: Real, writer: Any, layer: Layer) -> Any:
    """A commit leaves the copies in its own process's memory: these go at once, whatever their lifetime."""
    return {} if isinstance(layer.tier, ProcessMemoryStore) else real(writer, layer)


@instead_of(ValidatedLayer, "read", "--system stockpyle-validated --rows 16 --steps update_a,update_b")
def believe_a_copy_unasked(real: Real, layer: Layer, keys: Sequence[Key], *, lease: bool) -> list[Found]:
    """A copy that is to be validated is handed out as it is: the shared tier is asked at every hit."""
    return Layer.read(layer, keys, lease=lease)
