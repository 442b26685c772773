"""All stores. What a store needs is imported when it is first used, not here."""

from __future__ import annotations

from stockpyle.stores.base import BaseStore
from stockpyle.stores.chained import ChainedStore
from stockpyle.stores.dictionary import BaseDictionaryStore
from stockpyle.stores.memcache import MemcacheStore
from stockpyle.stores.memory import ProcessMemoryStore, ThreadLocalStore
from stockpyle.stores.mongo import MongoStore
from stockpyle.stores.null import NullStore
from stockpyle.stores.redis import RedisStore
from stockpyle.stores.shove import ShoveStore
from stockpyle.stores.sql_table import SqlTableStore
from stockpyle.stores.sqlalchemy import SqlAlchemyStore

MemcachedStore = MemcacheStore

__all__ = [
    "BaseDictionaryStore",
    "BaseStore",
    "ChainedStore",
    "MemcacheStore",
    "MemcachedStore",
    "MongoStore",
    "NullStore",
    "ProcessMemoryStore",
    "RedisStore",
    "ShoveStore",
    "SqlAlchemyStore",
    "SqlTableStore",
    "ThreadLocalStore",
]
