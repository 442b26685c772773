"""Rows as detached instances, the quick way and the public one."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, column_property, mapped_column
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.orm.state import InstanceState

from stockpyle.orm import instances
from stockpyle.orm.instances import CarefulRow, Reviver, tell_of_load
from stockpyle.orm.mapping import spec_of_mapped
from stockpyle.orm.registries import mappers_of
from tests.orm import test_inheritance, test_materialise


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    data: Mapped[Any] = mapped_column(sa.JSON)
    blob: Mapped[bytes | None] = mapped_column(sa.LargeBinary)


Note.shout = column_property(sa.func.upper(Note.text))  # type: ignore[attr-defined]

ROW = (1, "a", {"tags": ["x"]}, None)


def new_reviver() -> Reviver:
    """A reviver that has not made anything yet."""
    spec = spec_of_mapped(Note)
    return Reviver(spec.mapper, spec.attributes, spec.columns)


def test_the_quick_way_gives_what_the_public_way_gives() -> None:
    """An instance whose state is written directly has the key, values and expired attributes of a public one."""
    revive = new_reviver()
    public, quick = revive(ROW), revive(ROW)
    assert revive.quick is not None
    assert instances._traits(public) == instances._traits(quick)
    assert sa.inspect(quick).detached
    assert "shout" in sa.inspect(quick).expired_attributes
    with pytest.raises(sa.orm.exc.DetachedInstanceError):
        _ = quick.shout


OTHERS = {"obj", "_strong_obj", "dict", "object", "unloaded_expirable"}
"""What is another object for each instance, or deprecated."""


def assert_same_state(one: Any, other: Any) -> None:
    """Assert that two instances have the same values, and all that SQLAlchemy knows of them is the same."""
    states = instance_state(one), instance_state(other)
    names = {name for name, value in vars(InstanceState).items() if isinstance(value, property)}
    for name in {*names, *vars(states[0]), *vars(states[1])} - OTHERS:
        first, second = [getattr(state, name) for state in states]
        assert first == second, name
    assert all(state._strong_obj is None for state in states)
    values = [
        {name: (type(each), each) for name, each in vars(instance).items() if not isinstance(each, InstanceState)}
        for instance in (one, other)
    ]
    assert values[0] == values[1]
    assert type(one) is type(other)


@pytest.mark.parametrize(
    "klass",
    [
        mapper.class_
        for base in (Base, test_materialise.Base, test_inheritance.Base)
        for mapper in sorted(mappers_of(base.registry), key=lambda each: each.class_.__qualname__)
        if not hasattr(mapper.selectable, "left")
    ],
)
@pytest.mark.parametrize("number", [None, 7])
def test_the_two_ways_agree_in_every_attribute(klass: type, number: int | None) -> None:
    """An instance of whatever class has the same state and values, attribute by attribute, whichever way it is made."""
    spec = spec_of_mapped(klass)
    row = tuple([1 if column.primary_key else number for column in spec.columns])
    revive = Reviver(spec.mapper, spec.attributes, spec.columns)
    assert_same_state(revive._directly(row), revive._publicly(row))
    if number is None:
        # what listens to load events takes no number for a dict
        public = revive._publicly(row)
        tell_of_load(public)
        assert_same_state(revive._directly_loaded(row), public)


def test_a_sqlalchemy_that_differs_gets_the_public_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """If writing the state directly does not give the same instance, it is not done again for that class."""
    generated = instances._generated

    def with_another_key(*arguments: Any, **options: Any) -> Any:
        def revive(row: Any) -> Any:
            instance = direct(row)
            instance_state(instance).key = None
            return instance

        direct = generated(*arguments, **options)
        return revive

    monkeypatch.setattr(instances, "_generated", with_another_key)
    revive = new_reviver()
    for _ in range(3):
        assert sa.inspect(revive(ROW)).key is not None
    assert revive.quick is None


def test_what_can_be_changed_in_place_is_copied() -> None:
    """Two instances of one row share no value that one of them could change."""
    revive = new_reviver()
    made = [revive(ROW) for _ in range(3)]
    for note in made:
        note.data["tags"].append("y")
    assert ROW[2] == {"tags": ["x"]}
    assert all(note.data == {"tags": ["x", "y"]} for note in made)


def test_a_value_of_an_unexpected_type_is_copied() -> None:
    """A bytearray in a column of bytes is not shared between the instances of its row."""
    spec = spec_of_mapped(Note)
    row = spec.dehydrate(Note(id=1, text="a", data=None, blob=bytearray(b"x")))
    assert isinstance(row, CarefulRow)
    first, second = spec.materialise(row), spec.materialise(row)
    first.blob.append(1)
    assert second.blob == b"x"


def test_attached_as_session_add_does() -> None:
    """An instance that is attached is in the session as one that was added, and the same events have told of it."""
    engine = sa.create_engine("sqlite://")
    told: list[list[str]] = []
    states = []
    for way in (Session.add, instances.attach):
        revive = new_reviver()
        with Session(engine) as session:
            told.append([])
            for name in ("before_attach", "after_attach", "detached_to_persistent", "after_begin"):
                event.listen(session, name, lambda *_, name=name, told=told[-1]: told.append(name))  # type: ignore[misc]
            note = revive(ROW)
            way(session, note)
            state = instance_state(note)
            assert session.identity_map[state.key] is note
            assert session.in_transaction()
            states.append([*instances._traits(note), state.persistent, state.session is session, note in session.dirty])
    assert told[0] == told[1] == ["before_attach", "after_attach", "detached_to_persistent"]
    assert states[0] == states[1]
    engine.dispose()


def test_attached_by_a_session_that_differs() -> None:
    """Where a session does not have what is used of it, add() is called."""

    class OtherSession:
        added: ClassVar[list[Any]] = []
        add = added.append

    note = new_reviver()(ROW)
    instances.attach(OtherSession(), note)  # type: ignore[arg-type]
    assert OtherSession.added == [note]
