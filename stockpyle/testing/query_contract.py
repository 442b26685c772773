"""What every store with queries must do."""

from __future__ import annotations

from typing import Any

import pytest

from stockpyle.exceptions import InvalidQuery, NotExactlyOne
from stockpyle.testing.samples import Car, Person, Pet


def ids(query: Any) -> list[Any]:
    """Return the ids of what a query finds, in its order."""
    return [obj.id for obj in query]


class QueryContract:
    """Subclass it and implement make_store."""

    many = 1201
    """How many objects are put to be listed: more than a store lists at a time, and no more than it keeps."""

    def make_store(self) -> Any:
        """Return a new, empty store."""
        raise NotImplementedError

    def filled(self) -> Any:
        """Return a store of five people and a pet."""
        store = self.make_store()
        logins = ["Zoe", None, "ann", "Çem", "a_b"]
        store.batch_put([Person(i, f"p{i}@x", i % 2, logins[i], f"Person {i}") for i in (3, 0, 4, 1, 2)])
        store.put(Pet(9, "Rex"))
        return store

    def test_a_query_finds_all_objects_of_its_class(self) -> None:
        """Without a condition these are all there are, sorted by their identities, and no others."""
        store = self.filled()
        assert ids(store.query(Person)) == [0, 1, 2, 3, 4]
        assert ids(store.query(Pet)) == [9]
        assert self.make_store().query(Person).first() is None

    def test_scan_yields_every_object_of_a_class(self) -> None:
        """scan() yields each object of a class once, in any order, and none of another class."""
        store = self.make_store()
        store.batch_put([Person(i, f"{i}@x") for i in range(self.many)])
        store.put(Pet(1))
        assert sorted(person.id for person in store.scan(Person)) == list(range(self.many))
        assert [pet.id for pet in store.scan(Pet)] == [1]
        assert list(store.scan(Car)) == []

    @pytest.mark.parametrize(
        ("lookups", "found"),
        [
            ({"id": 3}, [3]),
            ({"login": None}, [1]),
            ({"login__exists": True, "org": 0}, [0, 2, 4]),
            ({"id__in": [4, 1, 77]}, [1, 4]),
            ({"id__gt": 1, "id__lte": 3}, [2, 3]),
            ({"id__between": (1, 2)}, [1, 2]),
            ({"login__gte": "a"}, [2, 3, 4]),
            ({"login__startswith": "a"}, [2, 4]),
            ({"login__endswith": "e"}, [0]),
            ({"login__contains": "_"}, [4]),
            ({"login__contains_any": ["n", "m"]}, [2, 3]),
            ({"login__matches": "^.[eo]"}, [0, 3]),
        ],
    )
    def test_lookups(self, lookups: dict[str, Any], found: list[int]) -> None:
        """where() finds the objects that fit, where_not() and `~` all others."""
        query = self.filled().query(Person)
        others = [i for i in range(5) if i not in found]
        assert ids(query.where(**lookups)) == found
        assert ids(query.where_not(**lookups)) == ids(~query.where(**lookups)) == others
        assert query.where(**lookups).count() == len(found)

    def test_order_and_slices(self) -> None:
        """Texts are sorted by code points, None comes last either way, and the identity decides the rest."""
        query = self.filled().query(Person)
        assert ids(query.order_by("login")) == [0, 4, 2, 3, 1]
        assert ids(query.order_by("-login")) == [3, 2, 4, 0, 1]
        assert ids(query.order_by("-org")) == [1, 3, 0, 2, 4]
        assert ids(query.order_by("-org")[1:3]) == [3, 0]
        assert query[4:].count() == 1
        assert query.order_by("-id")[0].id == 4

    def test_joined_queries(self) -> None:
        """`&` and `|` are those of sets, and change neither query."""
        query = self.filled().query(Person)
        low, odd = query.where(id__lt=2), query.where(org=1)
        assert ids(low & odd) == [1]
        assert ids(low | odd) == [0, 1, 3]
        assert ids(low) == [0, 1]

    def test_ends_of_queries(self) -> None:
        """first, one, exists, values and count."""
        query = self.filled().query(Person)
        assert query.where(org=1).first().id == 1
        assert query.where(id=4).one().name == "Person 4"
        assert query.where(id=4).exists()
        assert not query.where(id=77).exists()
        assert query[:2].values("id", "name") == [(0, "Person 0"), (1, "Person 1")]
        with pytest.raises(NotExactlyOne):
            query.one()

    def test_delete(self) -> None:
        """What is deleted is found neither by a query nor by any key."""
        store = self.filled()
        assert store.query(Person).where(org=1).delete() == 2
        assert ids(store.query(Person)) == [0, 2, 4]
        assert store.get(Person, {"email": "p3@x"}) is None
        assert store.query(Pet).count() == 1

    def test_unknown_names(self) -> None:
        """An attribute that no object has, and a lookup that does not exist, are errors."""
        query = self.filled().query(Person)
        for unknown in ({"nmae": "x"}, {"name__strtswith": "P"}):
            with pytest.raises(InvalidQuery):
                query.where(**unknown).count()
