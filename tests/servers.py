"""Real servers for the tests: memcached, Redis, PostgreSQL and MariaDB.

Each listens on a free port of the loopback interface, keeps what it writes in
a temporary folder, and ends with the tests, also when those are killed.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import psycopg
import pymysql
import pytest

if TYPE_CHECKING:
    from typing_extensions import Self

HOST = "127.0.0.1"

#: How many seconds a server may take to answer after its start, or to end.
PATIENCE = 30.0

StopMode = Literal["fast", "immediate"]


def free_port() -> int:
    """Return a port nobody listens on.

    It is below those the system gives to outgoing connections, so that nobody
    takes the port of a server while it is stopped.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


def find_program(name: str, package: str) -> str:
    """Return the path of a server's program.

    Without it the test is skipped, or fails if STOCKPYLE_REQUIRE_SERVERS is 1.
    """
    # Debian keeps PostgreSQL's programs out of PATH, in a folder for each version.
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, reversed(debian))])
    found = shutil.which(name, path=path)
    if found is not None:
        return found
    reason = f"there is no {name} here: install it (on Debian: apt-get install {package})"
    if os.environ.get("STOCKPYLE_REQUIRE_SERVERS") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def children_of(parent: int) -> list[int]:
    """Return the numbers of a process's children."""
    told = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [line.split() for line in told.splitlines()]
    return [int(pid) for pid, ppid in pairs if int(ppid) == parent]


class Server:
    """A server the tests start and stop as they like; as a context manager, it runs inside the block."""

    program: ClassVar[str]
    package: ClassVar[str]
    stop_signals: ClassVar[dict[StopMode, signal.Signals]] = {
        "fast": signal.SIGTERM,
        "immediate": signal.SIGKILL,
    }

    def __init__(self) -> None:
        self._path = find_program(self.program, self.package)
        self._process: subprocess.Popen[bytes] | None = None
        self.host = HOST
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="stockpyle-"))
        # PostgreSQL and memcached refuse to run as root.
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self._identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the server, unless it runs, and wait until it answers.

        The server ends with the thread that calls this: let it be the main one.
        """
        if self._process is not None:
            return
        command = [self._path, *self._arguments()]
        if sys.platform == "linux" and (setpriv := shutil.which("setpriv")):
            command = [setpriv, "--pdeathsig", self.stop_signals["fast"].name, "--", *command]
        with self._log.open("ab") as log:
            # In a session of its own, an interrupt from the keyboard does not reach it.
            self._process = subprocess.Popen(command, **self._options(log), start_new_session=True)
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop("immediate")
                raise RuntimeError(f"{self.program} did not start:\n{self._log.read_text(errors='replace')}")
            time.sleep(0.02)

    def stop(self, mode: StopMode = "fast") -> None:
        """End the server, if it runs: in good order, or ("immediate") as in a crash."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(self.stop_signals[mode])
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def pause(self) -> None:
        """Have the server, with all its processes, hang: it takes connections, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        for each in (self._process.pid, *children_of(self._process.pid)):
            with suppress(ProcessLookupError):
                os.kill(each, number)

    @contextmanager
    def hung(self) -> Iterator[None]:
        """Let the server hang inside the block, while its connections stand."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def close(self) -> None:
        """End the server for good, and remove its folder."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _options(self, log: Any) -> dict[str, Any]:
        """How to run a program on behalf of this server."""
        return {
            "cwd": self.folder,
            "env": {**os.environ, "LC_ALL": "C"},
            "stdin": subprocess.DEVNULL,
            "stdout": log,
            "stderr": subprocess.STDOUT,
            **self._identity,
        }

    def _arguments(self) -> list[str]:
        """What follows the program in the command that starts the server."""
        raise NotImplementedError

    def _answers(self) -> bool:
        """Whether the server is ready for clients."""
        raise NotImplementedError

    def _ask(self, question: bytes) -> bytes:
        """Send a line to the server, and return what comes back; nothing if there is no connection."""
        try:
            with socket.create_connection((self.host, self.port), timeout=5) as connection:
                connection.sendall(question + b"\r\n")
                return connection.recv(1024)
        except OSError:
            return b""


class Memcached(Server):
    """A memcached, started with these options besides its own."""

    program = "memcached"
    package = "memcached"

    def __init__(self, *options: str, host: str = HOST) -> None:
        super().__init__()
        self.host = host
        self._options_given = options

    @property
    def address(self) -> tuple[str, int]:
        """Its host and port."""
        return self.host, self.port

    def _arguments(self) -> list[str]:
        return ["-l", self.host, "-p", str(self.port), "-U", "0", *self._options_given]

    def _answers(self) -> bool:
        return self._ask(b"version").startswith(b"VERSION")


class MemcachedOnSocket(Memcached):
    """A memcached that listens on a UNIX socket only."""

    @property
    def path(self) -> str:
        """The socket's path."""
        return str(self.folder / "socket")

    def _arguments(self) -> list[str]:
        return ["-s", self.path, "-a", "0777", *self._options_given]

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(self.path)
            except OSError:
                return False
            return True


class MemcachedWithTls(Memcached):
    """A memcached that speaks TLS only, with a certificate of its own for the loopback address."""

    @property
    def certificate(self) -> str:
        """The path of the certificate."""
        return str(self.folder / "certificate.pem")

    def start(self) -> None:
        """Start the server, unless it runs, and wait until it answers."""
        key = self.folder / "key.pem"
        if not key.exists():
            command = [find_program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt"]
            command += ["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
            command += ["-addext", f"subjectAltName=IP:{self.host},DNS:localhost"]
            command += ["-keyout", str(key), "-out", self.certificate]
            with self._log.open("ab") as log:
                subprocess.run(command, check=True, **self._options(log))
        super().start()

    def _arguments(self) -> list[str]:
        paths = f"ssl_chain_cert={self.certificate},ssl_key={self.folder / 'key.pem'}"
        return [*super()._arguments(), "-Z", "-o", paths]

    def _ask(self, question: bytes) -> bytes:
        context = ssl.create_default_context(cafile=self.certificate)
        try:
            with (
                socket.create_connection((self.host, self.port), timeout=5) as plain,
                context.wrap_socket(plain, server_hostname=self.host) as connection,
            ):
                connection.sendall(question + b"\r\n")
                return connection.recv(1024)
        except OSError:
            return b""


class Redis(Server):
    """A Redis that keeps everything in memory, started with these options besides its own.

    With STOCKPYLE_REDIS_SERVER it is another program that does the same, such as a valkey-server.
    """

    program = os.environ.get("STOCKPYLE_REDIS_SERVER") or "redis-server"
    package = "redis-server"

    def __init__(self, *options: str) -> None:
        super().__init__()
        self._options_given = options

    @property
    def url(self) -> str:
        """Where it is, for redis-py."""
        return f"redis://{self.host}:{self.port}/0"

    def _arguments(self) -> list[str]:
        own = ["--bind", self.host, "--port", str(self.port), "--dir", str(self.folder)]
        return [*own, "--save", "", "--appendonly", "no", *self._options_given]

    def _answers(self) -> bool:
        return self._ask(b"PING").startswith(b"+PONG")

    def tell(self, *command: str | int) -> bytes:
        """Send it a command, and return the answer's first kilobyte."""
        return self._ask(" ".join(map(str, command)).encode())


class RedisSentinel(Redis):
    """A Sentinel that watches one Redis, under the name "service", and alone decides that it is down."""

    def __init__(self, master: Redis) -> None:
        super().__init__()
        self._master = master

    def _arguments(self) -> list[str]:
        path = self.folder / "sentinel.conf"
        if not path.exists():
            lines = [
                f"bind {self.host}",
                f"port {self.port}",
                f"dir {self.folder}",
                f"sentinel monitor service {self._master.host} {self._master.port} 1",
                "sentinel down-after-milliseconds service 300",
                "sentinel failover-timeout service 2000",
            ]
            path.write_text("\n".join(lines) + "\n")
            if self._identity:
                os.chown(path, self._identity["user"], self._identity["group"])
        return [str(path), "--sentinel"]


class RedisCluster:
    """Three Redis that share the keys."""

    def __init__(self) -> None:
        self._bus = [free_port() for _ in range(3)]
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port")
        self.nodes = [Redis(*options, str(port)) for port in self._bus]

    def __enter__(self) -> Self:
        try:
            for node in self.nodes:
                node.start()
            self._meet()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End all of them."""
        for node in self.nodes:
            node.close()

    def _meet(self) -> None:
        slots = 16_384
        bounds = [slots * i // len(self.nodes) for i in range(len(self.nodes) + 1)]
        for i, node in enumerate(self.nodes):
            node.tell("CLUSTER", "ADDSLOTSRANGE", bounds[i], bounds[i + 1] - 1)
            node.tell("CLUSTER", "MEET", self.nodes[0].host, self.nodes[0].port, self._bus[0])
        deadline = time.monotonic() + PATIENCE
        while not all(b"cluster_state:ok" in node.tell("CLUSTER", "INFO") for node in self.nodes):
            if time.monotonic() > deadline:
                raise RuntimeError("the cluster does not come together")
            time.sleep(0.05)

    @property
    def url(self) -> str:
        """Where it is, for RedisStore."""
        return "redis+cluster://" + ",".join(f"{node.host}:{node.port}" for node in self.nodes)


class Postgres(Server):
    """A PostgreSQL that does without what keeps data safe when a machine crashes."""

    program = "postgres"
    package = "postgresql"
    stop_signals: ClassVar[dict[StopMode, signal.Signals]] = {
        "fast": signal.SIGINT,
        "immediate": signal.SIGQUIT,
    }

    settings: ClassVar[dict[str, str]] = {
        "fsync": "off",
        "full_page_writes": "off",
        "max_connections": "100",
        "max_prepared_transactions": "10",
        "unix_socket_directories": "",
    }

    def __init__(self) -> None:
        super().__init__()
        self._databases = 0

    def start(self) -> None:
        """Start the server, unless it runs, and wait until it answers."""
        if not self._data.exists():
            command = [str(Path(self._path).resolve().with_name("initdb")), "-D", str(self._data), "-U", "postgres"]
            command += ["--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
            with self._log.open("ab") as log:
                done = subprocess.run(command, check=False, **self._options(log))
            if done.returncode:
                raise RuntimeError(f"initdb failed:\n{self._log.read_text(errors='replace')}")
        super().start()

    def url(self, driver: str = "psycopg", database: str = "postgres") -> str:
        """Return the URL of a database for SQLAlchemy."""
        return f"postgresql+{driver}://postgres@{self.host}:{self.port}/{database}"

    def create_database(self, driver: str = "psycopg") -> str:
        """Create an empty database, and return its URL for SQLAlchemy."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(driver, name)

    def drop_database(self, url: str) -> None:
        """Drop a database that `create_database` made, whoever is still connected."""
        self.execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def terminate_backends(self) -> None:
        """Cut the connections of all clients."""
        self.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )

    def execute(self, statement: str) -> None:
        """Execute a statement as the administrator, in a transaction of its own."""
        with self._connect() as connection:
            connection.execute(statement.encode())

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(
            host=self.host, port=self.port, user="postgres", dbname="postgres", autocommit=True, connect_timeout=5
        )

    def _arguments(self) -> list[str]:
        settings = {**self.settings, "listen_addresses": self.host, "port": str(self.port)}
        return ["-D", str(self._data), *(f"--{name}={value}" for name, value in settings.items())]

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True


class MariaDb(Server):
    """A MariaDB that keeps nothing safe when a machine crashes. Its root has no password."""

    program = "mariadbd"
    package = "mariadb-server"

    def __init__(self, *options: str) -> None:
        super().__init__()
        self._options_given = options
        self._databases = 0

    def start(self) -> None:
        """Start the server, unless it runs, and wait until it answers."""
        if not self._data.exists():
            command = [find_program("mariadb-install-db", self.package), "--no-defaults", f"--datadir={self._data}"]
            command += ["--auth-root-authentication-method=normal", "--skip-name-resolve"]
            with self._log.open("ab") as log:
                done = subprocess.run(command, check=False, **self._options(log))
            if done.returncode:
                raise RuntimeError(f"mariadb-install-db failed:\n{self._log.read_text(errors='replace')}")
        super().start()

    def url(self, database: str = "test") -> str:
        """Return the URL of a database for SQLAlchemy."""
        return f"mariadb+pymysql://root@{self.host}:{self.port}/{database}"

    def create_database(self) -> str:
        """Create an empty database, and return its URL for SQLAlchemy."""
        self._databases += 1
        name = f"test_{self._databases}"
        # by this collation texts that differ in case only are equal, as on most servers
        self.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop a database that `create_database` made."""
        self.execute(f"DROP DATABASE {url.rpartition('/')[2]}")

    def execute(self, statement: str) -> None:
        """Execute a statement as the administrator."""
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute(statement)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _connect(self) -> pymysql.Connection[Any]:
        return pymysql.connect(host=self.host, port=self.port, user="root", autocommit=True, connect_timeout=5)

    def _arguments(self) -> list[str]:
        own = ["--no-defaults", f"--datadir={self._data}", f"--socket={self.folder / 'socket'}", f"--port={self.port}"]
        own += [f"--bind-address={self.host}", f"--pid-file={self.folder / 'pid'}", "--skip-name-resolve"]
        return [*own, "--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=32M", *self._options_given]

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except pymysql.OperationalError:
            return False
        return True
