from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
import redis as redis_py

from tests.servers import HOST, PATIENCE, MariaDb, Memcached, Postgres, Redis, Server, StopMode, find_program


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """Connect to a database by its SQLAlchemy URL."""
    return psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True)


def refuses(port: int) -> bool:
    """Whether nobody listens on a port."""
    try:
        socket.create_connection((HOST, port), timeout=5).close()
    except ConnectionError:
        return True
    return False


def test_memcached_answers(memcached: tuple[str, int]) -> None:
    """The memcached fixture is the address of a server that tells its version."""
    with socket.create_connection(memcached, timeout=5) as connection:
        connection.sendall(b"version\r\n")
        assert connection.recv(100).startswith(b"VERSION 1.")


def test_redis_answers(redis_server: str) -> None:
    """The redis_server fixture is the URL of a server that keeps what it is given."""
    with redis_py.Redis.from_url(redis_server) as client:
        client.set("stockpyle:test", b"value", ex=60)
        assert client.get("stockpyle:test") == b"value"


def test_postgres_answers(postgres: Postgres) -> None:
    """The postgres fixture is a server that answers, and that has prepared transactions."""
    with connect(postgres.url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert connection.execute("SHOW max_prepared_transactions").fetchone() == ("10",)


def test_new_databases_are_empty_and_distinct(postgres: Postgres, postgres_url: str) -> None:
    """Each new PostgreSQL database is empty, whatever the others have."""
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    other_url = postgres.create_database()
    with connect(postgres_url) as connection, connect(other_url) as other:
        connection.execute("CREATE TABLE thing (id int)")
        assert connection.execute(tables).fetchone() == (1,)
        assert other.execute(tables).fetchone() == (0,)
    postgres.drop_database(other_url)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_mariadb_comes_back_with_its_data(mariadb: MariaDb, mariadb_url: str, mode: StopMode) -> None:
    """A stopped MariaDB refuses connections, and has its data when started again at the same URL."""
    database = mariadb_url.rpartition("/")[2]
    mariadb.execute(f"CREATE TABLE {database}.thing AS SELECT 7 AS id")
    mariadb.stop(mode)
    try:
        assert refuses(mariadb.port)
    finally:
        mariadb.start()
    mariadb.execute(f"INSERT INTO {database}.thing SELECT id + 1 FROM {database}.thing")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgres_comes_back_with_its_data(postgres: Postgres, postgres_url: str, mode: StopMode) -> None:
    """A stopped PostgreSQL refuses connections, and has its data when started again at the same URL."""
    with connect(postgres_url) as connection:
        connection.execute("CREATE TABLE thing AS SELECT 7 AS id")
    postgres.stop(mode)
    try:
        with pytest.raises(psycopg.OperationalError):
            connect(postgres_url)
    finally:
        postgres.start()
    with connect(postgres_url) as connection:
        assert connection.execute("SELECT id FROM thing").fetchone() == (7,)


def test_postgres_can_cut_connections(postgres: Postgres) -> None:
    """A connection fails once its backend was terminated, and a new one works."""
    with connect(postgres.url()) as connection:
        postgres.terminate_backends()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with connect(postgres.url()) as connection:
        connection.execute("SELECT 1")


@pytest.mark.parametrize("kind", [Memcached, Redis, Postgres])
def test_a_server_can_hang(kind: type[Server]) -> None:
    """A server that hangs keeps its port and answers nothing, until it goes on."""
    with kind() as server:
        with server.hung(), socket.create_connection((HOST, server.port), timeout=0.2) as connection:
            connection.sendall(b"PING\r\nversion\r\n")
            with pytest.raises(TimeoutError):
                connection.recv(1)
        assert server._answers()


def test_a_closed_server_leaves_nothing() -> None:
    """After its block a server neither listens nor has a folder."""
    with Memcached() as server:
        assert server.folder.exists()
    assert not server.folder.exists()
    assert refuses(server.port)


def test_a_failed_start_shows_the_log() -> None:
    """A server that cannot start says why, and leaves no folder."""

    class Confused(Memcached):
        def _arguments(self) -> list[str]:
            return ["--no-such-option"]

    server = Confused()
    with pytest.raises(RuntimeError, match="no-such-option"), server:
        pass
    assert not server.folder.exists()


def test_a_missing_program_is_a_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing server skips the test, or fails it where servers are required, and says what to install."""
    monkeypatch.setenv("STOCKPYLE_REQUIRE_SERVERS", "0")
    with pytest.raises(pytest.skip.Exception, match="apt-get install some-package"):
        find_program("no-such-program", "some-package")
    monkeypatch.setenv("STOCKPYLE_REQUIRE_SERVERS", "1")
    with pytest.raises(pytest.fail.Exception, match="apt-get install some-package"):
        find_program("no-such-program", "some-package")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
@pytest.mark.parametrize("kind", [Memcached, Redis, Postgres])
def test_a_server_ends_when_the_tests_are_killed(kind: type[Server]) -> None:
    """A server ends even when the process that started it is killed."""
    find_program(kind.program, kind.package)
    code = f"import sys; from tests.servers import {kind.__name__} as Kind; server = Kind(); server.start()"
    code += "; print(server.port, flush=True); sys.stdin.read()"
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        with subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "TMPDIR": folder},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as parent:
            assert parent.stdout is not None
            port = int(parent.stdout.readline())
            socket.create_connection((HOST, port), timeout=5).close()
            parent.kill()
        deadline = time.monotonic() + PATIENCE
        while not refuses(port):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        # PostgreSQL removes its files last.
        while any(Path(folder).rglob("postmaster.pid")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
