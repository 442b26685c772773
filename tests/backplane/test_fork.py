"""A child process hears for itself, and nothing of its parent's memory serves there before it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.backplane.peers import furnish

ROOT = Path(__file__).parents[2]

SCRIPT = """
import os, sys, time, warnings
from tests.backplane.peers import Served, Setting, until

warnings.simplefilter("ignore")  # this process has threads when it forks: that is the point
url, redis, backplane, in_transaction = sys.argv[1:]
served = Served(Setting(url, redis, backplane, backplane_in_transaction=bool(in_transaction)))
assert served.get(1) == served.held(1) == "old"
parent_reads, child_writes = os.pipe()
child_reads, parent_writes = os.pipe()
child = os.fork()
if child == 0:
    try:
        assert served.held(1) is None, "the parent's subscription is not the child's"
        until(lambda: served.get(1) == served.held(1) == "old")
        os.write(child_writes, b"1")
        assert os.read(child_reads, 1) == b"1"
        until(lambda: served.get(1) == "from the parent")
        until(lambda: served.get(1) == served.held(1))
        served.write(1, "from the child")
        os._exit(0)
    finally:
        os._exit(1)
assert served.held(1) == "old", "the parent goes on"
assert os.read(parent_reads, 1) == b"1"
served.write(1, "from the parent")
os.write(parent_writes, b"1")
until(lambda: served.get(1) == "from the child")
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0
served.chain.close()
"""


@pytest.mark.parametrize(("backplane", "inside"), [("redis", ""), ("postgresql", ""), ("postgresql", "1")])
def test_fork(postgres_url: str, clean_redis: str, backplane: str, inside: str) -> None:
    """A forked child begins with empty memory, subscribes by itself, and both hear each other."""
    furnish(postgres_url)
    arguments = [postgres_url, clean_redis, backplane, inside]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
