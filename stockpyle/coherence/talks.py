"""What is said to servers, step by step, so that several can be waited for together.

A talk is a generator that pauses after it has sent something and before it waits for the answer. Alone it is gone
through at once. Of several each is taken to its first pause, so that all servers are busy with their shares, before the
first answer is waited for; and so on with what they send next.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
Talk = Generator[None, None, T]


def finish(talk: Talk[T]) -> T:
    """Go through one talk; return what it comes to."""
    try:
        while True:
            next(talk)
    except StopIteration as end:
        result: T = end.value
        return result


Asked = tuple[str, tuple[Any, ...], dict[str, Any]]
"""The name of a tier's method, and what it is called with."""


def begin(tier: Any, asked: Asked) -> Talk[Any]:
    """Do what is asked of a tier: in steps, if the tier has a ``talk()``."""
    operation, args, kwargs = asked
    talk: Callable[..., Talk[Any]] | None = getattr(tier, "talk", None)
    if talk is None:
        return getattr(tier, operation)(*args, **kwargs)
    return (yield from talk(operation, *args, **kwargs))


def hold(talks: Mapping[int, Talk[Any]], done: dict[int, Any]) -> dict[int, Exception]:
    """Go through several talks together; put what each comes to into `done`, and return the errors of the others.

    If an interrupt comes between, the talks that have not ended are closed, and what is done is in `done`.
    """
    failed: dict[int, Exception] = {}
    left = dict(talks)
    try:
        while left:
            for number, talk in list(left.items()):
                try:
                    next(talk)
                except StopIteration as end:
                    done[number] = end.value
                    del left[number]
                except Exception as error:  # noqa: BLE001 - whoever asked is told of each
                    failed[number] = error
                    del left[number]
    finally:
        for talk in left.values():
            talk.close()
    return failed
