"""How documents are written to MongoDB, whatever is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LARGEST = 16 * 2**20 - 2**14
"""How many bytes an object, or a value, may have: MongoDB's documents have at most 16 MB."""

ATTEMPTS = 5
"""How often something is sent in which a document was new, and then was not."""

_DUPLICATE = 11000
"""The code of MongoDB's error for an _id that is there already."""


def write_all(documents: Any, operations: Sequence[Any]) -> None:
    """Send these operations to a collection of pymongo, in one bulk write.

    They are such as can be sent twice.
    """
    from pymongo.errors import BulkWriteError

    for attempt in range(1, ATTEMPTS + 1):
        try:
            documents.bulk_write(operations, ordered=True)
            return
        except BulkWriteError as error:
            # somebody else has put the same new thing at the same moment: now it is there
            if attempt == ATTEMPTS or any(each["code"] != _DUPLICATE for each in _errors_in(error)):
                raise


def _errors_in(error: Any) -> list[Any]:
    details = error.details or {}
    return [*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())]
