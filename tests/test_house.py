"""The order of the house: who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import stockpyle

PACKAGE = Path(stockpyle.__file__).parent

LAYERS: list[tuple[str, ...]] = [
    # from the ground up; a module's place is where its name is, else where a pattern fits it
    ("exceptions", "forks", "stats", "values", "capabilities", "masking"),
    ("keys", "lifetimes", "packing", "compression", "signing", "addresses", "parameters", "schemes"),
    ("records",),
    ("protocols", "classes"),
    ("objects",),
    ("codecs",),
    ("coherence", "coherence.*"),
    ("orm", "orm.*"),
    ("remote", "remote.*"),
    ("views", "views.*"),
    ("memcached", "memcached.*", "redis", "redis.*"),
    ("pubsub", "pubsub.*"),
    ("stores._sieve", "stores._slots", "stores._connected", "stores._shove"),
    ("stores._holding",),
    ("stores._hits", "stores._kept"),
    ("stores._levels",),
    ("stores._*",),
    ("stores.base",),
    ("stores._writing",),
    ("stores.cache",),
    ("stores._remote", "stores._in_memory", "stores._sql", "stores._durable", "stores.dictionary"),
    ("stores._sql_entries",),
    ("stores._sql_views", "stores._mongo_views"),
    ("stores.*",),
    ("stores.chained",),
    ("urls",),
    ("stores",),
    ("matrix",),
    ("ext", "ext.*"),
    ("testing", "testing.*"),
    ("",),
]
FAMILIES = ("coherence", "orm", "remote", "memcached", "redis", "pubsub", "views", "testing")
"""Layers in which one module may import another, as long as it goes one way."""

EXCEPTIONS = {
    # whether a class is mapped is asked of SQLAlchemy, and its mapping only where it is
    ("classes", "orm.mapping"),
    # and how its rows are turned into bytes
    ("codecs", "orm.packing"),
}


def modules() -> dict[str, Path]:
    """Return the package's modules by name, without the leading "stockpyle"."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports_of(source: str, known: set[str]) -> Iterator[str]:
    """Yield what a module imports of stockpyle, at its top or inside a function, for typing or not."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if top == "stockpyle":
                while rest and rest not in known:
                    rest = rest.rpartition(".")[0]
                yield rest


IMPORTS = {
    name: sorted(set(imports_of(path.read_text(encoding="utf-8"), set(MODULES)))) for name, path in MODULES.items()
}


def place(module: str) -> int:
    """Return how high in the house a module stands."""
    named = [i for i, names in enumerate(LAYERS) if module in names]
    fitting = [i for i, patterns in enumerate(LAYERS) if any(fnmatchcase(module, pattern) for pattern in patterns)]
    assert fitting, f"stockpyle.{module} has no place: give it one in LAYERS"
    return (named or fitting)[0]


def is_allowed(importer: str, imported: str) -> bool:
    """True if this import points downward."""
    if (importer, imported) in EXCEPTIONS:
        return True
    above, below = place(importer), place(imported)
    if above == below:
        return importer.partition(".")[0] in FAMILIES
    return above > below


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downward(module: str) -> None:
    """A module imports only what stands below it; a concrete store neither another one nor the chain."""
    upward = [imported for imported in IMPORTS[module] if not is_allowed(module, imported)]
    assert not upward, f"stockpyle.{module} must not import {upward}"


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("keys", "values", True),
        ("values", "keys", False),
        ("keys", "lifetimes", False),
        ("coherence.reader", "coherence.layers", True),
        ("coherence.reader", "orm.mapping", False),
        ("classes", "orm.mapping", True),
        ("classes", "orm.loading", False),
        ("stores.memory", "stores.base", True),
        ("stores.base", "stores.memory", False),
        ("stores.toy", "stores.memory", False),
        ("stores.toy", "stores.chained", False),
        ("stores.toy", "stores", False),
        ("stores.chained", "stores.base", True),
        ("stores.base", "stores.chained", False),
        ("ext.sqlalchemy", "stores.chained", True),
        ("stores.chained", "ext.sqlalchemy", False),
        ("orm.commits", "", False),
    ],
)
def test_the_rule_tells_up_from_down(importer: str, imported: str, allowed: bool) -> None:
    """The rule itself allows what it should, and refuses the rest."""
    assert is_allowed(importer, imported) is allowed


def test_imports_are_seen_wherever_they_are() -> None:
    """Imports inside functions, under TYPE_CHECKING and of whole modules are all found."""
    source = """
import stockpyle.keys
from stockpyle import values
if TYPE_CHECKING:
    from stockpyle.stores import memory
def f():
    from stockpyle.stores.base import BaseStore
    import stockpylelike, json
    from stockpyle import __version__
"""
    assert set(imports_of(source, set(MODULES))) == {"keys", "values", "stores.memory", "stores.base", ""}


def test_no_module_imports_itself_in_a_circle() -> None:
    """The imports of all modules, the exceptions left out, can be put in one order."""
    graph = {
        module: [other for other in imported if (module, other) not in EXCEPTIONS]
        for module, imported in IMPORTS.items()
    }
    assert set(TopologicalSorter(graph).static_order()) == set(MODULES)


def test_the_exceptions_are_needed() -> None:
    """Every exception to the rule is still made use of."""
    assert all(imported in IMPORTS[importer] for importer, imported in EXCEPTIONS)


def test_no_driver_is_imported_before_it_is_needed() -> None:
    """Importing the stores imports no optional package: each is imported by the constructor that needs it."""
    optional = ["sqlalchemy", "msgspec", "pymemcache", "redis", "pymongo", "bson", "shove", "greenlet", "pycountry"]
    script = f"import stockpyle.stores, sys; print([name for name in {optional!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=PACKAGE.parent, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_store_works_without_sqlalchemy() -> None:
    """A process that has no SQLAlchemy puts and gets plain objects."""
    script = """
import sys
sys.modules["sqlalchemy"] = None
from stockpyle.stores import ProcessMemoryStore
class User:
    __stockpyle_keys__ = ["id"]
    id = 5
store, user = ProcessMemoryStore(), User()
store.put(user)
assert store.get(User, {"id": 5}) is user
"""
    subprocess.run([sys.executable, "-c", script], cwd=PACKAGE.parent, check=True)
