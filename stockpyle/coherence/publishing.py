"""After a commit: load what was written again, from the source's own connection, and publish it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from stockpyle.coherence.layers import Layer
from stockpyle.coherence.logs import logger
from stockpyle.coherence.reader import fetch
from stockpyle.coherence.writer import Writer
from stockpyle.keys import Ident, Key
from stockpyle.protocols import Source
from stockpyle.records import Record

OnWrite = Literal["publish", "invalidate"]
"""What a commit does to what the tiers hold: it puts in its place what was committed, or only removes it."""

Chosen = Mapping[Ident, Mapping[Layer, float | None]]


def publish_committed(writer: Writer, source: Source | None, on_write: OnWrite, chosen: Chosen = {}) -> None:  # noqa: B006
    """End a committed write: one load a class, one publish a tier. Nothing is raised: the commit is durable.

    chosen are the deadlines, by identity and layer, that a put has asked its lifetime callbacks for beforehand.
    """
    records: dict[Ident, Record] = {}
    if source is not None and on_write == "publish" and writer.locked:
        try:
            records = _load(writer.publishable, source)
        except Exception:  # whatever the source's driver raises, the locks must go and the caller go on
            logger.exception("what was committed could not be loaded again; it is invalidated instead")
        except BaseException:
            writer.publish()
            raise

    def bounded(layer: Layer, record: Record) -> Record | None:
        identity = None if record.is_absent else record.key(record.spec.identity)
        deadlines = chosen.get(identity.ident) if identity is not None else None
        if deadlines is None:
            return layer.bounded(record)
        return layer.until(record, deadlines[layer])

    if chosen:
        writer.publish(records, bounded)
    else:
        writer.publish(records)


def read_back(layers: Sequence[Layer], source: Source, keys: Iterable[Key]) -> None:
    """Fill what a put has found unchanged: no row was locked for it, so it is read, not published.

    Nothing is raised: the rest of the put is durable.
    """
    try:
        for own in _by_class(keys).values():
            fetch(layers, source, own)
    except Exception:  # the rest of the put is durable, and must not look as if it had failed
        logger.exception("what was put unchanged could not be read back; the next reader loads it")


def _load(keys: Iterable[Key], source: Source) -> dict[Ident, Record]:
    loaded: dict[Ident, Record] = {}
    for klass, own in _by_class(keys).items():
        loaded.update(zip([key.ident for key in own], source.load(klass, own), strict=True))
    return loaded


def _by_class(keys: Iterable[Key]) -> dict[type, list[Key]]:
    found: dict[type, list[Key]] = {}
    for key in keys:
        found.setdefault(key.spec.klass, []).append(key)
    return found
