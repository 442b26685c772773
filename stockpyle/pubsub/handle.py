"""What all kinds of pub/sub have in common: their verbs, and what may be given to them."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

from stockpyle.exceptions import MessageTooLarge, UnsupportedOperation
from stockpyle.lifetimes import check_seconds
from stockpyle.protocols import Callback
from stockpyle.pubsub.callbacks import Name
from stockpyle.pubsub.listening import Listener
from stockpyle.pubsub.patterns import encoded
from stockpyle.pubsub.wires import Inbox, Notice, Wire

HEARTBEAT = 5.0
TIMEOUT = 2.0
Self = TypeVar("Self", bound="Handle")


class Handle:
    """A PubSub; a subclass makes the connections. See stockpyle.protocols.PubSub for what it promises.

    on_lost and on_restored are called in the listening thread: when nothing is heard any more, and when everything is
    again. heartbeat and timeout are in seconds: how often the server is asked if it is there, and how long it may take
    to answer. where names the server, and store the store, in errors.
    """

    def __init__(
        self,
        where: str,
        store: str,
        on_lost: Notice | None,
        on_restored: Notice | None,
        heartbeat: float,
        timeout: float,
    ) -> None:
        check_seconds("heartbeat", heartbeat)
        check_seconds("timeout", timeout)
        self.where = where
        self.timeout = timeout
        self._store = store
        self._listener = Listener(self._connect, where, store, on_lost, on_restored, heartbeat, timeout)

    def _connect(self, inbox: Inbox) -> Wire:
        """Return a new connection to listen on, which puts what comes into the inbox."""
        raise NotImplementedError

    def _publish(self, channel: str, data: bytes) -> int | None:
        """Send a message."""
        raise NotImplementedError

    @property
    def connected(self) -> bool:
        """True while all that is subscribed is heard; False while nothing is subscribed."""
        self._listener.revive()
        return self._listener.connected

    @property
    def max_size(self) -> int | None:
        """How many bytes of data a message may have; None: as many as the server takes."""
        return None

    longest_channel: int | None = None
    """How many bytes a channel's name may have; None: as many as the server takes."""

    def publish(self, channel: str, data: bytes | str) -> int | None:
        """See PubSub.publish."""
        self._listener.check_open("publish")
        self._listener.revive()
        return self._publish(*self._checked(channel, data))

    def publish_in(self, connection: Any, channel: str, data: bytes | str) -> None:
        """See PubSub.publish_in."""
        raise UnsupportedOperation(
            f"{self._store} sends no messages inside a transaction: a SqlAlchemyStore on PostgreSQL does"
        )

    def _checked(self, channel: str, data: bytes | str) -> tuple[str, bytes]:
        self._check_channel(channel)
        sent = data.encode("utf-8") if isinstance(data, str) else data
        if not isinstance(sent, bytes):
            raise TypeError(f"a message is bytes or a str, not {data!r}")
        limit = self.max_size
        if limit is not None and len(sent) > limit:
            raise MessageTooLarge(f"a message of {len(sent)} bytes: {self.where} carries {limit} at most")
        return channel, sent

    def _check_channel(self, channel: str) -> None:
        length, limit = len(_encoded("channel", channel)), self.longest_channel
        if limit is not None and length > limit:
            raise MessageTooLarge(f"a channel's name of {length} bytes: {self.where} carries {limit} at most")

    def subscribe(self, channel: str, callback: Callback, *, wait: bool = True) -> None:
        """See PubSub.subscribe."""
        self._check_channel(channel)
        self._subscribe(channel, False, callback, wait)

    def psubscribe(self, pattern: str, callback: Callback, *, wait: bool = True) -> None:
        """See PubSub.psubscribe."""
        _encoded("pattern", pattern)
        self._subscribe(pattern, True, callback, wait)

    def _subscribe(self, text: str, is_pattern: bool, callback: Callback, wait: bool) -> None:
        if not callable(callback):
            raise TypeError(f"a callback is called with a channel and its data; {callback!r} cannot be called")
        self._listener.subscribe(Name(text, is_pattern), callback, wait)

    def unsubscribe(self, channel: str | None = None, callback: Callback | None = None) -> None:
        """See PubSub.unsubscribe."""
        self._unsubscribe(channel, False, callback)

    def punsubscribe(self, pattern: str | None = None, callback: Callback | None = None) -> None:
        """See PubSub.punsubscribe."""
        self._unsubscribe(pattern, True, callback)

    def _unsubscribe(self, text: str | None, is_pattern: bool, callback: Callback | None) -> None:
        names = [name for name in self._listener.callbacks.names if name.is_pattern == is_pattern]
        self._listener.unsubscribe([name for name in names if text is None or name.text == text], callback)

    def watch(self, on_lost: Notice | None = None, on_restored: Notice | None = None) -> None:
        """See PubSub.watch."""
        self._listener.watch(on_lost, on_restored)

    def close(self) -> None:
        """See PubSub.close."""
        self._listener.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} holds locks and connections and cannot be pickled or copied")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self.where}>"


def _encoded(kind: str, text: str) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"a {kind} is a str, not {text!r}")
    # what cannot be sent is the caller's error, and not one of the thread that listens
    return encoded(text)
