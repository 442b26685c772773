"""Records that are compressed before they are stored."""

from __future__ import annotations

import os
import struct
import zlib
from typing import Any

import pytest

from stockpyle.classes import spec_of
from stockpyle.codecs import RecordCodec, SignedCodec
from stockpyle.compression import LARGEST, deflated, inflated
from stockpyle.exceptions import DecodeError, ImproperlyConfigured
from stockpyle.keys import Key
from stockpyle.records import Record
from stockpyle.stores import MemcacheStore, RedisStore
from stockpyle.testing.samples import Person
from tests.ext.models import User

EPOCH = b"0123456789abcdef"
LONG = "a long text " * 1000


def key_of(klass: type) -> Key:
    """Return the key of number 1."""
    key = spec_of(klass).key({"id": 1})
    assert key is not None
    return key


def stored(codec: RecordCodec, obj: Any) -> bytes:
    """Return an object's bytes."""
    spec = spec_of(type(obj))
    return codec.encode(key_of(type(obj)), Record(spec, spec.dehydrate(obj)), EPOCH, 1.0)[1]


@pytest.mark.parametrize("codec", [None, SignedCodec(b"a key of 16 byte")], ids=["plain", "signed"])
@pytest.mark.parametrize("obj", [Person(1, name=LONG), User(id=1, name=LONG)], ids=["object", "row"])
def test_what_is_longer_is_compressed_and_comes_back(obj: Any, codec: SignedCodec | None) -> None:
    """A record that takes more bytes is stored in fewer, and every process reads it, told to compress or not."""
    smaller, never = RecordCodec(codec, compress_over=1000), RecordCodec(codec)
    data = stored(smaller, obj)
    assert len(data) < len(stored(never, obj)) / 10
    for reader in (smaller, never):
        found = reader.decode(key_of(type(obj)), data, EPOCH)
        assert isinstance(found, Record)
        assert found.spec.materialise(found.value).name == LONG


def test_what_is_shorter_or_would_be_longer_is_not() -> None:
    """What does not take more bytes is stored as it is, and so is what gains nothing."""
    smaller, never = RecordCodec(compress_over=1000), RecordCodec()
    for obj in (Person(1, name="a" * 500), Person(1, name=os.urandom(5000))):
        assert stored(smaller, obj) == stored(never, obj)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"abc",
        b"\0\0\0\1",
        b"\0\0\0\1x",
        struct.pack("!I", 4) + zlib.compress(b"four!"),
        struct.pack("!I", 6) + zlib.compress(b"four!"),
        struct.pack("!I", 5) + zlib.compress(b"four!")[:-1],
        struct.pack("!I", 5) + zlib.compress(b"four!") + b"x",
        struct.pack("!I", 5) + zlib.compress(b"x" * 1_000_000),
        struct.pack("!I", 2**32 - 1) + zlib.compress(b"x" * 1_000_000),
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    """What deflated() has not written is a DecodeError, and no more of it is inflated than it may be."""
    with pytest.raises(DecodeError):
        inflated(data)


def test_a_bomb_is_not_inflated() -> None:
    """Bytes of which more would come than anybody writes are refused; and what is so long is not compressed."""
    stream = zlib.compressobj()
    chunks = [stream.compress(b"x" * 2**20) for _ in range(LARGEST // 2**20 + 1)]
    bomb = struct.pack("!I", LARGEST + 2**20) + b"".join(chunks) + stream.flush()
    with pytest.raises(DecodeError):
        inflated(bomb)
    assert deflated(b"x" * (LARGEST + 1)) is None


@pytest.mark.parametrize("wrong", [-1, True, 1.5, "2ki"])
def test_a_wrong_threshold_is_refused(wrong: Any) -> None:
    """compress_over is a number of bytes, or None."""
    with pytest.raises(ImproperlyConfigured, match="compress_over"):
        RecordCodec(compress_over=wrong)


def test_stores_compress(memcached: tuple[str, int], redis_server: str) -> None:
    """MemcacheStore and RedisStore take the threshold, and keep fewer bytes; others read them."""
    for store, other in (
        (MemcacheStore(servers=[memcached], compress_over=1000), MemcacheStore(servers=[memcached])),
        (RedisStore(redis_server, compress_over=1000), RedisStore(redis_server)),
    ):
        store.put(Person(1, name=LONG))
        kept = store.execute("get", key_of(Person).text(store.prefix))
        (data,) = kept.values() if isinstance(kept, dict) else [kept]
        assert len(data) < 1000
        assert other.get(Person, {"id": 1}).name == LONG
