"""Removing from shared tiers what a message names, also keys of classes that this process has never used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from stockpyle.coherence.layers import Layer
from stockpyle.coherence.messages import Changes
from stockpyle.keys import Ident, Key, KeyDefinition, KeySpec


def clean(layers: Sequence[Layer], changes: Changes, seconds: float, known: Iterable[KeySpec]) -> None:
    """Lock and remove these keys in every layer, as one does who has no row's lock; what cannot be reached is owed.

    A tier finds keys by their texts, for which no class is needed. A store that knows only verbs finds none but those
    of known classes.
    """
    specs = {spec.space: spec for spec in known}
    keys = [_epoch(space, specs) for space in changes.spaces]
    keys += [_key(ident, specs) for ident in changes.idents]
    with ExitStack() as each:
        for layer in layers:
            if changes.everything:
                each.callback(layer.clear, "proceed")
            elif layer.forgets:
                own = [key for key in keys if key.is_epoch or key.definition in key.spec.definitions]
                own = [key for key in own if key.spec.space in specs]
                each.callback(layer.drop, own, seconds, "proceed")
            elif keys:
                each.callback(partial(_remove, layer, keys, seconds))


def _remove(layer: Layer, keys: Sequence[Key], seconds: float) -> None:
    locks = layer.lock(keys, seconds, without_row_lock=keys, unreachable="proceed")
    layer.publish([(lock, None) for lock in locks], seconds)


def _epoch(space: str, specs: Mapping[str, KeySpec]) -> Key:
    return (specs.get(space) or _stand_in(KeyDefinition(space, ()))).epoch


def _key(ident: Ident, specs: Mapping[str, KeySpec]) -> Key:
    space, names, values = ident
    spec = specs.get(space)
    definition = next((each for each in spec.definitions if each.names == names), None) if spec is not None else None
    definition = definition or KeyDefinition(space, names)
    return Key(spec or _stand_in(definition), definition, values)


def _stand_in(definition: KeyDefinition) -> KeySpec:
    return KeySpec(object, [definition])
