"""A value is cut out of an answer exactly, in however many packets it comes, and nothing is waited for in vain."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockpyle.remote.answers import cut_value

HEAD, TAIL = b"VALUE k 1 ", b"\r\nVALUE e 5 1\r\nx\r\nEND\r\n"


class OutOfPackets(Exception):
    """More was waited for than a server has to say."""


def in_packets(answer: bytes, cuts: Sequence[int]) -> Callable[[], bytes]:
    """Return what receives an answer cut at these places."""
    edges = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
    packets = iter([answer[begin:end] for begin, end in itertools.pairwise(edges)])

    def receive() -> bytes:
        for packet in packets:
            return packet
        raise OutOfPackets

    return receive


def answer_of(value: bytes, tail: bytes = TAIL) -> bytes:
    """Return the answer that is expected."""
    return b"%b%d\r\n%b%b" % (HEAD, len(value), value, tail)


VALUES = st.one_of(st.binary(max_size=40), st.sampled_from([TAIL, b"\r\nEND\r\n", answer_of(b"x"), b"\r\n" * 5]))


@given(value=VALUES, cuts=st.lists(st.integers(len(HEAD) + 4, 200), max_size=5))
def test_value(value: bytes, cuts: list[int]) -> None:
    """Whatever is in it, and wherever it is cut behind its size, it is found."""
    assert cut_value(in_packets(answer_of(value), cuts), HEAD, TAIL, 1000) == (answer_of(value), value)


@given(value=VALUES, cuts=st.lists(st.integers(1, 200), max_size=5))
def test_another_tail(value: bytes, cuts: list[int]) -> None:
    """An answer that ends in another way, sooner say, is told apart without waiting for more than it has."""
    answer = answer_of(value, b"\r\nEND\r\n")
    received, found = cut_value(in_packets(answer, cuts), HEAD, TAIL, 1000)
    assert found is None
    assert answer.startswith(received)


@pytest.mark.parametrize(
    "answer",
    [
        b"END\r\n",
        b"VALUE j 1 1\r\nx" + TAIL,
        HEAD + b"x\r\nx" + TAIL,
        HEAD + b"-1\r\nx" + TAIL,
        HEAD + b"\r\n" + TAIL,
        HEAD + b"99999999999\r\nx" + TAIL,
        HEAD + b"1001\r\nx" + TAIL,
        HEAD + b"1",
        HEAD + b"0\r\nx" + TAIL,
        answer_of(b"x") + b"x",
    ],
)
def test_another_answer(answer: bytes) -> None:
    """What is no such answer is left as it is."""
    assert cut_value(in_packets(answer, []), HEAD, TAIL, 1000) == (answer, None)
