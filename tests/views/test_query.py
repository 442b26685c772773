"""What a query is: lazy, never changed, and plain about what it cannot do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest

from stockpyle.exceptions import InvalidKeysDeclaration, InvalidQuery, NotExactlyOne, UnsupportedOperation
from stockpyle.stores import (
    BaseDictionaryStore,
    BaseStore,
    ChainedStore,
    MemcacheStore,
    NullStore,
    ProcessMemoryStore,
    RedisStore,
    ThreadLocalStore,
)
from stockpyle.testing import Automobile, Car, Clock, Person, Pet, Truck
from stockpyle.views.query import Query, Queryable


class Reader(Queryable):
    __stockpyle_keys__ = ["id"]

    def __init__(self, id: Any, **values: Any) -> None:
        self.id = id
        vars(self).update(values)


class Listed(BaseStore):
    """A store of one's own that can list its objects."""

    def __init__(self) -> None:
        super().__init__()
        self.objs: dict[Any, Any] = {}

    def put(self, obj: Any) -> None:
        self.objs[obj.id] = obj

    def get(self, klass: type, key: Any) -> Any:
        return self.objs.get(key["id"])

    def delete(self, obj: Any) -> None:
        self.objs.pop(obj.id, None)

    def scan(self, klass: type) -> Any:
        return (obj for obj in self.objs.values() if isinstance(obj, klass))


STORES: list[Callable[[], Any]] = [
    ProcessMemoryStore,
    ThreadLocalStore,
    BaseDictionaryStore,
    Listed,
    lambda: ChainedStore([ProcessMemoryStore(), BaseDictionaryStore()]),
    lambda: ChainedStore([BaseDictionaryStore(), Listed()]),
]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Any:
    """A store of ten people, put in no order."""
    made = request.param()
    for i in (3, 1, 2, 9, 7, 8, 0, 6, 4, 5):
        made.put(Person(i, name="even" if i % 2 == 0 else "odd"))
    return made


def ids(query: Any) -> list[Any]:
    """Return the ids of what a query finds, in its order."""
    return [obj.id for obj in query]


def test_a_query_is_asked_anew_each_time(store: Any) -> None:
    """Nothing is asked before it is iterated over, and each time sees what is there then."""
    query = store.query(Person).where(name="even")
    assert ids(query) == ids(query) == [0, 2, 4, 6, 8]
    store.put(Person(10, name="even"))
    assert ids(query) == [0, 2, 4, 6, 8, 10]


def test_queries_do_not_change(store: Any) -> None:
    """What is made of a query leaves it as it was; so does changing a list that it was given."""
    chosen = [1, 2]
    query = store.query(Person).where(id__in=chosen)
    before = repr(query)
    chosen.append(3)
    other = store.query(Person).where(name="odd")
    for made in (query.where(id=1), query.order_by("-id"), query[:1], query & other, query | other, ~query):
        assert made is not query
    assert repr(query) == before
    assert ids(query) == [1, 2]
    assert ids(other) == [1, 3, 5, 7, 9]


def test_queries_are_joined(store: Any) -> None:
    """`&`, `|` and `~` are those of sets."""
    low, odd = store.query(Person).where(id__lt=4), store.query(Person).where(name="odd")
    assert ids(low & odd) == [1, 3]
    assert ids(low | odd) == [0, 1, 2, 3, 5, 7, 9]
    assert ids(~(low | odd)) == [4, 6, 8]
    assert ids(store.query(Person).where_not(name="odd", id__gt=4)) == [0, 1, 2, 3, 4, 6, 8]


def test_the_order_of_the_first_counts() -> None:
    """Joined queries are sorted as the first is, and if it is not, as the second."""
    store = ProcessMemoryStore()
    store.batch_put(Person(i) for i in range(3))
    up, down = store.query(Person), store.query(Person).order_by("-id")
    assert ids(up | down) == ids(down | up) == [2, 1, 0]


def test_slices(store: Any) -> None:
    """Slices of slices are those of lists, and counted as such."""
    everything, numbers = store.query(Person).order_by("-id"), list(range(9, -1, -1))
    for start in (None, 0, 2, 12):
        for stop in (None, 0, 1, 5, 20, 2**70):
            part = everything[start:stop]
            assert ids(part) == numbers[start:stop]
            assert part.count() == len(numbers[start:stop])
            assert ids(part[1:3]) == numbers[start:stop][1:3]
            assert part.exists() is bool(numbers[start:stop])
    assert everything[2].id == 7
    with pytest.raises(IndexError, match="no object number 10"):
        everything[10]


@pytest.mark.parametrize("index", [-1, slice(-2, None), slice(None, -1), slice(0, 4, 2), slice("a", None), slice(True)])
def test_slices_that_are_refused(index: Any) -> None:
    """Counting from the end, and steps, would need another query; they are refused, and say so."""
    with pytest.raises(InvalidQuery, match="a query"):
        ProcessMemoryStore().query(Person)[index]


def test_first_and_one(store: Any) -> None:
    """first() is None where there is nothing; one() insists, and says what it has found."""
    query = store.query(Person)
    assert query.where(name="odd").first().id == 1
    assert query.where(id=77).first() is None
    assert query.where(id=5).one().id == 5
    with pytest.raises(NotExactlyOne, match=r"<Query Person where id=77> finds none"):
        query.where(id=77).one()
    with pytest.raises(LookupError, match="several"):
        query.one()


def test_values(store: Any) -> None:
    """One name gives a list of values, several give tuples, in the order of the query."""
    query = store.query(Person).order_by("-id")[:3]
    assert query.values("id") == [9, 8, 7]
    assert query.values("id", "name") == [(9, "odd"), (8, "even"), (7, "odd")]
    with pytest.raises(InvalidQuery, match="name the attributes"):
        query.values()


def test_delete(store: Any) -> None:
    """delete() deletes what the query finds, slices included, and tells how many that were."""
    assert store.query(Person).where(name="odd").order_by("-id")[:2].delete() == 2
    assert ids(store.query(Person)) == [0, 1, 2, 3, 4, 5, 6, 8]
    assert store.query(Person).delete() == 8
    assert store.query(Person).delete() == 0
    assert store.get(Person, {"id": 1}) is None


def test_a_query_is_neither_true_nor_false() -> None:
    """`if query:` would always be true; it is refused, naming exists()."""
    with pytest.raises(TypeError, match=r"exists\(\)"):
        bool(ProcessMemoryStore().query(Person))


def test_repr_says_what_is_asked() -> None:
    """The repr reads as the question."""
    query = ProcessMemoryStore().query(Person)
    assert repr(query) == "<Query Person>"
    made = query.where(name="x", id__gte=3).where_not(name__in=["a", "b"]) | query.where(org=None)
    assert repr(made.order_by("-name", "id")[2:5]) == (
        "<Query Person where name='x' and id__gte=3 and not (name__in=['a', 'b']) or org=None order by -name, id [2:5]>"
    )
    assert repr(~query) == "<Query Person where not (anything)>"
    assert len(repr(query.where(name="x" * 10_000))) < 200


def test_a_query_is_printed_as_its_objects() -> None:
    """print(Person.objects(store)) prints all the objects; repr() asks nobody."""

    class Shown(Reader):
        def __repr__(self) -> str:
            return f"<Shown {self.id}>"

    store = Listed()
    query = Shown.objects(store)
    assert str(query) == "[]"
    store.batch_put([Shown(2), Shown(1)])
    assert str(query) == f"{query}" == "[<Shown 1>, <Shown 2>]"
    assert repr(query).startswith("<Query ")


UNKNOWN = [
    ({"age": 1}, "Slotted has no attribute 'age'; it has id, name"),
    ({"age__gte": 1}, "Slotted has no attribute 'age'; it has id, name"),
    ({"__class__": 1}, "Slotted has no attribute ''"),
]


class Slotted:
    __slots__ = ("id", "name")
    __stockpyle_keys__ = ["id"]


@pytest.mark.parametrize(("lookups", "message"), UNKNOWN)
def test_unknown_attributes_are_errors(lookups: dict[str, Any], message: str) -> None:
    """An attribute that no object can have is refused at once, and the known ones are listed."""
    with pytest.raises(InvalidQuery) as caught:
        ProcessMemoryStore().query(Slotted).where(**lookups)
    assert message in str(caught.value)


def test_attributes_that_no_object_has_are_errors(store: Any) -> None:
    """Where a class does not say what it has, its objects do; a typo in a lookup is found out there, too."""
    query = store.query(Person)
    with pytest.raises(InvalidQuery, match=r"Person has no attribute 'agee'; it has email, id, login, name, org"):
        list(query.where(agee=1))
    with pytest.raises(InvalidQuery, match=r"no lookup of this name: there are equals, in, gt, .*, day"):
        query.where(name__strtswith="x").count()
    with pytest.raises(InvalidQuery, match="agee"):
        query.order_by("agee").first()
    with pytest.raises(InvalidQuery, match="agee"):
        query.values("agee")


def test_an_attribute_that_some_lack_is_none() -> None:
    """An object without an attribute that others have counts as one with None."""
    store = ProcessMemoryStore()
    store.batch_put([Reader(1, size=3), Reader(2), Reader(3, size=1)])
    query = Reader.objects(store)
    assert ids(query.where(size=None)) == ids(query.where(size__exists=False)) == [2]
    assert ids(query.order_by("size")) == [3, 1, 2]
    assert ids(query.order_by("-size")) == [1, 3, 2]
    assert query.values("size") == [3, None, 1]


@pytest.mark.parametrize("bad", [{"id__in": 5}, {"id__in": "abc"}, {"id__between": [1]}, {"id__gt": None},
    {"id__exists": 1}, {"name__matches": "("}, {"name__matches": 5}, {"name__startswith": None}, {"id__year": "1990"},
    {"id": float("nan")}, {"name__contains": None}, {"name__contains_any": "ab"}])  # fmt: skip
def test_operands_that_make_no_sense(bad: dict[str, Any]) -> None:
    """What a lookup cannot take is refused when the query is made, naming lookup and attribute."""
    with pytest.raises(
        InvalidQuery, match=r"(equals|in|between|gt|exists|matches|startswith|year|contains\w*) of Person"
    ):
        ProcessMemoryStore().query(Person).where(**bad)


@pytest.mark.parametrize("bad", [{"id__gt": "a"}, {"id__contains": 1}, {"id__startswith": "a"}, {"id__matches": "a"},
    {"id__day": 1}, {"name__contains": 5}, {"name__lt": 5}])  # fmt: skip
def test_values_that_cannot_be_compared(bad: dict[str, Any], store: Any) -> None:
    """A number and a text have no order: an error that names the attribute, and no silent empty answer."""
    with pytest.raises(InvalidQuery, match=r"of Person\.(id|name): "):
        list(store.query(Person).where(**bad))


def test_what_cannot_be_joined() -> None:
    """Queries of other classes, other stores, and slices are not joined, narrowed down or sorted."""
    store = ProcessMemoryStore()
    query = store.query(Person)
    for other in (store.query(Pet), ProcessMemoryStore().query(Person)):
        with pytest.raises(InvalidQuery, match="same class and store"):
            query & other
    with pytest.raises(TypeError, match="another query"):
        query | 5  # type: ignore[operator]
    part = query[:3]
    for refused in (lambda: part.where(id=1), lambda: part.order_by("id"), lambda: ~part, lambda: query | part):
        with pytest.raises(InvalidQuery, match="before it is sliced"):
            refused()


def test_stores_that_cannot_list(memcached: tuple[str, int], redis_server: str) -> None:
    """A store that cannot list its objects says so at once, and who can; also as the source of a chain."""
    stores: list[Any] = [NullStore(), MemcacheStore(servers=[f"localhost:{memcached[1]}"]), RedisStore(redis_server)]
    for cache in stores:
        with pytest.raises(UnsupportedOperation, match=rf"{cache.name}.*cannot be queried: ProcessMemoryStore"):
            cache.query(Person)
    for cache in stores[1:]:
        with pytest.raises(UnsupportedOperation, match=rf"{cache.name}.*cannot be queried: ProcessMemoryStore"):
            ChainedStore([ProcessMemoryStore(), cache]).query(Person)
    with pytest.raises(InvalidKeysDeclaration):
        ProcessMemoryStore().query(int)


def test_a_mapping_that_cannot_be_listed() -> None:
    """A mapping without an iterator can be a store, and not be queried."""

    class Opaque:
        def __setitem__(self, *_: Any) -> None: ...
        def __delitem__(self, *_: Any) -> None: ...
        def get(self, *_: Any) -> None: ...

    with pytest.raises(UnsupportedOperation, match="cannot be listed"):
        BaseDictionaryStore(Opaque()).query(Person)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [ProcessMemoryStore, ThreadLocalStore, BaseDictionaryStore])
def test_a_query_finds_what_get_finds(make: Any) -> None:
    """Expired objects are gone, subclasses are there if the store is polymorphic, changed keys are not found."""
    clock = Clock()
    store = make(clock=clock, lifetime=10)
    store.batch_put([Person(1), Car("a"), Truck("b")])
    clock.advance(5)
    store.put(Person(2))
    assert ids(store.query(Person)) == [1, 2]
    assert list(store.query(Automobile)) == []
    clock.advance(6)
    assert ids(store.query(Person)) == [2]
    several = make(polymorphic=True)
    several.batch_put([Car("a"), Truck("b"), Automobile("c")])
    assert [type(each) for each in several.query(Automobile)] == [Car, Truck, Automobile]
    assert several.query(Car).values("plate") == ["a"]
    assert several.query(Automobile).where(plate__lt="c").delete() == 2
    assert several.query(Car).count() == 0


def test_changed_keys_are_found_by_nobody() -> None:
    """A plain object whose identity was changed in place is not found by get(), and not by a query."""
    store, moved = ProcessMemoryStore(), Person(1)
    store.put(moved)
    moved.id = 2
    assert store.get(Person, {"id": 1}) is store.get(Person, {"id": 2}) is None
    assert list(store.query(Person)) == []


def test_identities_of_all_types_have_one_order() -> None:
    """Numbers come before texts: what is sorted by identity is sorted, whatever the identities are."""
    store = ProcessMemoryStore()
    store.batch_put([Person(each) for each in ("b", 2, b"x", "a", 1.5, True)])
    assert ids(store.query(Person)) == [True, 1.5, 2, "a", "b", b"x"]


class Autumn(tzinfo):
    """A zone in which each hour of the day comes twice, first an hour east of UTC, then at it."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(hours=0 if when is None or when.fold else 1)

    def dst(self, when: datetime | None) -> timedelta:
        return self.utcoffset(when)


def test_aware_datetimes_are_instants() -> None:
    """They are compared and sorted as instants, also within one zone, when its clock was put back, and at the ends."""
    zone, store = Autumn(), ProcessMemoryStore()
    early, late = datetime(2000, 10, 29, 2, 30, tzinfo=zone), datetime(2000, 10, 29, 2, 0, tzinfo=zone, fold=1)
    ends = [each.replace(tzinfo=timezone(offset)) for each in (datetime.min, datetime.max) for offset in HOUR]
    store.batch_put(Reader(i, at=at) for i, at in enumerate([late, early, *ends]))
    query = Reader.objects(store)
    assert ids(query.order_by("at")) == [2, 3, 1, 0, 4, 5]
    assert ids(query.where(at__gt=early)) == [0, 4, 5]
    assert ids(query.where(at=late.astimezone(timezone.utc))) == [0]
    assert ids(query.where(at__year=2000, at__day=29)) == [0, 1]
    assert ids(query.where(at=late.replace(tzinfo=None))) == []


HOUR = (timedelta(hours=1), timedelta(hours=-1))


def test_paths_of_plain_objects() -> None:
    """A path goes through objects and collections; through None it leads to None."""
    store = ProcessMemoryStore()
    ann = Reader(1, friend=None, pets=[])
    bob = Reader(2, friend=ann, pets=[Reader(7, kind="cat"), Reader(8, kind="dog")])
    store.batch_put([ann, bob])
    query = Reader.objects(store)
    assert ids(query.where(friend__id=1)) == [2]
    assert ids(query.where(friend__id=None)) == [1]
    assert ids(query.where(pets__kind="dog")) == ids(query.where(pets__kind__contains="a")) == [2]
    assert ids(query.where_not(pets__kind="dog")) == [1]
    assert ids(query.order_by("-friend__id")) == [2, 1]
    with pytest.raises(InvalidQuery, match="leads to several"):
        list(query.order_by("pets__kind"))


def test_types() -> None:
    """A query is one of Query's, and what the mixin makes is the store's own."""
    assert type(Reader.objects(ProcessMemoryStore())) is Query
