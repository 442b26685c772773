"""Real code as a function of what it was told, and every order in which several of them can go.

A script is a plain function that calls ``Port.act`` for each thing that it does to, or learns from, what it shares with
others. It is deterministic: what it does next depends on nothing but the answers it has had. So it runs once for each
different history, a Point, however many states of the world that history is part of; and a state is a plain value, of
which all successors are made without running anything again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet


class Wrong(Exception):
    """What must never happen has happened."""


class Port:
    """Where a script meets the rest of the world."""

    def __init__(self) -> None:
        self.ended = False
        self._hub = getcurrent()

    def act(self, *action: Any) -> Any:
        """Do something, and return the answer to it."""
        if self.ended:
            raise GreenletExit
        return self._hub.switch(action)

    @property
    def running(self) -> bool:
        """True for who asks in the course of the script."""
        return not self.ended and getattr(getcurrent(), "port", None) is self

    @staticmethod
    def current() -> Port:
        """Return the port of the script that is running."""
        port: Port = getcurrent().port  # type: ignore[attr-defined]
        return port


Script = Callable[[Port], None]
END = ("end",)


class Point:
    """How far a script has come. There is one Point for one history of one script, so that `is` compares them."""

    __slots__ = ("action", "after", "fiber", "known", "script", "since", "told")

    def __init__(self, script: Script, told: tuple[Hashable, ...], known: frozenset[int], since: int | None) -> None:
        self.script = script
        self.told = told
        self.known = known
        """The CAS ids in what it was told."""
        self.since = since
        """Where in `told` its connection begins."""
        self.action: tuple[Any, ...] = END
        """What it does next."""
        self.fiber: Any = None
        self.after: dict[Hashable, Point] = {}


class Histories:
    """All points that were reached."""

    def __init__(self, ids_in: Callable[[Any], Iterable[int]]) -> None:
        self._ids_in = ids_in
        self._begun: dict[tuple[Any, ...], Point] = {}
        self._all: list[Point] = []

    def begin(self, script: Script, told: tuple[Hashable, ...] = ()) -> Point:
        """Return where a script is that was told this, from its beginning, in the course of one connection."""
        point = self._begun.get((script, told))
        if point is None:
            known = frozenset(each for answer in told for each in self._ids_in(answer))
            point = self._begun[script, told] = Point(script, told, known, 0 if told else None)
            self._replay(point)
        return point

    def tell(self, point: Point, answer: Hashable) -> Point:
        """Return where a script is after this answer."""
        following = point.after.get(answer)
        if following is None:
            since = {"connect": len(point.told), "close": None}.get(point.action[0], point.since)
            known = point.known.union(self._ids_in(answer))
            following = point.after[answer] = Point(point.script, (*point.told, answer), known, since)
            if point.fiber is None:
                self._replay(following)
            else:
                point.fiber, fiber = None, point.fiber
                self._set(following, fiber, fiber.switch(answer))
        return following

    def _replay(self, point: Point) -> None:
        port = Port()
        fiber = greenlet(lambda: point.script(port))
        fiber.port = port
        action = fiber.switch()
        for answer in point.told:
            action = fiber.switch(answer)
        self._set(point, fiber, action)

    def _set(self, point: Point, fiber: Any, action: Any) -> None:
        if not fiber.dead:
            point.fiber, point.action = fiber, action
        self._all.append(point)

    def close(self) -> None:
        """Give up all scripts."""
        for point in self._all:
            if point.fiber is not None:
                point.fiber.port.ended = True
                point.fiber.throw(GreenletExit)


@dataclass
class Explored:
    """How many states there are, and the shortest schedule that led to something wrong."""

    states: int
    wrong: str = ""
    schedule: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.wrong} in: {' > '.join(self.schedule)}" if self.wrong else f"{self.states} states, all right"


def explore(start: Hashable, successors: Callable[[Any], Iterable[tuple[str, Hashable]]]) -> Explored:
    """Visit every state there is, nearest first, up to the first whose successors raise Wrong."""
    came_from: dict[Hashable, tuple[Hashable, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        try:
            for label, following in successors(state):
                if following not in came_from:
                    came_from[following] = state, label
                    queue.append(following)
        except Wrong as wrong:
            schedule = []
            while step := came_from[state]:
                state, label = step
                schedule.append(label)
            return Explored(len(came_from), str(wrong), tuple(schedule[::-1]))
    return Explored(len(came_from))
