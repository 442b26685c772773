from __future__ import annotations

import pytest

from stockpyle.exceptions import UnsupportedOperation
from stockpyle.stores import ChainedStore, NullStore, ProcessMemoryStore
from stockpyle.testing import Person


def test_null_store_keeps_nothing() -> None:
    """What is put into a NullStore is not there, by any key, with a class and without."""
    store = NullStore()
    store.put(Person(1, "ann@x"))
    assert store.get(Person, {"id": 1}) is None
    assert store.get({"email": "ann@x"}) is None
    assert store.batch_get(Person, [{"id": 1}, {"id": 1}]) == [None, None]
    store.delete(Person(1))
    store.batch_delete(Person(i) for i in range(2))
    store.invalidate(Person)
    store.invalidate(Person, {"email": "ann@x"})
    store.clear()
    store.release()


def test_null_store_still_checks_its_keys() -> None:
    """A cache that is switched off refuses the same mistakes as one that is on."""
    with pytest.raises(LookupError, match="nam"):
        NullStore().get(Person, {"nam": 1})


def test_null_store_as_a_tier_leaves_all_to_the_others() -> None:
    """In a chain it always misses, and is filled with nothing."""
    null, source = NullStore(), ProcessMemoryStore()
    chain = ChainedStore([null, source])
    chain.put(Person(1, "ann@x"))
    assert chain.get(Person, {"email": "ann@x"}) is source.get(Person, {"id": 1})
    assert (null.stats.misses, null.stats.fills, null.stats.refused) == (1, 0, 0)


def test_null_store_is_no_source() -> None:
    """A chain of it alone accepts no class, and says so."""
    chain = ChainedStore([NullStore()])
    with pytest.raises(UnsupportedOperation, match=r"Person.*NullStore"):
        chain.put(Person(1))
