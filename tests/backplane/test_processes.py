"""Process memory over real processes and servers: commits cross, lost connections empty, and dead writers have told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backplane.conftest import Start
from tests.backplane.peers import Item, Setting, furnish, until
from tests.servers import Postgres, Redis, free_port


@pytest.fixture(params=["redis", "postgresql", "in transaction"])
def setting(request: pytest.FixtureRequest, postgres_url: str, clean_redis: str) -> Setting:
    """A shared tier on Redis, a source on PostgreSQL, and a backplane on either."""
    furnish(postgres_url)
    if request.param == "in transaction":
        return Setting(postgres_url, clean_redis, "postgresql", backplane_in_transaction=True)
    return Setting(postgres_url, clean_redis, request.param)


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A Redis that the test may stop."""
    with Redis() as server:
        yield server


@pytest.mark.parametrize("how", ["write", "put"])
def test_commit_crosses_to_other_processes(setting: Setting, start: Start, how: str) -> None:
    """What one process commits, by a session or by the chain, leaves the memory of all others, and no other object."""
    peers = start(*[setting] * 3)
    for peer in peers:
        assert [peer.ask("get", i) for i in (1, 2)] == ["old", "old"]
        assert [peer.ask("held", i) for i in (1, 2)] == ["old", "old"]
    for i, writer in enumerate(peers):
        writer.ask(how, 1, f"new {i}")
        for reader in peers:
            until(lambda reader=reader, i=i: reader.ask("held", 1) in (None, f"new {i}"))  # type: ignore[misc]
            assert reader.ask("get", 1) == f"new {i}"
            assert reader.ask("held", 2) == "old"


def test_class_crosses_to_other_processes(setting: Setting, start: Start) -> None:
    """chain.invalidate of a class empties the memory of others of it."""
    first, second = start(setting, setting)
    second.ask("get", 1)
    first.ask("invalidate")
    until(lambda: second.ask("held", 1) is None)


@pytest.mark.parametrize("how", ["write", "put"])
def test_writer_that_dies_has_told(postgres_url: str, clean_redis: str, start: Start, how: str) -> None:
    """A writer that cannot reach the shared tier, and is killed right after its commit, has told everybody.

    Memory is dropped at once; and though the shared tier still holds what was replaced, and others read it from there
    again, both are right after the grace time.
    """
    furnish(postgres_url)
    options = {"backplane_in_transaction": True, "backplane_grace": 0.5}
    fine = Setting(postgres_url, clean_redis, "postgresql", **options)
    cut_off = Setting(postgres_url, f"redis://127.0.0.1:{free_port()}/0", "postgresql", **options)
    writer, *readers = start(cut_off, fine, fine)
    for reader in readers:
        assert reader.ask("get", 1) == "old"
    assert readers[0].ask("held", 1, 1) == "old", "the shared tier holds it"
    writer.dies(how, 1, "new")
    for reader in readers:
        until(lambda reader=reader: reader.ask("get", 1) == "new")  # type: ignore[misc]
    with fine.chain(memory=False) as chain:
        assert chain.get(Item, {"id": 1}).name == "new"
    until(lambda: sum(reader.ask("stats")["cleaned"] for reader in readers) >= 1)


def test_settled_commits_are_not_cleaned(postgres_url: str, clean_redis: str, start: Start) -> None:
    """Of writers that live, and settle what they have announced, nobody removes anything from the shared tier."""
    furnish(postgres_url)
    options = {"backplane_in_transaction": True, "backplane_grace": 3.0}
    setting = Setting(postgres_url, clean_redis, "postgresql", **options)
    writer, reader = start(setting, setting)
    reader.ask("get", 1)
    for i in range(20):
        writer.ask("write", 1, str(i))
    until(lambda: writer.ask("stats")["sent"] > 0 and reader.ask("stats")["heard"] > 20)
    assert writer.ask("stats")["announced"] == 20
    assert reader.ask("stats")["cleaned"] == 0
    assert reader.ask("get", 1) == "19"


@pytest.mark.parametrize("backplane", ["redis", "pub/sub of Redis"])
def test_lost_redis_empties_memory(postgres_url: str, own_redis: Redis, start: Start, backplane: str) -> None:
    """While Redis is away, memory is empty and readers are answered; when it is back, memory serves again."""
    furnish(postgres_url)
    setting = Setting(postgres_url, own_redis.url, backplane)
    first, second = start(setting, setting)
    assert second.ask("get", 1) == "old"
    assert second.ask("held", 1) == "old"
    own_redis.stop("immediate")
    until(lambda: second.ask("held", 1) is None)
    assert second.ask("get", 1) == "old"
    assert second.ask("held", 1) is None
    first.ask("write", 1, "new")
    assert second.ask("get", 1) == "new"
    own_redis.start()

    def kept() -> bool:
        return second.ask("get", 1) == second.ask("held", 1) == "new"

    until(kept)
    first.ask("write", 1, "newer")
    until(lambda: second.ask("get", 1) == "newer")


def test_lost_postgresql_empties_memory(postgres: Postgres, postgres_url: str, clean_redis: str, start: Start) -> None:
    """A listening connection that PostgreSQL ends is made again, and memory serves what was read since."""
    furnish(postgres_url)
    setting = Setting(postgres_url, clean_redis, "postgresql")
    first, second = start(setting, setting)
    assert second.ask("get", 1) == "old"
    lost = second.ask("stats")["lost"]
    postgres.terminate_backends()
    until(lambda: second.ask("stats")["lost"] > lost)

    def kept() -> bool:
        return second.ask("get", 1) == second.ask("held", 1) == "old"

    until(kept)
    first.ask("write", 2, "new")
    until(lambda: second.ask("get", 2) == "new")
