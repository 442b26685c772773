from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import Memcached, free_port

ROOT = Path(__file__).parent.parent

KEYS = [
    ("Country", "alpha_2"),
    ("Country", "alpha_3"),
    ("Country", "numeric"),
    ("Subdivision", "code"),
    ("Subdivision", r"country \+ local"),
    ("Language", "alpha_3"),
    ("Language", "alpha_2"),
    ("Currency", "alpha_3"),
    ("Currency", "numeric"),
]


def run(*arguments: str, memcache: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python in the root of the repository, where it finds this package and the demo's files."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "demo")])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", "MEMCACHE": memcache},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def numbers(output: str, what: str, key: str) -> list[list[int]]:
    """Return the counts at the beginning of this key's lines, one from each table."""
    lines = re.findall(rf"^  {what} +{key} +([\d,]+) +([\d,]+) +([\d,]+) ", output, re.MULTILINE)
    return [[int(number.replace(",", "")) for number in line] for line in lines]


def test_demo_shows_every_key_and_finds_nothing_wrong() -> None:
    """The demo exits with 0, has a line for every key of every class, and fits into 100 columns without colours."""
    done = run("demo/run.py")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for what, key in KEYS:
        counted = numbers(done.stdout, what, key)
        assert len(counted) == 2, (what, key)
        for reads, by_memory, by_database in counted:
            assert by_memory == by_database == reads / 2 > 0
    assert re.search(r"ok  [\d,]+ reads by every key of every row agree with the database", done.stdout)
    assert len(re.findall(r"^  ok  ", done.stdout, re.MULTILINE)) == 10
    assert "chain: memory -> SQLite" in done.stdout
    assert "MEMCACHE=localhost:11211 make demo" in done.stdout
    assert "\033" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_demo_shows_memcached_between_memory_and_database() -> None:
    """With MEMCACHE each key is read from the database, by another process from memcached, and again from memory."""
    with Memcached() as one, Memcached() as two:
        done = run("demo/run.py", memcache=f"{one.host}:{one.port}, {two.host}:{two.port}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "chain: memory -> memcached -> SQLite" in done.stdout
    for what, key in KEYS:
        counted = numbers(done.stdout, what, key)
        assert len(counted) == 2, (what, key)
        for by_memory, by_memcached, by_database in counted:
            assert by_memory == by_memcached == by_database > 0
    assert re.search(r"ok  [\d,]+ reads by every key of every row agree with the database", done.stdout)
    assert len(re.findall(r"^  ok  ", done.stdout, re.MULTILINE)) == 17
    assert "the other process is handed the new name, from memcached, by each of its three codes" in done.stdout
    assert "here the new name of Esperanto comes from memcached" in done.stdout
    assert "the very next read on the other side had the new name, 100 times from memcached" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize("address", ["localhost:{free}", "localhost:eleven"])
def test_demo_without_the_memcached_it_was_given(address: str) -> None:
    """A memcached that cannot be used is one line that names MEMCACHE and the address, and exit code 2."""
    address = address.format(free=free_port())
    done = run("demo/run.py", memcache=address)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(rf"MEMCACHE={address} cannot be used: .*\n", done.stderr)


def test_demo_fails_loudly_when_another_process_is_handed_something_old() -> None:
    """If a commit does not reach the memcached, the demo finds the other process's answer wrong and exits with 1."""
    with Memcached() as server:
        done = run(
            "-c",
            "import sys, reading, run, writing\n"
            "from stockpyle.memcached.tier import MemcachedTier, Token\n"
            "from stockpyle.records import Lock\n"
            "reading.one_by_one = reading.in_batches = lambda *_: []\n"
            "writing.all_writes = lambda stack: None\n"
            "MemcachedTier.lock = lambda self, keys, seconds, **options: [Lock(key, Token(b'', 0)) for key in keys]\n"
            "MemcachedTier.publish = lambda self, locked: None\n"
            "sys.exit(run.main())",
            memcache=f"{server.host}:{server.port}",
        )
    assert done.returncode == 1
    assert re.search(r"WRONG .*d'Ivoire.*, but the database has .*Ivory Coast", done.stderr)


def test_demo_fails_loudly_when_something_is_wrong() -> None:
    """If an answer is not what the database has, the demo says so and exits with 1."""
    done = run(
        "-c",
        "import sys, run, stack\n"
        "right = stack.Stack.rows\n"
        "stack.Stack.rows = lambda self, klass: [(*row[:-1], 'wrong') for row in right(self, klass)]\n"
        "sys.exit(run.main())",
    )
    assert done.returncode == 1
    assert "WRONG" in done.stderr
    assert "but the database has" in done.stderr
