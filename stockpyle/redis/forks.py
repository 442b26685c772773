"""A client of redis-py's in a child process: the connections are the parent's, and a lock may be held for ever.

redis-py puts new connections in their place, but under locks, which other threads may have held at the fork; and it
asks for the same locks when a client is done away with.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def abandon(client: Any) -> None:
    """In a child process: have nothing of a client of the parent's (None: there is none) be used, nor tidied up."""
    for each in [*_parts(client), client] if client is not None else []:
        # of one that has nothing, nothing is tidied up
        vars(each).clear()


def _parts(client: Any) -> Iterator[Any]:
    """Yield the clients that a client has: of a cluster's nodes, of Sentinels."""
    if hasattr(client, "nodes_manager"):
        for node in client.get_nodes():
            if node.redis_connection is not None:
                yield node.redis_connection
    else:
        manager = getattr(client.connection_pool, "sentinel_manager", None)
        if manager is not None:
            yield from manager.sentinels
