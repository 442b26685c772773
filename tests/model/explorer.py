"""Every interleaving of a few actors that run real code.

An actor is a plain function that calls `World.step` before each thing that others can see; in between it runs
undisturbed. The explorer runs a world again and again, each time with another choice of who goes next, until it has
seen every state that can be reached. Two states are one if all that decides about the future is the same: what the
actors share, and what each actor has seen so far.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet


class Wrong(Exception):
    """What must never happen has happened."""


def always() -> bool:
    """A step that waits for nothing."""
    return True


@dataclass
class Actor:
    """One thread of control; `seen` is what it knows, as far as that is not forgotten again."""

    name: str
    run: Callable[[], None]
    can_crash: bool = False
    seen: list[Any] = field(default_factory=list)
    next: str = ""
    ready: Callable[[], bool] = always
    state: str = "new"
    fiber: Any = None


class World:
    """Actors, faults, and what they share."""

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.faults: dict[str, Callable[[], None]] = {}
        """What may happen at any time. The crash of an actor that can crash is one more."""
        self.faults_left = 1
        """How many may happen."""
        self._hub = getcurrent()
        self.ended = False

    def fingerprint(self) -> Hashable:
        """Return what decides about the future: two worlds may have the same only if they have the same future."""
        raise NotImplementedError

    def crashed(self, actor: Actor) -> None:
        """Called when an actor has died."""

    def add(self, name: str, run: Callable[[], None], *, can_crash: bool = False) -> None:
        """Add an actor."""
        self.actors.append(Actor(name, run, can_crash))

    @property
    def me(self) -> Actor:
        """The actor that is running."""
        return next(actor for actor in self.actors if actor.fiber is getcurrent())

    def step(self, what: str, ready: Callable[[], bool] = always) -> None:
        """Let others go first. What follows, up to the next call, happens at once."""
        me = self.me
        if self.ended or me.state == "crashed":
            raise GreenletExit
        me.next, me.ready = what, ready
        self._hub.switch()
        if self.ended or me.state == "crashed":
            raise GreenletExit

    def choices(self) -> list[str]:
        """Return what can happen next."""
        running = [actor for actor in self.actors if actor.state == "running"]
        found = [f"{actor.name} {actor.next}" for actor in running if actor.ready()]
        if self.faults_left:
            found += self.faults
            found += [f"{actor.name} CRASHES" for actor in running if actor.can_crash]
        return found

    def start(self) -> None:
        """Run every actor up to its first step."""
        for actor in self.actors:
            actor.fiber = greenlet(actor.run)
            actor.state = "running"
            self._resume(actor)

    def do(self, choice: str) -> None:
        """Let this happen."""
        if choice in self.faults:
            self.faults_left -= 1
            self.faults[choice]()
            return
        actor = next(actor for actor in self.actors if actor.name == choice.partition(" ")[0])
        if choice == f"{actor.name} CRASHES":
            self.faults_left -= 1
            actor.state, actor.seen = "crashed", []
            self.crashed(actor)
        else:
            self._resume(actor)

    def _resume(self, actor: Actor) -> None:
        actor.fiber.switch()
        if actor.fiber.dead:
            actor.state, actor.seen = "done", []

    def end(self) -> None:
        """Give up what is still running."""
        self.ended = True
        # what is given up in the middle is not worth a warning
        logging.disable()
        for actor in self.actors:
            if actor.fiber is not None and not actor.fiber.dead:
                actor.fiber.throw(GreenletExit)
        logging.disable(logging.NOTSET)


@dataclass
class Explored:
    """How many states there are, and the first schedule that led to something wrong."""

    states: int
    wrong: str = ""
    schedule: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.wrong} in: {' > '.join(self.schedule)}" if self.wrong else f"{self.states} states, all right"


def explore(make: Callable[[], World]) -> Explored:
    """Run every schedule of a world, up to the first that raises Wrong."""
    known: set[Hashable] = set()
    open_ends: list[tuple[str, ...]] = [()]
    while open_ends:
        schedule = open_ends.pop()
        world = make()
        try:
            world.start()
            for choice in schedule:
                world.do(choice)
            while (state := world.fingerprint()) not in known:
                known.add(state)
                choices = world.choices()
                if not choices:
                    break
                open_ends += [(*schedule, other) for other in choices[1:]]
                schedule = (*schedule, choices[0])
                world.do(choices[0])
        except Wrong as wrong:
            return Explored(len(known), str(wrong), schedule)
        finally:
            world.end()
    return Explored(len(known))
