"""What a store can do, by name: what its `supports` holds, in the order of the documents."""

from __future__ import annotations

from typing import Final

CAPABILITIES: Final[dict[str, str]] = {
    "put": "keeps an object under all its keys",
    "get": "returns the object that a key identifies",
    "delete": "forgets an object",
    "batch_put": "puts several",
    "batch_get": "gets several",
    "batch_delete": "deletes several",
    "plain": "keeps any object whose class declares its keys",
    "mapped": "keeps objects that SQLAlchemy maps",
    "sessions": "hands out a mapped object as an instance of the caller's session: `get(..., session=)`",
    "tier": "is a caching level that a chain keeps right: it compares before it sets",
    "shared": "other processes see the same objects",
    "expiry": "objects have a lifetime: `lifetime=`, `lifetime_cb=`",
    "polymorphic": "finds an object as one of its base classes: `polymorphic=True`",
    "clear": "forgets everything: `clear()`",
    "invalidate": "forgets what somebody else has changed: `invalidate(klass, key)`",
    "ping": "says if the backend answers: `ping()`",
    "connect": "makes a connection of the driver's own: `connect()`",
    "execute": "runs a command of the backend: `execute(*command)`",
    "transactions": "runs several commands as one: `execute_transaction(commands)`",
    "pubsub": "carries messages: `pubsub()`",
    "collection": "keeps named mappings: `collection(name)`",
    "counter": "keeps atomic counters: `counter(name)`",
    "query": "finds objects by their attributes: `query(klass)`",
    "scan": "lists all objects of a class",
}
"""Each capability, and what it means."""

METHODS: Final[dict[str, str]] = {
    name: "execute_transaction" if name == "transactions" else name
    for name in CAPABILITIES
    if name not in ("plain", "mapped", "sessions", "tier", "shared", "expiry", "polymorphic")
}
"""The method that a capability is called by: a class that has its own has the capability."""

PROVIDERS: Final[dict[str, str]] = {"collection": "_collections", "counter": "_counters", "query": "scan"}
"""What else a class may have that gives it a capability: the base class makes the method of it."""

PAIRS: Final[dict[str, str]] = {"put": "batch_put", "get": "batch_get", "delete": "batch_delete"}
"""Verbs of which one is enough: a BaseStore makes the other of it."""
