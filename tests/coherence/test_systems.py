"""What the comparison with other caches is made of, without those: the lookup, the table, and the invalidation."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from tests.coherence.compare import ENTRANTS, Entrant, Row, missing, table
from tests.coherence.models import Account, Base, Member, Person
from tests.coherence.systems import SYSTEMS, find
from tests.coherence.systems.invalidation import Sessions, load, name_of, note, touched_by


@pytest.fixture
def engine() -> Iterator[sa.Engine]:
    """An empty database."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def account(i: int) -> Account:
    """Return an account whose values all end with its id."""
    return Account(id=i, email=f"e{i}", org="o", login=f"l{i}", nick=f"n{i}", wid=i, a1=i, a2=i, b1=i, b2=i)


@pytest.mark.parametrize("name", sorted(SYSTEMS))
def test_every_system_is_where_its_name_says(name: str) -> None:
    """A system's module exists and defines it, whether or not the package that it needs is installed."""
    module, _, attribute = SYSTEMS[name].partition(":")
    path = Path(__file__).parents[2] / f"{module.replace('.', '/')}.py"
    assert attribute in {getattr(node, "name", None) for node in ast.parse(path.read_text()).body}


def test_an_unknown_system_is_refused_with_the_known_ones() -> None:
    """Who mistypes the name of a system is told the names that there are."""
    with pytest.raises(SystemExit, match=r"no system 'dogpil': there are .*look-aside"):
        find("dogpil")


def test_all_that_is_compared_is_a_system() -> None:
    """The comparison names no system that is not there, and has stockpyle in it."""
    names = [entrant.system for entrant in ENTRANTS]
    assert set(names) <= set(SYSTEMS)
    assert len(names) == len(set(names))
    assert "stockpyle" in names


def test_what_a_system_needs_and_is_not_here_is_named() -> None:
    """Of the packages that a system needs, the comparison knows those that are not installed."""
    assert missing(Entrant("x", "x", "x", "none", ("sqlalchemy", "surely_not_here"))) == ["surely_not_here"]


def test_the_table_is_markdown_in_columns() -> None:
    """All lines of the table are as long, and it has one for each system under two for the heading."""
    rows = [
        Row("one", "1.0", "memcached", 1_234_567, 89, 3, 0, 1, 0.1234),
        Row("another", "-", "none", 5, 0, 0, 0, 0, None),
    ]
    lines = list(table(rows))
    assert len({len(line) for line in lines}) == 1
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]] == [
        ["one", "1.0", "memcached", "1,234,567", "89", "3", "0", "1", "12.3 %"],
        ["another", "-", "none", "5", "0", "0", "0", "0", "-"],
    ]


def test_old_and_new_names_are_invalidated_after_the_commit(engine: sa.Engine) -> None:
    """A change of a key invalidates what was kept under the old and the new value, once it is committed."""
    told: list[str] = []
    maker = Sessions(told.extend).maker(engine)
    with maker() as session:
        session.add(account(1))
        session.commit()
    told.clear()
    with maker() as session:
        found = session.get(Account, 1)
        assert found is not None
        found.email = "other"
        session.flush()
        assert told == []
        session.commit()
    assert told == [
        "account:email=e1",
        "account:email=other",
        "account:id=1",
        "account:login=l1,org=o",
        "account:nick=n1",
    ]


def test_a_savepoint_invalidates_nothing_by_itself(engine: sa.Engine) -> None:
    """What is written within a savepoint is invalidated with the whole transaction, and so is what was before it."""
    told: list[str] = []
    with Sessions(told.extend).maker(engine)() as session:
        session.add(account(1))
        session.flush()
        with session.begin_nested():
            session.add(account(2))
        session.begin_nested().rollback()
        assert told == []
        session.commit()
    assert {"account:id=1", "account:id=2"} <= set(told)


def test_a_member_is_kept_under_its_names_as_a_person_too(engine: sa.Engine) -> None:
    """An object of a subclass is invalidated under the names that a reader of the base finds it by."""
    told: list[str] = []
    with Sessions(told.extend).maker(engine)() as session:
        session.add(Member(id=1, email="e", wid=1, p1=1, p2=1, badge="b", mwid=1, m1=1, m2=1))
        session.commit()
    assert told == ["member:badge=b", "member:email=e", "member:id=1", "person:email=e", "person:id=1"]


def test_objects_are_loaded_in_the_order_asked_for(engine: sa.Engine) -> None:
    """Keys of any kinds and classes are loaded at once, with None where nothing is."""
    with Session(engine) as session:
        session.add_all([account(1), account(2)])
        session.add(Member(id=3, email="e", wid=1, p1=1, p2=1, badge="b", mwid=1, m1=1, m2=1))
        session.commit()
    found = load(
        engine,
        [
            (Account, {"id": 2}),
            (Account, {"email": "e1"}),
            (Account, {"org": "o", "login": "l2"}),
            (Account, {"id": 9}),
            (Person, {"id": 3}),
        ],
    )
    assert [obj and obj.id for obj in found] == [2, 1, 2, None, 3]
    assert found[4].badge == "b"


def test_names_are_the_same_whatever_the_case() -> None:
    """What the database compares regardless of case has one name."""
    assert name_of(Account, {"nick": "N1"}) == name_of(Account, {"nick": "n1"})


def test_a_row_that_is_gone_stops_no_flush_before_it_has_begun(engine: sa.Engine) -> None:
    """Of an object whose row another has deleted, what was loaded of its keys is invalidated."""
    with Session(engine) as session:
        session.add(Member(id=1, email="e", wid=1, p1=1, p2=1, badge="b", mwid=1, m1=1, m2=1))
        session.commit()
    with Session(engine) as session:
        person = session.get_one(Person, 1)
        session.expire(person, ["badge"])
        person.email = "other"
        with session.no_autoflush:
            session.execute(sa.delete(Member.__table__))
        note(session)
        assert touched_by(session) == [
            "member:email=e",
            "member:email=other",
            "member:id=1",
            "person:email=e",
            "person:email=other",
            "person:id=1",
        ]
