"""The readers' half of the protocol: find records in the tiers, load what is missing once, and fill it in.

What makes it safe, in the order of the code:

- an alias is a hint: it is believed only if the record it leads to has the asked-for values itself;
- a record is filled only if it was loaded under a lease on its own identity, so a cold read by an alternate key,
  which learns the identity only from its load, takes that lease and loads again;
- it is filled only under its own key values: the database's equality is not Python's;
- what was loaded while any tier said LOCKED is returned, and filled into nothing;
- every lease that was not used is given back, whatever happens;
- an alias that has misled is removed as a writer would that has changed nothing.

A key that another reader is loading is left to the end, when this reader holds no lease that others wait for; then
it waits a little, looks again, and at last loads the key without filling it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from stockpyle.coherence.layers import Layer
from stockpyle.keys import Ident, Key
from stockpyle.protocols import Source
from stockpyle.records import ABSENT, LOCKED, Alias, Busy, Found, Lease, Record
from stockpyle.stats import Stats

BUSY_SECONDS = 1.0
"""How long a reader waits, in all, for others' loads."""

Asked = dict[Ident, Key]


def fetch(layers: Sequence[Layer], source: Source | None, keys: Iterable[Key]) -> dict[Ident, Record | None]:
    """Return by ident the record that each key leads to, or None where there is no such object.

    Without a source no leases are taken and nothing is filled.
    """
    asked = {key.ident: key for key in keys}
    return dict(zip(asked, _fetch(layers, source, asked), strict=True)) if asked else {}


def fetch_each(layers: Sequence[Layer], source: Source | None, keys: Sequence[Key]) -> list[Record | None]:
    """Return what fetch() does, for each key in turn."""
    asked = {key.ident: key for key in keys}
    found = _fetch(layers, source, asked) if asked else []
    if len(asked) == len(keys):
        return found
    by_ident = dict(zip(asked, found, strict=True))
    return [by_ident[key.ident] for key in keys]


def fetch_one(layers: Sequence[Layer], source: Source | None, key: Key) -> Record | None:
    """Return what fetch() does, for one key: sooner, if the fastest layer has it."""
    if not layers:
        return fetch_each(layers, source, [key])[0]
    fastest, lease = layers[0], source is not None
    answer = fastest.read_one(key, lease=lease)
    if type(answer) is Record and answer.spec is key.spec and key.spec.mapped and answer.value is not ABSENT:
        # the warm cache's way: what _is_hit would say, too
        fastest.stats.hits += 1
        return answer
    told = {key.ident: answer}
    by_alias = False
    if type(answer) is Alias:
        by_alias, identity = True, answer.identity
        if identity.ident not in told:
            told[identity.ident] = answer = fastest.read_one(identity, lease=lease)
    # where there is a record there is no lease that somebody has to mind
    if type(answer) is Record and _is_hit(answer, key, by_alias=by_alias):
        fastest.stats.hits += 1
        return None if answer.value is ABSENT else answer
    return _go_on(layers, source, {key.ident: key}, told)[0]


def _fetch(layers: Sequence[Layer], source: Source | None, asked: Asked) -> list[Record | None]:
    told: list[Found] = []
    if layers:
        told = layers[0].read(list(asked.values()), lease=source is not None)
        rows = _all_rows(asked.values(), told)
        if rows is not None:
            layers[0].stats.hits += len(rows)
            return rows
    return _go_on(layers, source, asked, dict(zip(asked, told, strict=False)))


def _go_on(
    layers: Sequence[Layer], source: Source | None, asked: Asked, told: dict[Ident, Found]
) -> list[Record | None]:
    """Answer what is asked, when the fastest layer has told what it has."""
    first = _Fetch(layers, source, patient=True, told=told)
    try:
        hits = first.all_hits(asked)
    except BaseException:
        first.give_back()
        raise
    if hits is not None:
        return [None if record.is_absent else record for record in hits]
    answers = first.run(asked)
    left = {ident: key for ident, key in asked.items() if ident not in answers and first.busy_with(ident)}
    if left:
        until = time.monotonic() + BUSY_SECONDS
        for ident in left:
            for other in first.busy_with(ident):
                other.wait(max(0.0, until - time.monotonic()))
        answers.update(_Fetch(layers, source, patient=False).run(left))
    return [_object(answers.get(ident), key) for ident, key in asked.items()]


def _all_rows(keys: Iterable[Key], told: Sequence[Found]) -> list[Record | None] | None:
    """Return what the fastest layer has told if it is a row, or a known absence, for every key: the warm cache's way.

    Nothing of the user's runs here: what has leases may not fail before somebody minds them.
    """
    rows: list[Record | None] = []
    for key, answer in zip(keys, told, strict=True):
        if type(answer) is not Record:
            return None
        if answer.value is ABSENT:
            rows.append(None)
        elif answer.spec is key.spec and answer.spec.mapped:
            rows.append(answer)
        else:
            return None
    return rows


def _object(record: Record | None, key: Key) -> Record | None:
    if record is None or record.is_absent or not key.spec.serves(record.spec, record.value):
        return None
    return record


class _Fetch:
    """One pass over a batch. Its state is what the tiers and the source have said so far, by ident."""

    def __init__(
        self,
        layers: Sequence[Layer],
        source: Source | None,
        *,
        patient: bool,
        told: dict[Ident, Found] | None = None,
    ) -> None:
        self.layers = layers
        self.source = source
        self.source_stats: Stats | None = getattr(source, "stats", None)
        self.patient = patient
        self.aliases: dict[Ident, Alias] = {}
        self.alias_from: dict[Ident, Layer] = {}
        self.records: dict[Ident, Record] = {}
        """What may be filled: read from a tier, or loaded under the key's own lease if one could be had."""
        self.depth: dict[Ident, int] = {}
        self.leases: dict[Ident, list[tuple[Layer, Lease]]] = {}
        self.locked: set[Ident] = set()
        self.busy: dict[Ident, Busy] = {}
        self.told: dict[Ident, Found] = told or {}
        """What the fastest layer has said, and nobody has looked at yet."""

    def all_hits(self, asked: Asked) -> list[Record] | None:
        """Return the records of all that was asked for if the fastest layer has them, be it by aliases.

        What it says otherwise is not lost: run() goes on from there.
        """
        if not self.told:
            return None
        told = self.told
        identities = {alias.identity.ident: alias.identity for alias in told.values() if isinstance(alias, Alias)}
        identities = {ident: key for ident, key in identities.items() if ident not in told}
        if identities:
            told.update(self._ask_fastest(identities))
        records: list[Record] = []
        for ident, key in asked.items():
            answer = told[ident]
            by_alias = isinstance(answer, Alias)
            if isinstance(answer, Alias):
                answer = told[answer.identity.ident]
            if not isinstance(answer, Record) or not _is_hit(answer, key, by_alias=by_alias):
                return None
            records.append(answer)
        self.layers[0].stats.hits += len(asked)
        return records

    def _ask_fastest(self, keys: Asked) -> dict[Ident, Found]:
        return dict(zip(keys, self.layers[0].read(list(keys.values()), lease=self.source is not None), strict=True))

    def run(self, asked: Asked) -> dict[Ident, Record]:
        """Answer every key but those that another reader is loading, if this pass is patient."""
        try:
            answers = self._from_tiers(asked)
            missing = {ident: key for ident, key in asked.items() if ident not in answers and not self.busy_with(ident)}
            if missing and self.source is not None:
                answers.update(self._from_source(missing, self.source))
            self._fill(asked, answers)
        finally:
            self.give_back()
        self._count([ident for ident in asked if ident in answers or not self.busy_with(ident)], answers)
        return answers

    def busy_with(self, ident: Ident) -> list[Busy]:
        """The loads of other readers that this key waits for."""
        alias = self.aliases.get(ident)
        idents = [ident] if alias is None else [ident, alias.identity.ident]
        return [self.busy[each] for each in idents if each in self.busy]

    # what the tiers have

    def _from_tiers(self, asked: Asked) -> dict[Ident, Record]:
        self._read({ident: key for ident, key in asked.items() if not key.is_identity})
        identities = {ident: key for ident, key in asked.items() if key.is_identity}
        for alias in self.aliases.values():
            identities.setdefault(alias.identity.ident, alias.identity)
        self._read({ident: key for ident, key in identities.items() if ident not in self.records})
        answers = {}
        for ident, key in asked.items():
            record = self._held(ident)
            if record is not None and (ident not in self.aliases if record.is_absent else _settles(record, key)):
                answers[ident] = record
        return answers

    def _read(self, keys: Asked) -> None:
        """Ask the layers, fastest first; a key goes on to the next until one has it."""
        pending = dict(keys)
        for depth, layer in enumerate(self.layers):
            if not pending:
                return
            told = {ident: self.told.pop(ident) for ident in pending if ident in self.told} if depth == 0 else {}
            unasked = {ident: key for ident, key in pending.items() if ident not in told}
            if unasked:
                answers = layer.read(list(unasked.values()), lease=self.source is not None)
                told.update(zip(unasked, answers, strict=True))
            for ident, answer in told.items():
                if isinstance(answer, Lease):
                    self.leases.setdefault(ident, []).append((layer, answer))
            for ident, answer in told.items():
                key = pending[ident]
                if answer is LOCKED:
                    self.locked.add(ident)
                    layer.stats.locked += 1
                elif isinstance(answer, Busy):
                    if self.patient:
                        self.busy[ident] = answer
                        del pending[ident]
                elif isinstance(answer, Alias):
                    self.aliases[ident] = _as_asked(answer, key)
                    self.alias_from[ident] = layer
                    del pending[ident]
                elif isinstance(answer, Record):
                    self._learn(ident, key, answer, depth)
                    del pending[ident]

    def _learn(self, ident: Ident, key: Key, record: Record, depth: int) -> None:
        if not key.is_identity and not record.is_absent:
            # a store that is no Tier hands out the object itself under an alternate key
            identity = _own_identity(record, key)
            if identity is None:
                return
            self.aliases[ident] = Alias(identity)
            ident = identity.ident
        self.records[ident] = record
        self.depth[ident] = depth

    def _held(self, ident: Ident) -> Record | None:
        alias = self.aliases.get(ident)
        return self.records.get(ident if alias is None else alias.identity.ident)

    # what the source has

    def _from_source(self, missing: Asked, source: Source) -> dict[Ident, Record]:
        """Load what the tiers lack, in one call; more only for aliases that misled and identities just learnt."""
        by_identity: Asked = {}
        target: dict[Ident, Ident] = {}
        for ident, key in missing.items():
            alias = self.aliases.get(ident)
            identity = key if alias is None else alias.identity
            if identity.is_identity and identity.ident not in self.records:
                by_identity[identity.ident] = identity
                target[ident] = identity.ident
        cold = {ident: key for ident, key in missing.items() if ident not in target}
        loaded = _load(source, {**by_identity, **cold})
        self.records.update({ident: loaded[ident] for ident in by_identity})
        answers = {ident: loaded[target.get(ident, ident)] for ident in missing}
        misled = {
            ident: missing[ident]
            for ident in target
            if ident in self.aliases and not answers[ident].answers(missing[ident])
        }
        if misled:
            answers.update(_load(source, misled))
        self._retract({ident: key for ident, key in (*misled.items(), *cold.items()) if ident in self.alias_from})
        self._learn_identities({ident: answers[ident] for ident in (*cold, *misled)}, missing, answers, source)
        return answers

    def _retract(self, misled: Asked) -> None:
        """Remove aliases that lead elsewhere, or every reader of the key would load until they expire."""
        for layer in self.layers:
            keys = [key for ident, key in misled.items() if self.alias_from[ident] is layer]
            if keys:
                layer.retract(keys)

    def _learn_identities(
        self, loaded: dict[Ident, Record], asked: Asked, answers: dict[Ident, Record], source: Source
    ) -> None:
        """For records loaded by an alternate key: take the tiers' record, or load again under the identity's lease."""
        identities: Asked = {}
        for ident, record in loaded.items():
            if record.is_absent:
                self.records[ident] = record
            elif (
                self.leases.get(ident) and ident not in self.locked and record.fillable and record.answers(asked[ident])
            ):
                identity = _own_identity(record, asked[ident])
                if identity is not None:
                    identities[identity.ident] = identity
                    self.aliases[ident] = Alias(identity)
        self._read({ident: key for ident, key in identities.items() if ident not in self.records})
        leased = {
            ident: key
            for ident, key in identities.items()
            if ident not in self.records and ident not in self.locked and self.leases.get(ident)
        }
        if leased:
            self.records.update(_load(source, leased))
        for ident in loaded:
            record_now = self._held(ident)
            if record_now is not None and record_now.answers(asked[ident]):
                answers[ident] = record_now

    # filling

    def _fill(self, asked: Asked, answers: dict[Ident, Record]) -> None:
        """Turn the leases into records and aliases, from the slowest tier up."""
        for depth in reversed(range(len(self.layers))):
            layer = self.layers[depth]
            leases = {ident: lease for ident, held in self.leases.items() for owner, lease in held if owner is layer}
            kept = {
                ident: self._record_for(layer, lease.key, self.records[ident])
                for ident, lease in leases.items()
                if ident in self.records
            }
            # an alias is of use only in a layer that has, or gets, its record
            held: dict[Ident, Record | None] = {
                ident: self.records[ident] for ident, found_at in self.depth.items() if found_at == depth
            }
            held.update(kept)
            aliases = {
                ident: self._alias_for(lease.key, answers.get(ident), held)
                for ident, lease in leases.items()
                if ident not in kept
            }
            if leases:
                layer.fill([(leases[ident], value) for ident, value in (*kept.items(), *aliases.items())])
        self.leases.clear()

    def _record_for(self, layer: Layer, key: Key, record: Record) -> Record | None:
        if not record.fillable or not key.spec.cacheable or key.ident in self.locked:
            return None
        if not layer.keeps(key, record) or not (record.is_absent or record.answers(key)):
            return None
        return layer.bounded(record)

    def _alias_for(self, key: Key, record: Record | None, held: dict[Ident, Record | None]) -> Alias | None:
        if record is None or not record.answers(key) or key.ident in self.locked:
            return None
        identity = _own_identity(record, key)
        target = None if identity is None else held.get(identity.ident)
        if identity is None or target is None or target.is_absent or identity.ident in self.locked:
            return None
        return Alias(identity, target.deadline) if record.fillable and key.spec.cacheable else None

    def give_back(self) -> None:
        """Give back every lease that was taken and not used."""
        for ident, answer in self.told.items():
            if isinstance(answer, Lease):
                self.leases.setdefault(ident, []).append((self.layers[0], answer))
        self.told = {}
        for layer in self.layers:
            unused = [lease for held in self.leases.values() for owner, lease in held if owner is layer]
            if unused:
                layer.fill([(lease, None) for lease in unused])
        self.leases.clear()

    # counting

    def _count(self, asked: Iterable[Ident], answers: dict[Ident, Record]) -> None:
        for ident in asked:
            alias = self.aliases.get(ident)
            depth = self.depth.get(ident if alias is None else alias.identity.ident, len(self.layers))
            for layer in self.layers[:depth]:
                layer.stats.misses += 1
            if depth < len(self.layers):
                self.layers[depth].stats.hits += 1
            elif self.source_stats is not None:
                found = answers.get(ident)
                hit = found is not None and not found.is_absent
                self.source_stats.hits += hit
                self.source_stats.misses += not hit


def _load(source: Source, keys: Asked) -> dict[Ident, Record]:
    klass = next(iter(keys.values())).spec.klass
    return dict(zip(keys, source.load(klass, list(keys.values())), strict=True))


def _as_asked(alias: Alias, key: Key) -> Alias:
    """Return an alias with the identity as the class that is asked for spells it: a base may have been asked before."""
    if alias.identity.spec is key.spec:
        return alias
    return Alias(Key(key.spec, key.spec.identity, alias.identity.values), alias.deadline)


def _own_identity(record: Record, key: Key) -> Key | None:
    """The identity, as the class that was asked for spells it, of a record that is an object of it."""
    if not key.spec.serves(record.spec, record.value):
        return None
    own = record.key(key.spec.identity)
    return None if own is None else Key(key.spec, key.spec.identity, own.values)


def _is_hit(record: Record, key: Key, *, by_alias: bool) -> bool:
    """True if what the fastest layer holds is the asked object, or that there is none."""
    if record.value is ABSENT:
        return not by_alias
    if record.spec is not key.spec:
        return False
    # a row stays as it was filled, under its own identity; a plain object may have been changed in place
    return (key.spec.mapped and not by_alias) or record.answers(key)


def _settles(record: Record, key: Key) -> bool:
    """True if `record`, which a tier holds for `key`, says all there is to say about it."""
    if record.answers(key):
        return True
    if not (key.is_identity and key.spec.is_of_hierarchy(record.spec)):
        return False
    # a row under this identity, but of another class of the same hierarchy: there is no such object
    own = record.key(record.spec.identity)
    return own is not None and own.ident == key.ident
