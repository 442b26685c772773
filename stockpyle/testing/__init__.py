"""What a store must do, as tests: subclass StoreContract, QueryContract if it has queries, and TierContract for a tier,
and run pytest::

    class TestOurStore(StoreContract):
        def make_store(self, **options):
            return OurStore(**options)

Capabilities that a store lacks are switched off by class attributes. RevisedContract is for a tier that tells
revisions, so that a ProcessMemoryStore(validate=True) can stand above it. CollectionContract and CounterContract are
for stores that keep collections and counters.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    "stockpyle.testing.query_contract",
    "stockpyle.testing.store_contract",
    "stockpyle.testing.tier_contract",
    "stockpyle.testing.revised_contract",
    "stockpyle.testing.views_contract",
)

from stockpyle.testing.query_contract import QueryContract  # noqa: E402
from stockpyle.testing.revised_contract import RevisedContract  # noqa: E402
from stockpyle.testing.samples import Automobile, Car, Clock, Person, Pet, Truck  # noqa: E402
from stockpyle.testing.store_contract import StoreContract  # noqa: E402
from stockpyle.testing.tier_contract import TierContract  # noqa: E402
from stockpyle.testing.views_contract import CollectionContract, CounterContract  # noqa: E402

__all__ = [
    "Automobile",
    "Car",
    "Clock",
    "CollectionContract",
    "CounterContract",
    "Person",
    "Pet",
    "QueryContract",
    "RevisedContract",
    "StoreContract",
    "TierContract",
    "Truck",
]
