"""A memory tier that asks the shared tier below it, at every hit, whether its copy is still what is held there.

Such a tier holds nothing but copies of records that were read from the tier below, each with its revision there. A copy
is handed out only if the tier below says, after the reader has asked, that the record has that revision still. Then a
read of the tier below would have been answered by the very same record: so the copy is as fresh as the shared tier is,
be it an object or the knowledge that there is none. Of a mapped class an alias needs no such question: it is believed
only if the record that it leads to has the asked-for values, and that record was asked about; the database lets no
other row have them. A plain object may have taken a key from another that was not written then: so its aliases are
always those of the tier below.

Where the tier below cannot be asked, what is here is no more than a miss; and it is kept, as it can be asked later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stockpyle.coherence.layers import Layer
from stockpyle.exceptions import ImproperlyConfigured
from stockpyle.keys import Key
from stockpyle.protocols import Revised
from stockpyle.records import MISS, Alias, Found, Record


class ValidatedLayer(Layer):
    """A tier in this process whose every hit is validated against `below`, the shared tier under it.

    The tier brings `discard(held)` besides: forget these records, unless others have taken their places.
    ImproperlyConfigured if there is no tier right below that can be asked.
    """

    def __init__(self, tier: Any, below: Layer | None) -> None:
        super().__init__(tier)
        if below is None or not isinstance(below.tier, Revised):
            what = "no tier" if below is None else f"{_class_of(below.tier)}, which cannot tell"
            raise ImproperlyConfigured(
                f"{_class_of(tier)}(validate=True) asks the tier right below it in the chain whether its copies are up "
                f"to date, and right below it is {what}: put a MemcacheStore or a RedisStore there, or leave validate "
                "out"
            )
        self._below = below
        self.bound = below.bound
        below.revised = True

    def read(self, keys: Sequence[Key], *, lease: bool) -> list[Found]:
        """See Tier.read; a copy that is not up to date is forgotten, and one of which that cannot be told is passed."""
        found = [
            MISS if isinstance(answer, Alias) and not key.spec.mapped else answer
            for key, answer in zip(keys, super().read(keys, lease=lease), strict=True)
        ]
        held = [(key, record) for key, record in zip(keys, found, strict=True) if isinstance(record, Record)]
        if not held:
            return found
        unchanged = self._below.unchanged(held)
        if all(unchanged):
            return found
        answers = dict(zip([key.ident for key in keys], found, strict=True))
        changed = [each for each, same in zip(held, unchanged, strict=True) if same is False]
        answers.update((key.ident, MISS) for (key, _), same in zip(held, unchanged, strict=True) if same is None)
        if changed:
            self.tier.discard(changed)  # type: ignore[attr-defined]
            outdated = [key for key, _ in changed]
            for key, answer in zip(outdated, super().read(outdated, lease=lease), strict=True):
                # another reader has filled it meanwhile: nobody has been asked about that
                answers[key.ident] = MISS if isinstance(answer, Record) else answer
        return [answers[key.ident] for key in keys]

    def read_one(self, key: Key, *, lease: bool) -> Found:
        """See Layer.read_one, and read()."""
        (answer,) = super().read([key], lease=lease)
        if not isinstance(answer, Record):
            return MISS if isinstance(answer, Alias) and not key.spec.mapped else answer
        unchanged = self._below.is_unchanged(key, answer)
        if unchanged:
            return answer
        if unchanged is None:
            return MISS
        self.tier.discard([(key, answer)])  # type: ignore[attr-defined]
        (now,) = super().read([key], lease=lease)
        # another reader has filled it meanwhile: nobody has been asked about that
        return MISS if isinstance(now, Record) else now

    def until(self, record: Record, deadline: float | None) -> Record | None:
        """See Layer.until. What was not read from the tier below is not kept: the next reader finds it there."""
        return None if record.revision is None else super().until(record, deadline)


def _class_of(tier: Any) -> str:
    return type(getattr(tier, "store", tier)).__name__
