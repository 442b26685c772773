"""``__stockpyle_keys__``: the attributes that identify an object, and the keys made of them.

A class declares a list of attribute names and tuples of names. The first is its identity key, every other
one an alternate key. A KeySpec is such a declaration, checked; a Key is one definition with values in it::

    class User:
        __stockpyle_keys__ = ["id", "email", ("org", "login")]

    spec_of_plain(User).key({"login": "ann", "org": 7})

Keys are the same when their space (the name under which the class's objects live), names and values are.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from operator import add, attrgetter, itemgetter
from typing import Any

from stockpyle.exceptions import (
    ImproperlyConfigured,
    InvalidKey,
    InvalidKeysDeclaration,
    InvalidKeyType,
    UndeclaredKeyError,
)
from stockpyle.masking import displayed
from stockpyle.values import ALWAYS_NORMAL, UnusableValue, normalise, write, write_name

Ident = tuple[str, tuple[str, ...], tuple[Any, ...]]

MAX_TEXT = 250
"""What memcached allows a key to be, in bytes."""


def checked_prefix(prefix: str) -> str:
    """Return `prefix` if keys may begin with it; ImproperlyConfigured if not."""
    if not isinstance(prefix, str) or not _PREFIX.match(prefix):
        raise ImproperlyConfigured(
            f"prefix is 1 to 100 printable ASCII characters without blanks, not {displayed(prefix)}"
        )
    return prefix


def chosen_prefix(prefix: str | None, namespace: str | None) -> str:
    """Return what keys begin with, by either of its two names; ImproperlyConfigured for both, or a bad one."""
    if prefix is not None and namespace is not None:
        raise ImproperlyConfigured("give either prefix or namespace: both mean the beginning of all keys")
    own = namespace if prefix is None else prefix
    return checked_prefix("stockpyle" if own is None else own)


_PREFIX = re.compile(r"[!-~]{1,100}\Z")


class KeyDefinition:
    """One declared key of one class.

    attributes are in sorted order, whatever the order of the declaration; names are how remote tiers and
    other classes of the same table call them; coerce turns a value that a caller gave into the type that the
    attribute holds (or is None), before it is normalised; natural are the types, one an attribute, whose values
    neither of the two changes, if they can be told. A key is row_locked if who writes an object with
    this key holds a lock of the source's, up to the commit, that excludes every other writer of the key.
    """

    __slots__ = ("_heads", "attributes", "coerce", "names", "natural", "row_locked", "short_heads", "space")

    def __init__(
        self,
        space: str,
        attributes: tuple[str, ...],
        names: tuple[str, ...] | None = None,
        coerce: tuple[Callable[[Any], Any] | None, ...] | None = None,
        row_locked: bool = True,
        natural: tuple[type | None, ...] | None = None,
    ) -> None:
        self.space = space
        self.row_locked = row_locked
        self.attributes = attributes
        self.names = names or attributes
        self.coerce = coerce
        self.natural = natural
        self._heads: dict[str, tuple[str, ...]] = {}
        self.short_heads: dict[str, bytes] = {}
        """What short_head() has returned, by the prefix."""

    def heads(self, prefix: str) -> tuple[str, ...]:
        """Return what stands before each value in the texts of keys, which begin with `prefix`; the same each time."""
        heads = self._heads.get(prefix)
        if heads is None:
            names = [f"{write_name(name)}=" for name in self.names] or [""]
            first = f"{prefix}:{write_name(self.space)}:{names[0]}"
            heads = self._heads[prefix] = (first, *(f",{name}" for name in names[1:]))
        return heads

    def short_head(self, prefix: str) -> bytes:
        """Return what stands before the only value, if an integer fits behind it in any text; else nothing."""
        head = self.heads(prefix)[0].encode("ascii")
        is_short = len(self.attributes) == 1 and len(head) <= MAX_TEXT - _DIGITS
        own = self.short_heads[prefix] = head if is_short else b""
        return own

    def __repr__(self) -> str:
        return f"KeyDefinition({self.space!r}, {self.attributes!r})"


class Key:
    """One definition of one class with normalised values. Equal keys have equal `ident`, and the other way round."""

    __slots__ = ("definition", "ident", "spec", "values")

    def __init__(self, spec: KeySpec, definition: KeyDefinition, values: tuple[Any, ...]) -> None:
        self.spec = spec
        self.definition = definition
        self.values = values
        self.ident: Ident = (definition.space, definition.names, values)

    @property
    def is_identity(self) -> bool:
        """True if this is the key that records are kept under; others are aliases of it."""
        own, identity = self.definition, self.spec.identity
        return own is identity or (own.names == identity.names and own.space == identity.space)

    @property
    def is_epoch(self) -> bool:
        """True if this key stands for all objects of its class."""
        return not self.values

    def as_dict(self) -> dict[str, Any]:
        """Return the key as callers write it: attribute names and values."""
        return dict(zip(self.definition.attributes, self.values, strict=True))

    def text(self, prefix: str = "stockpyle") -> str:
        """Return the key's canonical text for remote tiers: at most 250 bytes of printable ASCII without blanks.

        Readable (``stockpyle:users:id=5``) where it fits, else the prefix and a BLAKE2b of the readable text. The
        prefix is one that checked_prefix lets pass.
        """
        values = self.values
        heads = self.definition.heads(prefix)
        try:
            if len(values) == 1:
                value = values[0]
                text = f"{heads[0]}{value if type(value) is int and -_FEW < value < _FEW else write(value)}"
            else:
                text = "".join(map(add, heads, map(write, values))) if values else heads[0]
        except UnusableValue:
            raise self._unwritable() from None
        if len(text) <= MAX_TEXT:
            return text
        return f"{prefix}:#{blake2b(text.encode('ascii'), digest_size=32).hexdigest()}"

    def _unwritable(self) -> InvalidKeyType:
        """The error that names the attribute whose value has no text."""
        for attribute, value in zip(self.definition.attributes, self.values, strict=True):
            try:
                write(value)
            except UnusableValue as error:
                return InvalidKeyType(f"{self.spec.klass.__name__}.{attribute}: {error}")
        raise AssertionError("every value can be written alone")

    def __eq__(self, other: object) -> bool:
        return self.ident == other.ident if isinstance(other, Key) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.ident)

    def __repr__(self) -> str:
        return f"Key({self.spec.klass.__name__}, {self.as_dict()!r})"


def texts_of(keys: Iterable[Key], prefix: str) -> list[bytes]:
    """Return the texts of many keys, as bytes."""
    return [text_of(key, prefix) for key in keys]


def text_of(key: Key, prefix: str) -> bytes:
    """Return the text of a key, as bytes."""
    head = key.definition.short_heads.get(prefix)
    if head is None:
        head = key.definition.short_head(prefix)
    if head:
        value = key.values[0]
        if type(value) is int and -_FEW < value < _FEW:
            return b"%b%d" % (head, value)
    return key.text(prefix).encode("ascii")


_DIGITS = 20
_FEW = 10 ** (_DIGITS - 1)


class KeySpec:
    """The keys of one class. This one is for plain classes; mapped classes have a kind of their own."""

    mapped = False
    cacheable = True
    """False for a class whose objects no tier may keep, because nothing tells when they change."""

    portable = True
    """False for a class whose name means nothing to another process."""

    def __init__(self, klass: type, definitions: Iterable[KeyDefinition], bases: tuple[KeySpec, ...] = ()) -> None:
        self.klass = klass
        self.definitions = tuple(definitions)
        self.identity = self.definitions[0]
        self.space = self.identity.space
        self.bases = bases
        self._by_names = {definition.attributes: definition for definition in self.definitions}
        self._epoch = KeyDefinition(self.space, ())

    @property
    def epoch(self) -> Key:
        """The key that stands for all objects of the class."""
        return Key(self, self._epoch, ())

    def check_portable(self, store: str) -> None:
        """Raise InvalidKeysDeclaration if `store`, which other processes share, cannot tell this class by its name."""
        if not self.portable:
            raise InvalidKeysDeclaration(
                f"{self.klass.__qualname__} is defined inside a function, so its name does not tell another process, "
                f"nor {store}, which class it is: define it at the top of a module, or give it a __stockpyle_name__"
            )

    def subclasses(self) -> list[KeySpec]:
        """Return the specs of all subclasses there are now, which a polymorphic tier keeps as this class, too."""
        below: list[type] = list(self.klass.__subclasses__())
        for klass in below:
            below += klass.__subclasses__()
        return [spec_of_plain(klass) for klass in dict.fromkeys(below)]

    def key(self, asked: Mapping[str, Any]) -> Key | None:
        """Return the key that `asked` spells, or None if a value in it is None and so identifies nothing.

        Raises UndeclaredKeyError for a set of attributes that is not declared, InvalidKeyType for a value
        that cannot be part of a key, and InvalidKey for what is no mapping at all.
        """
        if type(asked) is dict:
            definition = self._by_names.get(tuple(asked))
            if definition is not None:
                return self._make(definition, tuple(asked.values()))
        return self._key_in_any_order(asked)

    def _key_in_any_order(self, asked: Mapping[str, Any]) -> Key | None:
        try:
            names = tuple(asked)
            definition = self._by_names.get(names) or self._by_names[tuple(sorted(names))]
            values = tuple([asked[name] for name in definition.attributes])
        except (KeyError, TypeError):
            raise self._undeclared(asked) from None
        return self._make(definition, values)

    def keys(self, asked: Sequence[Mapping[str, Any]]) -> list[Key | None]:
        """Return what key() does of each."""
        return self._alike(asked) or [self.key(each) for each in asked]

    def _alike(self, asked: Sequence[Mapping[str, Any]]) -> list[Key | None] | None:
        """The keys of dicts that all have the same attributes, with values that stand in keys as they are."""
        if len(asked) < 2 or set(map(type, asked)) != {dict} or len(set(map(len, asked))) != 1:
            return None
        try:
            names = tuple(asked[0])
            definition = self._by_names.get(names) or self._by_names[tuple(sorted(names))]
            if definition.natural is None:
                return None
            if len(names) == 1:
                (name,) = names
                values = [(each[name],) for each in asked]
            else:
                values = list(map(itemgetter(*definition.attributes), asked))
        except (KeyError, TypeError):
            return None
        columns = zip(*values, strict=True)
        if any(set(map(type, own)) != {kind} for own, kind in zip(columns, definition.natural, strict=True)):
            return None
        return [Key(self, definition, own) for own in values]

    def _make(self, definition: KeyDefinition, values: tuple[Any, ...]) -> Key | None:
        if definition.natural is not None and definition.natural == tuple(map(type, values)):
            return Key(self, definition, values)
        ready = definition.coerce is None
        for value in values:
            if value is None:
                return None
            if type(value) not in ALWAYS_NORMAL:
                ready = False
        if ready:
            return Key(self, definition, values)
        normal = []
        coercions = definition.coerce or itertools.repeat(None)
        for name, value, coerce in zip(definition.attributes, values, coercions, strict=False):
            try:
                normal.append(normalise(value if coerce is None else coerce(value)))
            except UnusableValue as error:
                raise InvalidKeyType(f"{self.klass.__name__}.{name}: {error}") from None
        return Key(self, definition, tuple(normal))

    def _undeclared(self, asked: Any) -> InvalidKey:
        if not isinstance(asked, Mapping):
            return InvalidKey(
                f"a key of {self.klass.__name__} is a mapping of attribute names to values, "
                f"such as {{{self.identity.attributes[0]!r}: ...}}, not {asked!r}"
            )
        declared = ", ".join("{" + ", ".join(d.attributes) + "}" for d in self.definitions)
        given = "{" + ", ".join(map(str, asked)) + "}"
        return UndeclaredKeyError(f"{self.klass.__name__} declares no key {given}; it declares {declared}")

    def value_of(self, obj: Any, attribute: str) -> Any:
        """Return a key attribute of `obj`; InvalidKey if it has none."""
        try:
            return getattr(obj, attribute)
        except AttributeError as error:
            raise InvalidKey(
                f"this {type(obj).__name__} has no attribute {attribute!r}, "
                f"which __stockpyle_keys__ of {self.klass.__name__} names"
            ) from error

    def key_of(self, obj: Any, definition: KeyDefinition) -> Key | None:
        """Return one key of `obj`, or None if an attribute in it is None."""
        return self._make(definition, tuple([self.value_of(obj, name) for name in definition.attributes]))

    def keys_of(self, obj: Any) -> list[Key]:
        """Return all keys of `obj`, its identity first, without the alternate ones that have a None in them.

        Raises InvalidKey if the identity itself has one: such an object could never be found again.
        """
        identity, *alternates = [self.key_of(obj, definition) for definition in self.definitions]
        if identity is None:
            names = ", ".join(self.identity.attributes)
            raise InvalidKey(f"this {self.klass.__name__} has None in its identity key {{{names}}}")
        return [identity, *(key for key in alternates if key is not None)]

    # What a tier keeps of an object. A plain object is kept as it is.

    def dehydrate(self, obj: Any) -> Any:
        """Return what tiers keep of `obj`."""
        return obj

    def materialise(self, value: Any) -> Any:
        """Return an object for what a tier kept."""
        return value

    def materialise_all(self, values: Sequence[Any]) -> list[Any]:
        """Return an object for each of these, which tiers kept."""
        return [self.materialise(value) for value in values]

    def stand_in(self, values: Mapping[str, Any]) -> Any:
        """Return an object that has these attributes and was not initialised."""
        obj: Any = object.__new__(self.klass)
        for name, value in values.items():
            setattr(obj, name, value)
        return obj

    def key_in(self, value: Any, definition: KeyDefinition) -> Key | None:
        """Return one key of what a tier kept."""
        return self.key_of(value, definition)

    def idents_in(self, value: Any) -> list[Ident | None]:
        """Return the ident of each definition's key in what a tier kept; None where an attribute in it is None."""
        keys = [self.key_in(value, definition) for definition in self.definitions]
        return [None if key is None else key.ident for key in keys]

    def getter(self, attributes: tuple[str, ...]) -> Callable[[Any], Any]:
        """Return what reads these attributes of what a tier kept: a tuple, or of a single one its value."""
        return attrgetter(*attributes)

    def has(self, value: Any, key: Key) -> bool:
        """True if what a tier kept has the values of `key` itself."""
        try:
            own = self.key_in(value, key.definition)
        except InvalidKey:
            # a plain object may have lost its key attributes since it was put
            return False
        return own is not None and own.values == key.values

    def keys_in(self, value: Any) -> list[Key]:
        """Return all keys of what a tier kept."""
        return self.keys_of(value)

    def serves(self, spec: KeySpec, value: Any) -> bool:
        """True if what a tier kept, an object of the class of `spec`, is one of this class."""
        return isinstance(value, self.klass)

    def is_of_hierarchy(self, spec: KeySpec) -> bool:
        """True if an identity means one and the same object in this class and in that of `spec`."""
        return False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.klass.__qualname__})"


_plain: dict[type, KeySpec] = {}
_local_numbers = itertools.count(1)


def spec_of_plain(klass: type) -> KeySpec:
    """Return the KeySpec of a class that is not mapped, checking its declaration on the first call.

    Raises InvalidKeysDeclaration if there is none or it is wrong.
    """
    if not isinstance(klass, type):
        raise InvalidKeysDeclaration(f"{klass!r} is not a class")
    spec = _plain.get(klass)
    return spec if spec is not None else _plain.setdefault(klass, _describe(klass))


def declared_keys(klass: type) -> list[tuple[str, ...]]:
    """Return the class's ``__stockpyle_keys__`` as sorted tuples of names; raises InvalidKeysDeclaration."""
    if not hasattr(klass, "__stockpyle_keys__"):
        raise InvalidKeysDeclaration(
            f'{klass.__qualname__} declares no __stockpyle_keys__, such as ["id", "email", ("org", "login")]'
        )
    declared = klass.__stockpyle_keys__
    if isinstance(declared, str):
        raise _wrong(klass, f"is {declared!r}; it must be a list, such as [{declared!r}]")
    if not isinstance(declared, list | tuple):
        raise _wrong(klass, f"is {declared!r}; it must be a list, whose order says which key is the identity")
    result: list[tuple[str, ...]] = []
    for entry in declared:
        names = (entry,) if isinstance(entry, str) else entry
        if not isinstance(names, tuple | list) or not names:
            raise _wrong(klass, f"contains {entry!r}; each entry must be an attribute name or a tuple of names")
        for name in names:
            if not isinstance(name, str) or not name.isidentifier():
                raise _wrong(klass, f"contains {name!r}, which is no attribute name")
        if len(set(names)) < len(names):
            raise _wrong(klass, f"names an attribute twice in {entry!r}")
        if tuple(sorted(names)) in result:
            raise _wrong(klass, f"declares {entry!r} twice")
        result.append(tuple(sorted(names)))
    if not result:
        raise _wrong(klass, "is empty; it must name at least one attribute")
    return result


def _wrong(klass: type, what: str) -> InvalidKeysDeclaration:
    return InvalidKeysDeclaration(f"__stockpyle_keys__ of {klass.__qualname__} {what}")


def _describe(klass: type) -> KeySpec:
    declared = declared_keys(klass)
    for name in itertools.chain.from_iterable(declared):
        if not may_have(klass, name):
            raise _wrong(klass, f"names {name!r}, an attribute that its objects cannot have")
    space, portable = _space(klass)
    bases = tuple(spec_of_plain(base) for base in klass.__mro__[1:] if hasattr(base, "__stockpyle_keys__"))
    spec = KeySpec(klass, [KeyDefinition(space, names) for names in declared], bases)
    spec.portable = portable
    return spec


def may_have(klass: type, name: str) -> bool:
    """False if no object of the class can have an attribute of this name."""
    if hasattr(klass, name) or hasattr(klass, "__getattr__"):
        return True
    if any(name in getattr(base, "__annotations__", ()) for base in klass.__mro__):
        return True
    # only slots, and dataclasses that nothing but their generated __init__ fills, say what else there cannot be
    return klass.__dictoffset__ != 0 and not all(map(_is_only_fields, klass.__mro__[:-1]))


def _is_only_fields(klass: type) -> bool:
    if klass.__dictoffset__ == 0:
        return True
    own = vars(klass)
    return "__dataclass_fields__" in own and own["__dataclass_params__"].init and "__post_init__" not in own


def _space(klass: type) -> tuple[str, bool]:
    name = vars(klass).get("__stockpyle_name__")
    if name is not None:
        if not isinstance(name, str) or not name:
            raise InvalidKeysDeclaration(f"__stockpyle_name__ of {klass.__qualname__} must be a name, not {name!r}")
        return name, True
    name = f"{klass.__module__}.{klass.__qualname__}"
    if "<locals>" in name:
        # classes made by a function share their name with those made by its other calls
        return f"{name}#{next(_local_numbers)}", False
    return name, True
