"""Many threads on one extension: after commit() returned, no read through the chain gives an older value."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from tests.ext.conftest import MakeWorld
from tests.ext.models import User
from tests.ext.worlds import World

WRITERS, READERS, COMMITS, ROWS = 4, 4, 60, 3


class History:
    """The newest version of each row whose commit() has returned, and every read that was older than it began."""

    def __init__(self) -> None:
        self.settled: defaultdict[int, int] = defaultdict(int)
        self.stale: list[tuple[int, int, int]] = []
        self._mutex = threading.Lock()

    def committed(self, row: int, version: int) -> None:
        """The commit of this version has returned."""
        with self._mutex:
            self.settled[row] = max(self.settled[row], version)

    def read(self, row: int, floor: int, version: int) -> None:
        """A read that began when `floor` was settled has found this version."""
        if version < floor:
            self.stale.append((row, floor, version))


def _begin_as_told(engine: sa.Engine) -> None:
    # sqlite3's own BEGIN comes too late for a transaction that reads before it writes
    def connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA busy_timeout = 60000")

    def begin(connection: sa.Connection) -> None:
        own = connection.get_execution_options().get("stockpyle_source")
        connection.exec_driver_sql("BEGIN" if own else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begin)


def _write(world: World, history: History, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(COMMITS):
        row = chance.randrange(1, ROWS + 1)
        with world.Session() as session:
            user = session.get_one(User, row, with_for_update=True)
            version = int(user.name) + 1
            user.name = str(version)
            # one key moves to and fro, and is absent between
            user.email = None if version % 2 else f"{row}@a.org"
            if chance.random() < 0.2:
                session.flush()
                session.rollback()
                continue
            if chance.random() < 0.2:
                with session.begin_nested() as savepoint:
                    user.name = "-1"
                    session.flush()
                    savepoint.rollback()
                session.expire(user)
                user.name, user.email = str(version), None if version % 2 else f"{row}@a.org"
            session.commit()
        history.committed(row, version)


def _read(world: World, history: History, done: threading.Event, seed: int) -> int:
    chance = random.Random(seed)
    reads = 0
    while not done.is_set() or reads < 100:
        row = chance.randrange(1, ROWS + 1)
        floor = history.settled[row]
        if chance.random() < 0.3:
            found: Any = world.chain.get(User, {"email": f"{row}@a.org"})
            # nothing under this key says only that a version without it was there
            version = floor if found is None else int(found.name)
            if found is None and history.settled[row] == floor and floor % 2 == 0 and floor:
                now: Any = world.chain.get(User, {"id": row})
                version = floor if int(now.name) > floor else -1
        else:
            found = world.chain.get(User, {"id": row})
            version = int(found.name)
        history.read(row, floor, version)
        reads += 1
    return reads


@pytest.mark.parametrize("on_write", ["publish", "invalidate"])
def test_no_thread_reads_an_older_value(database_url: str, make_world: MakeWorld, on_write: str) -> None:
    """Writers that lock rows, roll back and use savepoints, and readers by every key: no read is stale."""
    world = make_world(database_url, on_write=on_write, pool_size=WRITERS + READERS + 2)
    if world.engine.dialect.name == "sqlite":
        _begin_as_told(world.engine)
    world.add(*(User(id=row, name="0", email=f"{row}@a.org") for row in range(1, ROWS + 1)))
    world.warm(User, *({"id": row} for row in range(1, ROWS + 1)))
    history, done = History(), threading.Event()
    with ThreadPoolExecutor(WRITERS + READERS) as pool:
        readers = [pool.submit(_read, world, history, done, 100 + i) for i in range(READERS)]
        writers = [pool.submit(_write, world, history, i) for i in range(WRITERS)]
        try:
            for writer in writers:
                writer.result()
        finally:
            done.set()
        reads = sum(reader.result() for reader in readers)
    assert history.stale == []
    assert world.locks == []
    assert world.memory.stats.hits > 100
    assert world.memory.stats.locked > 0
    assert reads >= 100 * READERS
    world.check()
