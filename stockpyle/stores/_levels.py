"""The stores of a chain, and what each is in it: a level that keeps copies, a source of some classes, or both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from stockpyle.classes import is_mapped, spec_of
from stockpyle.coherence.backplane import MEMORY_BOUND
from stockpyle.coherence.layers import Layer
from stockpyle.coherence.validated import ValidatedLayer
from stockpyle.coherence.verbs import VerbSource, VerbTier
from stockpyle.exceptions import ImproperlyConfigured, UnsupportedOperation
from stockpyle.keys import KeySpec
from stockpyle.masking import displayed
from stockpyle.protocols import Listening, Source
from stockpyle.stats import Stats
from stockpyle.stores._hits import Above, Hits

TIER = ("read", "fill", "lock", "publish", "unlock")
SOURCE = ("accepts", "load", "write")
VERBS = ("put", "get", "delete", "batch_put", "batch_get", "batch_delete")


@dataclass(frozen=True)
class Route:
    """Where the objects of one class live: their source, and the layers above it.

    spec is the class's as the source names its keys; engine the source's, if it is a database.
    """

    spec: Any
    source: Source
    layers: tuple[Layer, ...]
    engine: Any = None


class Levels:
    """Stores, from the fastest to the most durable. with_backplane: those that can hear of other processes' commits do.

    above has a layer for each store, or None for one that is only a source; routes are of the classes met so far.
    """

    def __init__(self, stores: Sequence[Any], *, with_backplane: bool) -> None:
        self.stores = tuple(stores)
        self.with_backplane = with_backplane
        self._hears = [with_backplane and _listens(store) for store in self.stores]
        self.above = _as_layers(self.stores, self._hears)
        self.routes: dict[KeySpec, Route] = {}
        self._sources = [_as_source(store) for store in self.stores]

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """All layers that can hold copies."""
        return tuple(layer for layer in self.above if layer is not None)

    @cached_property
    def listening(self) -> list[Listening]:
        """The stores that are told of other processes' commits."""
        return [store for store, hears in zip(self.stores, self._hears, strict=True) if hears]

    @cached_property
    def shared(self) -> list[Layer]:
        """The layers whose copies other processes read, too."""
        return [layer for store, layer in zip(self.stores, self.above, strict=True) if layer and not _in_memory(store)]

    def hits(self, stats: Stats) -> Hits | None:
        """Return what finds objects in process memory, if that is the first level."""
        hits: Callable[..., Hits | None] | None = getattr(self.stores[0], "hits", None)
        first = self.above[0]
        if hits is None or first is None or first.guard is None:
            return None
        return hits(lambda klass: self.route(klass).spec, Above(stats, first.guard))

    def route(self, klass: type) -> Route:
        """Return the source of a class and the layers above it; UnsupportedOperation if no store accepts it."""
        spec = spec_of(klass)
        route = self.routes.get(spec)
        if route is None:
            route = self.routes[spec] = self._find_route(klass)
        return route

    def _find_route(self, klass: type) -> Route:
        for depth in reversed(range(len(self.stores))):
            source = self._sources[depth]
            # what is dropped whenever a connection is lost is nothing's only place
            if not self._hears[depth] and source.accepts(klass):
                self._check_portable(klass, self.stores[: depth + 1])
                above = zip(self.stores[:depth], self.above[:depth], strict=True)
                layers = tuple(layer for store, layer in above if layer and _takes(store, klass))
                own = getattr(source, "spec", spec_of)
                return Route(own(klass), source, layers, getattr(source, "engine", None))
        stores = ", ".join(type(store).__name__ for store in self.stores)
        need = " (a mapped class needs a SqlAlchemyStore)" if is_mapped(klass) else ""
        need += "; process memory with a backplane only keeps copies" if self.listening else ""
        raise UnsupportedOperation(f"no store of this chain accepts {klass.__qualname__}{need}: {stores}")

    def _check_portable(self, klass: type, stores: Sequence[Any]) -> None:
        if self.with_backplane:
            spec_of(klass).check_portable("the backplane")
        for store in stores:
            if getattr(store, "shared", False):
                spec_of(klass).check_portable(type(store).__name__)


def has(store: Any, methods: Iterable[str]) -> bool:
    """True if a store has all of these methods."""
    return all(callable(getattr(store, method, None)) for method in methods)


def check_is_store(store: Any) -> None:
    """Raise ImproperlyConfigured, which says what is missing, for what a chain cannot be made of."""
    if isinstance(store, type):
        raise ImproperlyConfigured(
            f"{store.__name__} is a class: a chain is made of stores, such as {store.__name__}()"
        )
    if not has(store, VERBS) and not (has(store, TIER) and has(store, SOURCE)):
        lacks = ", ".join(verb for verb in VERBS if not callable(getattr(store, verb, None)))
        raise ImproperlyConfigured(f"{displayed(store)} is no store: it lacks {lacks}")


def _in_memory(store: Any) -> bool:
    return isinstance(store, Listening) and not getattr(store, "shared", False)


def _validates(store: Any) -> bool:
    return getattr(store, "validate", None) is True


def _listens(store: Any) -> bool:
    # who asks at every hit need not be told
    return _in_memory(store) and not _validates(store)


def _as_layers(stores: Sequence[Any], hears: Sequence[bool]) -> list[Layer | None]:
    layers: list[Layer | None] = []
    for store, listens in zip(reversed(stores), reversed(hears), strict=True):
        if _validates(store):
            layers.append(ValidatedLayer(store, layers[-1] if layers else None))
        elif has(store, TIER):
            layers.append(Layer(store, bound=MEMORY_BOUND if listens else None))
        else:
            # one does not delete from a database to refresh it
            layers.append(None if has(store, SOURCE) else Layer(VerbTier(store)))
    return layers[::-1]


def _as_source(store: Any) -> Source:
    return store if has(store, SOURCE) else VerbSource(store)


def _takes(store: Any, klass: type) -> bool:
    # every tier keeps copies of whatever it is given; only a store of verbs may have a say in it
    accepts = getattr(store, "accepts", None)
    return has(store, TIER) or accepts is None or bool(accepts(klass))
