"""Caches in this process's memory.

- dogpile.cache: the memory backend keeps the object itself, without pickling; its region adds the time and a check.
- cachetools, cachebox: mappings, asked with a tuple; cachetools has to be locked among threads, and is not here.
- cashews: ``mem://``, big enough for all; aiocache: without its serializer and, as its documentation offers,
  without a timeout for each call. Both are asked inside a running loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.bench import Bench
from benchmarks.contestants import Contestant, Role, Timed, is_found
from benchmarks.shapes import Keys


def key_maker(expression: str, keys: Keys, names: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return a function from a pick to what an expression makes of it."""
    made: Callable[..., Any] = eval(f"lambda {keys.target}: {expression}", dict(names))
    return (lambda pick: made(*pick)) if "," in keys.target else made


def memory_peers(
    bench: Bench,
    klass: type,
    keys: Keys,
    objects: Mapping[Any, Any],
    *,
    lifetime: float | None = None,
    right: Callable[[Any, Any], bool] = is_found,
    picks: Sequence[Any] = (),
    asynchronous: bool = True,
) -> list[Contestant]:
    """Return contestants that hold these objects, by what is picked; with room for no more of them."""
    names = {keys.klass: klass}
    by_tuple = {key_maker(keys.tuple, keys, names)(pick): obj for pick, obj in objects.items()}
    by_text = {key_maker(keys.text, keys, names)(pick): obj for pick, obj in objects.items()}
    picks, room = list(picks or objects), len(objects)

    def contestant(name: str, call: str, role: Role = Role.PEER, **own: Any) -> Timed:
        return Timed(name, role, call, {**names, **own}, picks, keys.target, right)

    found: list[Contestant] = [contestant("dict", f"held[{keys.tuple}]", Role.BESIDE, held=by_tuple)]
    if cachetools := bench.peer("cachetools"):
        cache = cachetools.LRUCache(room) if lifetime is None else cachetools.TTLCache(room, lifetime)
        cache.update(by_tuple)
        found.append(contestant(f"cachetools {type(cache).__name__}", f"cache[{keys.tuple}]", cache=cache))
    if cachebox := bench.peer("cachebox"):
        cache = cachebox.LRUCache(room) if lifetime is None else cachebox.TTLCache(room, lifetime)
        cache.update(by_tuple)
        found.append(contestant(f"cachebox {type(cache).__name__}", f"cache[{keys.tuple}]", cache=cache))
    if dogpile := bench.peer("dogpile.cache"):
        region = dogpile.make_region().configure("dogpile.cache.memory", expiration_time=lifetime)
        region.set_multi(by_text)
        found.append(contestant("dogpile.cache memory", f"region.get({keys.text})", region=region))
    if asynchronous:
        found += _asynchronous(bench, contestant, keys, by_text, lifetime)
    return found


def _asynchronous(
    bench: Bench, contestant: Callable[..., Timed], keys: Keys, held: Mapping[str, Any], lifetime: float | None
) -> list[Contestant]:
    found: list[Contestant] = []
    if cashews := bench.peer("cashews"):
        cache, loop = cashews.Cache(), asyncio.new_event_loop()

        async def fill() -> None:
            cache.setup("mem://", size=len(held) + 1, check_interval=0)
            await cache.set_many(held, expire=lifetime)

        loop.run_until_complete(fill())
        found.append(contestant("cashews memory", f"await cache.get({keys.text})", cache=cache))
        found[-1].loop = loop  # type: ignore[attr-defined]
    if aiocache := bench.peer("aiocache"):
        other, loop = aiocache.SimpleMemoryCache(timeout=0), asyncio.new_event_loop()
        other._cache.clear()
        loop.run_until_complete(other.multi_set(list(held.items()), ttl=lifetime))
        found.append(contestant("aiocache memory", f"await cache.get({keys.text})", cache=other))
        found[-1].loop = loop  # type: ignore[attr-defined]
    return found
