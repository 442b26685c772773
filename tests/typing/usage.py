"""Read by mypy, never run: what a user's type checker sees."""

from __future__ import annotations

from ssl import SSLContext
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.orm import sessionmaker as plain_sessionmaker
from typing_extensions import assert_type

from stockpyle import create_store, data_stores, register_store
from stockpyle.codecs import Codec, PickleCodec, SignedCodec
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.protocols import PubSub, Source, Store, Tier
from stockpyle.stores import BaseStore, ChainedStore, MemcacheStore, ProcessMemoryStore, SqlAlchemyStore
from stockpyle.views.query import Query, Queryable


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)


class MySession(Session):
    pass


class Json:
    name = "json"

    def encode(self, obj: Any) -> bytes:
        return b""

    def decode(self, klass: type, data: bytes) -> Any:
        return klass()


class Text:
    name = "text"

    def encode(self, obj: Any) -> str:
        return ""

    def decode(self, klass: type, data: str) -> Any:
        return klass()


class Mine(BaseStore):
    def put(self, obj: Any) -> None: ...

    def delete(self, obj: Any) -> None: ...


def stores(engine: sa.Engine, session: Session, memory: ProcessMemoryStore, base: BaseStore) -> None:
    chain = ChainedStore([memory, SqlAlchemyStore(engine=engine)])
    for store in (memory, chain, SqlAlchemyStore("sqlite://")):
        assert_type(store.get(User, {"id": 5}), User | None)
        assert_type(store.batch_get(User, [{"id": 5}]), list[User | None])
        store.get({"id": 5})
        store.batch_get([{"id": 5}])
    assert_type(chain.get(User, {"id": 5}, session=session), User | None)
    assert_type(base.get(User, {"id": 5}), User | None)
    assert_type(base.pubsub(), PubSub)
    with memory.pubsub(on_lost=print) as pubsub:
        assert_type(pubsub.publish("news", "hello"), int | None)
    base.get({"id": 5})  # type: ignore[call-arg, arg-type]


def memcached(context: SSLContext, names: list[str], pairs: list[tuple[str, int]]) -> None:
    with MemcacheStore(servers=["h:11211", ("h", 11212), "/run/m.sock"], tls_context=context, codec=Json()) as store:
        assert_type(store, MemcacheStore)
        assert_type(store.get(User, {"id": 5}), User | None)
        assert_type(store.batch_get(User, [{"id": 5}]), list[User | None])
        assert_type(store.stats.corrupt, int)
        store.get({"id": 5})
    for servers in ("h:11211", ("h", 11211), names, pairs):
        MemcacheStore(servers=servers)
    codecs: list[Codec] = [PickleCodec(), SignedCodec(b"key", codec=Json()), Json()]
    MemcacheStore(servers=names, codec=codecs[0])
    MemcacheStore(servers=names, codec=Text())  # type: ignore[arg-type]
    MemcacheStore(servers=11211)  # type: ignore[arg-type]
    MemcacheStore(servers=names, tls_context=True)  # type: ignore[arg-type]
    tier: Tier = store
    source: Source = store
    assert tier
    assert source


def connections(settings: dict[str, object], memory: ProcessMemoryStore, database: SqlAlchemyStore) -> None:
    assert_type(create_store("redis://h"), BaseStore)
    assert_type(create_store("redis://h", namespace="a"), BaseStore)
    assert_type(create_store(settings), BaseStore)
    assert_type(create_store(["memory://", memory, settings]), ChainedStore)
    assert_type(create_store(memory), ProcessMemoryStore)
    store = create_store("redis://h")
    assert_type(store.get(User, {"id": 5}), User | None)
    assert_type(store.name, str)
    assert_type(store.database, str | None)
    assert_type(store.dns, str | None)
    assert_type(store.ping(), bool)
    assert_type(store.supports, frozenset[str])
    assert_type(store.execute_transaction([("INCR", "n"), "PING"]), list[Any])
    assert_type(database.connect(), sa.Connection)
    assert_type(data_stores["redis"], str)
    register_store("ours", Mine)
    register_store("ours", "company.caching:OurStore", replace=True)
    create_store(5)  # type: ignore[call-overload]
    register_store(5, Mine)  # type: ignore[arg-type]


def sessions(engine: sa.Engine, chain: ChainedStore) -> None:
    extension = StockpyleSessionExtension(store=chain)
    assert_type(sessionmaker(engine, extension=extension), plain_sessionmaker[Session])
    assert_type(sessionmaker(engine, class_=MySession, extension=extension), plain_sessionmaker[MySession])
    assert_type(sessionmaker(extension=extension)(), Session)


def contracts(memory: ProcessMemoryStore, database: SqlAlchemyStore, chain: ChainedStore) -> None:
    tier: Tier = memory
    sources: list[Source] = [memory, database]
    everything: list[Store] = [memory, database, chain, Mine()]
    assert tier
    assert sources
    assert everything


class Member(Queryable):
    __stockpyle_keys__ = ["id"]
    id: int


def queries(memory: ProcessMemoryStore, chain: ChainedStore, base: BaseStore) -> None:
    assert_type(memory.query(User), Query[User])
    assert_type(base.query(User), Query[User])
    query = chain.query(User).where(id__gt=5).where_not(id=7).order_by("-id")
    assert_type(query[5:10], Query[User])
    assert_type(query[5], User)
    assert_type(query & ~query | query, Query[User])
    assert_type(query.first(), User | None)
    assert_type(query.one(), User)
    assert_type(list(query), list[User])
    assert_type(query.count(), int)
    assert_type(query.exists(), bool)
    assert_type(query.values("id"), list[Any])
    assert_type(query.delete(), int)
    assert_type(Member.objects(memory), Query[Member])
    query.order_by(5)  # type: ignore[arg-type]
    query & memory.query(Member)  # type: ignore[arg-type]
