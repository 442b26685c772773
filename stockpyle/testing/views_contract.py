"""What the collections and the counters of a store must do, as tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest

from stockpyle.exceptions import InvalidKey, InvalidKeyType, InvalidNumber


class _Contract:
    def make_store(self, **options: Any) -> Any:
        """Return a store with nothing in it."""
        raise NotImplementedError

    def another(self, store: Any) -> Any:
        """Return a store as another process would make it, whose collections and counters are the same."""
        return store

    @pytest.fixture
    def store(self) -> Any:
        """The store under test."""
        made = self.make_store()
        yield made
        made.close()


VALUES = [b"", b"\x00\xff", "", "text", 0, -1.5, None, True, ["a", {"b": (1, 2)}], {"b": b""}]
NAMES = ["a", "a%b", "a_b", "a\\b", "aXb", "A", "ä", "a b ", " a", "*", "a?", "a[b]", "é", "e\u0301", "x" * 300, "日本"]


class CollectionContract(_Contract):
    """``store.collection(name)``: subclass it, with make_store, and another."""

    def test_values_of_any_type(self, store: Any) -> None:
        """What is put is what is got, bytes and the empty ones among them, and what is not there is a KeyError."""
        settings = store.collection("settings")
        for number, value in enumerate(VALUES):
            settings[f"value {number}"] = value
            found = self.another(store).collection("settings")[f"value {number}"]
            assert (type(found), found) == (type(value), value)
        with pytest.raises(KeyError, match="nothing"):
            settings["nothing"]
        assert settings.get("nothing") is None
        assert "nothing" not in settings
        assert dict(settings) == {f"value {number}": value for number, value in enumerate(VALUES)}

    def test_it_is_a_mutable_mapping(self, store: Any) -> None:
        """It has all that a dictionary has."""
        settings = store.collection("settings")
        assert isinstance(settings, MutableMapping)
        assert (len(settings), list(settings), bool(settings)) == (0, [], False)
        settings.update({"b": 1}, a=2)
        assert list(settings) == ["a", "b"]
        assert list(settings.items()) == [("a", 2), ("b", 1)]
        assert list(settings.values()) == [2, 1]
        assert settings.setdefault("a", 5) == 2
        assert settings.pop("a") == 2
        with pytest.raises(KeyError):
            del settings["a"]
        assert settings == {"b": 1}
        settings.clear()
        assert settings == {}

    def test_a_value_that_was_read_is_a_copy(self, store: Any) -> None:
        """Changing it changes nothing that is kept."""
        settings = store.collection("settings")
        kept = settings["list"] = [1]
        kept.append(2)
        settings["list"].append(3)
        assert settings["list"] == [1]

    @pytest.mark.parametrize("prefix", ["", "a", "a%", "a_", "a\\", "*", "?", "[", "a[", "x", "e", "é", "日", " "])
    def test_names_by_prefix(self, store: Any, prefix: str) -> None:
        """Names are found by how they begin, character by character; nothing in a prefix is a wildcard."""
        settings = store.collection("settings")
        settings.update(dict.fromkeys(NAMES, 1))
        assert list(settings.keys(prefix)) == sorted(name for name in NAMES if name.startswith(prefix))
        assert settings.keys("nothing") == set()

    def test_collections_have_nothing_in_common(self, store: Any) -> None:
        """Each has names of its own, whatever it is called, and so have objects."""
        for name in NAMES:
            store.collection(name)["name"] = name
        for name in NAMES:
            assert store.collection(name) == {"name": name}
        store.collection(NAMES[0]).drop()
        assert [dict(store.collection(name)) for name in NAMES[:2]] == [{}, {"name": NAMES[1]}]

    def test_without_autosave(self, store: Any) -> None:
        """What is written is here alone, until it is saved."""
        saved, mine = store.collection("settings"), store.collection("settings", autosave=False)
        others = self.another(store).collection("settings")
        saved.update(a=1, b=2, c=3)
        mine["a"], mine["d"] = 10, 40
        del mine["b"]
        assert dict(others) == {"a": 1, "b": 2, "c": 3}
        assert dict(mine) == {"a": 10, "c": 3, "d": 40}
        assert (list(mine.keys()), list(mine.keys("d")), len(mine), "b" in mine) == (["a", "c", "d"], ["d"], 3, False)
        others["e"] = 5
        mine.save()
        assert dict(others) == dict(mine) == {"a": 10, "c": 3, "d": 40, "e": 5}
        mine.save()
        mine.clear()
        assert len(others) == 4
        mine.save()
        assert dict(others) == {}

    def test_drop(self, store: Any) -> None:
        """It empties the collection for everybody at once, and forgets what was not saved."""
        mine = store.collection("settings", autosave=False)
        store.collection("settings")["a"] = 1
        mine["b"] = 2
        mine.drop()
        assert dict(self.another(store).collection("settings")) == dict(mine) == {}
        mine.drop()
        mine["c"] = 3
        mine.save()
        assert dict(self.another(store).collection("settings")) == {"c": 3}

    def test_threads_that_write_different_names_lose_nothing(self, store: Any) -> None:
        """Each name is written by itself."""

        def write(number: int) -> None:
            own = self.another(store).collection("settings")
            for i in range(20):
                own[f"{number}.{i}"] = i

        _at_once(8, write)
        assert len(store.collection("settings")) == 160

    @pytest.mark.parametrize("wrong", ["", 5, None, b"a", "\ud800"])
    def test_wrong_names(self, store: Any, wrong: Any) -> None:
        """A name is a str that can be written, of a collection as of a value."""
        error = InvalidKey if isinstance(wrong, str) else InvalidKeyType
        with pytest.raises(error, match="collection"):
            store.collection(wrong)
        with pytest.raises(error, match="collection"):
            store.collection("settings")[wrong] = 1
        with pytest.raises(error, match="collection"):
            store.collection("settings")[wrong]


class CounterContract(_Contract):
    """``store.counter(name)``: subclass it, with make_store, and another."""

    def test_increment_and_reset(self, store: Any) -> None:
        """It begins at 0; increment returns the new value, and reset the old one."""
        visits, others = store.counter("visits"), self.another(store).counter("visits")
        assert visits.value == 0
        assert [visits.increment(), visits.increment(by=5), others.increment(-10)] == [1, 6, -4]
        assert visits.value == others.value == -4
        assert visits.reset() == -4
        assert others.reset(to=-7) == 0
        assert (visits.increment(0), visits.value) == (-7, -7)

    def test_one_that_was_never_there(self, store: Any) -> None:
        """It can be reset, and counted down."""
        assert store.counter("a").reset(5) == 0
        assert store.counter("b").increment(-1) == -1
        assert store.counter("a").value == 5

    def test_counters_have_nothing_in_common(self, store: Any) -> None:
        """Each counts for itself, whatever it is called."""
        for number, name in enumerate(NAMES):
            store.counter(name).increment(number)
        assert [store.counter(name).value for name in NAMES] == list(range(len(NAMES)))
        assert dict.fromkeys(store.counter(name).value for name in ("b", "B")) == {0: None}

    def test_its_range(self, store: Any) -> None:
        """It has 64 bits; who would leave them is told so, and nothing is changed."""
        counter = store.counter("large")
        for end, step in ((2**63 - 1, 1), (-(2**63), -1)):
            counter.reset(end)
            for by in (step, 2**63 - 1 if step > 0 else -(2**63)):
                with pytest.raises(InvalidNumber, match="large"):
                    counter.increment(by)
                assert counter.value == end
            assert counter.increment(-step) == end - step
        assert counter.reset(2**63 - 1) == -(2**63) + 1
        assert counter.increment(-(2**63)) == -1
        assert counter.increment(-(2**63) + 1) == -(2**63)

    @pytest.mark.parametrize("wrong", [1.0, "1", None, True, 2**63, -(2**63) - 1])
    def test_wrong_numbers(self, store: Any, wrong: Any) -> None:
        """What is no int of 64 bits is refused, and nothing is changed."""
        counter = store.counter("visits")
        with pytest.raises(InvalidNumber):
            counter.increment(wrong)
        with pytest.raises(InvalidNumber):
            counter.reset(wrong)
        assert counter.value == 0

    def test_threads_lose_no_step(self, store: Any) -> None:
        """Whoever counts, the sum is exact, and nobody is given the same number."""
        given: list[int] = []

        def count(number: int) -> None:
            own = self.another(store).counter("visits")
            given.extend([own.increment() for _ in range(50)])

        _at_once(8, count)
        assert sorted(given) == list(range(1, 401))

    def test_each_reset_takes_what_was_counted_since_the_last(self, store: Any) -> None:
        """Nothing is counted twice, and nothing is lost between the one who counts and the one who resets."""
        taken: list[int] = []

        def work(number: int) -> None:
            own = self.another(store).counter("visits")
            if number % 2:
                taken.extend([own.reset() for _ in range(30)])
            else:
                for _ in range(50):
                    own.increment(3)

        _at_once(6, work)
        assert sum(taken) + store.counter("visits").value == 3 * 50 * 3


def _at_once(number: int, work: Callable[[int], None]) -> None:
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            work(i)
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
