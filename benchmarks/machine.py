"""Where and with what it was measured."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.bench import Bench, version_of
from tests.servers import find_program

DISTRIBUTIONS = (
    "SQLAlchemy pymemcache redis hiredis msgspec psycopg cachetools cachebox dogpile.cache pylibmc cashews aiocache"
)
PROGRAMS = {"memcached": "memcached", "redis-server": "redis-server", "postgres": "postgresql"}


def described(bench: Bench) -> list[str]:
    """Return a line for each thing that figures depend on."""
    return [
        f"Date: {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, at {commit()}",
        f"Python {platform.python_version()} ({platform.python_implementation()}), SQLite {sqlite3.sqlite_version}",
        ", ".join(f"{name} {version_of(name)}" for name in DISTRIBUTIONS.split()),
        ", ".join(server_version(program, package) for program, package in PROGRAMS.items()),
        f"{os.cpu_count()} cores ({processor()}), {platform.system()} {platform.release()}",
        pinning(bench),
        f"Load before: {', '.join(f'{each:.1f}' for each in os.getloadavg())}",
        f"Seed {bench.seed}, {bench.effort_name}: {bench.effort.rounds} rounds at most, samples of at least "
        f"{bench.effort.sample_seconds * 1000:g} ms",
    ]


def pinning(bench: Bench) -> str:
    if bench.core is None:
        return "Pinned to no core"
    servers = "the same core" if bench.server_core == bench.core else f"core {bench.server_core}"
    if bench.server_core is None:
        servers = "no core"
    return f"Client pinned to core {bench.core}, servers to {servers}; threads and processes are pinned to none"


def commit() -> str:
    folder = Path(__file__).parent
    asked = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no commit"


def server_version(program: str, package: str) -> str:
    told = subprocess.run([find_program(program, package), "--version"], capture_output=True, text=True, check=True)
    return told.stdout.strip().partition("sha=")[0].strip()


def processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
