from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpyle.classes import spec_of
from stockpyle.exceptions import (
    ImproperlyConfigured,
    InvalidKey,
    InvalidKeysDeclaration,
    InvalidKeyType,
    UndeclaredKeyError,
)
from stockpyle.keys import MAX_TEXT, Key, KeyDefinition, KeySpec, spec_of_plain
from stockpyle.stores import BaseDictionaryStore
from tests.ext.models import User as MappedUser
from tests.test_values import PAIRS, VALUES, as_python_says, local_enum, usable


class User:
    __stockpyle_keys__ = ["id", "email", ("org", "login")]

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Vehicle:
    __stockpyle_keys__ = ["id"]


class Floating(Vehicle):
    __stockpyle_keys__ = ["hull"]


class Rolling(Vehicle):
    pass


class Amphibian(Floating, Rolling):
    __stockpyle_keys__ = ["id", "name"]


class Named:
    __stockpyle_keys__ = ["id"]
    __stockpyle_name__ = "app.named"


class NamedChild(Named):
    pass


def made(declaration: Any, *, bases: tuple[type, ...] = (), **namespace: Any) -> type:
    """Return a new class with this declaration."""
    return type("Made", bases, {"__stockpyle_keys__": declaration, **namespace})


def key(klass: type, **values: Any) -> Key:
    """Return a key that is one."""
    found = spec_of(klass).key(values)
    assert found is not None
    return found


# declarations


@pytest.mark.parametrize(
    ("declaration", "expected"),
    [
        (["id"], [("id",)]),
        (("id", "email"), [("id",), ("email",)]),
        ([("id",)], [("id",)]),
        ([["org", "login"]], [("login", "org")]),
        (["id", ("org", "login"), "org"], [("id",), ("login", "org"), ("org",)]),
    ],
)
def test_a_declaration_is_a_list_of_names_and_tuples_of_names(
    declaration: Any, expected: list[tuple[str, ...]]
) -> None:
    """The first declared key is the identity; the attributes of each are put into one order."""
    spec = spec_of_plain(made(declaration))
    assert [definition.attributes for definition in spec.definitions] == expected
    assert spec.identity is spec.definitions[0]


@pytest.mark.parametrize(
    ("declaration", "culprit"),
    [
        ("id", r"'id'; it must be a list, such as \['id'\]"),
        (b"id", "b'id'"),
        (None, "None"),
        (5, "5"),
        ([], "empty"),
        ((), "empty"),
        ([None], "None"),
        ([5], "5"),
        ([""], "''"),
        (["e mail"], "'e mail'"),
        ([b"id"], "b'id'"),
        ([()], r"\(\)"),
        ([("id", None)], "None"),
        ([("id", ("org", "login"))], r"\('org', 'login'\)"),
        ([("id", "id")], r"twice in \('id', 'id'\)"),
        (["id", "id"], "'id' twice"),
        (["id", ("id",)], r"\('id',\) twice"),
        ([("org", "login"), ("login", "org")], r"\('login', 'org'\) twice"),
        ({"id", "email"}, "order"),
        (frozenset({"id"}), "order"),
        ({"id": 1}, "'id': 1"),
        ((name for name in ["id"]), "generator"),
    ],
)
def test_a_wrong_declaration_names_the_class_and_the_culprit(declaration: Any, culprit: str) -> None:
    """What is not a list of names and tuples of names raises InvalidKeysDeclaration, which shows it."""
    with pytest.raises(InvalidKeysDeclaration, match=f"(?s)Made.*{culprit}"):
        spec_of(made(declaration))


def test_a_class_without_keys_is_refused_by_name() -> None:
    """A class without a declaration raises InvalidKeysDeclaration, which names it and shows an example."""
    with pytest.raises(InvalidKeysDeclaration, match=r'Enum declares no __stockpyle_keys__, such as \["id"'):
        spec_of(Enum)


@pytest.mark.parametrize("thing", [None, 5, "User", [], {}, User(id=1)])
def test_what_is_no_class_is_refused(thing: Any) -> None:
    """Whatever is given in place of a class raises InvalidKeysDeclaration, hashable or not."""
    with pytest.raises(InvalidKeysDeclaration, match="is not a class"):
        spec_of(thing)


def test_a_failed_declaration_fails_again() -> None:
    """A wrong declaration is refused each time it is used."""
    wrong = made("id")
    for _ in range(2):
        with pytest.raises(InvalidKeysDeclaration):
            spec_of(wrong)


def test_an_unknown_attribute_of_a_slotted_class_is_refused() -> None:
    """A class whose objects cannot have the attribute is refused, with the attribute's name."""

    class Slotted:
        __slots__ = ("email",)
        __stockpyle_keys__ = ["emial"]

    with pytest.raises(InvalidKeysDeclaration, match="'emial'"):
        spec_of(Slotted)


def test_an_unknown_attribute_of_a_dataclass_is_refused() -> None:
    """A dataclass says which attributes it has; a key of another one is a typo."""

    @dataclass
    class Plain:
        email: str
        __stockpyle_keys__ = ["emial"]

    @dataclass(slots=True)
    class Slotted:
        email: str
        __stockpyle_keys__ = [("email", "emial")]

    @dataclass
    class Child(Plain):
        phone: str

    for klass in (Plain, Slotted, Child):
        with pytest.raises(InvalidKeysDeclaration, match="'emial'"):
            spec_of(klass)


def test_an_unknown_attribute_of_a_named_tuple_is_refused() -> None:
    """A NamedTuple says which attributes it has."""

    class Point(NamedTuple):
        x: int

    Point.__stockpyle_keys__ = ["y"]  # type: ignore[attr-defined]
    with pytest.raises(InvalidKeysDeclaration, match="'y'"):
        spec_of(Point)


def test_attributes_that_cannot_be_known_beforehand_are_believed() -> None:
    """No class is refused that may give its objects the attribute in some way."""

    class InInit:
        __stockpyle_keys__ = ["id"]

        def __init__(self) -> None:
            self.id = 5

    @dataclass
    class InPostInit:
        email: str
        __stockpyle_keys__ = ["email", "domain"]

        def __post_init__(self) -> None:
            self.domain = self.email.partition("@")[2]

    @dataclass(init=False)
    class OwnInit:
        __stockpyle_keys__ = ["id"]

        def __init__(self) -> None:
            self.id = 5

    @dataclass
    class Parent:
        name: str

    class PlainChild(Parent):
        __stockpyle_keys__ = ["id"]

    @dataclass
    class WithPlainBase(InInit):
        name: str

    @dataclass
    class WithField:
        id: int = field(init=False)
        __stockpyle_keys__ = ["id"]

    class Dynamic:
        __slots__ = ()
        __stockpyle_keys__ = ["id"]

        def __getattr__(self, name: str) -> Any:
            return 5

    class Property:
        __slots__ = ()
        __stockpyle_keys__ = ["id"]

        @property
        def id(self) -> int:
            return 5

    class SlottedMixin:
        __slots__ = ()
        __stockpyle_keys__ = ["id"]
        id: int

    class Slotted(SlottedMixin):
        __slots__ = ("id",)

    for klass in (InInit, InPostInit, OwnInit, PlainChild, WithPlainBase, WithField, Dynamic, Property, Slotted):
        assert spec_of(klass).klass is klass


def test_each_declaring_base_is_there_once() -> None:
    """A diamond has each of its bases that have keys once, nearest first."""
    spec = spec_of_plain(Amphibian)
    assert [base.klass for base in spec.bases] == [Floating, Rolling, Vehicle]
    assert [definition.attributes for definition in spec.definitions] == [("id",), ("name",)]
    assert spec_of_plain(Rolling).identity.attributes == ("id",)


def test_a_base_serves_its_subclasses_and_not_the_other_way_round() -> None:
    """An object answers for its own class and its bases only."""
    amphibian, vehicle = Amphibian(), Vehicle()
    spec = spec_of_plain(Amphibian)
    assert spec_of_plain(Vehicle).serves(spec, amphibian)
    assert not spec.serves(spec_of_plain(Vehicle), vehicle)


def test_a_class_has_one_spec() -> None:
    """A class is described once, and a subclass apart from it."""
    assert spec_of(User) is spec_of(User) is spec_of_plain(User)
    assert spec_of(Rolling) is not spec_of(Vehicle)
    assert spec_of(Rolling).space != spec_of(Vehicle).space


def test_space_is_the_qualified_name_or_the_one_given() -> None:
    """Objects live under module and qualified name, or __stockpyle_name__, which is not inherited."""
    assert spec_of(User).space == "tests.test_keys.User"
    assert spec_of(Named).space == "app.named"
    assert spec_of(NamedChild).space == "tests.test_keys.NamedChild"
    assert spec_of(User).portable
    assert spec_of(Named).portable


def test_classes_made_by_a_function_do_not_share_a_space() -> None:
    """Two classes of the same local name have keys apart, and neither is portable; a given name makes it so."""

    def make(**namespace: Any) -> type:
        class Local:
            __stockpyle_keys__ = ["id"]
            vars().update(namespace)

        return Local

    first, second = make(), make()
    assert first.__qualname__ == second.__qualname__
    assert key(first, id=1) != key(second, id=1)
    assert not spec_of(first).portable
    assert spec_of(make(__stockpyle_name__="local")).portable


@pytest.mark.parametrize("name", ["", 5, b"users", ("a",)])
def test_a_wrong_name_is_refused(name: Any) -> None:
    """A __stockpyle_name__ that is no name raises InvalidKeysDeclaration, which shows it."""
    with pytest.raises(InvalidKeysDeclaration, match="__stockpyle_name__ of Made"):
        spec_of(made(["id"], __stockpyle_name__=name))


# lookups


def test_order_of_attributes_does_not_matter() -> None:
    """A composite key is the same however it is spelled."""
    first = key(User, org=7, login="ann")
    assert first == key(User, login="ann", org=7)
    assert first.text() == "stockpyle:tests.test_keys.User:login='ann',org=7"
    assert first.as_dict() == {"login": "ann", "org": 7}


def test_any_mapping_is_a_key() -> None:
    """A key may be any mapping, not only a dict."""
    assert spec_of(User).key(UserDict(id=5)) == key(User, id=5)


@pytest.mark.parametrize(
    "asked",
    [{"ids": 5}, {}, {"org": 7}, {"org": 7, "login": "ann", "id": 5}, {"id": 5, "email": "a"}, {5: 5}, {5: 5, "id": 5}],
)
def test_an_undeclared_key_names_the_declared_ones(asked: Mapping[Any, Any]) -> None:
    """Unknown, missing and extra attributes raise UndeclaredKeyError, which lists what is declared."""
    with pytest.raises(
        UndeclaredKeyError, match=r"User declares no key \{.*\{id\}, \{email\}, \{login, org\}"
    ) as caught:
        spec_of(User).key(asked)
    assert all(str(name) in str(caught.value) for name in asked)


@pytest.mark.parametrize(
    "asked", [None, 5, "id", b"id", ["id"], ("id",), {"id"}, [("id", 5)], [["id"]], object(), dict]
)
def test_what_is_no_mapping_is_no_key(asked: Any) -> None:
    """Anything but a mapping raises InvalidKey, which shows what a key looks like."""
    with pytest.raises(InvalidKey, match=r"a key of User is a mapping .*\{'id': \.\.\.\}") as caught:
        spec_of(User).key(asked)
    assert not isinstance(caught.value, UndeclaredKeyError)


def test_a_string_is_no_key_even_of_a_one_letter_attribute() -> None:
    """The string 'x' is not the key {'x': ...}."""
    with pytest.raises(InvalidKey, match="is a mapping"):
        spec_of(made(["x"])).key("x")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [[1], {1: 2}, {1}, (1, 2), object(), float("nan"), Decimal("sNaN"), 1j, User])
def test_an_unusable_value_names_class_and_attribute(value: Any) -> None:
    """A value that is unhashable or of an unsupported type raises InvalidKeyType, naming the attribute."""
    with pytest.raises(InvalidKeyType, match=r"^User\.login: "):
        spec_of(User).key({"org": 7, "login": value})
    with pytest.raises(InvalidKeyType, match=r"^User\.email: "):
        spec_of(User).keys_of(User(id=1, email=value, org=None, login=None))


def test_none_identifies_nothing() -> None:
    """A key with a None in it is declared, and no object's."""
    spec = spec_of(User)
    assert spec.key({"id": None}) is None
    assert spec.key({"email": None}) is None
    assert spec.key({"org": 7, "login": None}) is None


# keys of objects


def test_keys_of_an_object_are_all_it_declares() -> None:
    """The identity comes first, and an alternate key with a None in it is left out."""
    ann = User(id=5, email="a@b.c", org=7, login="ann")
    assert spec_of(User).keys_of(ann) == [
        key(User, id=5),
        key(User, email="a@b.c"),
        key(User, org=7, login="ann"),
    ]
    ann.email = ann.login = None
    assert spec_of(User).keys_of(ann) == [key(User, id=5)]


def test_an_object_without_identity_is_refused() -> None:
    """None in the identity key raises InvalidKey, which names class and attribute."""
    with pytest.raises(InvalidKey, match=r"User has None in its identity key \{id\}"):
        spec_of(User).keys_of(User(id=None, email="a@b.c", org=7, login="ann"))


def test_a_missing_attribute_is_named() -> None:
    """An object that lacks a key attribute raises InvalidKey, which names class and attribute."""
    with pytest.raises(InvalidKey, match="User has no attribute 'login'"):
        spec_of(User).keys_of(User(id=5, email="a@b.c", org=7))


def test_an_attribute_that_fails_keeps_its_error() -> None:
    """The AttributeError of a property's own bug is the cause of the InvalidKey."""

    class Broken:
        __stockpyle_keys__ = ["id"]

        @property
        def id(self) -> int:
            return self.number  # type: ignore[attr-defined, no-any-return]

    with pytest.raises(InvalidKey, match="'id'") as caught:
        spec_of(Broken).keys_of(Broken())
    assert "number" in str(caught.value.__cause__)


def test_a_stand_in_has_the_attributes_and_was_not_initialised() -> None:
    """A stand-in carries keys without running the class's __init__."""

    class Strict:
        __stockpyle_keys__ = ["id"]

        def __init__(self) -> None:
            raise AssertionError

    spec = spec_of(Strict)
    assert spec.keys_of(spec.stand_in({"id": 5})) == [key(Strict, id=5)]


def test_identity_alternate_and_epoch_keys_know_what_they_are() -> None:
    """A key says whether records are kept under it, and whether it stands for the whole class."""
    assert key(User, id=5).is_identity
    assert not key(User, email="a").is_identity
    epoch = spec_of(User).epoch
    assert epoch.is_epoch
    assert not epoch.is_identity
    assert not key(User, id=5).is_epoch
    assert epoch == spec_of(User).epoch != spec_of(Vehicle).epoch


def test_a_coercion_runs_before_the_value_is_checked() -> None:
    """A definition's coercions turn what callers give into what attributes hold."""
    spec = KeySpec(User, [KeyDefinition("users", ("id", "tag"), coerce=(int, None))])
    assert spec.key({"tag": "5", "id": "5"}) == spec.key({"tag": "5", "id": 5})
    assert spec.key({"tag": 5, "id": 5}) != spec.key({"tag": "5", "id": 5})


# equality and text


def spec_named(space: str, names: tuple[str, ...]) -> KeySpec:
    """Return a KeySpec of one definition."""
    return KeySpec(User, [KeyDefinition(space, names)])


def made_key(space: str, names: tuple[str, ...], values: tuple[Any, ...]) -> Key:
    """Return a key of any space and names."""
    found = spec_named(space, names).key(dict(zip(names, values, strict=True)))
    assert found is not None
    return found


SPACES = st.one_of(
    st.sampled_from(["a", "a.b", "a:id=1", "a:b", "#a", "größe", "a b", "x" * 300, "x" * 301]),
    st.text(min_size=1),
)
NAMES = st.one_of(
    st.sampled_from(["id", "ids", "id1", "größe", "a" * 240]), st.from_regex(r"[^\W\d]\w{0,9}", fullmatch=True)
)
USABLE = VALUES.filter(usable)
PREFIXES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=100)


@st.composite
def keys(draw: st.DrawFn) -> Key:
    """Return keys of one to three attributes."""
    names = tuple(sorted(draw(st.sets(NAMES, min_size=1, max_size=3))))
    return made_key(draw(SPACES), names, tuple(draw(USABLE) for _ in names))


@settings(max_examples=500, deadline=None)
@given(PAIRS.filter(lambda pair: usable(pair[0]) and usable(pair[1])))
def test_two_values_make_one_key_exactly_when_they_are_equal(pair: tuple[Any, Any]) -> None:
    """Keys, their hashes and their texts are the same if and only if Python says so of the values."""
    first, second = (key(User, id=value) for value in pair)
    same = as_python_says(*pair)
    assert (first == second) is same
    assert (first.ident == second.ident) is same
    assert (first.text() == second.text()) is same
    assert not same or hash(first) == hash(second)


@settings(max_examples=500, deadline=None)
@given(keys(), PREFIXES)
def test_text_is_what_memcached_takes(any_key: Key, prefix: str) -> None:
    """A key's text is at most 250 bytes of printable ASCII, whatever the names, values and prefix."""
    text = any_key.text(prefix).encode("ascii")
    assert len(text) <= MAX_TEXT
    assert all(0x21 <= byte <= 0x7E for byte in text)
    assert text.startswith(prefix.encode() + b":")


@settings(max_examples=500, deadline=None)
@given(keys(), keys())
def test_different_keys_have_different_texts(first: Key, second: Key) -> None:
    """The text tells apart what differs in space, names or values."""
    assert (first.text() == second.text()) is (first.ident == second.ident)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("a", ("b",), (1,)), ("a:b=1", ("b",), (1,))),
        (("a", ("b", "c"), (1, 2)), ("a", ("b",), ("1,c=2",))),
        (("a", ("b",), ("x',c='y",)), ("a", ("b", "c"), ("x", "y"))),
        (("a", ("b",), (1,)), ("a", ("b",), ("1",))),
        (("a", ("b",), (b"1",)), ("a", ("b",), ("bytes'31'",))),
        (("a", ("b",), ("x" * 300,)), ("a", ("b",), ("x" * 301,))),
        (("a" * 300, ("b",), (1,)), ("a" * 301, ("b",), (1,))),
        (("a%20", ("b",), (1,)), ("a ", ("b",), (1,))),
        (("a", ("b",), ("%20",)), ("a", ("b",), (" ",))),
        (("a", ("b",), ("é",)), ("a", ("b",), ("e\u0301",))),
    ],
)
def test_no_value_can_pretend_to_be_another_key(first: Any, second: Any) -> None:
    """Separators, quotes and escapes inside names and values are never taken for the text's own."""
    assert made_key(*first).text() != made_key(*second).text()


def test_a_long_text_is_hashed_and_a_hash_is_never_a_readable_text() -> None:
    """Up to 250 bytes the text is readable; beyond, it is the prefix, '#' and 64 hexadecimal digits."""
    room = MAX_TEXT - len(made_key("a", ("b",), ("",)).text("p"))
    longest = made_key("a", ("b",), ("x" * room,)).text("p")
    assert longest == f"p:a:b='{'x' * room}'"
    assert len(longest) == MAX_TEXT
    hashed = made_key("a", ("b",), ("x" * (room + 1),)).text("p")
    assert hashed.startswith("p:#")
    assert len(hashed) == len("p:#") + 64
    assert "#" not in made_key("#" + hashed[3:], ("b",), (1,)).text("p")


def test_text_of_a_long_key_stays_the_same() -> None:
    """The hashed form is fixed as well: other processes and versions have such keys."""
    digest = "71027d14070623bc84686337b5693b9622028c127a47d029a3e1c1e2c4e0c5c5"
    assert made_key("a", ("b",), ("x" * 300,)).text() == f"stockpyle:#{digest}"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"id": 5}, "stockpyle:tests.test_keys.User:id=5"),
        ({"id": "5"}, "stockpyle:tests.test_keys.User:id='5'"),
        ({"email": "ann@example.org"}, "stockpyle:tests.test_keys.User:email='ann@example.org'"),
        ({"login": "ann", "org": 7}, "stockpyle:tests.test_keys.User:login='ann',org=7"),
    ],
)
def test_text_of_a_key_reads_well(values: dict[str, Any], text: str) -> None:
    """The readable form is prefix, class, and names with values."""
    assert key(User, **values).text() == text


def test_text_of_an_epoch_is_its_class() -> None:
    """The key of a whole class has no attributes in its text."""
    assert spec_of(User).epoch.text("app") == "app:tests.test_keys.User:"


def test_a_local_enum_has_no_text_and_is_named() -> None:
    """A key value of an Enum made by a function works in memory; its text raises InvalidKeyType."""
    local = key(User, id=local_enum()["A"])
    assert local == local
    with pytest.raises(InvalidKeyType, match=r"^User\.id: .*Local"):
        local.text()


def test_a_key_is_no_other_thing() -> None:
    """Keys equal keys only."""
    assert key(User, id=5) != key(User, id=5).ident
    assert key(User, id=5) != key(Vehicle, id=5)


def test_repr_shows_class_and_values() -> None:
    """A key, a definition and a spec show what they are."""
    assert repr(key(User, org=7, login="ann")) == "Key(User, {'login': 'ann', 'org': 7})"
    assert repr(spec_of(User)) == "KeySpec(User)"
    assert repr(spec_of(User).identity) == "KeyDefinition('tests.test_keys.User', ('id',))"


@pytest.mark.parametrize("prefix", ["", "a b", "é", "x" * 101, None, 3, "a\n"])
def test_a_prefix_that_no_key_can_begin_with_is_refused(prefix: Any) -> None:
    """A prefix is 1 to 100 printable ASCII characters without blanks; a store says so when it is made."""
    with pytest.raises(ImproperlyConfigured, match="prefix"):
        BaseDictionaryStore(prefix=prefix)


@pytest.mark.parametrize(
    "asked",
    [
        [],
        [{"id": 1}],
        [{"id": 1}, {"id": 2}, {"id": 1}],
        [{"id": 1}, {"id": None}],
        [{"id": 1}, {"id": True}, {"id": 2.0}, {"id": "3"}],
        [{"id": 1}, {"email": "a"}],
        [{"email": "a"}, {"email": "b"}],
        [{"login": "a", "org": 1}, {"org": 2, "login": "b"}],
        [{"login": "a", "org": 1}, {"org": None, "login": "b"}],
        [{"login": "a", "org": 1}, {"org": True, "login": "b"}],
        [{"login": "a", "org": 1}, {"org": 2, "id": 3}],
        [{1: "a", "org": 1}, {1: "b", "org": 2}],
        [{}, {}],
        [{"id": 1}, MappingProxyType({"id": 2})],
        [{"id": 1}, {"nothing": 2}],
        [{"nothing": 1}, {"nothing": 2}],
        [{"id": 1}, "id"],
        [{"id": 1}, {"id": []}],
    ],
)
@pytest.mark.parametrize("klass", [User, MappedUser])
def test_keys_of_a_batch_are_those_of_each(klass: type, asked: list[Any]) -> None:
    """A batch of keys is read as each of them is, alike or not, and refused as each of them is."""

    def outcome(work: Callable[[], list[Key | None]]) -> Any:
        try:
            return [key and (key.ident, [type(value) for value in key.values]) for key in work()]
        except InvalidKey as error:
            return repr(error)

    spec = spec_of(klass)
    assert outcome(lambda: spec.keys(asked)) == outcome(lambda: [spec.key(each) for each in asked])
