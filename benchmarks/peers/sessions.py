"""Peers that hand out mapped objects, to be run in a process without stockpyle.

A cached instance is detached: it is brought into a Session with ``merge(load=False)``, SQLAlchemy's own way for
caches. dogpile.cache is configured as its documentation's examples are: pylibmc with the binary protocol and
tcp_nodelay, pymemcache as it is, Redis over redis-py with hiredis. The bare clients hold pickled instances, too.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from benchmarks.contestants import Contestant, Role, Timed
from benchmarks.databases import engine_for
from benchmarks.limits import driver_connection, placeholder
from benchmarks.shapes import Shape

LIFETIME = 3600
MERGE = "session.merge({}, load=False)"


def detached(url: str, shape: Shape) -> list[Any]:
    """Return all rows as detached instances."""
    with Session(engine_for(url), expire_on_commit=False) as session:
        found = list(session.scalars(sa.select(shape.mapped())))
        session.expunge_all()
    return found


def memory(shape: Shape, url: str, picks: Sequence[Any], *, into_session: bool, has_dogpile: bool) -> list[Contestant]:
    """Return caches in memory, and an empty instance as the limit."""
    klass, keys = shape.mapped(), shape.identity
    session = Session(engine_for(url))
    instances = {shape.key_of(obj, keys): obj for obj in detached(url, shape)}
    names = {keys.klass: klass, "session": session, "loads": pickle.loads}
    found: list[Contestant] = [
        Timed("new_instance", Role.LIMIT, "new()", {"new": sa.inspect(klass).class_manager.new_instance})
    ]

    def contestant(name: str, call: str, role: Role = Role.PEER, **own: Any) -> None:
        call = MERGE.format(call) if into_session else call
        name = f"{name} + merge(load=False)" if into_session else name
        found.append(Timed(name, role, call, {**names, **own}, list(picks), keys.target, shape.is_row(keys)))

    role = Role.PEER if into_session else Role.BESIDE
    contestant("dict of instances", f"held[{keys.target}]", role, held=instances)
    pickled = {pick: pickle.dumps(obj, pickle.HIGHEST_PROTOCOL) for pick, obj in instances.items()}
    contestant("dict of pickled instances", f"loads(held[{keys.target}])", held=pickled)
    if has_dogpile:
        from dogpile.cache import make_region

        for backend in ("memory", "memory_pickle"):
            region = make_region().configure(f"dogpile.cache.{backend}", expiration_time=LIFETIME)
            for obj in instances.values():
                region.set(f"{keys.klass}:{shape.key_of(obj, keys)}", obj)
            # the very same instance for everybody
            shares = backend == "memory" and not into_session
            role = Role.BESIDE if shares else Role.PEER
            contestant(f"dogpile.cache {backend}", f"region.get({keys.text})", role, region=region)
    return found


def shared(
    shape: Shape,
    url: str,
    picks: Sequence[Any],
    kind: str,
    address: tuple[str, int],
    peers: Sequence[str],
    *,
    into_session: bool,
) -> list[Contestant]:
    """Return caches in memcached or Redis, asked for one entity, or for the several of a pick that is a list."""
    klass, keys = shape.mapped(), shape.identity
    many = isinstance(picks[0], list)
    names = {keys.klass: klass, "session": Session(engine_for(url))}
    found: list[Contestant] = []
    made = _memcached(address, peers) if kind == "memcached" else _redis(address, peers)
    held = {f"{keys.klass}:{shape.key_of(obj, keys)}": obj for obj in detached(url, shape)}
    texts = f"[f'{keys.klass}:{{each}}' for each in pick]"
    right = shape.are_rows(keys) if many else shape.is_row(keys)
    for name, own, fill, one, several, loop in made:
        fill(held)
        call = several.format(texts) if many else one.format(keys.text)
        if into_session:
            call = f"[{MERGE.format('each')} for each in {call}]" if many else MERGE.format(call)
            name += " + merge(load=False)"
        target = "pick" if many else keys.target
        found.append(Timed(name, Role.PEER, call, {**names, **own}, list(picks), target, right, loop))
    return found


Made = tuple[str, dict[str, Any], Callable[[dict[str, Any]], Any], str, str, "asyncio.AbstractEventLoop | None"]


def _memcached(address: tuple[str, int], peers: Sequence[str]) -> list[Made]:
    made: list[Made] = []
    where = f"{address[0]}:{address[1]}"
    if "dogpile.cache" in peers:
        from dogpile.cache import make_region

        behaviors = {"tcp_nodelay": True}
        backends = {"pymemcache": {"url": [where]}, "pylibmc": {"url": [where], "binary": True, "behaviors": behaviors}}
        for backend, arguments in backends.items():
            if backend in peers:
                mangler = _prefixed(f"dogpile {backend} ".replace(" ", "-"))
                region = make_region(key_mangler=mangler).configure(
                    f"dogpile.cache.{backend}", expiration_time=LIFETIME, arguments=arguments
                )
                own = {"region": region}
                made.append(
                    (f"dogpile.cache {backend}", own, region.set_multi, "region.get({})", "region.get_multi({})", None)
                )
    if "pymemcache" in peers:
        from pymemcache.client.base import Client
        from pymemcache.serde import pickle_serde

        client = Client(address, serde=pickle_serde, no_delay=True, key_prefix=b"bare-")
        own = {"client": client}
        made.append(
            (
                "pymemcache",
                own,
                lambda held: client.set_many(held, noreply=False),
                "client.get({})",
                "client.get_many({}).values()",
                None,
            )
        )
    if "pylibmc" in peers:
        import pylibmc

        other = pylibmc.Client([where], binary=True, behaviors={"tcp_nodelay": True})
        own = {"client": other}
        made.append(("pylibmc", own, other.set_multi, "client.get({})", "client.get_multi({}).values()", None))
    if "aiocache" in peers and "aiomcache" in peers:
        from aiocache import MemcachedCache
        from aiocache.serializers import PickleSerializer

        loop = asyncio.new_event_loop()

        async def connected() -> Any:
            return MemcachedCache(
                serializer=PickleSerializer(), endpoint=address[0], port=address[1], timeout=0, namespace="aio-"
            )

        cache = loop.run_until_complete(connected())
        made.append(
            (
                "aiocache memcached",
                {"cache": cache},
                lambda held: loop.run_until_complete(cache.multi_set(list(held.items()))),
                "await cache.get({})",
                "await cache.multi_get({})",
                loop,
            )
        )
    return made


def _redis(address: tuple[str, int], peers: Sequence[str]) -> list[Made]:
    made: list[Made] = []
    host, port = address
    if "dogpile.cache" in peers:
        from dogpile.cache import make_region

        region = make_region(key_mangler=_prefixed("dogpile-")).configure(
            "dogpile.cache.redis", expiration_time=LIFETIME, arguments={"host": host, "port": port, "db": 0}
        )
        own = {"region": region}
        made.append(("dogpile.cache redis", own, region.set_multi, "region.get({})", "region.get_multi({})", None))
    if "redis" in peers:
        import redis

        client = redis.Redis(host=host, port=port)
        made.append(
            (
                "redis-py",
                {"client": client, "loads": pickle.loads},
                lambda held: client.mset({key: pickle.dumps(obj, -1) for key, obj in held.items()}),
                "loads(client.get({}))",
                "[loads(each) for each in client.mget({})]",
                None,
            )
        )
    if "cashews" in peers:
        from cashews import Cache

        loop, cache = asyncio.new_event_loop(), Cache()

        async def connect() -> None:
            # pickled, and not signed
            cache.setup(f"redis://{host}:{port}/1")
            await cache.init()

        loop.run_until_complete(connect())
        made.append(
            (
                "cashews redis",
                {"cache": cache},
                lambda held: loop.run_until_complete(cache.set_many(held, expire=LIFETIME)),
                "await cache.get({})",
                "await cache.get_many(*{})",
                loop,
            )
        )
    if "aiocache" in peers:
        from aiocache import RedisCache
        from aiocache.serializers import PickleSerializer

        other_loop = asyncio.new_event_loop()
        other = RedisCache(serializer=PickleSerializer(), endpoint=host, port=port, db=2, timeout=0)
        made.append(
            (
                "aiocache redis",
                {"cache": other},
                lambda held: other_loop.run_until_complete(other.multi_set(list(held.items()))),
                "await cache.get({})",
                "await cache.multi_get({})",
                other_loop,
            )
        )
    return made


def _prefixed(prefix: str) -> Callable[[str], str]:
    return lambda key: prefix + key


def sql(shape: Shape, url: str, picks: Sequence[Any]) -> list[Contestant]:
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
