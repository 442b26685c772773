"""What a unit of work writes: after commit() the caches say what the database says, under every key, old and new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import SAWarning

from stockpyle.exceptions import InvalidKeyType
from stockpyle.records import Alias, Record
from tests.ext.conftest import MakeWorld
from tests.ext.models import Badge, Car, Contact, Employee, Login, Org, Person, Stamp, Tag, Ticket, Truck, User, Vehicle
from tests.ext.worlds import World

ANN: Any = {"id": 1, "email": "ann@a.org", "org_id": 1, "login": "ann", "name": "Ann"}
BOB: Any = {"id": 2, "email": "bob@a.org", "org_id": 1, "login": "bob", "name": "Bob"}


def furnish(world: World) -> None:
    """Write two users of two organisations, and read them, and some that are not there, by every key."""
    world.add(Org(id=1, name="a"), Org(id=2, name="b"))
    world.add(User(**ANN), User(**BOB))
    for klass in (User, Contact):
        world.warm(klass, {"id": 1}, {"id": 2}, {"id": 3}, {"id": 9})
        world.warm(klass, {"email": "ann@a.org"}, {"email": "bob@a.org"}, {"email": "new@a.org"})
    for klass in (User, Login):
        world.warm(klass, {"org_id": 1, "login": "ann"}, {"org_id": 1, "login": "bob"}, {"org_id": 2, "login": "ann"})
        world.warm(klass, {"org_id": 2, "login": "bob"}, {"org_id": 1, "login": "new"})
    world.warm(Org, {"id": 1}, {"id": 2}, {"name": "a"}, {"name": "b"}, {"name": "c"})


def test_an_insert_replaces_what_was_known_absent(any_world: World) -> None:
    """An inserted object is found by all its keys, though each was known to be absent."""
    furnish(any_world)
    with any_world.Session() as session, session.begin():
        session.add(User(id=3, email="new@a.org", org_id=1, login="new"))
    any_world.check()


def test_an_update_is_seen_under_every_key(any_world: World) -> None:
    """A changed value is read by every key of its object, from memory."""
    furnish(any_world)
    with any_world.Session() as session, session.begin():
        session.get_one(User, 1).name = "Anna"
    assert isinstance(any_world.held(User, {"id": 1}), Record)
    assert isinstance(any_world.held(User, {"email": "ann@a.org"}), Alias)
    any_world.check()


@pytest.mark.parametrize("what", ["nothing", "name"])
@pytest.mark.parametrize("stamped", ["name", "email"])
@pytest.mark.parametrize("expired", [False, True])
def test_sql_that_a_listener_sets_before_the_update(any_world: World, what: str, stamped: str, expired: bool) -> None:
    """What an application's own before_update makes of an object is seen, also if nothing else of it has changed."""
    furnish(any_world)

    def stamp(mapper: Any, connection: Any, target: Any) -> None:
        setattr(target, stamped, sa.func.lower("NEW@A.ORG"))

    event.listen(User, "before_update", stamp)
    try:
        with any_world.Session() as session, session.begin():
            ann = session.get_one(User, 1)
            if expired:
                session.expire(ann, [stamped])
            # SQLAlchemy asks for every object that was set at all
            ann.login = ann.login if what == "nothing" else "new"
    finally:
        event.remove(User, "before_update", stamp)
    any_world.check()
    assert any_world.truth(User, {"id": 1})[stamped] == "new@a.org"


def test_sql_that_a_listener_sets_before_the_insert(any_world: World) -> None:
    """What an application's own before_insert makes a key of is no longer known to be absent."""
    furnish(any_world)

    def stamp(mapper: Any, connection: Any, target: Any) -> None:
        target.email = sa.func.lower("NEW@A.ORG")

    event.listen(User, "before_insert", stamp)
    try:
        with any_world.Session() as session, session.begin():
            session.add(User(id=3, email="x@a.org", org_id=1, login="new"))
    finally:
        event.remove(User, "before_insert", stamp)
    any_world.check()
    assert any_world.truth(User, {"email": "new@a.org"})["id"] == 3


def test_a_deleted_object_is_found_no_more(any_world: World) -> None:
    """A deleted object is found by none of its keys."""
    furnish(any_world)
    with any_world.Session() as session, session.begin():
        session.delete(session.get_one(User, 1))
    any_world.check()
    assert any_world.cached(User, {"email": "ann@a.org"}) is None


def test_a_primary_key_changes(any_world: World) -> None:
    """An object whose primary key has changed is found by the new one only, and by its other keys as before."""
    furnish(any_world)
    with any_world.Session() as session, session.begin():
        session.get_one(User, 1).id = 9
    any_world.check()
    assert any_world.cached(User, {"id": 1}) is None


def test_an_alternate_key_moves_to_another_object(any_world: World) -> None:
    """A key that one object gives up and another takes in one commit leads to the other."""
    furnish(any_world)
    with any_world.Session() as session, session.begin():
        ann, bob = session.get_one(User, 1), session.get_one(User, 2)
        ann.email = None
        session.flush()
        bob.email = "ann@a.org"
    any_world.check()
    assert any_world.cached(User, {"email": "ann@a.org"}) == {**BOB, "email": "ann@a.org"}


def test_two_objects_swap_their_keys(any_world: World) -> None:
    """Keys that are swapped through several flushes lead each to the other object."""
    furnish(any_world)
    with any_world.Session() as session, session.begin():
        ann, bob = session.get_one(User, 1), session.get_one(User, 2)
        ann.email, ann.login = "tmp", "tmp"
        session.flush()
        bob.email, bob.login = "ann@a.org", "ann"
        session.flush()
        ann.email, ann.login = "bob@a.org", "bob"
    any_world.check()


def test_a_key_set_to_an_sql_expression(any_world: World) -> None:
    """A key whose new value only the database knows is found, though it was known to be absent."""
    furnish(any_world)
    with any_world.Session() as session, session.begin():
        session.get_one(User, 1).email = sa.func.lower("NEW@A.ORG")  # type: ignore[assignment]
    any_world.check()
    assert any_world.truth(User, {"email": "new@a.org"})


def test_a_column_set_to_another_mapped_attribute(any_world: World) -> None:
    """An attribute of the class, which SQLAlchemy takes for the column that it maps, is SQL like any expression."""
    furnish(any_world)
    with any_world.Session() as session, session.begin():
        session.get_one(User, 1).name = User.login  # type: ignore[assignment]
    any_world.check()
    with any_world.Session() as session, session.begin():
        session.get_one(User, 2).email = User.name  # type: ignore[assignment]
    any_world.check()


@pytest.mark.parametrize("klass", [Ticket, Stamp])
def test_a_key_that_the_database_makes(any_world: World, klass: Any) -> None:
    """A key that a default of the table's, or an SQL expression of the mapping's, has made is found."""
    any_world.warm(klass, {"id": 1}, {"number": 1000}, {"number": 42}, {"number": 43})
    with any_world.Session() as session, session.begin():
        session.add(klass(id=1))
    any_world.check()
    with any_world.Session() as session, session.begin():
        session.get_one(klass, 1).text = "changed"
    any_world.check()


def test_relationships_write_foreign_keys(any_world: World) -> None:
    """A foreign key that a relationship has written is part of the composite key."""
    furnish(any_world)
    with any_world.Session() as session, session.begin():
        org = session.get_one(Org, 2)
        org.members.append(session.get_one(User, 1))
    any_world.check()
    assert any_world.cached(User, {"org_id": 2, "login": "ann"})
    with any_world.Session() as session, session.begin():
        session.delete(session.get_one(Org, 2))
    any_world.check()


def test_half_of_a_composite_key_that_is_not_loaded(any_world: World) -> None:
    """A composite key is found when one half was written and the other was never loaded."""
    furnish(any_world)
    with any_world.Session() as session, session.begin():
        ann = session.get_one(User, 1)
        session.expire(ann)
        ann.org_id = 2
    any_world.check()
    assert any_world.truth(User, {"org_id": 2, "login": "ann"})


def test_an_update_of_an_expired_object(any_world: World) -> None:
    """What an UPDATE did not write is read from the database, not from the session's old state."""
    furnish(any_world)
    with any_world.Session() as session, session.begin():
        ann = session.get_one(User, 1)
        any_world.execute("update users set login = 'moved' where id = 1")
        ann.name = "Anna"
    any_world.warm(User, {"org_id": 1, "login": "moved"})
    any_world.check()


def test_post_update(any_world: World) -> None:
    """Rows that the unit of work updates a second time, or only so, are seen."""
    furnish(any_world)
    any_world.warm(Org, {"id": 3})
    with any_world.Session() as session, session.begin():
        org, other = session.get_one(Org, 1), session.get_one(Org, 2)
        org.leader = session.get_one(User, 1)
        other.name = "c"
    any_world.check()
    assert any_world.cached(Org, {"id": 1}) == {"id": 1, "name": "a", "leader_id": 1}
    with any_world.Session() as session, session.begin():
        new = Org(id=3, name="d")
        new.leader = User(id=9, org=new, login="new")
        session.add(new)
    any_world.check()
    with any_world.Session() as session, session.begin():
        org = session.get_one(Org, 3)
        session.delete(session.get_one(User, 9))
        org.leader = None
    any_world.check()


def test_cascades_and_orphans(any_world: World) -> None:
    """Objects that the unit of work deletes with their parent, or as orphans, are found no more."""
    furnish(any_world)
    any_world.add(Badge(id=1, org_id=1, code=1), Badge(id=2, org_id=1, code=2))
    any_world.warm(Badge, {"id": 1}, {"id": 2}, {"org_id": 1, "code": 1}, {"org_id": 1, "code": 2})
    with any_world.Session() as session, session.begin():
        org = session.get_one(Org, 1)
        org.badges.remove(session.get_one(Badge, 1))
    any_world.check()
    assert any_world.cached(Badge, {"id": 1}) is None
    with any_world.Session() as session, session.begin():
        for user in session.scalars(sa.select(User)):
            session.delete(user)
        session.delete(session.get_one(Org, 1))
    any_world.check()
    assert any_world.cached(Badge, {"id": 2}) is None


def test_deleting_what_another_transaction_has_deleted_publishes_nothing(world: World) -> None:
    """A DELETE that matches no row locks none: somebody may insert it again meanwhile, and must not find it absent."""
    world.add(User(id=1, email="1@a.org"))
    world.warm(User, {"id": 1})
    with world.Session() as session:
        user = session.get_one(User, 1)
        session.expunge(user)
    world.execute("DELETE FROM users")
    with world.Session() as session:
        session.delete(user)
        with pytest.warns(SAWarning, match="expected to delete 1 row"):
            session.commit()
    assert not world.holds(User, {"id": 1})
    assert world.locks == []
    world.check()


def test_an_object_deleted_and_added_again(any_world: World) -> None:
    """A row that one object leaves and another takes in the same flush is the other's."""
    furnish(any_world)
    with any_world.Session() as session, session.begin():
        session.delete(session.get_one(User, 1))
        session.add(User(id=1, email="new@a.org", name="Nina"))
    any_world.check()
    assert any_world.cached(User, {"email": "ann@a.org"}) is None


def test_no_net_change_is_no_write(world: World) -> None:
    """An object that is dirty without a net change is not locked."""
    furnish(world)
    with world.Session() as session, session.begin():
        session.get_one(User, 1).name = "Ann"
        org = session.get_one(Org, 1)
        org.members.remove(session.get_one(User, 2))
        org.members.append(session.get_one(User, 2))
    assert world.memory.calls == []
    assert world.holds(User, {"id": 1})


def test_a_hook_that_changes_what_it_sees(any_world: World) -> None:
    """A key that a mapper hook gives the instance after the row was written does not hide the row's own."""
    furnish(any_world)

    def change(mapper: Any, connection: Any, target: User) -> None:
        target.email = "not@the.row"

    event.listen(User, "after_insert", change)
    try:
        with any_world.Session() as session, session.begin():
            session.add(User(id=3, email="new@a.org"))
    finally:
        event.remove(User, "after_insert", change)
    any_world.check()
    assert any_world.truth(User, {"email": "new@a.org"})


def test_single_table_inheritance(any_world: World) -> None:
    """A Car is found, or not, as a Vehicle and as a Car, by the keys that each declares."""
    any_world.add(Car(id=1, plate=11, doors=4), Truck(id=2, plate=12))
    any_world.warm(Vehicle, {"id": 1}, {"id": 2}, {"id": 3}, {"plate": 11}, {"plate": 12}, {"plate": 13}, {"plate": 14})
    any_world.warm(Car, {"id": 1}, {"id": 3}, {"doors": 4}, {"doors": 5}, {"doors": 2})
    any_world.warm(Truck, {"id": 1}, {"id": 2}, {"id": 3}, {"plate": 11}, {"plate": 13})
    with any_world.Session() as session, session.begin():
        session.add(Car(id=3, plate=13, doors=5))
        session.get_one(Car, 1).plate = 14
    any_world.check()
    with any_world.Session() as session, session.begin():
        session.get_one(Car, 1).doors = 2
        session.delete(session.get_one(Vehicle, 3))
    any_world.check()
    assert any_world.truth(Truck, {"id": 2})
    with any_world.Session() as session, session.begin():
        session.get_one(Vehicle, 2).kind = "car"
        with pytest.warns(SAWarning, match="incompatible polymorphic identity"):
            session.flush()
    any_world.warm(Car, {"id": 2})
    any_world.check()


def test_joined_inheritance_is_removed_and_never_published(any_world: World) -> None:
    """A row that is spread over two tables is locked and removed; no writer publishes it."""
    any_world.add(Employee(id=1, ssn=11, desk=1), Person(id=2, ssn=12))
    any_world.warm(Person, {"id": 1}, {"id": 2}, {"id": 3}, {"ssn": 11}, {"ssn": 13})
    any_world.warm(Employee, {"id": 1}, {"id": 2}, {"desk": 1}, {"desk": 2}, {"ssn": 13})
    statements: list[str] = []
    with any_world.Session() as session:
        session.get_one(Employee, 1).desk = 2
        session.add(Employee(id=3, ssn=13, desk=3))
        session.flush()
        event.listen(any_world.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        session.commit()
    assert statements == []
    assert any_world.memory.calls == ["lock", "publish"]
    assert set(any_world.memory.published) == {None}
    any_world.check()
    with any_world.Session() as session, session.begin():
        session.get_one(Person, 1).ssn = 14
        session.delete(session.get_one(Person, 3))
    any_world.check()


def test_one_lock_one_publish_and_one_select_a_class(world: World) -> None:
    """However many objects are committed, a tier is called twice, and a class is loaded by one SELECT."""
    furnish(world)
    statements: list[str] = []
    event.listen(world.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    with world.Session() as session:
        session.add_all(User(id=i, email=f"{i}@a.org", org_id=2, login=str(i)) for i in range(10, 300))
        for org in session.scalars(sa.select(Org)):
            org.name += "!"
        for user in session.scalars(sa.select(User).where(User.id < 10)):
            user.name += "!"
        session.flush()
        statements.clear()
        session.commit()
    assert world.memory.calls == ["lock", "publish"]
    loads = [statement for statement in statements if statement.startswith("SELECT")]
    assert len(loads) == 2, loads
    assert sum("FROM users" in load for load in loads) == 1
    world.check()


def test_nothing_of_ours_runs_in_the_users_transaction(world: World) -> None:
    """On the session's connection there is no statement that the session would not make by itself."""
    furnish(world)

    def statements_of(engine: sa.Engine, make: Any) -> list[str]:
        seen: list[str] = []

        def note(connection: sa.Connection, cursor: Any, statement: str, *_: Any) -> None:
            if connection.in_transaction() and not connection.get_execution_options().get("stockpyle_source"):
                seen.append(statement)

        event.listen(engine, "before_cursor_execute", note)
        with make() as session, session.begin():
            session.get_one(User, 1).name += "!"
            session.get_one(User, 2).email = None
            with session.begin_nested():
                session.delete(session.get_one(Org, 2))
        event.remove(engine, "before_cursor_execute", note)
        return seen

    ours = statements_of(world.engine, world.Session)
    world.execute("delete from orgs where id = 2")
    world.execute("insert into orgs (id, name) values (2, 'b')")
    world.execute("update users set email = 'bob@a.org' where id = 2")
    from sqlalchemy.orm import sessionmaker as plain

    assert ours == statements_of(world.outside, plain(world.outside))


def test_a_pool_of_one_connection(database_url: str, make_world: MakeWorld) -> None:
    """What was committed is loaded when the session's connection is back in the pool, though that has only one."""
    world = make_world(database_url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    furnish(world)
    with world.Session() as session, session.begin():
        session.get_one(User, 1).name = "Anna"
    assert isinstance(world.held(User, {"id": 1}), Record)
    world.check()


def test_invalidating_loads_nothing(database_url: str, make_world: MakeWorld) -> None:
    """With on_write="invalidate" a commit removes and the next reader loads."""
    world = make_world(database_url, on_write="invalidate")
    furnish(world)
    statements: list[str] = []
    with world.Session() as session:
        session.get_one(User, 1).name = "Anna"
        session.flush()
        event.listen(world.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        session.commit()
    assert statements == []
    assert world.memory.calls == ["lock", "publish"]
    assert not world.holds(User, {"id": 1})
    world.check()


def test_a_version_counter(any_world: World) -> None:
    """A transaction that wrote one column publishes those that somebody else wrote meanwhile."""
    furnish(any_world)
    with any_world.Session() as session, session.begin():
        ann = session.get_one(User, 1)
        with any_world.Session() as other, other.begin():
            other.get_one(User, 1).login = "other"
        ann.name = "Anna"
    any_world.warm(User, {"org_id": 1, "login": "other"})
    any_world.check()


def test_a_key_that_is_only_declared(any_world: World) -> None:
    """A commit publishes an object under a key, too, that the database does not hold unique."""
    with any_world.Session() as session:
        session.add(Tag(id=1, label="red", code=1))
        session.commit()
    with any_world.statements() as executed:
        assert any_world.chain.get(Tag, {"label": "red"}).id == 1
    assert not executed


@pytest.mark.parametrize("on_write", ["publish", "invalidate"])
def test_a_value_that_the_database_turns_into_another(tmp_path: Path, make_world: MakeWorld, on_write: str) -> None:
    """A key set to a value of another type, which only the database can read, does not leave its absence cached."""
    world = make_world(f"sqlite:///{tmp_path}/test.db", on_write=on_write)
    world.warm(Tag, {"code": 7})
    with world.Session() as session:
        session.add(Tag(id=1, label="red", code="007"))
        session.commit()
    assert world.chain.get(Tag, {"code": 7}).id == 1


def test_a_key_attribute_with_values_that_cannot_be_keys(any_world: World) -> None:
    """An object with a list in a key attribute is written and cached under its other keys."""
    with any_world.Session() as session:
        session.add(Tag(id=1, label="red", code=1, parts=["a", "b"]))
        session.commit()
    with any_world.statements() as executed:
        assert any_world.chain.get(Tag, {"code": 1}).parts == ["a", "b"]
    assert not executed
    with pytest.raises(InvalidKeyType, match=r"Tag\.parts"):
        any_world.chain.get(Tag, {"parts": ["a", "b"]})


def test_a_put_that_changes_nothing_is_cached(world: World) -> None:
    """Objects of any classes that are put as the database has them already are found without SQL afterwards."""
    world.add(Tag(id=1, label="red", code=1), Org(id=1, name="a"))
    world.chain.batch_put([Tag(id=1, label="red", code=1), Org(id=1, name="a")])
    with world.statements() as executed:
        assert world.chain.get(Tag, {"id": 1}).label == "red"
        assert world.chain.get(Org, {"id": 1}).name == "a"
    assert not executed


def test_keys_that_nobody_knows_before_the_commit(database_url: str, make_world: MakeWorld) -> None:
    """Where nothing is loaded after a commit, a class that may have got keys nobody knows is dropped as a whole."""
    world = make_world(database_url, on_write="invalidate")
    furnish(world)
    world.warm(Ticket, {"number": 1000})
    world.warm(Stamp, {"number": 42}, {"number": 43})
    with world.Session() as session, session.begin():
        session.add_all([Ticket(id=1), Stamp(id=1)])
        session.get_one(User, 1).email = sa.func.lower("NEW@A.ORG")  # type: ignore[assignment]
    assert world.truth(Ticket, {"number": 1000})
    assert world.truth(Stamp, {"number": 42})
    world.check()
    with world.Session() as session, session.begin():
        session.get_one(Stamp, 1).text = "changed"
        bob = session.get_one(User, 2)
        session.expire(bob)
        bob.org_id = 2
    assert world.truth(Stamp, {"number": 43})
    assert world.truth(User, {"org_id": 2, "login": "bob"})
    world.check()
