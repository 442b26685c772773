"""The model of memcached answers as memcached does."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.memcached import Model
from tests.servers import Memcached

KEYS = [b"model:a", b"model:b"]
keys = st.sampled_from(KEYS)
seconds = st.sampled_from([b"T0", b"T100", b"T-1"])
wanted = st.lists(st.sampled_from([b"v", b"f", b"s", b"c", b"t"]), unique=True)
CAS = re.compile(rb"( c|VALUE \S+ \d+ \d+ )(\d+)")


class Client:
    """A connection that reads to the end of each batch."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=10)

    def send(self, sent: bytes) -> bytes:
        """Return the reply to a batch."""
        self.socket.sendall(sent)
        reply = b""
        while not reply.endswith((b"MN\r\n", b"END\r\n")):
            received = self.socket.recv(65536)
            assert received, "memcached has closed the connection"
            reply += received
        return reply


@pytest.fixture(scope="module")
def client(memcached: tuple[str, int]) -> Iterator[Client]:
    """A connection to a memcached."""
    made = Client(memcached)
    yield made
    made.socket.close()


class Pair:
    """A memcached and the model of it, told the same, up to what the CAS ids are called."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.model = Model()
        self.names: dict[int, int] = {0: 0}
        """Of each CAS id of the model's that of the server's."""
        self.told = [0]

    def both(self, sent: bytes) -> bytes:
        """Send this to both, with the model's CAS ids in it, and compare the replies."""
        theirs = re.sub(rb" C(\d+)", lambda cas: b" C%d" % self.names.get(int(cas[1]), 10**12), sent)
        reply, real = self.model.send(sent), self.client.send(theirs)
        ids = [[int(found[2]) for found in CAS.finditer(each)] for each in (reply, real)]
        assert len(ids[0]) == len(ids[1]), (sent, reply, real)
        for own, other in zip(*ids, strict=True):
            assert self.names.setdefault(own, other) == other, (sent, reply, real)
        assert len(set(self.names.values())) == len(self.names), "two ids of the model's are one id of memcached's"
        self.told += ids[0]
        assert _plain(reply) == _plain(real), sent
        return reply


def _plain(reply: bytes) -> bytes:
    """The reply without its CAS ids and the seconds that have passed; what t shows to who wins a lease varies."""
    reply = CAS.sub(rb"\1", reply)
    reply = re.sub(rb" t-?\d+( [^\r]*)?\bW\r", rb"\1W\r", reply)
    return re.sub(rb" t\d+", b" t+", reply)


@st.composite
def commands(draw: st.DrawFn) -> Any:
    """Draw a command: a function of the CAS id it may use."""
    key = draw(keys)
    kind = draw(st.sampled_from(["get", "gets", "mg", "mg N", "ms", "ms ME", "ms C", "md", "md C"]))
    if kind.startswith("get"):
        asked = b" ".join([kind.encode(), *draw(st.lists(keys, min_size=1, unique=True))])
        return lambda cas: asked + b"\r\n"
    flags = draw(st.permutations([*draw(wanted), *([b"N100"] if kind == "mg N" else [])]))
    data = draw(st.sampled_from([b"", b"x", b"c5 W\r\n"]))
    shows = b" c" if draw(st.booleans()) else b""
    fresh = draw(st.booleans())
    if kind.startswith("mg"):
        return lambda cas: b" ".join([b"mg", key, *flags]) + b"\r\nmn\r\n"
    if kind.startswith("md"):
        return lambda cas: b"md %b%b\r\nmn\r\n" % (key, b" C%d" % cas(fresh) if kind == "md C" else b"")
    client_flags, lives = draw(st.sampled_from([b"", b" F0", b" F2"])), draw(seconds)

    def store(cas: Any) -> bytes:
        mode = {"ms": b"", "ms ME": b" ME", "ms C": b" C%d" % cas(fresh)}[kind]
        return b"ms %b %d%b%b %b%b\r\n%b\r\nmn\r\n" % (key, len(data), mode, client_flags, lives, shows, data)

    return store


def run(pair: Pair, drawn: list[Any]) -> None:
    """Send commands, whose CAS ids are the last that was shown, or the one before."""
    for command in drawn:
        pair.both(command(lambda fresh: pair.told[-1] if fresh else pair.told[max(0, len(pair.told) - 3)]))
    for key in KEYS:
        pair.both(b"mg %b v f c t\r\nmn\r\n" % key)


@settings(max_examples=300, deadline=None)
@given(drawn=st.lists(commands(), max_size=25))
def test_the_model_answers_as_memcached_does(client: Client, drawn: list[Any]) -> None:
    """Whatever is sent, the model's replies are memcached's, up to the numbers that CAS ids are."""
    for key in KEYS:
        client.send(b"md %b\r\nmn\r\n" % key)
    run(Pair(client), drawn)


def test_a_restarted_server_counts_from_the_start() -> None:
    """After a restart memcached is empty and gives the CAS ids that it gave before, as the model does."""
    told = []
    with Memcached() as server:
        model = Model()
        for _ in range(2):
            client = Client(server.address)
            batch = b"mg k v\r\nmg k v f c N9\r\nms k 0 F2 T9 c\r\n\r\nmd k C1\r\n"
            batch += b"ms k 1 C2 F1 T0 c\r\nx\r\nmg k v f c\r\nmn\r\n"
            assert model.send(batch) == client.send(batch)
            told.append(model.last_cas)
            client.socket.close()
            server.stop("immediate")
            server.start()
            model.restart()
    assert told == [3, 3]


def test_the_model_refuses_what_it_does_not_know() -> None:
    """A command that was not compared with memcached's is an error, not an answer."""
    with pytest.raises(NotImplementedError, match="mg k I"):
        Model().send(b"mg k I\r\nmn\r\n")
    with pytest.raises(NotImplementedError, match="MS"):
        Model().send(b"ms k 1 MS\r\nx\r\nmn\r\n")
