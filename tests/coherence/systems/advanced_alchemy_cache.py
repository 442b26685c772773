"""advanced-alchemy: repositories with `CacheConfig`, a dogpile.cache region on memcached, and its own listener.

https://docs.advanced-alchemy.litestar.dev/latest/usage/caching.html ("Quick Start", "Memcached Backend", "Repository
Integration", "Automatic Cache Invalidation"): `repository.get(id)` with `auto_expunge=True` is cached, and the listener
deletes after the commit what the repositories have written. The region is on pylibmc, dogpile.cache's faster client.

Not cached, because it has no cached verb for it: one object by another key than the primary key (get_one_or_none), the
objects of a class whose rows may be of a subclass (the serialiser knows the columns of one class), and the absence of
an object. Several objects are read one by one. The workload writes through the session; so what the repository's `add`,
`update` and `delete` would have announced to the listener is announced before each flush, under the identity's old and
new value.

It does not claim that a value that is loaded while its key is deleted stays out of the cache.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pylibmc
import sqlalchemy as sa
from advanced_alchemy._listeners import get_cache_tracker
from advanced_alchemy.cache import CacheConfig, CacheManager
from advanced_alchemy.config import SQLAlchemySyncConfig
from advanced_alchemy.exceptions import NotFoundError, RepositoryError
from advanced_alchemy.repository import SQLAlchemySyncRepository
from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, sessionmaker, with_polymorphic

from tests.coherence.models import Account, Member, Person
from tests.coherence.systems import Keys, Settings
from tests.coherence.systems.invalidation import LACKS


class AccountRepository(SQLAlchemySyncRepository[Account]):  # type: ignore[type-var]
    """Accounts."""

    model_type = Account


class PersonRepository(SQLAlchemySyncRepository[Person]):  # type: ignore[type-var]
    """Persons, members too."""

    model_type = Person


class MemberRepository(SQLAlchemySyncRepository[Member]):  # type: ignore[type-var]
    """Members."""

    model_type = Member


REPOSITORIES: dict[type, Any] = {Account: AccountRepository, Person: PersonRepository, Member: MemberRepository}


class AdvancedAlchemy:
    """Repositories of the three classes."""

    lacks = LACKS
    points: Mapping[str, Callable[[Callable[[], None]], None]] = {}
    errors: tuple[type[Exception], ...] = (RepositoryError, pylibmc.Error)

    def __init__(self, settings: Settings) -> None:
        assert settings.cache is not None
        logging.getLogger("advanced_alchemy").setLevel(logging.CRITICAL)
        self._engine = settings.engine
        self._manager = CacheManager(
            CacheConfig(
                backend="dogpile.cache.pylibmc",
                expiration_time=int(settings.lifetime),
                arguments={"url": ["{}:{}".format(*settings.cache)], "behaviors": {"tcp_nodelay": True}},
            )
        )
        self._makers: dict[int, sessionmaker[Session]] = {}
        self._hits = 0
        self._reading = False

    def get(self, klass: type, key: dict[str, Any]) -> Any:
        """See SystemUnderTest."""
        return self.batch_get(klass, [key])[0]

    def batch_get(self, klass: type, keys: Sequence[dict[str, Any]]) -> list[Any]:
        """See SystemUnderTest."""
        found = []
        with self.sessionmaker(self._engine)() as session:
            session.info["reads"] = True
            repository = REPOSITORIES[klass](session=session, auto_expunge=True)
            for key in keys:
                self._hits += 1
                found.append(self._find(repository, klass, key))
                # the next one is to be no older than its own SELECT
                session.expunge_all()
        return found

    def _find(self, repository: Any, klass: type, key: dict[str, Any]) -> Any:
        if klass is Person:
            return repository.get_one_or_none(statement=sa.select(with_polymorphic(Person, "*")), **key)
        if list(key) != ["id"]:
            return repository.get_one_or_none(**key)
        try:
            return repository.get(key["id"])
        except NotFoundError:
            return None

    def put(self, obj: Any) -> None:
        """See SystemUnderTest."""
        with self.sessionmaker(self._engine)() as session:
            REPOSITORIES[type(obj)](session=session).upsert(obj)
            session.commit()

    def get_into(self, session: Session, klass: type, key: dict[str, Any]) -> Any:
        """See SystemUnderTest."""
        raise NotImplementedError

    def sessionmaker(self, engine: sa.Engine) -> sessionmaker[Session]:
        """See SystemUnderTest."""
        made = self._makers.get(id(engine))
        if made is None:
            config = SQLAlchemySyncConfig(engine_instance=engine, cache_manager=self._manager)
            made = self._makers[id(engine)] = config.create_session_maker()  # type: ignore[assignment]
            event.listen(made, "before_flush", self._announce)
            event.listen(made, "do_orm_execute", self._count)
        return made

    def _announce(self, session: Session, *_: Any) -> None:
        tracker = get_cache_tracker(session, self._manager)
        assert tracker is not None
        for obj in (*session.new, *session.dirty, *session.deleted):
            identity = sa.inspect(obj).attrs.id
            for ident in {identity.value, *identity.history.deleted}:
                for klass in type(obj).__mro__:
                    if klass in REPOSITORIES:
                        tracker.add_invalidation(klass.__tablename__, ident)

    def _count(self, state: ORMExecuteState) -> None:
        if state.session.info.get("reads"):
            self._hits -= 1

    def counters(self) -> dict[str, int]:
        """See SystemUnderTest."""
        return {"hits": self._hits}

    def watch_debts(self, owed: Callable[[Keys, bool], None], delivered: Callable[[Keys], None]) -> None:
        """See SystemUnderTest. It owes nothing: what it could not remove stays."""
