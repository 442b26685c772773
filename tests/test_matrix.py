"""What stores say they can do, what they can, and what the documents say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stockpyle import matrix
from stockpyle.capabilities import CAPABILITIES, METHODS, PAIRS, PROVIDERS
from stockpyle.exceptions import UnsupportedOperation
from stockpyle.stores import (
    BaseDictionaryStore,
    BaseStore,
    ChainedStore,
    NullStore,
    ProcessMemoryStore,
    SqlAlchemyStore,
)
from stockpyle.stores.cache import CacheStore

PAGE = Path(__file__).parent.parent / "docs" / "stores.md"


def test_the_page_says_what_the_stores_say() -> None:
    """The tables of the page are those that are made from the classes: renew them with python -m stockpyle.matrix."""
    page = PAGE.read_text(encoding="utf-8")
    assert matrix.renewed(page) == page
    assert matrix.capabilities() in page
    assert matrix.schemes() in page


def test_the_module_prints_its_tables_or_renews_a_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """It is run by hand after a store has changed."""
    matrix.main([])
    assert capsys.readouterr().out == f"{matrix.capabilities()}\n\n{matrix.schemes()}\n"
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- schemes: x -->\nold\nold\n<!-- end -->\nafter\n")
    matrix.main([str(page)])
    assert page.read_text() == f"before\n<!-- schemes: x -->\n{matrix.schemes()}\n<!-- end -->\nafter\n"


@pytest.mark.parametrize("klass", matrix.stores())
def test_every_store_names_only_what_is_known(klass: type[BaseStore]) -> None:
    """A store has the six verbs, and no capability that is not described."""
    assert klass.supports <= set(CAPABILITIES)
    assert {"put", "get", "delete", "batch_put", "batch_get", "batch_delete"} <= klass.supports
    assert isinstance(klass.supports, frozenset)


@pytest.mark.parametrize("klass", matrix.stores())
def test_what_a_store_has_methods_for_is_what_it_supports(klass: type[BaseStore]) -> None:
    """A method of one's own is a capability; a capability that is called has a method of one's own."""
    for name, method in METHODS.items():
        if hasattr(BaseStore, method) and name not in {verb for pair in PAIRS.items() for verb in pair}:
            methods = [each for each in (method, PROVIDERS.get(name)) if each is not None]
            own = any(getattr(klass, each) is not getattr(BaseStore, each) for each in methods)
            assert own is (name in klass.supports), f"{klass.__name__}.{method}"


@pytest.mark.parametrize("klass", matrix.stores())
def test_traits_are_true(klass: type[BaseStore]) -> None:
    """What is no method is checked against what makes it true."""
    assert ("tier" in klass.supports) is issubclass(klass, CacheStore)
    assert ("shared" in klass.supports) is bool(getattr(klass, "shared", klass is SqlAlchemyStore))
    takes: Any = klass.__init__
    assert ("expiry" in klass.supports) is ("lifetime" in takes.__annotations__)
    assert ("polymorphic" in klass.supports) is ("polymorphic" in takes.__annotations__)


def test_a_subclass_supports_what_it_adds() -> None:
    """Capabilities are inherited, added by methods, and declared; a base class without them has none."""

    class Mine(BaseDictionaryStore):
        supports = frozenset({"shared"})

        def execute(self, *command: Any) -> Any:
            return command

    assert Mine.supports == BaseDictionaryStore.supports | {"shared", "execute"}
    assert "execute" not in BaseDictionaryStore.supports
    assert BaseStore.supports == frozenset()

    class Batches(BaseStore):
        def batch_put(self, objs: Any) -> None: ...

        def get(self, klass: type, key: Any) -> None: ...

        def batch_delete(self, objs: Any) -> None: ...

    assert Batches.supports == {verb for pair in PAIRS.items() for verb in pair}


def test_a_store_may_support_less_than_its_class() -> None:
    """Messages need PostgreSQL, and a store on SQLite says that it has none."""
    assert "pubsub" in SqlAlchemyStore.supports
    store = SqlAlchemyStore("sqlite://")
    assert "pubsub" not in store.supports
    with pytest.raises(UnsupportedOperation):
        store.pubsub()
    assert "pubsub" in SqlAlchemyStore("postgresql+psycopg://h/db").supports
    assert "sessions" in ChainedStore([NullStore()]).supports


def test_a_chain_supports_what_its_stores_do() -> None:
    """It keeps collections, counters and objects to be queried in those of its stores that do, and else has none."""
    with_both = ChainedStore([ProcessMemoryStore(), SqlAlchemyStore("sqlite://")])
    assert {"collection", "counter"} <= with_both.supports
    with_both.counter("visits").increment()
    with_none = ChainedStore([NullStore(), SqlAlchemyStore("sqlite://")])
    assert not {"collection", "counter"} & with_none.supports
    assert {"query", "scan"} <= with_none.supports
    assert not {"query", "scan"} & ChainedStore([NullStore()]).supports
    with pytest.raises(UnsupportedOperation):
        with_none.counter("visits")
