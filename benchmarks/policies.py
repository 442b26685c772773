"""Policies that no peer has: SIEVE, and the best that anybody could do who knew the future."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from heapq import heappop, heappush
from typing import Any


class _Node:
    __slots__ = ("key", "newer", "older", "value", "visited")

    def __init__(self, key: Hashable, value: Any) -> None:
        self.key = key
        self.value = value
        self.visited = False
        self.newer: _Node | None = None
        self.older: _Node | None = None


class Sieve:
    """SIEVE (Y. Zhang and others, NSDI 2024): a queue in which nothing moves.

    A hit marks its entry. To evict, a hand goes from the oldest to the newest and round again: it unmarks what is
    marked, evicts the first that is not, and stays there.
    """

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        self._nodes: dict[Hashable, _Node] = {}
        self._newest: _Node | None = None
        self._oldest: _Node | None = None
        self._hand: _Node | None = None

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._nodes)

    def get(self, key: Hashable) -> Any:
        node = self._nodes.get(key)
        if node is None:
            return None
        node.visited = True
        return node.value

    def __setitem__(self, key: Hashable, value: Any) -> None:
        node = self._nodes.get(key)
        if node is not None:
            node.value, node.visited = value, True
            return
        if len(self._nodes) >= self.maxsize:
            self._evict()
        node = self._nodes[key] = _Node(key, value)
        node.older = self._newest
        if self._newest is not None:
            self._newest.newer = node
        self._newest = node
        self._oldest = self._oldest or node

    def _evict(self) -> None:
        node = self._hand or self._oldest
        while node is not None and node.visited:
            node.visited = False
            node = node.newer or self._oldest
        assert node is not None
        self._hand = node.newer
        if node.newer is not None:
            node.newer.older = node.older
        else:
            self._newest = node.older
        if node.older is not None:
            node.older.newer = node.newer
        else:
            self._oldest = node.newer
        del self._nodes[node.key]


def best_hits(trace: Sequence[Hashable], maxsize: int) -> int:
    """Return how many hits there are if always that is evicted which is asked for last again (L. Belady, 1966)."""
    never = len(trace)
    following, last = [never] * len(trace), dict[Hashable, int]()
    for i in range(len(trace) - 1, -1, -1):
        following[i] = last.get(trace[i], never)
        last[trace[i]] = i
    held: dict[Hashable, int] = {}
    latest: list[tuple[int, int, Hashable]] = []
    hits = 0
    for i, key in enumerate(trace):
        if key in held:
            hits += 1
        elif len(held) >= maxsize:
            while True:
                again, _, victim = heappop(latest)
                if held.get(victim) == -again:
                    del held[victim]
                    break
        held[key] = following[i]
        heappush(latest, (-following[i], i, key))
    return hits
