"""RedisStore: objects in Redis or Valkey, shared by all processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

from stockpyle.addresses import ConnectionString
from stockpyle.codecs import Codec
from stockpyle.coherence.layers import Unreachable
from stockpyle.exceptions import ImproperlyConfigured, MissingDependency
from stockpyle.lifetimes import Lifetime, LifetimeCallback, check_seconds
from stockpyle.masking import displayed, masked
from stockpyle.parameters import parameters_of, text_of
from stockpyle.protocols import PubSub
from stockpyle.pubsub.handle import HEARTBEAT, TIMEOUT
from stockpyle.pubsub.redis import RedisPubSub
from stockpyle.pubsub.wires import Notice
from stockpyle.redis.commands import RedisCommands
from stockpyle.redis.server import Kind, RedisServer
from stockpyle.redis.tier import RedisTier
from stockpyle.redis.urls import SCHEMES, check_url, options_of
from stockpyle.redis.views import RedisEntries, RedisNumbers
from stockpyle.stores._connected import command_of, with_text
from stockpyle.stores._remote import TIMEOUT as STORE_TIMEOUT
from stockpyle.stores._remote import RemoteStore
from stockpyle.stores.base import listed
from stockpyle.views.collection import Entries
from stockpyle.views.counter import Numbers

_EXAMPLES = (
    '"redis://localhost:6379/0", "rediss://user:password@host", "unix:///path/to/socket?db=0", '
    '"redis+sentinel://host1:26379,host2:26379/service/0", "redis+cluster://host1:7000,host2:7001"'
)


class RedisStore(RemoteStore):
    """Objects in Redis 6.0 or later, or Valkey, shared by all processes that use it with the same prefix.

    url is "redis://host:6379/0", "rediss://..." with TLS, "unix:///path?db=0", "redis+sentinel://host:26379,.../service/0"
    for the server that Sentinel names at the moment, or "redis+cluster://host:7000,..." for a cluster. Or give one
    client of redis-py, whose addresses, credentials and TLS settings are used.

    prefix (or namespace, which is the same) begins all keys. Plain objects are pickled, unless `codec` says otherwise;
    mapped objects are rows in msgpack, and are never unpickled. allow_pickle: pickle column values that need it.
    compress_over: compress what takes more bytes than that (2ki, say); by default nothing is.
    timeout and connect_timeout are in seconds. lease_seconds: how long a reader may take to load before another may.
    unreachable: what happens to a commit that cannot be announced here: "proceed" or "refuse", see ChainedStore.
    """

    schemes = SCHEMES

    def __init__(
        self,
        url: str | None = None,
        client: Any = None,
        polymorphic: bool = False,
        lifetime_cb: LifetimeCallback | None = None,
        prefix: str | None = None,
        codec: Codec | None = None,
        *,
        namespace: str | None = None,
        lifetime: Lifetime = None,
        allow_pickle: bool = False,
        timeout: float | None = STORE_TIMEOUT,
        connect_timeout: float | None = STORE_TIMEOUT,
        lease_seconds: float = 10.0,
        unreachable: Unreachable = "proceed",
        clock: Callable[[], float] = time.time,
        compress_over: int | None = None,
    ) -> None:
        super().__init__(
            polymorphic,
            lifetime_cb,
            prefix,
            namespace,
            codec,
            allow_pickle,
            lifetime,
            unreachable,
            clock,
            compress_over,
        )
        check_seconds("lease_seconds", lease_seconds)
        check_seconds("timeout", timeout, none=True)
        check_seconds("connect_timeout", connect_timeout, none=True)
        name, make, kind = _clients(url, client, timeout, connect_timeout)
        server = RedisServer(name, make, self.prefix, self.name, kind)
        self._server = server
        self._clients = partial(_clients, url, client)
        self._commands = RedisCommands(name, make, self.name, kind)
        self._use([RedisTier(server, self.prefix, self._codec, self.stats, lease_seconds, clock)])

    @classmethod
    def from_url(cls, url: ConnectionString) -> dict[str, Any]:
        """See BaseStore.from_url. Parameters that are not the store's own are redis-py's."""
        own, rest = url.take(parameters_of(cls))
        if "url" in own or "client" in own:
            if rest.rest:
                raise url.wrong("it names a server, and so does its url or client: give one")
            return {**own, **rest.params}
        if rest.scheme not in SCHEMES:
            rest = replace(rest, scheme="redis")
        lost = [name for name, value in rest.params.items() if value is None or text_of(value) is None]
        if lost:
            raise url.wrong(f"a {cls.__name__} has no parameter {lost[0]!r}; it has {', '.join(parameters_of(cls))}")
        return {**own, "url": rest.written(text_of)}

    def to_url(self, scheme: str, arguments: Mapping[str, Any]) -> ConnectionString | None:
        """See BaseStore.to_url."""
        rest = {name: value for name, value in arguments.items() if name not in ("url", "client")}
        url, client = arguments.get("url"), arguments.get("client")
        made = ConnectionString.parse(str(url)) if client is None else _of_pool(client.connection_pool)
        return with_text(made, rest)

    @property
    def database(self) -> str | None:
        """The number of the database."""
        url = self._address()
        path = [each for each in url.path.split("/") if each] if url is not None else []
        if url is None or url.scheme == "unix":
            path = []
        elif url.scheme.endswith("+sentinel"):
            path = path[1:]
        given = url.params.get("db") if url is not None else None
        return str(given) if given is not None else path[0] if path else "0"

    def connect(self) -> Any:
        """Return a new redis.Redis, or RedisCluster, that has reached the server. It is the caller's, who closes it."""
        return self._commands.connect()

    def execute(self, *command: Any) -> Any:
        """Run a command, such as ``execute("INCR", "visits")``, and return what redis-py makes of the answer.

        The keys are as written: no prefix is put before them. A command that changes its connection, such as SELECT, is
        an UnsupportedOperation. See BaseStore.execute.
        """
        return self._commands.execute(command_of(command))

    def execute_transaction(self, commands: Iterable[Any]) -> list[Any]:
        """Run several commands between MULTI and EXEC, and return their answers.

        Nobody else's command comes between them. If one of them is refused while they run, a StoreError is raised, and
        the others were run all the same: so Redis does it.
        """
        return self._commands.execute_transaction(
            [command_of(each) for each in listed(commands, "execute_transaction")]
        )

    def close(self) -> None:
        """Close the idle connections; the objects stay for other processes."""
        super().close()
        self._commands.close()

    def pubsub(
        self,
        *,
        on_lost: Notice | None = None,
        on_restored: Notice | None = None,
        heartbeat: float = HEARTBEAT,
        timeout: float = TIMEOUT,
    ) -> PubSub:
        """Return Redis's own publish/subscribe, on connections of its own; prefix and database make no difference."""
        name, make, kind = self._clients(timeout, timeout)
        return RedisPubSub(make, kind, name, self.name, on_lost, on_restored, heartbeat, timeout)

    def _collections(self) -> Entries:
        return RedisEntries(self._server, self.prefix)

    def _counters(self) -> Numbers:
        return RedisNumbers(self._server, self.prefix)


Maker = Callable[[Callable[[Any], None]], Any]


def _clients(url: Any, client: Any, timeout: float | None, connect_timeout: float | None) -> tuple[str, Maker, Kind]:
    """Return the server's name, what makes a client, and of which kind it is."""
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise MissingDependency("RedisStore needs redis: pip install 'stockpyle[redis]'") from error
    if (url is None) == (client is None):
        raise ImproperlyConfigured(f"give RedisStore either a url ({_EXAMPLES}) or one client= of redis-py")
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": connect_timeout,
        "protocol": 3,
        # a server that hangs costs its timeout once: who asks again, and when, is the breaker's business
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
        **_without_notifications(),
    }
    if client is not None:
        return _of_client(redis, client, options)
    if not isinstance(url, str) or url.partition("://")[0].lower() not in SCHEMES:
        raise ImproperlyConfigured(f"{displayed(url)} is no URL of a Redis, such as {_EXAMPLES}")
    scheme, _, kind = url.partition("://")[0].lower().partition("+")
    try:
        check_url(ConnectionString.parse(url))
        if kind:
            return _of_several(redis, url, scheme, kind, options)
        pool = redis.ConnectionPool.from_url(url, **options)
    except (ValueError, TypeError, redis.RedisError) as error:
        what = str(error).removeprefix(f"{masked(url)!r}: ")
        raise ImproperlyConfigured(f"{masked(url)!r} is no URL of a Redis, such as {_EXAMPLES}: {what}") from error
    kwargs = pool.connection_kwargs
    name = kwargs.get("path") or f"{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}"

    def make(arrives: Callable[[Any], None]) -> Any:
        return redis.Redis.from_pool(redis.ConnectionPool.from_url(url, **options, redis_connect_func=arrives))

    return str(name), make, "server"


def _without_notifications() -> dict[str, Any]:
    """Have redis-py see to it that no pooled connection has half an answer in it.

    It does not where the server may tell of its maintenance, as redis-py asks for with the third protocol.
    """
    try:
        from redis.maint_notifications import MaintNotificationsConfig
    except ImportError:
        # an older redis-py knows of none
        return {}
    return {"maint_notifications_config": MaintNotificationsConfig(enabled=False)}


def _of_client(redis: Any, client: Any, options: dict[str, Any]) -> tuple[str, Maker, Kind]:
    pool: Any = getattr(client, "connection_pool", None)
    if not isinstance(client, redis.Redis) or type(pool) not in (redis.ConnectionPool, redis.BlockingConnectionPool):
        raise ImproperlyConfigured(
            f"client is a redis.Redis on a ConnectionPool, not {displayed(client)}: else give a url"
        )
    own = dict(pool.connection_kwargs)
    for name in ("maint_notifications_pool_handler", "oss_cluster_maint_notifications_handler"):
        own.pop(name, None)
    kwargs = {**own, **_without_notifications(), "retry": options["retry"]}
    kwargs.update(decode_responses=False, encoding_errors="strict")
    for name in ("socket_timeout", "socket_connect_timeout"):
        if own.get(name) is None:
            kwargs[name] = options[name]
    where = own.get("path") or f"{own.get('host', 'localhost')}:{own.get('port', 6379)}"

    def make(arrives: Callable[[Any], None]) -> Any:
        made = redis.ConnectionPool(connection_class=pool.connection_class, **{**kwargs, "redis_connect_func": arrives})
        return redis.Redis.from_pool(made)

    return str(where), make, "server"


def _of_several(redis: Any, url: str, scheme: str, kind: str, options: dict[str, Any]) -> tuple[str, Maker, Kind]:
    """Sentinel, or a cluster: their URLs have several hosts, which redis-py's do not."""
    parts = urlsplit(url)
    credentials, _, listed = parts.netloc.rpartition("@")
    addresses = [_address(each, 26379 if kind == "sentinel" else 6379) for each in listed.split(",")]
    user, _, password = credentials.partition(":")
    options = {**options, **options_of(ConnectionString.parse(url))}
    if credentials:
        options.update(username=unquote(user) or None, password=unquote(password) or None)
    if scheme == "rediss":
        options["ssl"] = True
    path = [unquote(each) for each in parts.path.split("/")[1:] if each]
    if kind == "cluster":
        if path not in ([], ["0"]):
            raise ValueError("a cluster has no databases but 0")
        from redis.cluster import ClusterNode, RedisCluster

        node: Any = ClusterNode

        def make_cluster(arrives: Callable[[Any], None]) -> Any:
            # a node asks for the address of its name
            nodes = [node(host, port) for host, port in addresses]
            return RedisCluster(startup_nodes=nodes, redis_connect_func=arrives, **options)

        return listed, make_cluster, "cluster"
    if not path or len(path) > 2 or not "".join(path[1:] or ["0"]).isdigit():
        raise ValueError("the path of a Sentinel's URL is /service or /service/database")
    options.setdefault("db", int(path[1]) if len(path) == 2 else 0)

    def make_master(arrives: Callable[[Any], None]) -> Any:
        asking = {
            name: options[name]
            for name in ("socket_timeout", "socket_connect_timeout", "retry", "ssl")
            if name in options
        }
        return redis.Sentinel(addresses, sentinel_kwargs=asking, **options).master_for(
            path[0], redis_connect_func=arrives
        )

    return f"{listed}/{path[0]}", make_master, "sentinel"


def _address(listed: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{listed}")
    if not parts.hostname:
        raise ValueError(f"{listed!r} names no host")
    return parts.hostname, parts.port or port


def _of_pool(pool: Any) -> ConnectionString:
    """The connection string of the server that a client is for."""
    own = pool.connection_kwargs
    database = own.get("db") or 0
    names = {"user": own.get("username"), "password": own.get("password")}
    if own.get("path"):
        return ConnectionString("unix").with_parts(**names, path=str(own["path"])).with_params({"db": database})
    scheme = "rediss" if "SSL" in pool.connection_class.__name__ else "redis"
    hosts = ((own.get("host", "localhost"), own.get("port", 6379)),)
    return ConnectionString(scheme).with_parts(**names, hosts=hosts, path=f"/{database}")


__all__ = ["RedisStore"]
