"""ProcessMemoryStore(validate=True) above memcached and above Redis: what it serves is what the shared tier has."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from stockpyle.coherence.courier import Courier
from stockpyle.coherence.guards import Guards
from stockpyle.exceptions import ImproperlyConfigured, StoreUnavailable
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.records import Alias, Record
from stockpyle.stores import (
    BaseDictionaryStore,
    ChainedStore,
    MemcacheStore,
    ProcessMemoryStore,
    RedisStore,
    SqlAlchemyStore,
    SqlTableStore,
    ThreadLocalStore,
)
from stockpyle.testing.samples import Clock, Person
from tests.ext.models import Base, Employee, User
from tests.remote.caches import Cache
from tests.remote.parts import meddler, new_prefix


class OnDemand(Courier):
    """A courier who comes by when a test says so."""

    def call(self, debtor: Any) -> None:
        self.debtors.add(debtor)


class Process:
    """One process's chain: a memory that validates, the cache, and a database with one user."""

    def __init__(
        self, cache: Cache, engine: sa.Engine, prefix: str, clock: Clock | None = None, at: Any = None
    ) -> None:
        options: dict[str, Any] = {} if clock is None else {"clock": clock}
        self.memory = ProcessMemoryStore(validate=True, **options)
        self.cache = cache.store(prefix, at=at, timeout=1.0, **options)
        self.trying = Clock()
        self.cache.guards = Guards(self.cache, clock=self.trying, courier=OnDemand())
        self.chain = ChainedStore([self.memory, self.cache, SqlAlchemyStore(engine=engine)])
        self.Session = sessionmaker(engine, extension=StockpyleSessionExtension(self.chain))

    def name(self, **key: Any) -> str | None:
        """Return what the chain says that a user is called."""
        user = self.chain.get(User, key or {"id": 1})
        return None if user is None else user.name

    def write(self, change: Callable[[Session], None]) -> None:
        """Change something in a session, and commit."""
        with self.Session() as session:
            change(session)
            session.commit()

    def rename(self, name: str) -> None:
        """Give the user a name."""
        self.write(lambda session: setattr(session.get_one(User, 1), "name", name))

    def holds(self, **key: Any) -> bool:
        """True if memory has a record under this key."""
        wanted = self.chain.spec(User).key(key)
        (found,) = self.memory.read([wanted], lease=False)
        return isinstance(found, Record)

    def recover(self) -> None:
        """Try the cache again, which is there."""
        self.trying.advance(1)
        assert self.cache.guards.parts[0].settle()

    def hits(self, call: Callable[[], Any]) -> tuple[int, int]:
        """Return how many hits there were in memory and in the cache."""
        before = self.memory.stats.hits, self.cache.stats.hits
        call()
        return self.memory.stats.hits - before[0], self.cache.stats.hits - before[1]


def fill_database(engine: sa.Engine) -> None:
    """Make the tables, with a user, and an employee whose row is in two tables."""
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        session.add(User(id=1, email="ann@x", name="old"))
        session.add(Employee(id=1, ssn=1, desk=1))


class World:
    """Two processes over one cache and one database."""

    def __init__(self, cache: Cache, engine: sa.Engine, clock: Clock | None = None) -> None:
        self.engine = engine
        fill_database(engine)
        prefix = new_prefix()
        self.mine, self.theirs = (Process(cache, engine, prefix, clock) for _ in range(2))

    def warm(self, **key: Any) -> None:
        """Have both memories hold the user."""
        for process in (self.mine, self.theirs):
            for _ in range(2):
                process.name(**key)
            assert process.hits(lambda process=process: process.name(**key)) == (1, 0)


@pytest.fixture
def world(cache: Cache, sqlite_engine: sa.Engine) -> World:
    """Two processes whose memories are empty."""
    return World(cache, sqlite_engine)


# what is kept, and what is served


def test_memory_is_filled_with_what_was_read_from_the_cache(world: World) -> None:
    """What was loaded from the database is in memory after the next read, which finds it in the cache."""
    assert world.mine.hits(world.mine.name) == (0, 0)
    assert not world.mine.holds(id=1)
    assert world.mine.hits(world.mine.name) == (0, 1)
    assert world.mine.holds(id=1)
    assert world.mine.hits(world.mine.name) == (1, 0)


def test_own_commit_leaves_nothing_in_memory(world: World) -> None:
    """What a commit of one's own publishes goes to the cache only, and is in memory after the next read."""
    world.warm()
    world.mine.rename("new")
    assert not world.mine.holds(id=1)
    for expected in ((0, 1), (1, 0)):
        assert world.mine.hits(lambda: world.mine.name() == "new") == expected


def test_anothers_commit_is_seen_at_once(world: World) -> None:
    """Right after another process's commit has returned, a copy in memory is served no more."""
    world.warm()
    for name in ("first", "second"):
        world.theirs.rename(name)
        assert world.mine.name() == name
        assert world.mine.name() == name
        assert world.mine.hits(world.mine.name) == (1, 0)


def test_anothers_commit_of_the_same_values_is_one_more_read(world: World) -> None:
    """A revision is one of a writing, not of a value: a copy is read again, and is good again."""
    world.warm()
    world.theirs.chain.put(User(id=1, email="ann@x", name="new"))
    world.theirs.chain.put(User(id=1, email="ann@x", name="old"))
    assert world.mine.hits(world.mine.name) == (0, 1)
    assert world.mine.hits(world.mine.name) == (1, 0)


def test_alias_that_has_moved_misleads_nobody(world: World) -> None:
    """An alternate key that leads to another object since is followed to that, and not to the copy there is."""
    world.warm(email="ann@x")

    def move(session: Session) -> None:
        session.get_one(User, 1).email = "old@x"
        session.flush()
        session.add(User(id=2, email="ann@x", name="another"))

    world.theirs.write(move)
    assert world.mine.name(email="ann@x") == "another"
    assert world.mine.name(email="old@x") == "old"
    assert world.mine.name(id=1) == "old"


def test_alias_in_memory_leads_to_a_validated_record(world: World) -> None:
    """A hit by an alternate key is served from memory, and is gone with the record's revision."""
    world.warm(email="ann@x")
    (alias,) = world.mine.memory.read([world.mine.chain.spec(User).key({"email": "ann@x"})], lease=False)
    assert isinstance(alias, Alias)
    world.theirs.rename("new")
    assert world.mine.name(email="ann@x") == "new"


@pytest.mark.parametrize("key", [{"id": 2}, {"email": "bob@x"}], ids=["identity", "alternate key"])
def test_known_absence_ends_with_anothers_insert(world: World, key: dict[str, Any]) -> None:
    """That there is no such object is kept, and validated, like an object."""
    for process in (world.mine, world.theirs):
        assert [process.name(**key) for _ in range(3)] == [None] * 3
    if "id" in key:
        # whether a text is absent depends on how the database compares texts
        assert world.mine.hits(lambda: world.mine.name(**key)) == (1, 0)
    world.theirs.write(lambda session: session.add(User(id=2, email="bob@x", name="new")))
    assert world.mine.name(**key) == "new"


def test_deletion_by_another(world: World) -> None:
    """A copy of what another has deleted is served by no key."""
    world.warm(email="ann@x")
    world.theirs.write(lambda session: session.delete(session.get_one(User, 1)))
    assert world.mine.name(email="ann@x") is None
    assert world.mine.name(id=1) is None


def test_row_over_two_tables(world: World) -> None:
    """An object that writers only remove is as fresh."""
    for desk in (1, 2, 3):
        world.theirs.write(lambda session, desk=desk: setattr(session.get_one(Employee, 1), "desk", desk))
        for _ in range(3):
            assert world.mine.chain.get(Employee, {"id": 1}).desk == desk


@pytest.mark.parametrize("how", ["class", "object", "alternate key", "everything"])
def test_invalidation_by_another(world: World, how: str) -> None:
    """What another process drops because somebody else has changed it is served from no memory."""
    world.warm()
    with world.engine.begin() as connection:
        connection.execute(sa.text("update users set name = 'new'"))
    if how == "everything":
        world.theirs.chain.clear()
    else:
        key: Any = {"class": None, "object": {"id": 1}, "alternate key": {"email": "ann@x"}}[how]
        world.theirs.chain.invalidate(User, key)
    assert world.mine.name() == "new"


def test_what_the_cache_has_lost_is_a_miss(world: World) -> None:
    """Memory serves nothing that is not in the cache: it is loaded anew."""
    world.warm()
    world.theirs.cache.clear()
    assert world.mine.hits(world.mine.name) == (0, 0)


def test_batch_of_which_some_have_changed(world: World) -> None:
    """Of a batch those that have changed are read anew, the others come from memory."""
    world.theirs.write(lambda session: session.add_all([User(id=i, email=f"{i}@x", name="old") for i in range(2, 30)]))
    keys = [{"id": i} for i in range(40)]
    for _ in range(3):
        found = world.mine.chain.batch_get(User, keys)
    assert world.mine.hits(lambda: world.mine.chain.batch_get(User, keys)) == (40, 0)
    world.theirs.write(lambda session: setattr(session.get_one(User, 7), "name", "new"))
    world.theirs.write(lambda session: session.add(User(id=35, email="35@x", name="new")))
    before = world.mine.memory.stats.hits
    found = world.mine.chain.batch_get(User, keys)
    assert [user and user.name for user in found] == [
        "new" if i in (7, 35) else "old" if 0 < i < 30 else None for i in range(40)
    ]
    assert world.mine.memory.stats.hits - before == 38


def test_plain_objects_are_the_same_object(cache: Cache) -> None:
    """Of plain classes, whose source is the cache itself, memory hands out the very object until another is put."""
    prefix = new_prefix()
    memory = ProcessMemoryStore(validate=True)
    mine = ChainedStore([memory, cache.store(prefix)])
    theirs = ChainedStore([ProcessMemoryStore(validate=True), cache.store(prefix)])
    theirs.put(Person(1, "ann@x", name="old"))
    first = mine.get(Person, {"id": 1})
    assert mine.get(Person, {"id": 1}) is first
    assert mine.get(Person, {"email": "ann@x"}) is first
    assert memory.stats.hits == 2
    theirs.put(Person(1, "ann@x", name="new"))
    assert mine.get(Person, {"id": 1}).name == "new"
    theirs.delete(Person(1, "ann@x"))
    assert mine.get(Person, {"id": 1}) is None
    assert mine.get(Person, {"email": "ann@x"}) is None


def test_plain_objects_over_another_source(cache: Cache) -> None:
    """So it is where the cache is a tier above their source."""
    prefix, rows = new_prefix(), BaseDictionaryStore()
    mine, theirs = (ChainedStore([ProcessMemoryStore(validate=True), cache.store(prefix), rows]) for _ in range(2))
    for name in ("first", "second"):
        theirs.put(Person(1, "ann@x", name=name))
        assert [mine.get(Person, {"id": 1}).name for _ in range(3)] == [name] * 3
    assert mine.get(Person, {"id": 1}) is mine.get(Person, {"email": "ann@x"})


def test_key_of_a_plain_object_that_another_object_has_taken(cache: Cache, sqlite_engine: sa.Engine) -> None:
    """Who had it before was not written, and still says that it has it: the shared cache is asked whose it is."""
    prefix = new_prefix()

    def process() -> ChainedStore:
        table = SqlTableStore(sqlite_engine, sa.MetaData(), "kept")
        table.table.create(checkfirst=True)
        return ChainedStore([ProcessMemoryStore(validate=True), cache.store(prefix), table])

    mine, others = process(), process()
    mine.put(Person(1, "ann@x"))
    for _ in range(3):
        assert mine.get(Person, {"email": "ann@x"}).id == 1  # type: ignore[union-attr]
    others.put(Person(2, "ann@x"))
    assert mine.get(Person, {"email": "ann@x"}).id == 2  # type: ignore[union-attr]
    assert mine.get(Person, {"id": 1}).email == "ann@x"  # type: ignore[union-attr]


def test_lifetime_is_that_of_the_cache(cache: Cache, sqlite_engine: sa.Engine) -> None:
    """Memory that validates keeps a copy for as long as the cache keeps the record, a day and not 60 seconds."""
    clock = Clock()
    world = World(cache, sqlite_engine, clock)
    world.warm()
    clock.advance(86_000)
    assert world.mine.hits(world.mine.name) == (1, 0)
    clock.advance(1_000)
    assert world.mine.hits(world.mine.name) == (0, 0)


def test_own_lifetime_rules(cache: Cache, sqlite_engine: sa.Engine) -> None:
    """A lifetime of the memory's own is kept: then it is in the cache only."""
    clock = Clock()
    fill_database(sqlite_engine)
    memory = ProcessMemoryStore(validate=True, lifetime=5, clock=clock)
    shared = cache.store(clock=clock)
    chain = ChainedStore([memory, shared, SqlAlchemyStore(engine=sqlite_engine)])
    for _ in range(3):
        chain.get(User, {"id": 1})
    assert (memory.stats.hits, shared.stats.hits) == (1, 1)
    clock.advance(6)
    chain.get(User, {"id": 1})
    assert (memory.stats.hits, shared.stats.hits) == (1, 2)


def test_nearest_shared_tier_is_asked(memcached: tuple[str, int], redis_server: str, sqlite_engine: sa.Engine) -> None:
    """Of several shared tiers it is the one right below; what a deeper one has is in memory after one read more."""
    fill_database(sqlite_engine)
    memory, near = ProcessMemoryStore(validate=True), MemcacheStore(servers=[memcached], prefix=new_prefix())
    deep = RedisStore(redis_server, prefix=new_prefix())
    chain = ChainedStore([memory, near, deep, SqlAlchemyStore(engine=sqlite_engine)])
    chain.get(User, {"id": 1})
    near.clear()
    for _ in range(3):
        assert chain.get(User, {"id": 1}).name == "old"
    assert (memory.stats.hits, near.stats.hits, deep.stats.hits) == (1, 1, 1)


def test_filling_what_stands_above(cache: Cache, sqlite_engine: sa.Engine) -> None:
    """What is above a memory that validates is filled from it, and bounded as ever."""
    fill_database(sqlite_engine)
    top, memory = ThreadLocalStore(), ProcessMemoryStore(validate=True)
    chain = ChainedStore([top, memory, cache.store(), SqlAlchemyStore(engine=sqlite_engine)])
    for _ in range(3):
        chain.get(User, {"id": 1})
        top.clear()
    chain.get(User, {"id": 1})
    assert memory.stats.hits == 2
    chain.get(User, {"id": 1})
    assert top.stats.hits == 1


# when the cache cannot be asked


def test_nothing_is_served_unvalidated(own_cache: Cache, sqlite_engine: sa.Engine) -> None:
    """While the cache is down what is in memory is a miss: the database answers, and nothing is filled.

    When it is back, empty, there is nothing in it that the copy could be.
    """
    world = World(own_cache, sqlite_engine)
    world.warm()
    own_cache.server.stop("immediate")
    with world.engine.begin() as connection:
        connection.execute(sa.text("update users set name = 'new'"))
    for _ in range(2):
        assert world.mine.hits(lambda: world.mine.name() == "new") == (0, 0)
        assert world.mine.name() == "new"
    own_cache.server.start()
    world.mine.recover()
    for expected in ((0, 0), (0, 1), (1, 0)):
        assert world.mine.hits(world.mine.name) == expected
    assert world.mine.name() == "new"


def test_copies_outlive_a_cache_that_was_out_of_reach(cache: Cache, sqlite_engine: sa.Engine) -> None:
    """What is in memory stays there while the cache cannot be asked; then what has not changed is served again."""
    fill_database(sqlite_engine)
    with meddler(cache.address) as between:
        prefix = new_prefix()
        mine = Process(cache, sqlite_engine, prefix, at=between.address)
        theirs = Process(cache, sqlite_engine, prefix)
        for name, expected in (("old", (1, 0)), ("new", (0, 1))):
            for _ in range(3):
                mine.name()
            assert mine.hits(mine.name) == (1, 0)
            between.meddle = lambda answer: [b""]
            assert mine.hits(mine.name) == (0, 0)
            if name == "new":
                theirs.rename(name)
            between.meddle = None
            mine.recover()
            assert mine.hits(mine.name) == expected
            assert mine.name() == name


def test_source_that_cannot_be_asked_raises(own_cache: Cache) -> None:
    """Where the cache is the source of plain objects its failure is raised, and no copy handed out in its place."""
    chain = ChainedStore([ProcessMemoryStore(validate=True), own_cache.store(timeout=0.3)])
    chain.put(Person(1, name="old"))
    for _ in range(2):
        chain.get(Person, {"id": 1})
    own_cache.server.stop("immediate")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            chain.get(Person, {"id": 1})


# where it belongs


@pytest.mark.parametrize(
    ("below", "says"),
    [
        ([], "right below it is no tier"),
        ([BaseDictionaryStore()], "right below it is BaseDictionaryStore, which cannot tell"),
        ([ProcessMemoryStore()], "right below it is ProcessMemoryStore, which cannot tell"),
        ([ProcessMemoryStore(), MemcacheStore(servers=["host"])], "right below it is ProcessMemoryStore"),
        ([SqlAlchemyStore("sqlite://")], "right below it is no tier"),
    ],
    ids=["alone", "dictionary", "memory", "memory between", "database"],
)
def test_chain_without_a_tier_to_ask(below: list[Any], says: str) -> None:
    """A chain in which nobody right below can tell is refused when it is made, with the cure."""
    with pytest.raises(ImproperlyConfigured, match=re.escape(says)) as told:
        ChainedStore([ProcessMemoryStore(validate=True), *below])
    assert "put a MemcacheStore or a RedisStore there, or leave validate out" in str(told.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.get(Person, {"id": 1}),
        lambda store: store.batch_get(Person, [{"id": 1}]),
        lambda store: store.put(Person(1)),
        lambda store: store.delete(Person(1)),
        lambda store: list(store.scan(Person)),
        lambda store: list(store.query(Person)),
    ],
    ids=["get", "batch_get", "put", "delete", "scan", "query"],
)
def test_used_alone(call: Callable[[Any], Any]) -> None:
    """Used alone there is nobody to ask: each verb says so, with the cure."""
    with pytest.raises(ImproperlyConfigured, match="has no tier to ask when it is used alone"):
        call(ProcessMemoryStore(validate=True))


def test_validate_is_true_or_false() -> None:
    """A setting that was read as text is refused."""
    with pytest.raises(ImproperlyConfigured, match="validate is True or False"):
        ProcessMemoryStore(validate="no")  # type: ignore[arg-type]
