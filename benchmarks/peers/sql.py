"""SQLAlchemy's own ways to rows, and the driver's; to be run where stockpyle is not.

Statements are made once, with bind parameters, so that SQLAlchemy compiles none of them twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks.contestants import Contestant, Role, Timed
from benchmarks.databases import engine_for
from benchmarks.limits import driver_connection, placeholder
from benchmarks.shapes import Shape


def by_sql(shape: Shape, url: str, picks: Sequence[Any]) -> list[Contestant]:
    """Return SQLAlchemy's own ways to one row, or to the rows of a pick that is a list; and the driver's."""
    many = isinstance(picks[0], list)
    return _many_rows(shape, url, picks) if many else _one_row(shape, url, picks)


def _one_row(shape: Shape, url: str, picks: Sequence[Any]) -> list[Contestant]:
    klass, keys = shape.mapped(), shape.identity
    engine = engine_for(url)
    table, right = klass.__table__, shape.is_row(keys)
    core = sa.select(table).where(*(table.c[name] == sa.bindparam(f"b_{name}") for name in keys.names))
    bound = "{" + ", ".join(f'"b_{name}": {each}' for name, each in zip(keys.names, "ab", strict=False)) + "}"
    orm = sa.select(klass).where(*(getattr(klass, name) == sa.bindparam(f"b_{name}") for name in keys.names))
    driver = driver_connection(url)
    names = {
        "klass": klass,
        "engine": engine,
        "Session": Session,
        "session": Session(engine),
        "connection": engine.connect(),
        "core": core,
        "orm": orm,
        "cursor": driver.cursor(),
        "get_one": _get_in_a_session_of_its_own,
    }
    condition = " AND ".join(f"{name} = {placeholder(url)}" for name in keys.names)
    selected = f"SELECT {', '.join(shape.names)} FROM {table.name} WHERE {condition}"
    values = f"({keys.target},)"
    calls = [
        ("Session.get, one Session", Role.PEER, f"session.get(klass, {values})"),
        ("Session.get, a Session each", Role.PEER, f"get_one(engine, klass, {values})"),
        ("ORM select, one Session", Role.PEER, f"session.execute(orm, {bound}).scalar_one()"),
        ("SQLAlchemy Core, one Connection", Role.BESIDE, f"connection.execute(core, {bound}).one()"),
        ("driver", Role.LIMIT, f'cursor.execute("{selected}", {values}).fetchone()'),
    ]
    return [
        Timed(
            name, role, call, names, list(picks), keys.target, right if role is Role.PEER else lambda row, _: bool(row)
        )
        for name, role, call in calls
    ]


def _get_in_a_session_of_its_own(engine: sa.Engine, klass: type, key: Any) -> Any:
    with Session(engine, expire_on_commit=False) as session:
        return session.get(klass, key)


def _many_rows(shape: Shape, url: str, picks: Sequence[Any]) -> list[Contestant]:
    klass, keys = shape.mapped(), shape.identity
    engine = engine_for(url)
    table, size = klass.__table__, len(picks[0])

    def chosen(columns: Sequence[Any]) -> Any:
        asked: Any = columns[0] if len(columns) == 1 else sa.tuple_(*columns)
        return asked.in_(sa.bindparam("keys", expanding=True))

    names = {
        "session": Session(engine),
        "connection": engine.connect(),
        "orm": sa.select(klass).where(chosen([getattr(klass, name) for name in keys.names])),
        "core": sa.select(table).where(chosen([table.c[name] for name in keys.names])),
        "cursor": driver_connection(url).cursor(),
        "selected": _bulk_select(shape, url, size),
    }
    if url.startswith("sqlite"):
        parameters = "pick" if len(keys.names) == 1 else "[value for key in pick for value in key]"
    else:
        parameters = "[pick]" if len(keys.names) == 1 else "list(map(list, zip(*pick)))"
    calls = [
        ("ORM IN", Role.PEER, 'session.scalars(orm, {"keys": pick}).all()'),
        ("SQLAlchemy Core IN", Role.BESIDE, 'connection.execute(core, {"keys": pick}).all()'),
        ("driver", Role.LIMIT, f"cursor.execute(selected, {parameters}).fetchall()"),
    ]
    right = shape.are_rows(keys)
    return [
        Timed(
            name,
            role,
            call,
            names,
            list(picks),
            "pick",
            right if role is Role.PEER else lambda rows, _: len(rows) == size,
        )
        for name, role, call in calls
    ]


def _bulk_select(shape: Shape, url: str, size: int) -> str:
    names, columns = shape.identity.names, ", ".join(f"t.{name}" for name in shape.names)
    table = shape.mapped().__table__.name
    if url.startswith("sqlite"):
        marks = ", ".join("?" * len(names))
        values = f"VALUES {', '.join([f'({marks})'] * size)}"
        asked = ", ".join(f"t.{name}" for name in names)
        return f"SELECT {columns} FROM {table} AS t WHERE ({asked}) IN ({values})"
    if len(names) == 1:
        return f"SELECT {columns} FROM {table} AS t WHERE t.{names[0]} = ANY(%s)"
    kinds = [{int: "int[]", str: "text[]"}[dict(shape.columns)[name]] for name in names]
    asked = ", ".join(f"%s::{kind}" for kind in kinds)
    joined = " AND ".join(f"t.{name} = k.{name}" for name in names)
    return f"SELECT {columns} FROM {table} AS t JOIN unnest({asked}) AS k({', '.join(names)}) ON {joined}"
