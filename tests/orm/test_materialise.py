"""Instances from memory: detached or in a session, whatever the class is mapped with."""

from __future__ import annotations

import dataclasses
import enum
import json
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict, MutableList
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    Session,
    column_property,
    composite,
    deferred,
    mapped_column,
    object_session,
    reconstructor,
    registry,
    relationship,
    scoped_session,
    sessionmaker,
    synonym,
    validates,
)
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.orm.exc import DetachedInstanceError

from stockpyle.exceptions import InvalidKey
from stockpyle.stores.chained import ChainedStore
from stockpyle.stores.memory import ProcessMemoryStore
from stockpyle.stores.sqlalchemy import SqlAlchemyStore
from tests.databases import chain_on, get_cached, save, traffic

pytestmark = pytest.mark.usefixtures("way")


class Base(DeclarativeBase):
    pass


class Color(enum.Enum):
    RED = "r"
    GREEN = "g"


class Level(str, enum.Enum):
    LOW = "low level"
    HIGH = "high level"


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Upper(sa.TypeDecorator[str]):
    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else value.lower()

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else value.upper()


class Timestamps:
    created: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), nullable=True)


class Team(Base):
    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)
    people: Mapped[list[Person]] = relationship(back_populates="team")


class Person(Timestamps, Base):
    __tablename__ = "person"
    __stockpyle_keys__ = ["email"]
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column("e_mail", unique=True)
    alias = synonym("email")
    team_id: Mapped[int | None] = mapped_column(sa.ForeignKey("team.id"))
    team: Mapped[Team | None] = relationship(back_populates="people")
    biography: Mapped[str | None] = deferred(mapped_column(sa.Text))
    x: Mapped[int] = mapped_column(default=1)
    y: Mapped[int] = mapped_column(default=2)
    point: Mapped[Point] = composite("x", "y")
    color: Mapped[Color | None]
    level: Mapped[Level | None]
    price: Mapped[Decimal | None] = mapped_column(sa.Numeric(10, 2))
    token: Mapped[uuid.UUID | None]
    gap: Mapped[timedelta | None] = mapped_column(sa.Interval)
    settings: Mapped[dict[str, Any] | None] = mapped_column(MutableDict.as_mutable(sa.JSON()))
    tags: Mapped[list[Any] | None] = mapped_column(MutableList.as_mutable(sa.PickleType()))
    document: Mapped[Any] = mapped_column(sa.JSON, nullable=True)
    pickled: Mapped[Any] = mapped_column(sa.PickleType, nullable=True)
    class_: Mapped[str | None] = mapped_column("class")
    shout: Mapped[str | None] = mapped_column(Upper(20))
    version: Mapped[int] = mapped_column()
    doubled: Mapped[int] = column_property(x.column * 2)
    __mapper_args__ = {"version_id_col": version}

    @hybrid_property
    def domain(self) -> str:
        return self.email.partition("@")[2]


Person.head_count = column_property(
    sa.select(sa.func.count()).select_from(Person.__table__.alias("other")).scalar_subquery()
)


VALUES: dict[str, Any] = {
    "biography": "long",
    "color": Color.GREEN,
    "level": Level.HIGH,
    "price": Decimal("12.50"),
    "token": uuid.UUID(int=5),
    "gap": timedelta(hours=1),
    "settings": {"a": [1]},
    "tags": ["t"],
    "document": {"b": {"c": 1}},
    "pickled": {1: {2}},
    "class_": "first",
    "shout": "LOUD",
}


def _ann(**values: Any) -> Person:
    return Person(**{"id": 1, "email": "ann@x.org", "x": 3, "y": 4, **VALUES, **values})


@pytest.fixture
def chain(engine: sa.Engine) -> ChainedStore:
    """A chain on a database with one team and its one person."""
    Base.metadata.create_all(engine)
    save(engine, [Team(id=7), _ann(team_id=7)])
    return chain_on(engine)


def test_an_object_from_memory_is_detached_and_has_every_column(chain: ChainedStore, engine: sa.Engine) -> None:
    """All real columns have their values, deferred ones too, and nothing of it is a change."""
    found = get_cached(chain, engine, Person, {"email": "ann@x.org"})
    state = sa.inspect(found)
    assert state.detached
    assert not state.modified
    assert found.id == 1
    assert found.alias == found.email == "ann@x.org"
    assert found.domain == "x.org"
    assert found.point == Point(3, 4)
    assert found.version == 1
    assert found.team_id == 7
    assert {name: getattr(found, name) for name in VALUES} == VALUES
    assert type(found.level) is Level
    assert not sa.inspect(found).modified


def test_it_can_be_read_without_a_chain(chain: ChainedStore, engine: sa.Engine) -> None:
    """The store alone gives the same object, by one SELECT."""
    store = SqlAlchemyStore(engine=engine)
    with traffic(engine) as seen:
        found = store.get(Person, {"id": 1})
    assert len(seen.statements) == len(seen.of("SELECT")) == 1
    assert found is not None
    assert {name: getattr(found, name) for name in VALUES} == VALUES


@pytest.mark.parametrize("name", ["team", "head_count", "doubled"])
def test_what_is_no_column_raises_on_a_detached_instance(chain: ChainedStore, engine: sa.Engine, name: str) -> None:
    """A relationship or an SQL expression is never None or stale: it raises."""
    found = get_cached(chain, engine, Person, {"id": 1})
    with pytest.raises(DetachedInstanceError):
        getattr(found, name)


def test_in_a_session_the_rest_is_loaded_on_demand(chain: ChainedStore, engine: sa.Engine) -> None:
    """Relationships and SQL expressions of a persistent instance are the session's to load."""
    with Session(engine) as session:
        found = get_cached(chain, engine, Person, {"id": 1}, session=session)
        assert object_session(found) is session
        assert sa.inspect(found).persistent
        assert found not in session.dirty
        assert found.head_count == 1
        assert found.doubled == 6
        assert found.team is session.get(Team, 7)
        assert session.get(Person, 1) is found


MUTATIONS: list[Callable[[Person], Any]] = [
    lambda person: person.settings.update(a=2),
    lambda person: person.settings["a"].append(2),
    lambda person: person.tags.append("u"),
    lambda person: person.document["b"].update(c=2),
    lambda person: person.pickled[1].add(3),
    lambda person: setattr(person, "email", "bob@x.org"),
    lambda person: setattr(person, "point", Point(8, 9)),
]


@pytest.mark.parametrize("mutate", MUTATIONS)
@pytest.mark.parametrize("in_session", [False, True])
def test_mutating_what_was_handed_out_changes_no_cache(
    chain: ChainedStore, engine: sa.Engine, mutate: Callable[[Person], Any], in_session: bool
) -> None:
    """Neither the first object, from the database, nor the second, from memory, is shared with the cache."""
    with Session(engine) as session:
        for _ in range(2):
            found: Any = chain.get(Person, {"id": 1}, session=session if in_session else None)
            mutate(found)
        session.rollback()
    again = get_cached(chain, engine, Person, {"id": 1})
    assert again.email == "ann@x.org"
    assert again.point == Point(3, 4)
    assert {name: getattr(again, name) for name in VALUES} == VALUES


def test_in_place_changes_are_tracked_in_a_session(chain: ChainedStore, engine: sa.Engine) -> None:
    """Mutable dicts and lists of a materialised instance tell the session of their changes."""
    with Session(engine) as session:
        found = get_cached(chain, engine, Person, {"id": 1}, session=session)
        found.settings["new"] = 1
        found.tags.append("u")
        assert found in session.dirty
        session.commit()
    with Session(engine) as session:
        stored = session.get_one(Person, 1)
        assert stored.settings == {"a": [1], "new": 1}
        assert stored.tags == ["t", "u"]
        assert stored.version == 2


def test_a_detached_instance_can_be_put_back(chain: ChainedStore, engine: sa.Engine) -> None:
    """Get, change, put: the row is updated and its version counts on, also in the caller's object."""
    found = get_cached(chain, engine, Person, {"id": 1})
    found.class_ = "second"
    found.settings["more"] = 2
    chain.put(found)
    assert found.version == 2
    again = get_cached(chain, engine, Person, {"id": 1})
    assert (again.class_, again.version, again.settings) == ("second", 2, {"a": [1], "more": 2})


def test_a_detached_instance_can_be_added_to_a_session(chain: ChainedStore, engine: sa.Engine) -> None:
    """It is then persistent there, and its changes are written."""
    found = get_cached(chain, engine, Person, {"id": 1})
    with Session(engine) as session:
        session.add(found)
        found.x = 10
        assert found.team is not None
        session.commit()
    assert SqlAlchemyStore(engine=engine).get(Person, {"id": 1}).x == 10  # type: ignore[union-attr]


# the session's own instances


def test_the_sessions_own_instance_wins(chain: ChainedStore, engine: sa.Engine) -> None:
    """It is handed out as it is, with its unflushed changes."""
    chain.get(Person, {"id": 1})
    with Session(engine, autoflush=False) as session:
        own = session.get_one(Person, 1)
        own.class_ = "changed"
        assert chain.get(Person, {"id": 1}, session=session) is own
        assert own.class_ == "changed"
        assert own in session.dirty


def test_a_scoped_session_is_asked_for_what_it_has_flushed(chain: ChainedStore, engine: sa.Engine) -> None:
    """What a scoped_session stands for has written the row in its own transaction, so no cache answers."""
    assert chain.get(Person, {"id": 1}) is not None
    scoped = scoped_session(sessionmaker(engine))
    scoped.get_one(Person, 1).class_ = "changed"
    scoped.flush()
    scoped.expunge_all()
    found = chain.get(Person, {"id": 1}, session=scoped)  # type: ignore[call-overload]
    assert found.class_ == "changed"
    assert object_session(found) is scoped()
    scoped.remove()


@pytest.mark.parametrize("one", [False, True])
def test_a_session_that_joins_a_transaction_reads_what_that_has_written(
    chain: ChainedStore, engine: sa.Engine, one: bool
) -> None:
    """No cache answers for a session bound to a connection that has written, also before it has begun anything."""
    key = {"id": 1}
    assert chain.get(Person, key).class_ == "first"
    with engine.connect() as connection, connection.begin() as transaction:
        connection.execute(sa.update(Person.__table__).values({"class": "second"}))
        with Session(bind=connection) as session:
            found = (
                chain.get(Person, key, session=session) if one else chain.batch_get(Person, [key], session=session)[0]
            )
            assert found.class_ == "second"
        transaction.rollback()
    assert chain.get(Person, key).class_ == "first"


class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    ticket: Mapped[Pass | None] = relationship()


class Pass(Base):
    __tablename__ = "pass"
    __stockpyle_keys__ = ["id", "owner_id"]
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int | None] = mapped_column(sa.ForeignKey("owner.id"), unique=True)


def test_what_a_flush_would_write_by_a_relationship_is_asked_of_the_session(
    chain: ChainedStore, engine: sa.Engine
) -> None:
    """A row that the session is about to refer to another is not looked for in a cache."""
    save(engine, [Owner(id=1), Pass(id=1, owner_id=1), Pass(id=2)])
    key = {"owner_id": 1}
    assert chain.get(Pass, key).id == 1
    with Session(engine) as session:
        session.get_one(Owner, 1).ticket = session.get_one(Pass, 2)
        assert chain.get(Pass, key, session=session).id == 2


class JsonText(sa.Text):
    """A type of an application's own, whose values can be changed in place."""

    cache_ok = True

    def bind_processor(self, dialect: Any) -> Any:
        return lambda value: None if value is None else json.dumps(value)

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        return lambda value: None if value is None else json.loads(value)


class Preferences(Base):
    __tablename__ = "preferences"
    id: Mapped[int] = mapped_column(primary_key=True)
    chosen: Mapped[Any] = mapped_column(JsonText())


def test_a_type_of_ones_own_may_have_values_that_can_be_changed(tmp_path: Path) -> None:
    """Who changes a dict in place that came from a Text of an application's own changes no cache."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'own'}")
    Preferences.__table__.create(engine)
    save(engine, [Preferences(id=1, chosen={"a": 1})])
    chain = chain_on(engine)
    for _ in range(4):
        found = chain.get(Preferences, {"id": 1})
        assert found.chosen == {"a": 1}
        found.chosen["a"] = "mine"


@pytest.mark.parametrize("given", ["session", sessionmaker()])
def test_what_is_no_session_is_named(chain: ChainedStore, given: Any) -> None:
    """session= takes a session, and says so."""
    for store in (chain, chain.stores[-1]):
        with pytest.raises(TypeError, match=r"session= takes a Session, not (?:'session'|sessionmaker)"):
            store.get(Person, {"id": 1}, session=given)


def test_a_session_needs_the_class_and_the_keys(chain: ChainedStore, engine: sa.Engine) -> None:
    """Without one of them the message says which to give."""
    with Session(engine) as session:
        for store in (chain, chain.stores[-1]):
            for verb, keys in (("get", {"id": 1}), ("batch_get", [{"id": 1}])):
                with pytest.raises(InvalidKey, match="give the class too"):
                    getattr(store, verb)(keys, session=session)
                with pytest.raises(InvalidKey, match=r"give the key or keys too: get\(Person"):
                    getattr(store, verb)(Person, session=session)


def test_a_loaded_unchanged_instance_keeps_what_it_has(chain: ChainedStore, engine: sa.Engine) -> None:
    """As with any second query of a session, loaded values are not replaced."""
    with Session(engine) as session:
        own = session.get_one(Person, 1)
        other = chain.get(Person, {"id": 1})
        assert other is not None
        session.commit()
        assert own.class_ == "first"
        session.rollback()
        other.class_ = "second"
    with Session(engine) as session:
        own = session.get_one(Person, 1)
        session.connection().commit()
        chain.put(other)
        assert get_cached(chain, engine, Person, {"id": 1}, session=session) is own
        assert own.class_ == "first"


def test_a_wholly_expired_instance_is_refreshed_from_the_cache(chain: ChainedStore, engine: sa.Engine) -> None:
    """After a commit the session's instance is brought up to date without a statement."""
    chain.get(Person, {"id": 1})
    with Session(engine) as session:
        own = session.get_one(Person, 1)
        session.commit()
        assert "class_" not in instance_state(own).dict
        with traffic(engine) as seen:
            assert chain.get(Person, {"id": 1}, session=session) is own
            assert own.class_ == "first"
            assert own.point == Point(3, 4)
            assert seen.statements == []
        own.settings["new"] = 1
        assert own in session.dirty


def _write_pending(session: Session) -> None:
    session.add(_ann(id=2, email="bob@x.org"))


def _write_flushed(session: Session) -> None:
    session.add(_ann(id=2, email="bob@x.org"))
    session.flush()


def _write_moved(session: Session) -> None:
    session.get_one(Person, 1).email = "bob@x.org"


def _write_moved_and_flushed(session: Session) -> None:
    _write_moved(session)
    session.flush()


def _write_moved_by_statement(session: Session) -> None:
    session.execute(sa.update(Person).values(email="bob@x.org"))


def _write_moved_by_core(session: Session) -> None:
    session.execute(sa.update(Person.__table__).values(e_mail="bob@x.org"))


def _write_moved_on_the_connection(session: Session) -> None:
    session.connection().execute(sa.update(Person.__table__).values(e_mail="bob@x.org"))


WRITES = [
    _write_pending,
    _write_flushed,
    _write_moved,
    _write_moved_and_flushed,
    _write_moved_by_statement,
    _write_moved_by_core,
    _write_moved_on_the_connection,
]


@pytest.mark.parametrize("write", WRITES)
def test_what_the_sessions_transaction_has_written_is_read_through_it(
    chain: ChainedStore, engine: sa.Engine, write: Callable[[Session], None]
) -> None:
    """Pending, flushed and moved objects are found in the session, before anybody else sees them."""
    chain.get(Person, {"email": "ann@x.org"})
    with Session(engine) as session:
        write(session)
        found = chain.get(Person, {"email": "bob@x.org"}, session=session)
        assert found is not None
        assert found in session
        before = chain.get(Person, {"email": "ann@x.org"}, session=session)
        assert (before is None) is ("moved" in write.__name__)
        session.rollback()
    assert chain.get(Person, {"email": "bob@x.org"}) is None
    assert get_cached(chain, engine, Person, {"email": "ann@x.org"}).id == 1


@pytest.mark.parametrize("flush", [False, True])
def test_what_the_session_has_deleted_is_gone_for_it(chain: ChainedStore, engine: sa.Engine, flush: bool) -> None:
    """Nobody else misses it before the commit."""
    chain.get(Person, {"id": 1})
    with Session(engine) as session:
        session.delete(session.get_one(Person, 1))
        if flush:
            session.flush()
        assert chain.get(Person, {"id": 1}, session=session) is None
        session.rollback()
        assert get_cached(chain, engine, Person, {"id": 1}, session=session) is not None


def test_a_session_that_has_committed_reads_the_cache_again(chain: ChainedStore, engine: sa.Engine) -> None:
    """What a transaction has written concerns only that transaction."""
    with Session(engine) as session:
        session.add(_ann(id=2, email="bob@x.org"))
        session.commit()
        assert get_cached(chain, engine, Person, {"id": 1}, session=session) is not None


def test_batches_keep_order_and_duplicates_in_a_session(chain: ChainedStore, engine: sa.Engine) -> None:
    """Each key has its place in the answer, and one row is one instance."""
    with Session(engine) as session:
        keys = [{"id": 9}, {"id": 1}, {"email": "ann@x.org"}, {"id": 1}, {"email": None}]
        nothing, first, second, third, none = chain.batch_get(Person, keys, session=session)
        assert nothing is none is None
        assert first is second is third is not None


# events


class Heard(Base):
    __tablename__ = "heard"
    id: Mapped[int] = mapped_column(primary_key=True)

    @reconstructor
    def rebuilt(self) -> None:
        self.calls = [*getattr(self, "calls", []), "reconstructor"]


@pytest.mark.parametrize("in_session", [False, True])
def test_load_events_run_once_for_each_instance_handed_out(engine: sa.Engine, in_session: bool) -> None:
    """Listeners and the reconstructor hear of no other instance."""
    heard: list[Any] = []

    def listener(target: Any, context: Any) -> None:
        heard.append(target)

    Base.metadata.create_all(engine)
    save(engine, [Heard(id=1), Heard(id=2)])
    chain = chain_on(engine)
    event.listen(Heard, "load", listener)
    try:
        for key in (1, 1, 2):
            with Session(engine) as session:
                found = chain.get(Heard, {"id": key}, session=session if in_session else None)
                assert found is not None
                assert found.calls == ["reconstructor"]
                assert heard == [found]
                heard.clear()
        assert chain.get(Heard, {"id": 3}) is None
        chain.put(found)
        chain.delete(found)
        assert heard == []
    finally:
        event.remove(Heard, "load", listener)


def test_a_load_event_finds_the_instance_in_its_session(engine: sa.Engine) -> None:
    """As when the session itself has loaded it."""
    Base.metadata.create_all(engine)
    save(engine, [Heard(id=1)])
    chain = chain_on(engine)
    sessions: list[Any] = []

    def listener(target: Any, context: Any) -> None:
        sessions.append(object_session(target))

    event.listen(Heard, "load", listener)
    try:
        with Session(engine) as session:
            found = chain.get(Heard, {"id": 1}, session=session)
            assert sessions == [session]
            assert chain.get(Heard, {"id": 1}, session=session) is found
            assert sessions == [session]
    finally:
        event.remove(Heard, "load", listener)


class Password(Base):
    __tablename__ = "password"
    id: Mapped[int] = mapped_column(primary_key=True)
    hashed: Mapped[str]

    @validates("hashed")
    def hash(self, name: str, value: str) -> str:
        return f"hash of {value}"


def test_put_does_not_set_a_value_twice(engine: sa.Engine) -> None:
    """A validator has seen the value when the caller set it, and does not see the copy."""
    Base.metadata.create_all(engine)
    chain = chain_on(engine)
    password = Password(id=1, hashed="a")
    chain.put(password)
    assert get_cached(chain, engine, Password, {"id": 1}).hashed == "hash of a"
    password.hashed = "b"
    chain.put(password)
    assert get_cached(chain, engine, Password, {"id": 1}).hashed == "hash of b"


def test_a_session_may_change_the_schema(chain: ChainedStore, engine: sa.Engine) -> None:
    """DDL in its transaction is no write to a mapped table."""
    chain.get(Person, {"id": 1})
    with Session(engine) as session:
        connection = session.connection()
        sa.Table("extra", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True)).create(connection)
        assert get_cached(chain, engine, Person, {"id": 1}, session=session) is not None


# ways to map


class Counted(MappedAsDataclass, Base):
    __tablename__ = "counted"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="nobody")
    made: int = dataclasses.field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        self.made = 99


def test_a_mapped_dataclass_is_not_initialised_again(engine: sa.Engine) -> None:
    """What is no column has its class's default, and columns their values."""
    Base.metadata.create_all(engine)
    save(engine, [Counted(id=1, name="ann")])
    found = get_cached(chain_on(engine), engine, Counted, {"id": 1})
    assert (found.id, found.name, found.made) == (1, "ann", 0)


class Imperative:
    def __init__(self, number: int, text: str) -> None:
        self.number = number
        self.text = text


imperative = registry()
imperative_table = sa.Table(
    "imperative",
    imperative.metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("text", sa.String, unique=True),
)
imperative.map_imperatively(
    Imperative,
    imperative_table,
    properties={
        "number": imperative_table.c.id,
        "text": column_property(imperative_table.c.text, active_history=True),
    },
)


def test_an_imperative_mapping_is_read_by_its_attribute_names(engine: sa.Engine) -> None:
    """Attributes may be called otherwise than their columns, and __init__ is not called."""
    imperative.metadata.create_all(engine)
    save(engine, [Imperative(5, "five")])
    chain = chain_on(engine)
    assert get_cached(chain, engine, Imperative, {"number": 5}).text == "five"
    assert get_cached(chain, engine, Imperative, {"text": "five"}).number == 5


class OverJoin(Base):
    __table__ = sa.join(Team.__table__, Person.__table__, Person.__table__.c.team_id == Team.__table__.c.id)
    __mapper_args__ = {
        "primary_key": [Team.__table__.c.id, Person.__table__.c.id],
        "properties": {"team_key": Team.__table__.c.id, "person_key": Person.__table__.c.id},
    }


class OverSelect(Base):
    __table__ = (
        sa.select(Person.__table__.c.id, Person.__table__.c.e_mail).where(Person.__table__.c.x > 2).subquery("tall")
    )
    __mapper_args__ = {"primary_key": [__table__.c.id]}


def test_a_class_mapped_to_a_join_is_read_and_never_cached(chain: ChainedStore, engine: sa.Engine) -> None:
    """Its columns are those of all its tables, read anew by each get."""
    for _ in range(2):
        with traffic(engine) as seen:
            found: Any = chain.get(OverJoin, {"team_key": 7, "person_key": 1})
        assert found.e_mail == "ann@x.org"
        assert len(seen.statements) == 1


def test_a_class_mapped_to_a_select_is_read_and_never_cached(chain: ChainedStore, engine: sa.Engine) -> None:
    """Nothing tells when its rows change, so each get asks the database."""
    for _ in range(2):
        with traffic(engine) as seen:
            found: Any = chain.get(OverSelect, {"id": 1})
        assert found.e_mail == "ann@x.org"
        assert len(seen.statements) == 1
    assert chain.get(OverSelect, {"id": 2}) is None


class SameTable(Base):
    __table__ = Team.__table__
    __mapper_args__ = {"include_properties": ["id"]}


def test_two_classes_of_one_table_do_not_get_each_others_objects(chain: ChainedStore, engine: sa.Engine) -> None:
    """Each get gives an object of the class that was asked for."""
    for _ in range(2):
        assert type(chain.get(Team, {"id": 7})) is Team
        assert type(chain.get(SameTable, {"id": 7})) is SameTable
    chain.put(Team(id=8))
    assert type(chain.get(SameTable, {"id": 8})) is SameTable
    assert type(chain.get(Team, {"id": 8})) is Team
    chain.delete(SameTable(id=8))
    assert chain.get(Team, {"id": 8}) is None
    assert chain.get(SameTable, {"id": 8}) is None


class Schemas(DeclarativeBase):
    pass


class Tenant(Schemas):
    __tablename__ = "tenant"
    __table_args__ = {"schema": "own"}
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Local(Schemas):
    __tablename__ = "local"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def test_tenants_in_schemas_do_not_share(postgres_engine: sa.Engine) -> None:
    """Two engines that translate a schema differently use one memory without meeting."""
    memory = ProcessMemoryStore()
    chains = []
    for schema in ("one", "two"):
        engine = postgres_engine.execution_options(schema_translate_map={"own": schema})
        with engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema(schema))
            Tenant.__table__.create(connection)
        save(engine, [Tenant(id=1, name=f"in {schema}")])
        chains.append(ChainedStore([memory, SqlAlchemyStore(engine=engine)]))
    for _ in range(2):
        assert [chain.get(Tenant, {"id": 1}).name for chain in chains] == ["in one", "in two"]  # type: ignore[union-attr]
        assert chains[0].get(Tenant, {"name": "in two"}) is None
    chains[0].put(Tenant(id=1, name="moved"))
    assert chains[0].get(Tenant, {"id": 1}).name == "moved"  # type: ignore[union-attr]
    assert chains[1].get(Tenant, {"id": 1}).name == "in two"  # type: ignore[union-attr]


def test_each_engine_of_a_tenant_reads(postgres_engine: sa.Engine) -> None:
    """However many stores are made for the same schemas, each reads: SQLAlchemy adds to the dict that it is given."""
    schemas = {None: "ours", "own": "tenant_of_many"}
    engine = postgres_engine.execution_options(schema_translate_map=dict(schemas))
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema("tenant_of_many"))
        connection.execute(sa.schema.CreateSchema("ours"))
        Tenant.__table__.create(connection)
        Local.__table__.create(connection)
    save(engine, [Tenant(id=1, name="one"), Local(id=1, name="local")])
    memory, spaces = ProcessMemoryStore(), set()
    for own in (engine, *[postgres_engine.execution_options(schema_translate_map=dict(schemas)) for _ in range(2)]):
        store = SqlAlchemyStore(engine=own)
        for reader in (store, store, ChainedStore([memory, store])):
            assert reader.get(Tenant, {"id": 1}).name == "one"  # type: ignore[union-attr]
            assert [each.name for each in reader.batch_get(Local, [{"id": 1}])] == ["local"]  # type: ignore[union-attr]
        spaces.add(store.spec(Local))
    assert len(spaces) == 1


class Arrays(DeclarativeBase):
    pass


class WithArray(Arrays):
    __tablename__ = "with_array"
    id: Mapped[int] = mapped_column(primary_key=True)
    numbers: Mapped[list[int]] = mapped_column(ARRAY(sa.Integer))
    at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True), unique=True)


def test_arrays_are_copied_and_instants_compared(postgres_engine: sa.Engine) -> None:
    """A changed array changes no cache; an instant is the same in every time zone."""
    Arrays.metadata.create_all(postgres_engine)
    noon = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
    save(postgres_engine, [WithArray(id=1, numbers=[1, 2], at=noon)])
    chain = chain_on(postgres_engine)
    found = get_cached(chain, postgres_engine, WithArray, {"at": noon.astimezone(timezone(timedelta(hours=5)))})
    found.numbers.append(3)
    assert get_cached(chain, postgres_engine, WithArray, {"id": 1}).numbers == [1, 2]
