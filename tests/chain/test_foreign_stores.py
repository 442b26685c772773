"""Stores of other people in a chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stockpyle.classes import spec_of
from stockpyle.exceptions import (
    InvalidLifetime,
    StoreError,
    UnsupportedOperation,
)
from stockpyle.records import LOCKED
from stockpyle.stores import (
    BaseDictionaryStore,
    BaseStore,
    ChainedStore,
    ProcessMemoryStore,
)
from stockpyle.testing import Person, StoreContract
from tests.chain.parts import Source, Tier, key


class SixVerbs:
    """The least that is a store: no base class, no release, and a batch_put that takes a lifetime."""

    def __init__(self) -> None:
        self.by_key: dict[Any, Any] = {}
        self.calls: list[Any] = []

    def put(self, obj: Any) -> None:
        self.batch_put([obj])

    def get(self, klass: type, key: Any) -> Any:
        return self.batch_get(klass, [key])[0]

    def delete(self, obj: Any) -> None:
        self.batch_delete([obj])

    def batch_put(self, objs: Any, lifetime: Any = None) -> None:
        self.calls.append(("put", len(objs), lifetime))
        assert objs
        for obj in objs:
            for own in spec_of(type(obj)).keys_of(obj):
                self.by_key[own.ident] = obj

    def batch_get(self, klass: type, keys: Any) -> list[Any]:
        self.calls.append(("get", len(keys)))
        assert keys
        return [self.by_key.get(spec_of(klass).key(asked).ident) for asked in keys]  # type: ignore[union-attr]

    def batch_delete(self, objs: Any) -> None:
        self.calls.append(("delete", len(objs)))
        assert objs
        for obj in objs:
            for own in spec_of(type(obj)).keys_of(obj):
                self.by_key.pop(own.ident, None)


def test_six_verbs_are_a_source() -> None:
    """A store that subclasses nothing is the bottom of a chain."""
    tier, bottom = Tier(), SixVerbs()
    chain = ChainedStore([tier, bottom])
    chain.batch_put([Person(1, "ann@x"), Person(2)])
    assert bottom.calls == [("put", 2, None)]
    tier.clear()
    assert [p and p.id for p in chain.batch_get(Person, [{"id": 1}, {"id": 2}, {"id": 3}])] == [1, 2, None]
    assert chain.get(Person, {"email": "ann@x"}).id == 1
    chain.delete(Person(1, "ann@x"))
    assert chain.get(Person, {"id": 1}) is None
    chain.release()
    chain.close()


def test_six_verbs_are_an_upper_layer() -> None:
    """As an upper layer it deletes before and after a write, and is filled on a miss for a bounded time."""
    upper, source = SixVerbs(), Source(Person(1, "ann@x"))
    chain = ChainedStore([upper, source])
    assert chain.get(Person, {"id": 1}).id == 1
    assert upper.calls[:1] == [("get", 1)]
    name, count, lifetime = upper.calls[1]
    assert (name, count) == ("put", 1)
    assert 59 < lifetime <= 60
    assert chain.get(Person, {"email": "ann@x"}).id == 1
    assert source.took() == ["load 1"]
    upper.calls.clear()
    source.on["commit"] = lambda: upper.calls.append("commit")
    chain.put(Person(1, "ann@x", name="new"))
    assert upper.calls == [("delete", 1), "commit", ("delete", 1)]
    assert source.took() == ["write"]
    assert chain.get(Person, {"id": 1}).name == "new"
    upper.calls.clear()
    chain.delete(Person(1, "ann@x"))
    assert upper.calls == [("delete", 1), ("delete", 1)]
    assert chain.get(Person, {"email": "ann@x"}) is None


def test_filled_verbs_keep_no_longer_than_the_layer_below() -> None:
    """What is filled into a store of verbs from a tier lives there no longer than in the tier."""
    upper = SixVerbs()
    tier = ProcessMemoryStore(lifetime=20)
    chain = ChainedStore([upper, tier, Source(Person(1))])
    chain.get(Person, {"id": 1})
    upper.by_key.clear()
    upper.calls.clear()
    chain.get(Person, {"id": 1})
    assert 0 < upper.calls[1][2] <= 20


def test_verbs_that_cannot_invalidate_a_class_say_so(caplog: pytest.LogCaptureFixture) -> None:
    """A class-wide change does not fail on a store that cannot follow it: that is logged."""
    from stockpyle.coherence.layers import Layer
    from stockpyle.coherence.verbs import VerbTier
    from stockpyle.coherence.writer import Writer

    for store in (SixVerbs(), ToyFromScratch()):
        writer = Writer([Layer(VerbTier(store))], [], [spec_of(Person).epoch])
        writer.lock()
        writer.publish()
    assert caplog.text.count("cannot forget all objects of Person") == 4


def test_invalidate_reaches_stores_of_verbs() -> None:
    """invalidate() by any key deletes the object from a store of verbs, or says that it cannot."""
    upper, source = SixVerbs(), Source(Person(1, "ann@x", name="old"))
    chain = ChainedStore([upper, source])
    for asked in ({"id": 1}, {"email": "ann@x"}):
        chain.get(Person, {"id": 1})
        chain.invalidate(Person, asked)
        assert upper.by_key == {}
    with pytest.raises(UnsupportedOperation, match=r"SixVerbs.*Person"):
        chain.invalidate(Person)


def test_failing_verbs_leave_the_outcome_unknown() -> None:
    """Nobody knows what a store of verbs has done when it raises, so the tiers are bypassed for a while."""

    class Failing(SixVerbs):
        def batch_put(self, objs: Any, lifetime: Any = None) -> None:
            raise OSError("half way")

    tier = Tier()
    chain = ChainedStore([tier, Failing()])
    with pytest.raises(OSError, match="half way"):
        chain.put(Person(1))
    assert tier.holds(key(id=1)) is LOCKED


def test_lifetimes_of_a_dictionary_source_are_asked_first() -> None:
    """A callback that fails in a source of verbs leaves no locks behind."""
    tier = Tier()
    chain = ChainedStore([tier, BaseDictionaryStore(lifetime_cb=lambda obj: obj.nonsense)])
    with pytest.raises(InvalidLifetime):
        chain.put(Person(1))
    assert tier.took() == []


def test_store_with_attributes_of_its_own_is_no_trouble() -> None:
    """Attributes that happen to be called like ours are not taken for ours."""

    class Named(SixVerbs):
        lifetimes = ("Person", 5)
        clock = "wall"

        def stats(self) -> str:
            return "fine"

    chain = ChainedStore([Named(), Source(Person(1))])
    assert chain.get(Person, {"id": 1}).id == 1
    assert chain.get(Person, {"id": 1}).id == 1


class ToyMapping(BaseDictionaryStore):
    """An outsider's store over a mapping of their own, with a limit that the mapping keeps."""

    class Mapping(dict):  # type: ignore[type-arg]
        def __setitem__(self, text: str, value: Any) -> None:
            super().__setitem__(text, value)
            while len(self) > 100:
                del self[next(iter(self))]

    def __init__(self, **options: Any) -> None:
        super().__init__(self.Mapping(), **options)


class ToyFromScratch(BaseStore):
    """An outsider's store from scratch: put, get and delete, one by one."""

    def __init__(self) -> None:
        self.objects: dict[Any, Any] = {}

    def put(self, obj: Any) -> None:
        self.objects[self.place(obj)] = obj

    def get(self, klass: type, key: Any) -> Any:
        for (kind, _), obj in self.objects.items():
            if kind is klass and all(getattr(obj, name) == value for name, value in key.items()):
                return obj
        return None

    def delete(self, obj: Any) -> None:
        self.objects.pop(self.place(obj), None)

    def place(self, obj: Any) -> Any:
        return type(obj), getattr(obj, type(obj).__stockpyle_keys__[0])


class TestToyMapping(StoreContract):
    def make_store(self, **options: Any) -> ToyMapping:
        return ToyMapping(**options)


class TestToyFromScratch(StoreContract):
    polymorphic = lifetimes = class_less = clears = strict_keys = threads = False

    def make_store(self, **options: Any) -> ToyFromScratch:
        return ToyFromScratch()

    def test_none_in_an_alternate_key_is_not_indexed(self) -> None:
        """A toy may find None."""
        assert self.make_store().get(Person, {"id": 1}) is None

    def test_last_of_a_batch_wins(self) -> None:
        """A toy may find the first of two with one alternate key."""
        store = self.make_store()
        store.batch_put([Person(1, name="old"), Person(1, name="new")])
        assert store.get(Person, {"id": 1}).name == "new"


@pytest.mark.parametrize("toy", [ToyMapping, ToyFromScratch])
def test_toys_work_at_both_ends_of_a_chain(toy: Callable[[], Any]) -> None:
    """An outsider's store is a source, and an upper layer."""
    for chain in (ChainedStore([ProcessMemoryStore(), toy()]), ChainedStore([toy(), ProcessMemoryStore()])):
        chain.batch_put([Person(1, "ann@x"), Person(2, "bob@x")])
        assert chain.get(Person, {"email": "ann@x"}).id == 1
        assert chain.get(Person, {"id": 1}).email == "ann@x"
        chain.put(Person(1, "anna@x"))
        assert chain.get(Person, {"email": "anna@x"}).id == 1
        assert chain.get(Person, {"email": "ann@x"}) is None
        chain.delete(Person(2, "bob@x"))
        assert chain.batch_get(Person, [{"id": 2}, {"email": "bob@x"}]) == [None, None]


def test_base_store_asks_for_the_verbs_it_needs() -> None:
    """A subclass of BaseStore without a verb is refused when it is defined."""
    with pytest.raises(TypeError, match="Half must implement delete or batch_delete"):

        class Half(BaseStore):
            def put(self, obj: Any) -> None:
                """Keep it."""

            def get(self, klass: type, key: Any) -> Any:
                """Find it."""


@pytest.mark.parametrize("verb", ["put", "get", "delete", "batch_put", "batch_get", "batch_delete"])
def test_base_store_itself_has_no_verbs(verb: str) -> None:
    """It says so, and does not call itself until the stack is full."""
    several = [{"id": 1}] if verb == "batch_get" else [Person(1, "ann@x")]
    given = several if verb.startswith("batch") else several[0]
    with pytest.raises(UnsupportedOperation, match=f"BaseStore must implement {verb.removeprefix('batch_')} or"):
        getattr(BaseStore(), verb)(*([Person] if "get" in verb else []), given)


def test_a_source_that_answers_with_too_little_is_named() -> None:
    """A user's store whose batch_get answers with the wrong number, or no object of the class, is named."""

    class Forgetful(BaseStore):
        answer: Any = []

        def batch_put(self, objs: Any) -> None: ...
        def batch_get(self, klass: Any, keys: Any) -> Any:
            return self.answer

        def batch_delete(self, objs: Any) -> None: ...

    store = Forgetful()
    chain = ChainedStore([ProcessMemoryStore(), store])
    for answer in ([], None, ["text"]):
        store.answer = answer
        with pytest.raises(StoreError, match=r"Forgetful\.batch_get"):
            chain.get(Person, {"id": 1})


def test_clear_reaches_the_caches_that_know_only_the_six_verbs() -> None:
    """Clearing a chain makes an upper dictionary store forget, and names a store that cannot."""
    upper = BaseDictionaryStore()
    chain = ChainedStore([upper, ProcessMemoryStore()])
    chain.put(Person(1, "ann@x"))
    chain.get(Person, {"id": 1})
    assert upper.get(Person, {"id": 1}) is not None
    chain.clear()
    assert upper.get(Person, {"id": 1}) is None

    class Stubborn(BaseStore):
        def put(self, obj: Any) -> None: ...
        def get(self, klass: Any, key: Any) -> Any: ...
        def delete(self, obj: Any) -> None: ...

    stubborn = ChainedStore([Stubborn(), ProcessMemoryStore()])
    stubborn.get(Person, {"id": 1})
    with pytest.raises(UnsupportedOperation, match="Stubborn"):
        stubborn.clear()
