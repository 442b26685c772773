"""What every store with the six verbs must do."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from stockpyle.exceptions import (
    AmbiguousKeyError,
    ImproperlyConfigured,
    InvalidKey,
    InvalidKeysDeclaration,
    InvalidKeyType,
    InvalidLifetime,
    UndeclaredKeyError,
)
from stockpyle.testing.samples import Automobile, Car, Clock, Person, Pet, Truck


def same(one: Any, other: Any) -> bool:
    """True if both are the same object, or one is a copy of the other."""
    return one is other or (type(one) is type(other) and vars(one) == vars(other))


class StoreContract:
    """Subclass it and implement make_store; switch off below what the store does not offer."""

    polymorphic = True
    """make_store takes polymorphic=True, to find a Car as an Automobile too."""

    lifetimes = True
    """make_store takes lifetime=, lifetime_cb= and clock=."""

    class_less = True
    """get and batch_get take keys without a class."""

    clears = True
    """clear() and invalidate() forget what is held."""

    strict_keys = True
    """Undeclared, incomplete and unusable keys raise stockpyle's errors."""

    threads = True
    """Several threads may use one store, and share its objects."""

    def make_store(self, **options: Any) -> Any:
        """Return a new, empty store with these options."""
        raise NotImplementedError

    # one object

    @pytest.mark.parametrize(
        "key", [{"id": 1}, {"email": "ann@x"}, {"org": 7, "login": "ann"}, {"login": "ann", "org": 7}]
    )
    def test_object_is_found_by_each_of_its_keys(self, key: dict[str, Any]) -> None:
        """What was put is got by its identity, by an alternate key and by a composite one in any order."""
        store = self.make_store()
        ann = Person(1, "ann@x", 7, "ann", "Ann")
        assert store.put(ann) is None
        assert same(store.get(Person, key), ann)

    def test_what_was_never_put_is_none(self) -> None:
        """A miss is None, by any key."""
        store = self.make_store()
        assert store.get(Person, {"id": 1}) is None
        assert store.get(Person, {"email": "ann@x"}) is None
        assert store.get(Person, {"org": 7, "login": "ann"}) is None

    def test_classes_do_not_mix(self) -> None:
        """An object is not found as one of another class with the same key."""
        store = self.make_store()
        store.put(Person(1, "ann@x"))
        assert store.get(Pet, {"id": 1}) is None

    def test_values_of_other_types_are_other_keys(self) -> None:
        """The number 1 and the text "1" are two keys."""
        store = self.make_store()
        store.put(Person(1, name="number"))
        store.put(Person("1", name="text"))
        assert store.get(Person, {"id": 1}).name == "number"
        assert store.get(Person, {"id": "1"}).name == "text"

    def test_falsy_and_odd_key_values_are_keys(self) -> None:
        """Zero, the empty text, blanks, control characters and long text identify objects like anything else."""
        store = self.make_store()
        people = [Person(value, name=f"n{i}") for i, value in enumerate([0, "", " a\n\x00é", "x" * 1000, b"\xff", -1])]
        store.batch_put(people)
        for person in people:
            assert store.get(Person, {"id": person.id}).name == person.name

    def test_none_in_an_alternate_key_is_not_indexed(self) -> None:
        """An object whose alternate key is None is found by its others, and nothing is found by None."""
        store = self.make_store()
        store.put(Person(1))
        assert store.get(Person, {"id": 1}).id == 1
        assert store.get(Person, {"email": None}) is None
        assert store.get(Person, {"org": None, "login": None}) is None

    def test_put_replaces(self) -> None:
        """A second put of the same identity replaces the first."""
        store = self.make_store()
        store.put(Person(1, "ann@x", name="old"))
        store.put(Person(1, "ann@x", name="new"))
        assert store.get(Person, {"id": 1}).name == "new"
        assert store.get(Person, {"email": "ann@x"}).name == "new"

    def test_moved_key_is_found_where_it_is_now(self) -> None:
        """After an alternate key has changed, the old value finds nothing and the new one the object."""
        store = self.make_store()
        store.put(Person(1, "old@x"))
        store.put(Person(1, "new@x"))
        assert store.get(Person, {"email": "old@x"}) is None
        assert store.get(Person, {"email": "new@x"}).id == 1

    def test_key_taken_over_by_another_object(self) -> None:
        """A key value that moves from one object to another finds the second, and the first by its identity."""
        store = self.make_store()
        store.put(Person(1, "shared@x"))
        store.put(Person(1, "own@x"))
        store.put(Person(2, "shared@x"))
        assert store.get(Person, {"email": "shared@x"}).id == 2
        assert store.get(Person, {"id": 1}).email == "own@x"

    def test_deleting_an_old_copy_leaves_who_has_its_key_now(self) -> None:
        """To delete an object by an outdated copy takes away no other object's key."""
        store = self.make_store()
        store.put(Person(1, "shared@x"))
        store.put(Person(1, "own@x"))
        store.put(Person(2, "shared@x"))
        store.delete(Person(1, "shared@x"))
        assert store.get(Person, {"id": 1}) is None
        assert store.get(Person, {"email": "own@x"}) is None
        assert store.get(Person, {"email": "shared@x"}).id == 2

    def test_changed_in_place_and_put_again(self) -> None:
        """An object that the caller has changed and put again is found by its new keys only."""
        store = self.make_store()
        ann = Person(1, "old@x", 7, "ann")
        store.put(ann)
        ann.email, ann.login = "new@x", "anna"
        store.put(ann)
        assert store.get(Person, {"email": "old@x"}) is None
        assert store.get(Person, {"org": 7, "login": "ann"}) is None
        assert store.get(Person, {"email": "new@x"}).login == "anna"

    def test_deleted_object_is_gone_by_every_key(self) -> None:
        """delete forgets an object under all its keys."""
        store = self.make_store()
        ann = Person(1, "ann@x", 7, "ann")
        store.put(ann)
        assert store.delete(ann) is None
        assert store.batch_get(Person, [{"id": 1}, {"email": "ann@x"}]) == [None, None]
        assert store.get(Person, {"org": 7, "login": "ann"}) is None

    def test_delete_needs_only_an_object_with_the_identity(self) -> None:
        """Any object with the same identity deletes it."""
        store = self.make_store()
        store.put(Person(1, "ann@x"))
        store.delete(Person(1))
        assert store.get(Person, {"email": "ann@x"}) is None

    def test_deleting_what_is_absent_is_no_error(self) -> None:
        """delete and batch_delete of objects that are not there do nothing, twice as well."""
        store = self.make_store()
        store.delete(Person(1))
        store.batch_delete([Person(1), Person(1), Person(2)])
        assert store.get(Person, {"id": 1}) is None

    def test_put_after_delete(self) -> None:
        """A deleted object can be put again."""
        store = self.make_store()
        ann = Person(1, "ann@x")
        store.put(ann)
        store.delete(ann)
        store.put(ann)
        assert same(store.get(Person, {"email": "ann@x"}), ann)

    # batches

    def test_batch_keeps_order_duplicates_and_misses(self) -> None:
        """batch_get answers in the order of the keys, twice for duplicates, with None for misses."""
        store = self.make_store()
        store.batch_put([Person(i, f"{i}@x") for i in range(4)])
        found = store.batch_get(Person, [{"id": 3}, {"id": 9}, {"email": "1@x"}, {"id": 3}, {"id": None}, {"id": 1}])
        assert [person and person.id for person in found] == [3, None, 1, 3, None, 1]

    def test_batches_take_any_iterable(self) -> None:
        """The batch verbs take generators, tuples and dict views, and return a list."""
        store = self.make_store()
        people = {i: Person(i) for i in range(3)}
        store.batch_put(people.values())
        found = store.batch_get(Person, ({"id": i} for i in range(3)))
        assert isinstance(found, list)
        assert [person.id for person in found] == [0, 1, 2]
        store.batch_delete(person for person in people.values() if person.id)
        assert [person and person.id for person in store.batch_get(Person, tuple({"id": i} for i in range(3)))] == [
            0,
            None,
            None,
        ]

    def test_empty_batches_do_nothing(self) -> None:
        """Batches of nothing are no error."""
        store = self.make_store()
        store.batch_put([])
        store.batch_delete(iter(()))
        assert store.batch_get(Person, []) == []

    def test_batch_of_several_classes(self) -> None:
        """One batch may hold objects of several classes."""
        store = self.make_store()
        store.batch_put([Person(1), Pet(1, "rex")])
        assert store.get(Person, {"id": 1}).email is None
        assert store.get(Pet, {"tag": "rex"}).id == 1
        store.batch_delete([Person(1), Pet(1, "rex")])
        assert store.get(Person, {"id": 1}) is None
        assert store.get(Pet, {"id": 1}) is None

    def test_last_of_a_batch_wins(self) -> None:
        """Of two objects of one identity, or of one alternate key, the batch's last stays."""
        store = self.make_store()
        store.batch_put([Person(1, name="old"), Person(1, name="new")])
        assert store.get(Person, {"id": 1}).name == "new"
        store.batch_put([Person(2, "shared@x"), Person(3, "shared@x")])
        assert store.get(Person, {"email": "shared@x"}).id == 3
        assert store.get(Person, {"id": 2}).id == 2

    def test_keys_swapped_in_one_batch(self) -> None:
        """Two objects that swap an alternate key in one batch are both found by what they have now."""
        store = self.make_store()
        store.batch_put([Person(1, "a@x"), Person(2, "b@x")])
        store.batch_put([Person(1, "b@x"), Person(2, "a@x")])
        assert store.get(Person, {"email": "a@x"}).id == 2
        assert store.get(Person, {"email": "b@x"}).id == 1

    # bad input

    def test_bad_keys_raise_and_say_what_is_wrong(self) -> None:
        """Undeclared, incomplete, excessive, unusable and shapeless keys raise errors that name them."""
        if not self.strict_keys:
            return
        store = self.make_store()
        store.put(Person(1))
        for key in ({"nam": "Ann"}, {"org": 7}, {"id": 1, "email": "x"}, {}):
            with pytest.raises(UndeclaredKeyError, match="Person"):
                store.get(Person, key)
        with pytest.raises(InvalidKeyType, match=r"Person\.id"):
            store.get(Person, {"id": [1]})
        with pytest.raises(InvalidKey, match="Person"):
            store.get(Person, 1)
        with pytest.raises(InvalidKey):
            store.get(Person, None)
        with pytest.raises(UndeclaredKeyError):
            store.batch_get(Person, [{"id": 1}, {"nam": "Ann"}])

    def test_objects_without_an_identity_are_refused_before_anything_is_written(self) -> None:
        """An object with None, with nothing or with a list in its key is refused, and its batch unwritten."""
        if not self.strict_keys:
            return
        store = self.make_store()
        bare = Person(3)
        del bare.id
        for bad, culprit in ((Person(None), "id"), (bare, "id"), (Person([]), "id"), (Person(4, email={}), "email")):
            with pytest.raises(InvalidKey, match=culprit):
                store.batch_put([Person(2), bad])
        assert store.get(Person, {"id": 2}) is None

    def test_class_without_keys_is_refused(self) -> None:
        """A class that declares no keys is named in the error."""
        if not self.strict_keys:
            return
        store = self.make_store()
        with pytest.raises(InvalidKeysDeclaration, match="Clock"):
            store.put(Clock())
        with pytest.raises(InvalidKeysDeclaration, match="Clock"):
            store.get(Clock, {"now": 1})

    # keys without a class

    def test_key_without_a_class_looks_among_what_was_put(self) -> None:
        """get(key) and batch_get(keys) find objects of the one class that was put and declares the key."""
        if not self.class_less:
            return
        store = self.make_store()
        store.batch_put([Person(1, "ann@x"), Pet(1, "rex")])
        assert store.get({"email": "ann@x"}).id == 1
        assert store.get({"email": "nobody@x"}) is None
        assert [type(found) for found in store.batch_get([{"tag": "rex"}, {"email": "ann@x"}])] == [Pet, Person]

    def test_key_without_a_class_that_none_or_several_declare(self) -> None:
        """A key that no class put declares raises LookupError, one that several do AmbiguousKeyError."""
        if not self.class_less:
            return
        store = self.make_store()
        with pytest.raises(LookupError, match="email"):
            store.get({"email": "ann@x"})
        store.batch_put([Person(1), Pet(1)])
        with pytest.raises(LookupError, match="nam"):
            store.get({"nam": 1})
        with pytest.raises(AmbiguousKeyError, match="Person, Pet"):
            store.get({"id": 1})

    # polymorphic

    def test_subclasses_are_not_found_as_their_base_by_default(self) -> None:
        """Without the flag a Car is no Automobile, and an Automobile never a Car."""
        store = self.make_store()
        store.put(Car(1, "v1"))
        store.put(Automobile(2))
        assert store.get(Automobile, {"plate": 1}) is None
        assert store.get(Car, {"plate": 2}) is None
        assert store.get(Car, {"plate": 1}).vin == "v1"

    def test_polymorphic_store_finds_objects_as_their_base(self) -> None:
        """With the flag a Car is found as an Automobile too, by every key, and deleted as both."""
        if not self.polymorphic:
            return
        store = self.make_store(polymorphic=True)
        car = Car(1, "v1")
        store.put(car)
        assert same(store.get(Automobile, {"plate": 1}), car)
        assert same(store.get(Automobile, {"vin": "v1"}), car)
        assert store.get(Truck, {"plate": 1}) is None
        store.delete(car)
        assert store.get(Automobile, {"plate": 1}) is None
        assert store.get(Automobile, {"vin": "v1"}) is None

    def test_deleting_a_car_leaves_a_truck_findable(self) -> None:
        """A Truck that was put under the Automobile's key after a Car is still found there without the Car."""
        if not self.polymorphic:
            return
        store = self.make_store(polymorphic=True)
        store.put(Car(1))
        store.put(Truck(1))
        store.delete(Car(1))
        assert type(store.get(Automobile, {"plate": 1})) is Truck
        assert type(store.get(Truck, {"plate": 1})) is Truck
        assert store.get(Car, {"plate": 1}) is None

    # lifetimes

    @pytest.mark.parametrize("lifetime", [60, 60.0, timedelta(minutes=1), "aware", "naive"])
    def test_object_is_gone_when_its_lifetime_is_over(self, lifetime: Any) -> None:
        """A lifetime in seconds, as timedelta or as datetime ends an object under all its keys."""
        if not self.lifetimes:
            return
        clock = Clock()
        moments = {
            "aware": datetime.fromtimestamp(clock.now + 60, timezone.utc),
            "naive": datetime.fromtimestamp(clock.now + 60),
        }
        store = self.make_store(lifetime=moments.get(lifetime, lifetime), clock=clock)
        store.put(Person(1, "ann@x"))
        clock.advance(59)
        assert store.get(Person, {"email": "ann@x"}).id == 1
        assert store.get(Person, {"id": 1}).id == 1
        clock.advance(2)
        assert store.get(Person, {"email": "ann@x"}) is None
        assert store.get(Person, {"id": 1}) is None

    def test_lifetime_callback_is_asked_for_each_object(self) -> None:
        """lifetime_cb gets the object; None is for ever, and so is more than a datetime can say."""
        if not self.lifetimes:
            return
        clock = Clock()
        lives = {1: 10, 2: None, 3: 1e15}
        store = self.make_store(lifetime_cb=lambda person: lives[person.id], clock=clock)
        store.batch_put([Person(i) for i in lives])
        clock.advance(1e8)
        found = store.batch_get(Person, [{"id": i} for i in lives])
        assert [person and person.id for person in found] == [None, 2, 3]

    @pytest.mark.parametrize("lifetime", [0, -5, timedelta(0), datetime(1999, 1, 1)])
    def test_lifetime_of_nothing_removes(self, lifetime: Any) -> None:
        """A put with a lifetime of zero or less, or that is over, removes what was there."""
        if not self.lifetimes:
            return
        lives: list[Any] = [None, lifetime]
        store = self.make_store(lifetime_cb=lambda _: lives.pop(0), clock=Clock())
        store.put(Person(1, "ann@x"))
        store.put(Person(1, "ann@x"))
        assert lives == []
        assert store.get(Person, {"id": 1}) is None
        assert store.get(Person, {"email": "ann@x"}) is None

    @pytest.mark.parametrize("answer", [True, "60", float("nan"), ZeroDivisionError])
    def test_failing_lifetime_callback_fails_the_put(self, answer: Any) -> None:
        """A callback that raises or returns nonsense fails the put, by name, with nothing written."""
        if not self.lifetimes:
            return

        def lives(person: Person) -> Any:
            if person.id == 1:
                return None
            if answer is ZeroDivisionError:
                raise answer("in the callback")
            return answer

        store = self.make_store(lifetime_cb=lives)
        with pytest.raises(InvalidLifetime, match=r"lives.*Person"):
            store.batch_put([Person(1), Person(2)])
        assert store.get(Person, {"id": 1}) is None

    def test_two_rules_for_lifetimes_are_an_error(self) -> None:
        """lifetime and lifetime_cb exclude each other."""
        if not self.lifetimes:
            return
        with pytest.raises(ImproperlyConfigured, match="lifetime"):
            self.make_store(lifetime=5, lifetime_cb=lambda _: 5)

    # the store itself

    def test_sixteen_threads_share_a_store(self) -> None:
        """One store used from 16 threads keeps what each puts, and each finds what it has put."""
        if not self.threads:
            return
        store = self.make_store()

        def work(number: int) -> None:
            for i in range(3):
                store.put(Person(number * 100 + i, f"{number}-{i}@x"))
                assert store.get(Person, {"email": f"{number}-{i}@x"}).id == number * 100 + i

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(work, range(16)))
        numbers = [(number, i) for number in range(16) for i in range(3)]
        assert all(store.batch_get(Person, [{"id": number * 100 + i} for number, i in numbers]))
        assert all(store.batch_get(Person, [{"email": f"{number}-{i}@x"} for number, i in numbers]))

    def test_cleared_store_is_empty_and_usable(self) -> None:
        """clear() forgets all objects, and new ones can be put."""
        if not self.clears:
            return
        store = self.make_store()
        store.batch_put([Person(1, "ann@x"), Pet(1)])
        store.clear()
        assert store.get(Person, {"email": "ann@x"}) is None
        assert store.get(Pet, {"id": 1}) is None
        store.put(Person(1))
        assert store.get(Person, {"id": 1}).id == 1

    def test_invalidated_object_is_gone(self) -> None:
        """invalidate() with any key of an object forgets it under all, and leaves the others."""
        if not self.clears:
            return
        store = self.make_store()
        store.batch_put([Person(i, f"{i}@x", 7, str(i)) for i in range(3)])
        store.invalidate(Person, {"id": 0})
        store.invalidate(Person, {"email": "1@x"})
        store.invalidate(Person, {"email": "nobody@x"})
        assert store.batch_get(Person, [{"id": 0}, {"id": 1}, {"org": 7, "login": "1"}]) == [None, None, None]
        assert store.get(Person, {"email": "2@x"}).id == 2

    def test_invalidated_class_is_gone(self) -> None:
        """invalidate() of a class forgets all its objects under all their keys, and those of no other."""
        if not self.clears:
            return
        store = self.make_store()
        store.batch_put([Person(1, "ann@x"), Person(2), Pet(1)])
        store.invalidate(Person)
        for key in ({"id": 1}, {"email": "ann@x"}, {"id": 2}):
            assert store.get(Person, key) is None
        assert store.get(Pet, {"id": 1}).id == 1
        store.put(Person(1, "ann@x"))
        assert store.get(Person, {"email": "ann@x"}).id == 1

    def test_released_store_can_be_used(self) -> None:
        """release() leaves the store usable, before and after anything else, and twice."""
        store = self.make_store()
        store.release()
        store.put(Person(1))
        store.release()
        store.release()
        store.put(Person(2))
        assert store.get(Person, {"id": 2}).id == 2

    def test_store_is_a_context_manager(self) -> None:
        """``with store:`` gives the store and ends it."""
        store = self.make_store()
        with store as entered:
            assert entered is store
            entered.put(Person(1))
            assert entered.get(Person, {"id": 1}).id == 1

    def test_store_is_true_and_says_its_name(self) -> None:
        """An empty store is no false value, and has a name and a repr."""
        store = self.make_store()
        assert store
        assert store.name
        assert type(store).__name__ in repr(store)

    def test_store_refuses_to_be_pickled_and_copied(self) -> None:
        """Stores hold locks and connections, so that a copy or a pickle is an error that says so."""
        store = self.make_store()
        with pytest.raises(TypeError, match=type(store).__name__):
            pickle.dumps(store)
        with pytest.raises(TypeError, match=type(store).__name__):
            copy.copy(store)
