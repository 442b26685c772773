"""A process that forks may have a thread in the middle of an import, which its child would wait for, for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.remote.caches import Cache

SCRIPT = """
import sys
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from stockpyle.stores import ChainedStore, MemcacheStore, ProcessMemoryStore, RedisStore, SqlAlchemyStore

class Base(DeclarativeBase):
    pass

class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

kind, place, folder = sys.argv[1:]
remote = MemcacheStore(servers=[place]) if kind == "memcached" else RedisStore(f"redis://{place}")
engine = sa.create_engine(f"sqlite:///{folder}/test.db")
Base.metadata.create_all(engine)
chain = ChainedStore([ProcessMemoryStore(), remote, SqlAlchemyStore(engine=engine)])
with Session(engine) as session, session.begin():
    session.add(User(id=1, name="ann"))

before = set(sys.modules)
for asked in (1, 1, 2):
    chain.get(User, {"id": asked})
chain.batch_get(User, [{"id": 1}, {"id": 3}])
with Session(engine) as session:
    assert chain.get(User, {"id": 1}, session=session).name == "ann"
chain.put(User(id=4, name="bob"))
assert [user.id for user in chain.query(User).where(name="bob")] == [4]
print(sorted(name for name in set(sys.modules) - before if name.startswith("stockpyle")))
"""


def test_first_use_imports_nothing(cache: Cache, tmp_path: Path) -> None:
    """What the first load, put and query of mapped objects need is imported when the stores are made."""
    host, port = cache.address
    command = [sys.executable, "-c", SCRIPT, cache.kind, f"{host}:{port}", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
