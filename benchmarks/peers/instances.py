"""Mapped instances that were detached from a Session and are cached in memory; to be run where stockpyle is not.

They are brought into a Session with ``merge(load=False)``, SQLAlchemy's own way for caches.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks.contestants import Contestant, Role, Timed
from benchmarks.databases import engine_for
from benchmarks.limits import new_instance
from benchmarks.shapes import Shape

LIFETIME = 3600


def detached(shape: Shape, url: str) -> list[Any]:
    """Return all rows as detached instances."""
    with Session(engine_for(url), expire_on_commit=False) as session:
        found = list(session.scalars(sa.select(shape.mapped())))
        session.expunge_all()
    return found


def merged(call: str, into_session: bool) -> str:
    return f"session.merge({call}, load=False)" if into_session else call


def named(name: str, into_session: bool) -> str:
    return f"{name} + merge(load=False)" if into_session else name


def in_memory(
    shape: Shape, url: str, picks: Sequence[Any], *, into_session: bool, has_dogpile: bool
) -> list[Contestant]:
    """Return caches in memory, and an empty instance as the limit."""
    klass, keys = shape.mapped(), shape.identity
    instances = {shape.key_of(obj, keys): obj for obj in detached(shape, url)}
    names = {keys.klass: klass, "session": Session(engine_for(url)), "loads": pickle.loads}
    found: list[Contestant] = [Timed("new_instance", Role.LIMIT, "new()", {"new": new_instance(klass)})]

    def add(name: str, call: str, held: Any, role: Role = Role.PEER) -> None:
        call, name = merged(call, into_session), named(name, into_session)
        found.append(Timed(name, role, call, {**names, "held": held}, list(picks), keys.target, shape.is_row(keys)))

    # without a Session of their own all callers get the very same instance
    shared = Role.PEER if into_session else Role.BESIDE
    add("dict of instances", f"held[{keys.target}]", instances, shared)
    if into_session:
        found.append(_in_the_session(shape, url, picks))
    pickled = {pick: pickle.dumps(obj, pickle.HIGHEST_PROTOCOL) for pick, obj in instances.items()}
    add("dict of pickled instances", f"loads(held[{keys.target}])", pickled)
    if has_dogpile:
        from dogpile.cache import make_region

        for backend, role in {"memory": shared, "memory_pickle": Role.PEER}.items():
            region = make_region().configure(f"dogpile.cache.{backend}", expiration_time=LIFETIME)
            region.set_multi({f"{keys.klass}:{pick}": obj for pick, obj in instances.items()})
            add(f"dogpile.cache {backend}", f"held.get({keys.text})", region, role)
    return found


def _in_the_session(shape: Shape, url: str, picks: Sequence[Any]) -> Timed:
    session = Session(engine_for(url))
    names = {
        "session": session,
        "klass": shape.mapped(),
        # a Session keeps nothing alive
        "kept": list(session.scalars(sa.select(shape.mapped()))),
    }
    keys = shape.identity
    call = f"session.get(klass, ({keys.target},))"
    name = "Session.get of what the Session has"
    return Timed(name, Role.BESIDE, call, names, list(picks), keys.target, shape.is_row(keys))
