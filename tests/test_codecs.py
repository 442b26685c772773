"""Objects of plain classes as bytes, the envelope of all bytes, and signatures."""

from __future__ import annotations

import math
import os
import pickle
import struct
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from enum import Enum
from fractions import Fraction
from typing import Any
from uuid import UUID
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockpyle.classes import spec_of
from stockpyle.codecs import Codec, Kind, PickleCodec, RecordCodec, SignedCodec
from stockpyle.exceptions import DecodeError, EncodeError, ImproperlyConfigured, MissingDependency
from stockpyle.keys import Key
from stockpyle.packing import MAX_DEPTH, Packer, Unpackable
from stockpyle.records import ABSENT, Alias, Record
from stockpyle.testing.samples import Automobile, Car, Person, Pet

EPOCH = b"0123456789abcdef"
OLD, NEW = b"an old key of 16", b"a new key of 16."
HEADER = struct.Struct("!2sBBIB16s8sdd")


class Colour(Enum):
    RED = 1


class Bomb:
    """Its pickle says that it ran."""

    went_off = False

    def __reduce__(self) -> Any:
        return _explode, ()

    def __deepcopy__(self, memo: Any) -> Any:
        return self


def _explode() -> None:
    Bomb.went_off = True


class TextCodec:
    """Person as its id alone."""

    name = "text 1"

    def encode(self, obj: Any) -> bytes:
        return str(obj.id).encode()

    def decode(self, klass: type, data: bytes) -> Any:
        return klass(int(data))


def key_of(klass: type, **values: Any) -> Key:
    """Return a key of a class."""
    key = spec_of(klass).key(values)
    assert key is not None
    return key


def record_of(obj: Any, deadline: float | None = None) -> Record:
    """Return the record of a plain object."""
    return Record(spec_of(type(obj)), obj, deadline)


def stored(codec: RecordCodec, obj: Any, key: Key | None = None) -> bytes:
    """Return what a store keeps of an object."""
    return codec.encode(key or spec_of(type(obj)).keys_of(obj)[0], record_of(obj), EPOCH, 1.0)[1]


def resealed(data: bytes, **changed: Any) -> bytes:
    """Change parts of stored bytes, and give them the checksum that they then must have."""
    names = ["magic", "version", "kind", "crc", "variant", "epoch", "fingerprint", "stored", "deadline"]
    parts = dict(zip(names, HEADER.unpack_from(data), strict=True), payload=data[HEADER.size :])
    parts.update(changed)
    checked = HEADER.pack(*(parts[name] for name in names))[8:] + parts["payload"]
    return (
        struct.pack("!2sBBI", parts["magic"], parts["version"], parts["kind"], crc32(checked, parts["kind"])) + checked
    )


@pytest.mark.parametrize("codec", [RecordCodec(), RecordCodec(SignedCodec(NEW))], ids=["plain", "signed"])
@pytest.mark.parametrize("deadline", [None, 5.25])
def test_an_object_an_alias_and_an_absence_come_back(codec: RecordCodec, deadline: float | None) -> None:
    """What is stored under a key comes back with its kind and its deadline."""
    identity, alternate = key_of(Person, id=1), key_of(Person, email="a")
    kind, data = codec.encode(identity, record_of(Person(1, email="a"), deadline), EPOCH, 1.0)
    found = codec.decode(identity, data, EPOCH)
    assert kind is Kind.RECORD
    assert isinstance(found, Record)
    assert (found.spec, found.value.email, found.deadline) == (identity.spec, "a", deadline)

    kind, data = codec.encode(alternate, Alias(identity, deadline), EPOCH, 1.0)
    alias = codec.decode(alternate, data, EPOCH)
    assert kind is Kind.ALIAS
    assert isinstance(alias, Alias)
    assert (alias.identity, alias.deadline) == (identity, deadline)

    for key in (identity, alternate):
        kind, data = codec.encode(key, Record(key.spec, ABSENT, deadline), EPOCH, 1.0)
        absent = codec.decode(key, data, EPOCH)
        assert kind is Kind.ABSENT
        assert isinstance(absent, Record)
        assert (absent.is_absent, absent.deadline) == (True, deadline)


def test_a_subclass_stored_under_its_bases_key_comes_back_as_itself() -> None:
    """A Car that a polymorphic store keeps as an Automobile is decoded as a Car, with the Car's spec."""
    codec, key = RecordCodec(), key_of(Automobile, plate="P")
    found = codec.decode(key, stored(codec, Car("P"), key), EPOCH)
    assert isinstance(found, Record)
    assert type(found.value) is Car
    assert found.spec is spec_of(Car)


@pytest.mark.parametrize("value", [Colour.RED, Fraction(1, 3), UUID(int=7), 2**80, "\ud800", b"\0"])
def test_an_alias_leads_to_any_identity(value: Any) -> None:
    """Every kind of key value can be that of an identity."""
    codec, alternate = RecordCodec(), key_of(Pet, tag=1)
    _, data = codec.encode(alternate, Alias(key_of(Pet, id=value)), EPOCH, 1.0)
    alias = codec.decode(alternate, data, EPOCH)
    assert isinstance(alias, Alias)
    assert alias.identity == key_of(Pet, id=value)


def test_a_codec_of_ones_own_is_used() -> None:
    """encode and decode of the given codec are what objects go through, its name what tells its bytes apart."""
    codec, key = RecordCodec(TextCodec()), key_of(Person, id=7)
    data = stored(codec, Person(7))
    found = codec.decode(key, data, EPOCH)
    assert data.endswith(b"7")
    assert isinstance(found, Record)
    assert found.value.id == 7
    assert RecordCodec().decode(key, data, EPOCH) is None
    assert isinstance(TextCodec(), Codec)


@pytest.mark.parametrize("codec", ["pickle", TextCodec, object(), 5])
def test_what_is_no_codec_is_refused(codec: Any) -> None:
    """A codec without the three members, or its class, is refused when it is given."""
    with pytest.raises(ImproperlyConfigured, match="codec is an object with a name"):
        RecordCodec(codec)


@pytest.mark.parametrize("options", [{"allow_pickle": "no"}, {"allow_pickle": 1}, {"prefix": 5}, {"prefix": "a b"}])
def test_options_that_make_no_sense(options: Any) -> None:
    """Text that is meant to forbid pickles does not allow them: what is not True or False is refused, and no prefix."""
    with pytest.raises(ImproperlyConfigured, match=next(iter(options))):
        RecordCodec(**options)


def test_what_cannot_be_pickled_is_named() -> None:
    """An object with a lambda in it is an EncodeError that names its class and what to do."""
    with pytest.raises(EncodeError, match=r"Person.*__getstate__"):
        stored(RecordCodec(), Person(1, name=lambda: None))


@pytest.mark.parametrize(
    ("settings", "klass"),
    [
        ({"codec": TextCodec()}, Person),
        ({"allow_pickle": True}, Person),
        ({"codec": SignedCodec(NEW)}, Person),
    ],
)
def test_other_settings_are_an_ordinary_miss(settings: Any, klass: type) -> None:
    """What a store with another codec has written is not read, and is no error."""
    assert RecordCodec().decode(key_of(klass, id=1), stored(RecordCodec(**settings), klass(1)), EPOCH) is None


def test_another_epoch_or_format_is_an_ordinary_miss() -> None:
    """Bytes of another epoch, or of a later format, are None whatever else they are."""
    codec, key = RecordCodec(), key_of(Person, id=1)
    data = stored(codec, Person(1))
    assert codec.decode(key, data, b"f" * 16) is None
    assert codec.decode(key, resealed(data, version=2), EPOCH) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"magic": b"XX"},
        {"kind": Kind.LEASE},
        {"kind": Kind.LOCK},
        {"kind": 77},
        {"variant": 9},
        {"deadline": math.nan},
        {"deadline": -math.inf},
        {"payload": b""},
        {"payload": b"no pickle"},
        {"payload": pickle.dumps(Pet(1))},
        {"payload": pickle.dumps(Person(2))},
        {"payload": b"cno_such_module\nname\n."},
        {"payload": b"cstockpyle.testing.samples\nno_such_name\n."},
    ],
)
def test_what_encode_has_not_written_is_a_decode_error(changed: Any) -> None:
    """A wrong magic, kind, deadline, class or identity is a DecodeError, though the checksum is right."""
    codec, key = RecordCodec(), key_of(Person, id=1)
    with pytest.raises(DecodeError):
        codec.decode(key, resealed(stored(codec, Person(1)), **changed), EPOCH)


def test_every_cut_and_every_flipped_bit_is_seen() -> None:
    """Truncated bytes, and bytes with one bit changed, are a DecodeError or a miss of another epoch or format."""
    codec, key = RecordCodec(), key_of(Person, id=1)
    data = stored(codec, Person(1, email="a"))
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            codec.decode(key, data[:length], EPOCH)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        is_of_another_time = bit // 8 == 2 or 9 <= bit // 8 < 25
        try:
            assert codec.decode(key, bytes(flipped), EPOCH) is None
        except DecodeError:
            assert not is_of_another_time
        else:
            assert is_of_another_time


def test_an_alias_under_an_identity_is_refused() -> None:
    """What stands under an identity is a record, never an alias to another one."""
    codec, key = RecordCodec(), key_of(Person, id=1)
    _, data = codec.encode(key, Alias(key_of(Person, id=2)), EPOCH, 1.0)
    with pytest.raises(DecodeError):
        codec.decode(key, data, EPOCH)


@given(st.binary(max_size=60), st.integers(0, 2))
def test_any_alias_is_an_alias_or_a_decode_error(payload: bytes, variant: int) -> None:
    """Whatever stands where an alias is expected leads to a key, or to a DecodeError."""
    codec, key = RecordCodec(TextCodec()), key_of(Person, org=1, login="a")
    _, data = codec.encode(key, Alias(key_of(Person, id=1)), EPOCH, 1.0)
    try:
        found = codec.decode(key, resealed(data, payload=payload, variant=variant), EPOCH)
    except DecodeError:
        return
    assert isinstance(found, Alias)
    hash(found.identity)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**63)
    | st.floats(allow_nan=False)
    | st.text(st.characters())
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.fractions()
    | st.ip_addresses(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(st.integers() | st.tuples(st.integers()), inner)
        | st.tuples(inner, inner)
        | st.sets(st.integers() | st.text())
        | st.frozensets(st.integers() | st.text())
    ),
    max_leaves=8,
)


@given(st.lists(VALUES, max_size=4))
def test_packed_values_come_back_equal_and_of_the_same_types(values: list[Any]) -> None:
    """Whatever is packed is unpacked as an equal value of the very type, inside containers as well."""
    packer = Packer()
    same(packer.unpack(packer.pack(values)), values)


def same(found: Any, expected: Any) -> None:
    """Assert that two values are equal and of the same types, all the way down."""
    assert type(found) is type(expected)
    if isinstance(expected, datetime) and expected.tzinfo is not None:
        # of the two instants that one local time may mean, only those in the same zone are equal to each other
        assert found - expected.replace(tzinfo=timezone(expected.utcoffset() or timedelta())) == timedelta()
        return
    if not isinstance(expected, list | tuple | dict):
        assert found == expected
    if isinstance(expected, list | tuple):
        for mine, other in zip(found, expected, strict=True):
            same(mine, other)
    elif isinstance(expected, dict):
        same(list(found.items()), list(expected.items()))
    elif isinstance(expected, float):
        assert math.copysign(1, found) == math.copysign(1, expected)


def test_what_cannot_be_copied_is_not_packed() -> None:
    """Values nested deeper than MAX_DEPTH are refused on the way in and on the way out."""
    packer = Packer()
    deep: list[Any] = []
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    assert packer.unpack(packer.pack([deep])) == [deep]
    with pytest.raises(Unpackable, match="nested"):
        packer.pack([[deep]])
    with pytest.raises(DecodeError):
        packer.unpack(b"\x91" * (MAX_DEPTH + 2) + b"\x90")


def test_pickles_among_packed_values_are_refused() -> None:
    """A packer that was not told to pickle unpickles nothing, whatever the bytes say."""
    pickled = Packer(pickles=True).pack([Bomb()])
    with pytest.raises(DecodeError):
        Packer().unpack(pickled)
    assert not Bomb.went_off
    with pytest.raises(Unpackable, match="Bomb"):
        Packer().pack([Bomb()])


@pytest.mark.parametrize("keys", [(), ("text that is long",), (b"short",), (NEW, b"short")])
def test_a_weak_key_is_refused(keys: Any) -> None:
    """A signing key is at least 16 bytes, and the error does not show it."""
    with pytest.raises(ImproperlyConfigured, match="16 secret") as caught:
        SignedCodec(*keys)
    assert "short" not in str(caught.value)


def test_keys_can_be_changed_while_processes_run() -> None:
    """The first key signs; what another of the keys has signed is read; what none has signed is not."""
    old, both, new = (RecordCodec(SignedCodec(*keys)) for keys in [(OLD,), (NEW, OLD), (NEW,)])
    key = key_of(Person, id=1)
    assert both.decode(key, stored(old, Person(1)), EPOCH) is not None
    assert new.decode(key, stored(both, Person(1)), EPOCH) is not None
    with pytest.raises(DecodeError, match="signature"):
        new.decode(key, stored(old, Person(1)), EPOCH)


@pytest.mark.parametrize("kind", [Kind.RECORD, Kind.ALIAS, Kind.ABSENT])
def test_nothing_unsigned_is_read(kind: Kind) -> None:
    """Records, aliases and absences without a signature, or with a changed byte anywhere, are DecodeErrors."""
    codec = RecordCodec(SignedCodec(NEW))
    key = key_of(Person, email="a") if kind is Kind.ALIAS else key_of(Person, id=1)
    value: Any = {
        Kind.RECORD: record_of(Person(1)),
        Kind.ALIAS: Alias(key_of(Person, id=1)),
        Kind.ABSENT: Record(key.spec, ABSENT),
    }[kind]
    _, data = codec.encode(key, value, EPOCH, 1.0)
    for place in [8, *range(25, len(data))]:
        forged = bytearray(data)
        forged[place] ^= 1
        with pytest.raises(DecodeError, match="signature"):
            codec.decode(key, resealed(bytes(forged)), EPOCH)
    with pytest.raises(DecodeError, match="signature"):
        codec.decode(key, resealed(data, epoch=b"f" * 16), b"f" * 16)
    with pytest.raises(DecodeError, match="sign"):
        codec.decode(key, resealed(data, payload=data[HEADER.size : -32]), EPOCH)
    with pytest.raises(DecodeError, match="sign"):
        codec.decode(key, RecordCodec().encode(key, value, EPOCH, 1.0)[1], EPOCH)


def test_a_signed_value_is_good_under_its_own_key_only() -> None:
    """Signed bytes that were moved under another key, prefix or kind are DecodeErrors."""
    codec, key = RecordCodec(SignedCodec(NEW)), key_of(Person, id=1)
    _, absent = codec.encode(key, Record(key.spec, ABSENT), EPOCH, 1.0)
    with pytest.raises(DecodeError, match="signature"):
        codec.decode(key_of(Person, id=2), absent, EPOCH)
    with pytest.raises(DecodeError, match="signature"):
        RecordCodec(SignedCodec(NEW), prefix="other").decode(key, absent, EPOCH)
    with pytest.raises(DecodeError, match="signature"):
        codec.decode(key, resealed(absent, kind=Kind.RECORD), EPOCH)


def test_a_forged_pickle_never_runs_in_a_signed_store() -> None:
    """The signature is verified before anything is unpickled; an unsigned store would have run it."""
    key, bomb = key_of(Person, id=1), pickle.dumps(Bomb())
    signed, unsigned = RecordCodec(SignedCodec(NEW)), RecordCodec()
    data = stored(signed, Person(1))
    with pytest.raises(DecodeError, match="signature"):
        signed.decode(key, resealed(data, payload=bomb + data[-32:]), EPOCH)
    assert not Bomb.went_off
    with pytest.raises(DecodeError):
        unsigned.decode(key, resealed(stored(unsigned, Person(1)), payload=bomb), EPOCH)
    assert Bomb.went_off
    Bomb.went_off = False


def test_a_codec_of_ones_own_keeps_pickle_out() -> None:
    """With a codec that does not pickle, no pickle is read: neither as an object nor as an alias."""
    codec, key, alternate = RecordCodec(TextCodec()), key_of(Person, id=1), key_of(Person, email="a")
    _, alias = codec.encode(alternate, Alias(key), EPOCH, 1.0)
    for under, data in [(key, stored(codec, Person(1))), (alternate, alias)]:
        for variant in (0, 1):
            with pytest.raises(DecodeError):
                codec.decode(under, resealed(data, payload=pickle.dumps(Bomb()), variant=variant), EPOCH)
    assert not Bomb.went_off


def test_an_older_signed_value_is_believed() -> None:
    """A signature does not say that there is no newer value: this is the documented limit of signing."""
    codec, key = RecordCodec(SignedCodec(NEW)), key_of(Person, id=1)
    older, _ = stored(codec, Person(1, name="old")), stored(codec, Person(1, name="new"))
    found = codec.decode(key, older, EPOCH)
    assert isinstance(found, Record)
    assert found.value.name == "old"


def test_signed_bytes_can_be_read() -> None:
    """A signature hides nothing: whoever can read the store can read the objects."""
    assert b"a secret" in stored(RecordCodec(SignedCodec(NEW)), Person(1, name="a secret"))


def test_a_signed_codec_alone_signs_each_object() -> None:
    """Outside a store's envelope, SignedCodec is a codec whose bytes nobody else can make."""
    codec = SignedCodec(NEW, codec=PickleCodec())
    data = codec.encode(Person(1))
    assert codec.decode(Person, data).id == 1
    with pytest.raises(DecodeError, match="signature"):
        codec.decode(Person, data[:5] + b"x" + data[6:])


def test_fingerprints_are_the_same_in_every_process() -> None:
    """The same object is the same bytes in a process with another hash seed."""
    script = (
        "from tests.test_codecs import *; import sys;sys.stdout.write(stored(RecordCodec(), Person(1))[25:33].hex())"
    )
    made = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert made == [stored(RecordCodec(), Person(1))[25:33].hex()] * 2


def test_a_missing_msgspec_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without msgspec the codec is refused when it is made, with the line that installs it."""
    monkeypatch.setitem(sys.modules, "msgspec", None)
    monkeypatch.setitem(sys.modules, "msgspec.msgpack", None)
    with pytest.raises(MissingDependency, match=r"pip install 'stockpyle\[memcache\]'"):
        RecordCodec()


def test_records_found_by_something_else_than_their_identity() -> None:
    """decode_stored gives the object that was stored under a text, if the text is that of its own identity."""
    codec = RecordCodec(SignedCodec(OLD))
    ann, spec = Person(1, "ann@x"), spec_of(Person)
    own, other = (key_of(Person, id=number).text() for number in (1, 2))
    found = codec.decode_stored(spec, own, stored(codec, ann), EPOCH)
    assert found is not None
    assert found.value.email == "ann@x"
    with pytest.raises(DecodeError, match="signature"):
        codec.decode_stored(spec, other, stored(codec, ann), EPOCH)
    plain = RecordCodec()
    with pytest.raises(DecodeError, match="identity that is not its own"):
        plain.decode_stored(spec, other, stored(plain, ann), EPOCH)
    _, alias = plain.encode(key_of(Person, email="ann@x"), Alias(key_of(Person, id=1)), EPOCH, 1.0)
    with pytest.raises(DecodeError, match="no object"):
        plain.decode_stored(spec, own, alias, EPOCH)
    assert plain.decode_stored(spec, own, stored(plain, ann), b"another epoch.." + b".") is None
    lost = Person(1)
    data = stored(plain, lost)
    assert plain.decode_stored(spec_of(Pet), own, data, EPOCH) is None
