"""A row in a database, a memcached, and processes between whose every two steps others may go.

Each single command of a batch is a step of its own, as memcached serves other clients between any two; so is each load
and each end of a transaction.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

from stockpyle.keys import Key
from stockpyle.memcached.closing import CLOSED_BY
from tests.model.histories import END, Histories, Point, Wrong
from tests.model.memcached import Command, Item, Items, execute, parse
from tests.model.processes import ALL, EPOCH, RESET, RUN, Processes, key_of, keys_of, short, text_of

SHORT = 100
"""More seconds than a lock or a lease lives, and fewer than a record does."""

WHILE = 20
"""Seconds: more than half of what a lock lives, and more than a lease does."""


class Actor(NamedTuple):
    """A process: how far its script has come, and how far memcached with what it has sent."""

    point: Point | None
    replies: tuple[bytes, ...] = ()
    dead: bool = False
    turn: int = 0
    floor: int | None = None
    """What had settled when its read began."""
    wrote: int = 0
    """The version that it has committed."""
    run: int = 0
    """In which run of the server it has connected."""
    drawn: int = 0
    """How many random numbers it has drawn."""


class State(NamedTuple):
    """Everything that decides about the future."""

    items: tuple[tuple[bytes, Item], ...]
    rows: tuple[str | None, ...]
    """The row's address in each version, None where there is no row."""
    owner: int | None
    settled: int
    actors: tuple[Actor, ...]
    faults: int
    run: int = 0
    last: int = -1
    """Who went last, where it is counted how often another goes though that one could."""
    switches: int = 0
    """How often that may still be."""
    old: frozenset[tuple[bytes, int]] = frozenset()
    """Which CAS ids somebody may have kept from an earlier run, by their keys: those ids may come again."""
    passed: int = 0
    """How often some time has passed."""


Next = Iterator[tuple[str, State]]


class World(Processes):
    """Actors and faults; and from each state all that can follow.

    row is the address of the row that there is at first, None for none; warm are the keys that were read before, and
    cold says that nothing was, so that there are no epochs either. row_locks: writers exclude each other in the
    database; publish: they publish what they have written.

    Of faults, `faults` may happen. crashes: any writer may die at any time; the commands it has sent are done later, or
    never. expires: all leases and locks run out. evicts: one of these keys is evicted. restarts: the server begins
    anew, once. With `dies` only that actor dies, and nothing else happens once it has begun: so it is never its own
    lock that was lost.

    waits: once some time may pass, in which no lock runs out. outlives: when `dies` has died, and all is done that it
    has sent, time passes until its locks must have run out, but not while somebody swaps marks on an epoch; what is
    left of those of the dead then is wrong.

    Two things make for fewer schedules. glued are keys whose commands follow at once what their sender did before.
    switches, if not 0, is how often at most another goes on where an actor could have gone on; the beginning of a read
    is not counted.
    """

    def __init__(
        self,
        *,
        row: str | None = "a",
        warm: Sequence[dict[str, Any]] = (),
        cold: bool = False,
        row_locks: bool = True,
        publish: bool = True,
        crashes: bool = False,
        expires: bool = False,
        evicts: Sequence[bytes] = (),
        restarts: bool = False,
        faults: int = 1,
        switches: int = 0,
        dies: int | None = None,
        waits: bool = False,
        outlives: bool = False,
        glued: Sequence[bytes] = (),
    ) -> None:
        super().__init__(row_locks, publish)
        self.row, self.warm, self.cold = row, warm, cold
        self.crashes, self.expires, self.evicts, self.restarts = crashes, expires, evicts, restarts
        self.faults, self.switches, self.dies = faults, switches, dies
        self.waits, self.outlives = waits, outlives
        self.stable = {RUN, ALL, EPOCH}
        self.glued = {RUN, *glued}
        if restarts or cold:
            # the name of a run, once given, is never changed; but a missing epoch is noticed
            self.stable = self.glued.copy()
        self.stable.difference_update(evicts)
        self.histories = Histories(ids_in)
        self._effect = cache(Effect)

    # what can happen

    def start(self) -> State:
        """Return the state in which all are connected, and memcached holds what it has been asked for before."""
        warming = partial(self._read_all, [] if self.cold else [*self.warm, {"id": 2}])
        self.scripts.append([warming])
        everybody = tuple(Actor(self.histories.begin(scripts[0])) for scripts in self.scripts)
        state = State((), (self.row,), None, 0, everybody, 0)
        stable, self.stable = self.stable, set()
        state = self._at_once(state, len(self.names))
        while state.actors[-1].point is not None:
            ((_, state),) = self._go(state, len(self.names))
        self.stable = {RUN}
        for i in range(len(self.names)):
            state = self._at_once(state, i)
        self.stable = stable
        items = tuple(each for each in state.items if each[0] != text_of(key_of({"id": 2})))
        return state._replace(items=items, actors=state.actors[:-1], faults=self.faults, switches=self.switches)

    def successors(self, state: State) -> Next:
        """Return all states that can follow, and what leads there."""
        for i, actor in enumerate(state.actors):
            if actor.point is None:
                continue
            first = state
            if self.switches and i != state.last:
                interrupts = state.last >= 0 and next(self._go(state, state.last), None) is not None
                if interrupts and not state.switches:
                    continue
                first = state._replace(last=i, switches=state.switches - interrupts)
            for label, following in self._go(first, i):
                if self.switches and following.actors[i].turn != actor.turn:
                    following = following._replace(last=-1)
                yield f"{self._name(i)} {label}", following
            if state.faults and self._can_crash(state, i):
                yield f"{self._name(i)} CRASHES", self._crash(state, i)._replace(faults=state.faults - 1)
        if self.waits and not state.passed:
            yield "A WHILE PASSES", _a_while_later(state)
        if self.outlives and state.passed < 2 and not state.faults and self._rests(state):
            following = _a_while_later(state)
            self._check_marks(following)
            yield "A WHILE PASSES", following
        if not state.faults or (self.dies is not None and not self._waits(state, self.dies)):
            return
        left = state._replace(faults=state.faults - 1)
        for text in self.evicts:
            items = tuple(each for each in state.items if each[0] != text)
            if items != state.items:
                yield f"EVICTION of {short(text)}", left._replace(items=items)
        if self.expires:
            items = tuple(each for each in state.items if not 0 < each[1].seconds < SHORT)
            if items != state.items:
                yield "TIME PASSES", left._replace(items=items)
        if self.restarts and not state.run:
            yield "RESTART", self._restart(left)

    def _rests(self, state: State) -> bool:
        """True if the dead will do nothing more, and nobody has looked at an epoch and is about to swap it."""
        sent = [actor.point.action[1] for actor in state.actors if actor.point and actor.point.action[0] == "send"]
        swaps = [each for data in sent for each in parse(data)[0] if each.key == EPOCH and each.flag(b"C")]
        return not swaps and state.actors[self.dies or 0].point is None

    def _check_marks(self, state: State) -> None:
        held = dict(state.items).get(EPOCH)
        if state.passed < 2 or held is None or held.flags != CLOSED_BY:
            return
        dead = [
            mark
            for mark, sooner in struct.iter_unpack(">8sI", held.data)
            if int(mark) // 100 == self.dies and held.seconds > sooner
        ]
        if dead:
            raise Wrong(f"KEPT ALIVE: the mark {dead[0]!r} of a dead writer")

    def _can_crash(self, state: State, i: int) -> bool:
        if not self.crashes or state.actors[i].dead or self.names[i][0] == "r":
            return False
        return self.dies is None or (i == self.dies and not self._waits(state, i))

    @staticmethod
    def _waits(state: State, i: int) -> bool:
        """True if an actor has not begun to write."""
        point = state.actors[i].point
        return point is not None and point.action[0] == "change"

    def _name(self, i: int) -> str:
        return self.names[i] if i < len(self.names) else "warming"

    def _crash(self, state: State, i: int) -> State:
        """The process dies; its transaction is rolled back, unless it was committed; what it has sent stays sent."""
        actor = state.actors[i]
        assert actor.point is not None
        state = state._replace(owner=None if state.owner == i else state.owner, settled=max(state.settled, actor.wrote))
        sent = actor.point.action[0] == "send"
        return _with(state, i, Actor(actor.point, actor.replies, True, run=actor.run) if sent else GONE)

    def _restart(self, state: State) -> State:
        kept = [(text, item) for text, item in state.items if text not in (RUN, ALL, EPOCH)]
        known = [(text, item.cas) for text, item in kept if self.validates or 0 < item.seconds < SHORT]
        actors = tuple(GONE if actor.dead else actor for actor in state.actors)
        return state._replace(items=(), actors=actors, run=state.run + 1, old=frozenset(known))

    def _go(self, state: State, i: int) -> Next:
        """One step of one actor. What nobody else can notice happens at once with what comes before or after it."""
        actor = state.actors[i]
        if actor.point is None:
            return
        if actor.floor is None and self._name(i)[0] == "r":
            actor = actor._replace(floor=state.settled)
        what, *given = actor.point.action
        if what == "send":
            for label, following in self._command(state, i, actor):
                yield label, self._at_once(following, i)
        elif what == "change":
            # waiting for a lock and the next step are one: nothing that others do in between can matter
            if not self.row_locks or state.owner is None:
                owner = i if self.row_locks else None
                state = self._at_once(self._tell(state._replace(owner=owner), i, actor, state.rows[-1]), i)
                yield from self._go(state, i)
        elif what == "begin":
            yield "begins", self._at_once(self._tell(state, i, actor._replace(floor=state.settled), None), i)
        elif what == "load":
            yield "loads", self._at_once(self._tell(state, i, actor, (len(state.rows) - 1, state.rows[-1])), i)
        else:
            state = state._replace(owner=None if state.owner == i else state.owner)
            if what == "commit":
                state = state._replace(rows=(*state.rows, given[0]))
                actor = actor._replace(wrote=len(state.rows) - 1)
            yield {"commit": "commits"}.get(what, "rolls back"), self._at_once(self._tell(state, i, actor, None), i)

    def _command(self, state: State, i: int, actor: Actor) -> Next:
        """The next command of those that were sent."""
        assert actor.point is not None
        commands, _ = parse(actor.point.action[1])
        if actor.run != state.run:
            yield "finds its connection closed", self._tell(state, i, actor, RESET)
            return
        command = commands[len(actor.replies)]
        effect = self._effect(state.items, command)
        new = [0]
        if effect.takes_id:
            new = [self._unused(state, i), *(each[1] for each in state.old if each[0] == command.key)]
        for cas in new:
            reply, items = effect.with_id(cas)
            following = state
            if items is not state.items:
                old = frozenset(each for each in state.old if each[1] != cas) if state.old else state.old
                following = state._replace(items=items, old=old)
            replies = (*actor.replies, reply)
            if len(replies) < len(commands):
                yield effect.label, _with(following, i, actor._replace(replies=replies))
            elif actor.dead:
                yield effect.label, _with(following, i, GONE)
            else:
                yield effect.label, self._tell(following, i, actor, replies)

    def _unused(self, state: State, i: int) -> int:
        """A CAS id that nobody has heard of; the smallest one, so that states are the same that differ in no more."""
        known = {item.cas for _, item in state.items}
        known.update(cas for _, cas in state.old)
        for actor in state.actors:
            if actor.point is not None:
                known |= actor.point.known
                for reply in actor.replies:
                    known |= ids_in(reply)
        cas = i + 1
        while cas in known:
            cas += len(self.scripts)
        return cas

    def _at_once(self, state: State, i: int) -> State:
        """Do all that an actor does next and nobody else can notice."""
        while True:
            actor = state.actors[i]
            if actor.point is None:
                return state
            what, *given = actor.point.action
            if what == "send":
                commands, _ = parse(given[0])
                key = commands[len(actor.replies)].key
                if key not in self.stable:
                    return state
                before = state.items
                ((_, state),) = self._command(state, i, actor)
                assert state.items == before or key in self.glued, "a stable key has changed"
            elif what == "connect":
                state = self._tell(state, i, actor._replace(run=state.run), state.run)
            elif what == "close":
                state = self._tell(state, i, actor, None)
            elif what == "draw":
                actor = actor._replace(drawn=actor.drawn + 1)
                state = self._tell(state, i, actor, 100 * i + actor.drawn)
            elif what == "settle":
                state = self._tell(state._replace(settled=max(state.settled, actor.wrote)), i, actor, None)
            elif what == "answer":
                self._check(state, i, actor, *given)
                state = self._tell(state, i, actor, None)
            elif what == END[0]:
                return self._next_turn(state, i, actor)
            else:
                return state

    def _check(self, state: State, i: int, actor: Actor, key: Key, version: int | None) -> None:
        assert actor.floor is not None
        possible = {n if key in keys_of(state.rows[n]) else None for n in range(actor.floor, len(state.rows))}
        if version not in possible:
            raise Wrong(f"STALE: {self._name(i)} was given version {version} after version {actor.floor} had settled")

    def _next_turn(self, state: State, i: int, actor: Actor) -> State:
        assert actor.point is not None
        if actor.turn + 1 == len(self.scripts[i]):
            return _with(state, i, GONE)
        point, since = actor.point, actor.point.since
        told = () if since is None else point.told[since : since + CONNECTING]
        following = self.histories.begin(self.scripts[i][actor.turn + 1], told)
        return self._at_once(
            _with(state, i, Actor(following, turn=actor.turn + 1, run=actor.run, drawn=actor.drawn)), i
        )

    def _tell(self, state: State, i: int, actor: Actor, answer: Any) -> State:
        point, _, *rest = actor
        assert point is not None
        return _with(state, i, Actor(self.histories.tell(point, answer), (), *rest))


def _a_while_later(state: State) -> State:
    items = [(text, item) for text, item in state.items if not 0 < item.seconds <= WHILE]
    older = [
        (text, item._replace(seconds=item.seconds - WHILE) if 0 < item.seconds < SHORT else item)
        for text, item in items
    ]
    return state._replace(items=tuple(older), passed=state.passed + 1)


GONE = Actor(None)
CONNECTING = 3
"""How many answers make a connection: the server's version, a random number, the name of its run."""


def _with(state: State, i: int, actor: Actor) -> State:
    items, rows, owner, settled, actors, *rest = state
    # faster than _replace
    return State(items, rows, owner, settled, (*actors[:i], actor, *actors[i + 1 :]), *rest)


Held = tuple[tuple[bytes, Item], ...]


class Effect:
    """What a command does, and is replied, where memcached holds this."""

    def __init__(self, held: Held, command: Command) -> None:
        self.takes_id = False
        """True if something gets a new CAS id."""
        self.label = f"{command.verb.decode()} {short(command.key)}"
        self._held, self._command = held, command
        self._outcomes: dict[int, tuple[bytes, Held]] = {}
        outcome = self.with_id(0)
        if not self.takes_id:
            self._outcomes[0] = outcome

    def with_id(self, cas: int) -> tuple[bytes, Held]:
        """Return the reply, and what is held then, if the new CAS id is this."""
        outcome = self._outcomes.get(cas)
        if outcome is None:
            items: Items = dict(self._held)
            reply = execute(items, self._command, lambda: self._take(cas))
            changed = self.takes_id or len(items) != len(self._held)
            outcome = self._outcomes[cas] = reply, tuple(sorted(items.items())) if changed else self._held
        return outcome

    def _take(self, cas: int) -> int:
        self.takes_id = True
        return cas


CAS = re.compile(rb"(?: c|^VALUE \S+ \d+ \d+ )(\d+)")


@cache
def ids_in(answer: Any) -> frozenset[int]:
    """Return the CAS ids that an answer tells."""
    if isinstance(answer, bytes):
        return frozenset(map(int, CAS.findall(answer.partition(b"\r\n")[0])))
    if isinstance(answer, tuple):
        return frozenset(each for reply in answer if isinstance(reply, bytes) for each in ids_in(reply))
    return frozenset()
