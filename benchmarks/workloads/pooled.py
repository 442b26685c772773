"""Plain objects in memcached or Redis, for several threads or processes: stockpyle, and the bare client with a pool."""

from __future__ import annotations

import pickle

from benchmarks.contestants import Role, Timed
from benchmarks.shapes import Shape

COUNT = 1000


def pooled(kind: str, address: tuple[str, int], drawn: Shape, who: str) -> list[Timed]:
    """Return one contestant: "stockpyle", or the server's usual client with pickled values ("peer")."""
    klass, keys = drawn.plain(), drawn.single
    objects = {number: drawn.instance(klass, number) for number in range(1, COUNT + 1)}
    picks = list(objects)

    def right(answer: object, pick: int) -> bool:
        return drawn.values(answer) == drawn.values(objects[pick])

    if who == "stockpyle":
        from stockpyle.stores import MemcacheStore, RedisStore

        url = f"redis://{address[0]}:{address[1]}/0"
        store = MemcacheStore(servers=[address]) if kind == "memcached" else RedisStore(url)
        store.batch_put(objects.values())
        names = {"get": store.get, keys.klass: klass}
        return [Timed("stockpyle", Role.OURS, f"get({keys.klass}, {keys.mapping})", names, picks, keys.target, right)]
    if kind == "memcached":
        from pymemcache.client.base import PooledClient
        from pymemcache.serde import pickle_serde

        client = PooledClient(address, serde=pickle_serde, no_delay=True, max_pool_size=16)
        client.set_many({f"{keys.klass}:{number}": obj for number, obj in objects.items()}, noreply=False)
        call = f"client.get({keys.text})"
        return [Timed("pymemcache PooledClient", Role.PEER, call, {"client": client}, picks, keys.target, right)]
    import redis

    other = redis.Redis(host=address[0], port=address[1])
    other.mset({f"{keys.klass}:{number}": pickle.dumps(obj, -1) for number, obj in objects.items()})
    names = {"client": other, "loads": pickle.loads}
    return [Timed("redis-py", Role.PEER, f"loads(client.get({keys.text}))", names, picks, keys.target, right)]
