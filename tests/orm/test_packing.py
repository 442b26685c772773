"""Rows of mapped classes as bytes."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum
from typing import Any
from uuid import UUID

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from stockpyle.codecs import Kind, RecordCodec, SignedCodec
from stockpyle.exceptions import DecodeError, EncodeError
from stockpyle.keys import Key
from stockpyle.orm.instances import UNKNOWN, CarefulRow, Row
from stockpyle.orm.mapping import MappedSpec, spec_of_mapped
from stockpyle.packing import MAX_DEPTH
from stockpyle.records import ABSENT, Alias, Record
from tests.test_codecs import EPOCH, HEADER, NEW, VALUES, Bomb, resealed, same

TYPED, TAGGED = 0, 1


class Base(DeclarativeBase):
    pass


class Colour(Enum):
    RED = "r"
    BLUE = "b"


class Level(IntEnum):
    LOW = 1


class Access(Flag):
    READ = 1
    WRITE = 2


class Odd(TypeDecorator[Any]):
    impl = sa.Text
    cache_ok = True


class Thing(Base):
    __tablename__ = "things"
    __stockpyle_keys__ = ["code"]
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str | None]
    flag: Mapped[bool | None]
    ratio: Mapped[float | None]
    blob: Mapped[bytes | None]
    price: Mapped[Decimal | None] = mapped_column(sa.Numeric(12, 4))
    at: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))
    day: Mapped[date | None]
    clock: Mapped[time | None]
    span: Mapped[timedelta | None]
    uuid: Mapped[UUID | None]
    colour: Mapped[Colour | None]
    access: Mapped[Access | None] = mapped_column(sa.Enum(Access))
    data: Mapped[Any] = mapped_column(sa.JSON)
    many: Mapped[Any] = mapped_column(sa.ARRAY(sa.Enum(Colour)))
    odd: Mapped[Any] = mapped_column(Odd)
    pickled: Mapped[Any] = mapped_column(sa.PickleType)
    mutable: Mapped[Any] = mapped_column(MutableDict.as_mutable(sa.JSON))


class Paint(Base):
    __tablename__ = "paints"
    colour: Mapped[Colour] = mapped_column(primary_key=True)
    mixed_at: Mapped[datetime] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class Animal(Base):
    __tablename__ = "animals"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str] = mapped_column(unique=True)


class Dog(Animal):
    __mapper_args__ = {"polymorphic_identity": "dog"}
    tricks: Mapped[int | None]


class Cat(Animal):
    __mapper_args__ = {"polymorphic_identity": "cat"}


FULL: dict[str, Any] = {
    "id": 1,
    "code": "ä\0",
    "flag": True,
    "ratio": -0.0,
    "blob": b"\xff\0",
    "price": Decimal("10.5000"),
    "at": datetime(2026, 1, 2, 3, 4, 5, 6),
    "day": date(1, 1, 1),
    "clock": time(23, 59, 59, 999999),
    "span": timedelta(-3, 2, 1),
    "uuid": UUID(int=5),
    "colour": Colour.BLUE,
    "access": Access.WRITE,
    "data": {"a": [1, 1.0, True, None, {"b": "c"}]},
    "many": [1, "x"],
    "odd": "text",
    "pickled": 5,
}


def row_of_thing(**values: Any) -> Row:
    """Return a row of Thing, of None where nothing is said, as the mapping makes it."""
    return spec_of_mapped(Thing).dehydrate(Thing(**{"id": 1, **values}))


def identity(klass: type, **values: Any) -> Key:
    """Return a key of a mapped class."""
    key = spec_of_mapped(klass).key(values or {"id": 1})
    assert key is not None
    return key


def stored(row: Row, codec: RecordCodec | None = None, spec: MappedSpec | None = None, key: Key | None = None) -> bytes:
    """Return what a store keeps of a row."""
    record = Record(spec or spec_of_mapped(Thing), row)
    kind, data = (codec or RecordCodec()).encode(key or identity(Thing), record, EPOCH, 1.0)
    assert kind is Kind.RECORD
    return data


def decoded(data: bytes, codec: RecordCodec | None = None, key: Key | None = None) -> Any:
    """Return what was stored."""
    found = (codec or RecordCodec()).decode(key or identity(Thing), data, EPOCH)
    return None if found is None else found.value if isinstance(found, Record) else found


def there_and_back(row: Row, variant: int) -> Row:
    """Assert that a row comes back as it was, in this variant."""
    data = stored(row)
    assert HEADER.unpack_from(data)[4] == variant
    found: Row = decoded(data)
    assert type(found) is type(row)
    same(tuple(found), tuple(row))
    return found


@pytest.mark.parametrize("values", [FULL, {"data": None}, {**FULL, "at": datetime(2026, 1, 2, tzinfo=timezone.utc)}])
def test_a_row_of_the_promised_types_is_typed(values: dict[str, Any]) -> None:
    """Every column type comes back equal and of its type, without tags."""
    there_and_back(row_of_thing(**values), TYPED)


@pytest.mark.parametrize("ratio", [math.inf, -math.inf, math.nan, 5e-324])
def test_every_float_comes_back(ratio: float) -> None:
    """Infinities, nan and the smallest float are floats like all others."""
    found = decoded(stored(row_of_thing(ratio=ratio)))
    assert repr(spec_of_mapped(Thing).value_in(found, "ratio")) == repr(ratio)


def test_an_aware_datetime_is_the_same_instant_in_utc() -> None:
    """The time zone itself is not kept: what comes back is in UTC."""
    at = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    found = spec_of_mapped(Thing).value_in(decoded(stored(row_of_thing(at=at))), "at")
    assert found == at
    assert found.tzinfo is timezone.utc


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("code", 5),
        ("code", "\ud800"),
        ("flag", 1),
        ("ratio", 1),
        ("ratio", Decimal("1.0")),
        ("blob", bytearray(b"x")),
        ("price", 1.5),
        ("at", "yesterday"),
        ("at", date(2026, 1, 1)),
        ("at", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))),
        ("at", datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5)))),
        ("at", datetime(2026, 1, 1, fold=1)),
        ("day", datetime(2026, 1, 1)),
        ("clock", time(1, tzinfo=timezone(timedelta(hours=2)))),
        ("span", 3),
        ("uuid", "5"),
        ("colour", "b"),
        ("data", {"a": 2**80}),
        ("data", {1: "a"}),
        ("data", (1, 2)),
        ("data", {"a": Decimal("1.50")}),
        ("data", [{1, 2}]),
        ("data", datetime(2026, 1, 1)),
        ("many", [Colour.RED, None, Colour.BLUE]),
        ("odd", (Decimal(1), Colour.RED)),
        ("pickled", frozenset({1})),
    ],
)
def test_any_other_row_is_tagged(name: str, value: Any) -> None:
    """A value that its column does not promise comes back as it was, in a CarefulRow where the mapping made one."""
    there_and_back(row_of_thing(**{name: value}), TAGGED)


@given(st.sampled_from(sorted(set(FULL) - {"id"})), VALUES)
def test_any_value_in_any_column_comes_back(name: str, value: Any) -> None:
    """Whatever value stands in a column comes back equal and of its type."""
    row = row_of_thing(**{name: value})
    found = decoded(stored(row))
    assert type(found) is type(row)
    same(tuple(found), tuple(row))


def test_what_comes_back_is_nobody_elses() -> None:
    """Two decoded rows share no container."""
    data = stored(row_of_thing(data={"a": []}))
    first, second = decoded(data), decoded(data)
    spec_of_mapped(Thing).value_in(first, "data")["a"].append(1)
    assert spec_of_mapped(Thing).value_in(second, "data") == {"a": []}


def test_a_mutable_dict_is_one_again_in_the_instance() -> None:
    """A MutableDict is stored as a dict, of which SQLAlchemy's load event makes a MutableDict."""
    row = row_of_thing(mutable=MutableDict({"a": 1}))
    thing = spec_of_mapped(Thing).materialise(decoded(stored(row)))
    assert type(thing.mutable) is MutableDict
    assert thing.mutable == {"a": 1}


@pytest.mark.parametrize("name", ["odd", "pickled", "data", "code"])
@pytest.mark.parametrize("value", [Bomb(), Level.LOW, [range(3)]], ids=["own", "IntEnum", "nested"])
def test_an_object_of_a_class_of_ones_own_is_refused(name: str, value: Any) -> None:
    """What no bytes can tell is an EncodeError that names class, attribute and cure."""
    with pytest.raises(EncodeError, match=rf"^Thing\.{name} .*allow_pickle=True.* whoever can write"):
        stored(row_of_thing(**{name: value}))


def test_a_combination_of_flags_is_refused() -> None:
    """A flag that is no member by itself cannot be told by its name."""
    with pytest.raises(EncodeError, match=r"^Thing\.access"):
        stored(row_of_thing(access=Access.READ | Access.WRITE))


def test_allow_pickle_pickles_that_value_alone() -> None:
    """With allow_pickle a value of an unknown type is pickled, and the row otherwise stays as it is."""
    codec = RecordCodec(allow_pickle=True)
    row = row_of_thing(**{**FULL, "pickled": [range(3), Level.LOW]})
    data = stored(row, codec)
    same(tuple(decoded(data, codec)), tuple(row))
    with pytest.raises(EncodeError, match=r"^Thing\.pickled .*cannot be pickled"):
        stored(row_of_thing(pickled=_Unpicklable()), codec)


class _Unpicklable:
    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __reduce__(self) -> Any:
        raise TypeError("never")


def test_a_value_that_was_not_loaded_is_refused() -> None:
    """A row with a hole in it is no record, whatever the store allows."""
    row = CarefulRow(UNKNOWN if name == "code" else None for name in spec_of_mapped(Thing).attributes)
    for codec in (RecordCodec(), RecordCodec(allow_pickle=True)):
        with pytest.raises(EncodeError, match=r"^Thing\.code was not loaded"):
            stored(row, codec)


def test_json_that_is_nested_too_deep_is_refused() -> None:
    """What Python could not copy is neither written nor read."""
    deep: Any = {}
    for _ in range(MAX_DEPTH):
        deep = {"a": deep}
    place = spec_of_mapped(Thing).attributes.index("data")
    row = (*row_of_thing()[:place], deep, *row_of_thing()[place + 1 :])
    with pytest.raises(EncodeError, match=r"^Thing\.data .*nested"):
        stored(row)
    data = stored(row_of_thing())
    for payload in (msgspec.msgpack.encode(row), b"\xdc\x00\x12" + b"\x91" * 100_000):
        for variant in (TYPED, TAGGED):
            with pytest.raises(DecodeError):
                decoded(resealed(data, payload=payload, variant=variant))


@pytest.mark.parametrize("variant", [TYPED, TAGGED])
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc0",
        b"\x90",
        b"\xdd\xff\xff\xff\xff",
        b"\xdc\x00\x12" + b"\xdb\xff\xff\xff\xff" * 18,
        b"\xdc\x00\x12\x02" + b"\xc0" * 17,
        b"\xdc\x00\x12\x01" + b"\xc0" * 18,
        b"\xdc\x00\x12\x01" + b"\xc0" * 16,
    ],
)
def test_no_row_is_made_of_other_bytes(payload: bytes, variant: int) -> None:
    """Other bytes than a row of this very identity are a DecodeError, though the checksum is right."""
    with pytest.raises(DecodeError):
        decoded(resealed(stored(row_of_thing()), payload=payload, variant=variant))


def test_every_column_has_its_type() -> None:
    """A typed row with a value of a wrong type in it is a DecodeError, whichever column it is in."""
    spec, data = spec_of_mapped(Thing), stored(row_of_thing())
    wrong = {"odd": msgspec.msgpack.Ext(5, b""), "pickled": datetime(2026, 1, 1, tzinfo=timezone.utc)}
    for name in spec.attributes:
        values = {"id": 1, name: wrong.get(name, {1: 2})}
        payload = msgspec.msgpack.encode([values.get(each) for each in spec.attributes])
        with pytest.raises(DecodeError):
            decoded(resealed(data, payload=payload, variant=TYPED))


@given(st.data())
def test_hostile_rows_are_rows_of_the_key_or_decode_errors(data: st.DataObject) -> None:
    """Whatever msgpack stands where a row is expected, nothing but a row of the key, or a DecodeError, comes of it."""
    spec, whole = spec_of_mapped(Thing), stored(row_of_thing(**FULL))
    packable = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
        | st.builds(msgspec.msgpack.Ext, st.integers(-128, 127) | st.integers(1, 53), st.binary()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(-5, 5), inner),
        max_leaves=6,
    )  # fmt: skip
    payload = data.draw(
        st.binary()
        | st.builds(msgspec.msgpack.encode, packable)
        | st.lists(packable, min_size=17, max_size=17).map(lambda rest: msgspec.msgpack.encode([1, *rest]))
        | st.integers(0, len(whole) * 8 - 1).map(lambda bit: _flipped(whole[HEADER.size :], bit))
        | st.integers(0, len(whole)).map(lambda length: whole[HEADER.size :][:length])
    )
    try:
        found = decoded(resealed(whole, payload=payload, variant=data.draw(st.integers(0, 2))))
    except DecodeError:
        return
    assert len(found) == len(spec.attributes)
    assert spec.value_in(found, "id") == 1
    spec.revive(found)


def _flipped(payload: bytes, bit: int) -> bytes:
    flipped = bytearray(payload)
    flipped[bit // 8 % len(payload)] ^= 1 << bit % 8
    return bytes(flipped)


def test_rows_are_never_unpickled() -> None:
    """A pickle in place of a row, or as a tagged value in it, is a DecodeError and does not run."""
    data = stored(row_of_thing())
    bomb = pickle.dumps(Bomb())
    values = [1, *[None] * 16, msgspec.msgpack.Ext(4, bomb)]
    for payload in (bomb, msgspec.msgpack.encode(values)):
        for variant in (TYPED, TAGGED, 2):
            with pytest.raises(DecodeError):
                decoded(resealed(data, payload=payload, variant=variant))
    assert not Bomb.went_off


def test_allow_pickle_runs_what_was_written() -> None:
    """With allow_pickle, whoever can write a row can run code: unless the store signs."""
    values = msgspec.msgpack.encode([1, *[None] * 16, msgspec.msgpack.Ext(4, pickle.dumps(Bomb()))])
    for codec, runs in [
        (RecordCodec(SignedCodec(NEW), allow_pickle=True), False),
        (RecordCodec(allow_pickle=True), True),
    ]:
        forged = resealed(stored(row_of_thing(), codec), payload=values, variant=TAGGED)
        try:
            decoded(forged, codec)
        except DecodeError:
            assert not runs
        assert Bomb.went_off is runs
    Bomb.went_off = False


def test_a_row_of_the_right_types_is_believed() -> None:
    """Who can write to a store that does not sign can say what the values of a row are."""
    codec, signed = RecordCodec(), RecordCodec(SignedCodec(NEW))
    lie = stored(row_of_thing(code="a lie"), codec)
    assert spec_of_mapped(Thing).value_in(decoded(lie, codec), "code") == "a lie"
    with pytest.raises(DecodeError, match="sign"):
        decoded(lie, signed)


def test_what_listeners_make_of_a_row_is_theirs() -> None:
    """A list where SQLAlchemy wants a dict for a MutableDict is a row, of which its own listener makes no instance."""
    spec = spec_of_mapped(Thing)
    lie = spec.attributes.index("mutable")
    row = tuple([1] if i == lie else value for i, value in enumerate(row_of_thing()))
    with pytest.raises(ValueError, match="does not accept"):
        spec.materialise(decoded(stored(row)))


def test_a_row_of_another_class_of_the_hierarchy_is_what_it_is() -> None:
    """Under an identity stands one row, whatever class is asked: it comes back with its own spec."""
    codec, spec = RecordCodec(), spec_of_mapped(Dog)
    row = spec.dehydrate(Dog(id=1, kind="dog", name="Rex", tricks=3))
    data = stored(row, codec, spec, identity(Dog))
    for klass in (Animal, Dog, Cat):
        found = codec.decode(identity(klass), data, EPOCH)
        assert isinstance(found, Record)
        assert found.spec is spec
        assert found.value == row
    with pytest.raises(DecodeError, match="not its own"):
        codec.decode(identity(Animal, id=2), data, EPOCH)


def test_a_class_that_is_mapped_later_is_known() -> None:
    """A subclass that was defined after the first row was read is encoded and decoded as well."""
    codec = RecordCodec()
    stored(spec_of_mapped(Animal).dehydrate(Animal(id=1, name="a")), codec, spec_of_mapped(Animal), identity(Animal))
    local: Any = type("Bird", (Animal,), {"__mapper_args__": {"polymorphic_identity": "bird"}})
    row = spec_of_mapped(local).dehydrate(local(id=1, kind="bird", name="b"))
    data = stored(row, codec, spec_of_mapped(local), identity(Animal))
    for each in (codec, RecordCodec()):
        found = each.decode(identity(Animal), data, EPOCH)
        assert isinstance(found, Record)
        assert found.spec.klass is local


def test_an_alias_and_an_absence_are_the_hierarchys() -> None:
    """What was stored for one class of a hierarchy is read as any other, whose identity is the same."""
    codec = RecordCodec()
    dog, animal = identity(Dog, name="Rex"), identity(Animal, name="Rex")
    _, data = codec.encode(dog, Alias(identity(Dog)), EPOCH, 1.0)
    alias = codec.decode(animal, data, EPOCH)
    assert isinstance(alias, Alias)
    assert alias.identity == identity(Animal)
    assert alias.identity.spec is spec_of_mapped(Animal)
    _, data = codec.encode(identity(Dog), Record(spec_of_mapped(Dog), ABSENT), EPOCH, 1.0)
    absent = codec.decode(identity(Animal), data, EPOCH)
    assert isinstance(absent, Record)
    assert absent.is_absent


def test_an_alias_leads_to_an_identity_of_any_type() -> None:
    """Enum members and instants in an identity come back as what a key has."""
    codec, alternate = RecordCodec(), identity(Paint, name="x")
    target = identity(Paint, colour=Colour.RED, mixed_at=datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1))))
    _, data = codec.encode(alternate, Alias(target), EPOCH, 1.0)
    alias = codec.decode(alternate, data, EPOCH)
    assert isinstance(alias, Alias)
    assert alias.identity == target
    assert all(type(mine) is type(other) for mine, other in zip(alias.identity.values, target.values, strict=True))


@given(st.binary(max_size=40) | VALUES.map(lambda value: _packed([Colour.RED, value])), st.integers(0, 2))
def test_hostile_aliases_lead_to_keys_or_decode_errors(payload: bytes, variant: int) -> None:
    """Whatever stands where an alias is expected leads to a key of the class, or to a DecodeError."""
    codec, alternate = RecordCodec(), identity(Paint, name="x")
    target = identity(Paint, colour=Colour.RED, mixed_at=datetime(2026, 1, 1))
    _, data = codec.encode(alternate, Alias(target), EPOCH, 1.0)
    try:
        alias = codec.decode(alternate, resealed(data, payload=payload, variant=variant), EPOCH)
    except DecodeError:
        return
    assert isinstance(alias, Alias)
    assert alias.identity.text()


def _packed(values: list[Any]) -> bytes:
    from stockpyle.packing import Packer

    return Packer([Colour]).pack(values)


def test_another_schema_is_an_ordinary_miss() -> None:
    """A column more, another type, another name of an attribute, column or Enum member: each is None, no error."""

    def version_of(**columns: Any) -> tuple[MappedSpec, Row]:
        class Root(DeclarativeBase):
            pass

        table = {"__tablename__": "v", "id": mapped_column(sa.Integer, primary_key=True)}
        klass: Any = type("Version", (Root,), {**table, **columns})
        return spec_of_mapped(klass), (1, *[None] * len(columns))

    other = Enum("Colour", ["RED", "GREEN"])
    versions = [
        version_of(a=mapped_column(sa.String(5))),
        version_of(a=mapped_column(sa.String(6))),
        version_of(a=mapped_column("x", sa.String(5))),
        version_of(b=mapped_column("a", sa.String(5))),
        version_of(a=mapped_column(sa.Text)),
        version_of(a=mapped_column(sa.Enum(Colour))),
        version_of(a=mapped_column(sa.Enum(other))),
        version_of(a=mapped_column(sa.Enum("RED", "BLUE"))),
        version_of(a=mapped_column(sa.Numeric(10, 2))),
        version_of(a=mapped_column(sa.Numeric(10, 2, asdecimal=False))),
        version_of(a=mapped_column(sa.ARRAY(sa.Integer))),
        version_of(a=mapped_column(sa.ARRAY(sa.Text))),
        version_of(a=mapped_column(Odd)),
        version_of(a=mapped_column(sa.Interval)),
        version_of(a=mapped_column(sa.String(5)), b=mapped_column(sa.String(5))),
        version_of(),
    ]
    for i, (spec, row) in enumerate(versions):
        key = spec.key({"id": 1})
        data = stored(row, None, spec, key)
        for j, (reader, _) in enumerate(versions):
            found = RecordCodec().decode(reader.key({"id": 1}), data, EPOCH)  # type: ignore[arg-type]
            assert (found is not None) is (i == j)


@pytest.mark.parametrize("settings", [{"allow_pickle": True}, {"codec": SignedCodec(NEW)}])
def test_other_settings_are_an_ordinary_miss(settings: Any) -> None:
    """Rows that a store with other settings wrote are not read, and are no error."""
    assert decoded(stored(row_of_thing(), RecordCodec(**settings))) is None


def test_rows_are_signed() -> None:
    """In a store that signs, a row comes back, and one that was changed or moved does not."""
    codec = RecordCodec(SignedCodec(NEW))
    data = stored(row_of_thing(**FULL), codec)
    same(decoded(data, codec), row_of_thing(**FULL))
    with pytest.raises(DecodeError, match="signature"):
        decoded(resealed(data, deadline=9e9), codec)
    with pytest.raises(DecodeError, match="signature"):
        decoded(data, codec, identity(Thing, id=2))


FINGERPRINT = "b136c6345710d864"


def test_fingerprints_are_the_same_everywhere() -> None:
    """A row's fingerprint depends neither on the process nor on the version of Python or SQLAlchemy."""
    script = "from tests.orm.test_packing import *; import sys; sys.stdout.write(stored(row_of_thing())[25:33].hex())"
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == stored(row_of_thing())[25:33].hex() == FINGERPRINT


class Plain(Base):
    __tablename__ = "plain_things"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    ratio: Mapped[float | None]


def test_usual_rows_are_read_as_any_other() -> None:
    """What reads rows of one epoch quickly returns what decode() does, and of all else nothing."""
    codec, spec = RecordCodec(), spec_of_mapped(Plain)
    key, other = spec.key({"id": 1}), spec.key({"id": 2})
    assert key is not None
    assert other is not None
    read = codec.reader(spec, EPOCH)
    assert read is not None
    for deadline in (None, 1000.0):
        kind, data = codec.encode(key, Record(spec, (1, "a", 1.5), deadline), EPOCH, 10.0)
        assert kind is Kind.RECORD
        found = read(key, data, 20.0)
        assert found is not None
        assert (found.spec, found.value, found.deadline) == (spec, (1, "a", 1.5), deadline)
        assert read(other, data, 20.0) is None
        assert (read(key, data, 1000.0) is None) == (deadline is not None)
        assert codec.reader(spec, bytes(16))(key, data, 20.0) is None  # type: ignore[misc]
        for length in range(len(data)):
            assert read(key, data[:length], 20.0) is None
        for bit in range(len(data) * 8):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            assert read(key, bytes(flipped), 20.0) is None
    for value in (ABSENT, (1, 5, 1.5), (True, "a", 1.5)):
        _, data = codec.encode(key, Record(spec, value, None), EPOCH, 10.0)
        assert read(key, data, 20.0) is None


def test_what_has_no_usual_rows() -> None:
    """Signed stores, and classes whose rows need a second look, have no quick way; what lives is told in any case."""
    spec = spec_of_mapped(Plain)
    signed = RecordCodec(SignedCodec(NEW))
    assert signed.reader(spec, EPOCH) is None
    assert RecordCodec().reader(spec_of_mapped(Thing), EPOCH) is None
    assert RecordCodec().reader(spec_of_mapped(Paint), EPOCH) is None
    key = spec.key({"id": 1})
    assert key is not None
    _, data = signed.encode(key, Record(spec, (1, "a", 1.5), 1000.0), EPOCH, 10.0)
    found = signed.live(key, data, EPOCH, 20.0)
    assert found is not None
    assert found.value == (1, "a", 1.5)
    assert signed.live(key, data, EPOCH, 1000.0) is None
    assert signed.live(key, data[:-1], EPOCH, 20.0) is None
