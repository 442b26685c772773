"""What a ShoveStore makes of the places that objects are kept in."""

from __future__ import annotations

import dbm.dumb
import logging
import pickle
import shelve
import subprocess
import sys
from collections.abc import MutableMapping
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
import diskcache
import pytest

from stockpyle.exceptions import (
    DecodeError,
    EncodeError,
    ImproperlyConfigured,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
)
from stockpyle.stores import ChainedStore, ProcessMemoryStore, ShoveStore
from stockpyle.stores.shove import import_shove
from stockpyle.testing import Car, Clock, Person, Pet
from tests.forks import child_says
from tests.test_docs import ROOT, blocks

ON_DISK = ["file", "lite", "dbm"]


@pytest.fixture(params=ON_DISK)
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of a place on disk."""
    return f"{request.param}://{tmp_path / 'kept'}"


def run(code: str, *arguments: str) -> str:
    """Run Python code in a process of its own, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# importing shove


def test_shove_is_imported_and_leaves_nothing_behind() -> None:
    """After the import of shove no module has the names that it asked for, and nothing was warned of."""
    told = run(
        """
import collections, sys, warnings
warnings.simplefilter("error")
from stockpyle.stores import ShoveStore
assert "shove" not in sys.modules
ShoveStore(shoveuri="simple://")
from shove.core import Shove
Shove("simple://")["a"] = 1
print([name for name in ("MutableMapping", "Mapping", "Sequence") if hasattr(collections, name)], end=" ")
print("pkg_resources" in sys.modules)
"""
    )
    assert told == "[] False"


def test_an_imported_pkg_resources_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has imported pkg_resources has the same one afterwards."""
    told = run(
        """
import sys
sys.modules["pkg_resources"] = "mine"
from stockpyle.stores.shove import import_shove
import_shove()
print(sys.modules["pkg_resources"])
"""
    )
    assert told == "mine"


def test_missing_shove_is_named() -> None:
    """Without shove a URI is an error with the pip line; a mapping needs none."""
    told = run(
        """
import sys
sys.modules["shove"] = None
from stockpyle.stores import ShoveStore
from stockpyle.exceptions import MissingDependency
ShoveStore({})
try:
    ShoveStore(shoveuri="simple://")
except MissingDependency as error:
    import collections
    print(error, hasattr(collections, "Mapping"))
"""
    )
    assert "pip install 'stockpyle[shove]'" in told
    assert told.endswith("False")


# what makes a store


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, r"either a mapping \(shove=\) or a URI \(shoveuri=\)"),
        ({"shove": {}, "shoveuri": "simple://"}, "either a mapping"),
        ({"shove": "file:///tmp"}, r"ShoveStore\(shoveuri=...\)"),
        ({"shove": 5}, "mutable mapping, not 5"),
        ({"shoveuri": "nowhere"}, "'nowhere' is no URI of a shove"),
        ({"shoveuri": 5}, "5 is no URI of a shove"),
        ({"shoveuri": "file://"}, "names no path"),
        ({"shoveuri": "file:///proc/nothing/here"}, "file:///proc/nothing/here cannot be opened"),
        ({"shoveuri": "lite:///proc/nothing/here"}, "cannot be opened"),
    ],
)
def test_what_makes_no_store(options: Any, says: str) -> None:
    """Exactly one of the two, of the right kind, that can be opened."""
    with pytest.raises(ImproperlyConfigured, match=says):
        ShoveStore(**options)


def test_s3_is_told_what_to_do_instead() -> None:
    """The seed's S3 URI names the schemes there are, how to pass a mapping, and none of its secrets."""
    with pytest.raises(ImproperlyConfigured) as told:
        ShoveStore(shoveuri="s3://s3key:s3secret@whatever_bucket_name_you_want")
    assert "dbm, file, lite, memory, simple" in str(told.value)
    assert "ShoveStore(shove=...)" in str(told.value)
    assert "docs/shove.md" in str(told.value)
    assert "s3secret" not in str(told.value)


# durable


def test_what_is_put_is_there_for_another_process(uri: str) -> None:
    """One put is seen by another process, though this one closes nothing; and the other way round."""
    store = ShoveStore(shoveuri=uri)
    store.put(Person(1, "ann@x", name="one"))
    if uri.startswith("dbm"):
        # some of its kinds let in one process only
        store.close()
    told = run(
        """
import sys, os
from stockpyle.stores import ShoveStore
from stockpyle.testing import Person
store = ShoveStore(shoveuri=sys.argv[1])
print(store.get(Person, {"email": "ann@x"}).name, flush=True)
store.put(Person(1, "new@x", name="two"))
os._exit(0)
""",
        uri,
    )
    assert told == "one"
    if uri.startswith("dbm"):
        store = ShoveStore(shoveuri=uri)
    assert store.get(Person, {"email": "new@x"}).name == "two"  # type: ignore[union-attr]
    assert store.get(Person, {"email": "ann@x"}) is None


def test_a_shove_of_the_users_own_is_written_at_once(tmp_path: Path) -> None:
    """A Shove that was passed in keeps no put in its buffer, reads nothing from its cache, and goes on as it was."""
    shove_class = import_shove().Shove
    mine, other = (shove_class(f"file://{tmp_path}") for _ in range(2))
    mine["stockpyle:before"] = "unsaved"
    store = ShoveStore(mine)
    assert other["stockpyle:before"] == "unsaved"
    store.put(Person(1, name="one"))
    (text,) = [text for text in other if "Person" in text]
    assert other[text][0].name == "one"
    ShoveStore(shove_class(f"file://{tmp_path}")).put(Person(1, name="two"))
    assert store.get(Person, {"id": 1}).name == "two"  # type: ignore[union-attr]
    store.put(Person(1, name="three"))
    assert mine[text][0].name == "three"


def test_a_shove_of_several_stores(tmp_path: Path) -> None:
    """A MultiShove writes each put to all of its stores, and is rid of what one of them could not write."""
    shove = import_shove().MultiShove(f"file://{tmp_path / 'one'}", f"file://{tmp_path / 'two'}")
    store = ShoveStore(shove)
    store.put(Person(2))
    (path,) = (tmp_path / "two").iterdir()
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match="Person:id=2"):
        store.put(Person(2, name="new"))
    store.put(Person(3))
    for place in ("one", "two"):
        assert ShoveStore(shoveuri=f"file://{tmp_path / place}").get(Person, {"id": 3}) is not None


@pytest.mark.parametrize("uri", ["file"], indirect=True)
def test_entries_are_tuples_under_readable_keys(uri: str) -> None:
    """A file has the readable key as its name, and the pickled pair of the object and when it expires in it."""
    clock = Clock()
    store = ShoveStore(shoveuri=uri, lifetime=60, clock=clock, prefix="app")
    store.put(Person(1, "ann@x"))
    names = sorted(path.name for path in Path(uri[7:]).iterdir())
    assert names[1] == "app%3Astockpyle.testing.samples.Person%3Aid%3D1"
    obj, expires = pickle.loads((Path(uri[7:]) / names[1]).read_bytes())
    assert obj.email == "ann@x"
    assert expires == datetime.fromtimestamp(clock.now + 60)


def test_a_shelve_is_durable_without_being_closed(tmp_path: Path) -> None:
    """Each write into a shelve is synced."""
    with dbm.dumb.open(str(tmp_path / "shelf"), "c") as file:
        ShoveStore(shelve.Shelf(file)).put(Person(1, name="one"))
        with dbm.dumb.open(str(tmp_path / "shelf"), "r") as again:
            assert len(again.keys()) == 1


# what goes wrong


@pytest.mark.parametrize("place", [*ON_DISK, "shove", "shelve", "diskcache", "s3"])
def test_a_poisoned_object_harms_no_other(place: str, tmp_path: Path, s3: str) -> None:
    """What cannot be pickled is an EncodeError that names its class; what was there stays, and other puts succeed."""
    mapping: Any = None
    if place == "shove":
        mapping = import_shove().Shove(f"file://{tmp_path / 'kept'}")
    elif place == "shelve":
        mapping = shelve.open(str(tmp_path / "kept"))  # noqa: SIM115
    elif place == "diskcache":
        mapping = diskcache.Cache(str(tmp_path / "kept"))
    elif place == "s3":
        client = client_of(s3)
        client.create_bucket(Bucket="poison")
        mapping = bucket(client, "poison")
    store = ShoveStore(mapping) if mapping is not None else ShoveStore(shoveuri=f"{place}://{tmp_path / 'kept'}")
    store.put(Person(1, "ann@x", name="good"))
    for _ in range(3):
        with pytest.raises(EncodeError, match="cannot pickle this Person"):
            store.put(Person(1, "ann@x", name=lambda: None))  # type: ignore[arg-type]
    store.put(Person(2))
    assert store.get(Person, {"id": 2}) is not None
    assert store.get(Person, {"email": "ann@x"}).name == "good"  # type: ignore[union-attr]
    if place not in ("diskcache", "s3"):
        with pytest.raises(EncodeError):
            store.batch_put([Person(3), Person(4, name=lambda: None)])  # type: ignore[arg-type]
        assert store.get(Person, {"id": 3}) is None


@pytest.mark.parametrize("uri", ["file"], indirect=True)
@pytest.mark.parametrize("cut", [0, 1, 20, -1])
def test_a_truncated_file_is_a_counted_miss(uri: str, cut: int, caplog: pytest.LogCaptureFixture) -> None:
    """Half a file is a miss that is counted and logged, once a file; others are found; the next put mends it."""
    store = ShoveStore(shoveuri=uri)
    store.batch_put([Person(1, "ann@x"), Person(2)])
    (path,) = [path for path in Path(uri[7:]).iterdir() if path.name.endswith("id%3D1")]
    path.write_bytes(path.read_bytes()[:cut])
    with caplog.at_level(logging.WARNING, "stockpyle"):
        assert store.get(Person, {"id": 1}) is None
    assert store.stats.corrupt == 1
    assert "id=1" in caplog.text
    assert store.get(Person, {"id": 2}) is not None
    store.put(Person(1, "ann@x"))
    assert store.get(Person, {"email": "ann@x"}) is not None


@pytest.mark.parametrize("there", [5, None, (1, 2, 3), (1, 2), "text", [1, None]])
def test_foreign_entries_are_counted_misses(there: Any) -> None:
    """What is no pair of an object and a date is no object of ours; a pair without one is none of the class."""
    mapping: dict[str, Any] = {}
    store = ShoveStore(mapping)
    store.put(Person(1))
    (text,) = mapping
    mapping[text] = there
    assert store.get(Person, {"id": 1}) is None
    assert store.stats.corrupt == 1
    store.put(Person(1, "ann@x"))
    assert store.get(Person, {"email": "ann@x"}) is not None


@pytest.mark.parametrize("there", [5, Pet(1), object()])
def test_pairs_of_something_else_are_misses(there: Any) -> None:
    """A pair of what is none of the class is no object of it; a put and a delete replace it."""
    mapping: dict[str, Any] = {}
    store = ShoveStore(mapping)
    store.put(Person(1))
    (text,) = mapping
    mapping[text] = (there, None)
    assert store.get(Person, {"id": 1}) is None
    store.put(Person(1, "ann@x"))
    assert store.get(Person, {"email": "ann@x"}) is not None
    mapping[text] = (there, None)
    store.delete(Person(1))
    assert store.get(Person, {"id": 1}) is None


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError("the disk is gone"), StoreUnavailable),
        (TimeoutError("too late"), StoreTimeout),
        (RuntimeError("some driver's own"), StoreError),
    ],
)
def test_errors_of_the_place_are_raised(error: Exception, kind: type[StoreError]) -> None:
    """What a mapping raises is the cause of a StoreError, never a miss."""

    class Broken(dict):  # type: ignore[type-arg]
        def fail(self, *_: Any) -> Any:
            raise error

        __getitem__ = __setitem__ = __delitem__ = fail

    store = ShoveStore(Broken())
    for use in (lambda: store.get(Person, {"id": 1}), lambda: store.put(Person(1))):
        with pytest.raises(StoreError, match=str(error)) as told:
            use()
        assert type(told.value) is kind
        assert told.value.__cause__ is error


def test_a_closed_shelve_is_no_empty_one(tmp_path: Path) -> None:
    """A mapping that was closed is an error to read and to write."""
    shelf = shelve.open(str(tmp_path / "shelf"))  # noqa: SIM115
    store = ShoveStore(shelf)
    store.put(Person(1))
    shelf.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.get(Person, {"id": 1})
    with pytest.raises(StoreUnavailable, match="closed"):
        store.put(Person(1))


@pytest.mark.parametrize("uri", ["file"], indirect=True)
def test_a_file_that_may_not_be_read_is_an_error(uri: str) -> None:
    """A directory where a file should be is no miss."""
    store = ShoveStore(shoveuri=uri)
    store.put(Person(1))
    (path,) = Path(uri[7:]).iterdir()
    path.unlink()
    path.mkdir()
    for use in (lambda: store.get(Person, {"id": 1}), lambda: store.put(Person(1))):
        with pytest.raises(StoreUnavailable, match="Is a directory"):
            use()
    assert [each for each in Path(uri[7:]).iterdir() if each != path] == []


# keys


def test_keys_too_long_for_a_file_are_kept_all_the_same(uri: str) -> None:
    """Keys of all lengths, of odd characters, and that differ in case only are kept and forgotten."""
    store = ShoveStore(import_shove().Shove(uri)) if uri.startswith("file") else ShoveStore(shoveuri=uri)
    long = [":" * n + "x" * n for n in range(30, 80)]
    store.batch_put([Person(text, text) for text in long])
    assert [p and p.id for p in store.batch_get(Person, [{"id": text} for text in long])] == long
    assert [p and p.id for p in store.batch_get(Person, [{"email": text} for text in long])] == long
    texts = [":" * n for n in range(60, 90)] + ["ä" * n for n in range(15, 40)]
    texts += ["A", "a", "../../etc", "a/b", ".", ""]
    store.batch_put([Person(i, text) for i, text in enumerate(texts)])
    assert [p and p.id for p in store.batch_get(Person, [{"email": text} for text in texts])] == list(range(len(texts)))
    store.invalidate(Person)
    assert store.batch_get(Person, [{"email": text} for text in texts + long]) == [None] * len(texts + long)
    if uri.startswith("file"):
        assert list(Path(uri[7:]).iterdir()) == []


@pytest.mark.parametrize("uri", ["file"], indirect=True)
def test_clear_leaves_what_is_not_ours(uri: str) -> None:
    """Files of others, and objects under another prefix, outlive clear()."""
    store, other = ShoveStore(shoveuri=uri), ShoveStore(shoveuri=uri, prefix="stock")
    (Path(uri[7:]) / "notes.txt").write_text("mine")
    store.batch_put([Person(1, "ann@x"), Pet(1)])
    other.put(Person(1))
    store.clear()
    assert store.get(Person, {"id": 1}) is None
    assert other.get(Person, {"id": 1}) is not None
    assert (Path(uri[7:]) / "notes.txt").read_text() == "mine"


# collections


def test_collections_beside_objects(uri: str) -> None:
    """Objects and collections know nothing of each other, though they are in one place."""
    store = ShoveStore(shoveuri=uri)
    store.collection("settings").update({"a/b": 1, "x" * 300: 2})
    store.put(Person(1))
    assert [person.id for person in store.query(Person)] == [1]
    store.invalidate(Person)
    store.put(Person(2))
    store.clear()
    assert store.get(Person, {"id": 2}) is None
    assert dict(store.collection("settings")) == {"a/b": 1, "x" * 300: 2}
    store.put(Person(3))
    store.collection("settings").drop()
    assert store.get(Person, {"id": 3}) is not None
    assert store.stats.corrupt == 0


@pytest.mark.parametrize("there", [5, (5, None), (Pet(1), None), (b"", None)])
def test_foreign_entries_of_collections(there: Any) -> None:
    """What is no entry of a collection, where one should be, is counted and not there, or an error that names it."""
    mapping: dict[str, Any] = {}
    store = ShoveStore(mapping)
    settings = store.collection("settings")
    settings["a"] = 1
    mapping["stockpyle;collection;settings;a"] = there
    with pytest.raises(DecodeError if there == (b"", None) else KeyError, match="'a'"):
        settings["a"]
    assert store.stats.corrupt == (there != (b"", None))
    settings["a"] = 2
    assert dict(settings) == {"a": 2}


# threads and processes


@pytest.mark.parametrize("uri", ["file", "lite"], indirect=True)
def test_a_child_process_uses_the_store(uri: str) -> None:
    """After a fork both sides go on with the store, and see each other's objects."""
    store = ShoveStore(shoveuri=uri)
    store.put(Person(1))

    def work() -> bool:
        store.put(Person(2, name="child"))
        return store.get(Person, {"id": 1}) is not None

    assert child_says(work)
    assert store.get(Person, {"id": 2}).name == "child"  # type: ignore[union-attr]
    store.close()


def test_source_of_a_chain(uri: str) -> None:
    """Below process memory it is the source: written through, and read on a miss."""
    store = ShoveStore(shoveuri=uri, polymorphic=True)
    chain = ChainedStore([ProcessMemoryStore(), store])
    chain.put(Person(1, "ann@x"))
    assert store.get(Person, {"email": "ann@x"}) is not None
    assert ChainedStore([ProcessMemoryStore(), store]).get(Person, {"email": "ann@x"}).id == 1  # type: ignore[union-attr]
    chain.put(Car(1, "v"))
    chain.delete(Person(1))
    assert chain.get(Person, {"id": 1}) is None


# S3


def client_of(url: str) -> Any:
    """Return a client of boto3."""
    secrets = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    return boto3.client("s3", endpoint_url=url, region_name="us-east-1", **secrets)


def bucket(client: Any, name: str) -> MutableMapping[str, Any]:
    """Return the mapping over boto3 that the document shows."""
    (code,) = [code for _, code in blocks(ROOT / "docs" / "shove.md") if "class Bucket" in code]
    shown: dict[str, Any] = {}
    exec(code.partition("\nclient = ")[0], shown)
    made: MutableMapping[str, Any] = shown["Bucket"](client, name)
    return made


def test_the_mapping_over_boto3_that_is_shown(s3: str) -> None:
    """Objects are kept in a bucket, as tuples under readable keys; what is no pickle there is a counted miss."""
    client = client_of(s3)
    client.create_bucket(Bucket="people")
    store = ShoveStore(bucket(client, "people"), lifetime=60)
    store.batch_put([Person(i, f"{i}@x") for i in range(3)])
    assert store.get(Person, {"email": "1@x"}).id == 1  # type: ignore[union-attr]
    text = "stockpyle:stockpyle.testing.samples.Person:id=1"
    obj, expires = pickle.loads(client.get_object(Bucket="people", Key=text)["Body"].read())
    assert (obj.id, type(expires)) == (1, datetime)
    client.put_object(Bucket="people", Key=text, Body=b"")
    assert store.get(Person, {"id": 1}) is None
    assert store.stats.corrupt == 1
    store.invalidate(Person)
    assert store.get(Person, {"id": 2}) is None
    client.close()
    with pytest.raises(StoreError, match="NoSuchBucket"):
        ShoveStore(bucket(client, "nowhere")).put(Person(1))
