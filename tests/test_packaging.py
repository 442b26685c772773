from __future__ import annotations

import configparser
import re
import subprocess
import sys
from importlib.metadata import metadata, version
from importlib.resources import files
from pathlib import Path

import stockpyle

ROOT = Path(__file__).parent.parent


def requirements(extra: str | None = None) -> set[str]:
    """Return the names of what the package, or one of its extras, requires."""
    found = set()
    for requirement in metadata("stockpyle").get_all("Requires-Dist") or []:
        what, _, marker = requirement.partition(";")
        of = re.search(r"""extra == ['"]([^'"]+)['"]""", marker)
        if (of.group(1) if of else None) == extra:
            found.add(re.split(r"[\s<>=!~(]", what.strip(), maxsplit=1)[0].lower())
    return found


def test_metadata_says_what_the_package_is() -> None:
    """The installed metadata has the name, the licence, the oldest Python, and the README as description."""
    installed = metadata("stockpyle")
    assert installed["Name"] == "stockpyle"
    assert installed["License-Expression"] == "BSD-3-Clause"
    assert installed["Requires-Python"] == ">=3.10"
    assert "Typing :: Typed" in (installed.get_all("Classifier") or [])
    assert str(installed.json["description"]).strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()


def test_version_is_the_same_everywhere() -> None:
    """The package and its metadata agree on the version."""
    assert stockpyle.__version__ == version("stockpyle")


def test_a_plain_install_requires_only_cachetools() -> None:
    """Without extras the package requires cachetools and nothing else."""
    assert requirements() == {"cachetools"}


def test_extras_require_their_clients() -> None:
    """Each store has an extra with the client it needs, and there is one for all of them."""
    assert requirements("sqlalchemy") == {"sqlalchemy", "msgspec"}
    assert requirements("memcache") == {"pymemcache", "msgspec"}
    assert requirements("redis") == {"redis[hiredis]", "msgspec"}
    assert requirements("mongo") == {"pymongo"}
    assert requirements("shove") == {"shove"}
    (everything,) = requirements("all")
    assert set(re.findall(r"\w+", everything)) == {"stockpyle", "sqlalchemy", "memcache", "redis", "mongo", "shove"}


def test_extras_are_as_documented() -> None:
    """The package has these extras and no others."""
    extras = set(metadata("stockpyle").get_all("Provides-Extra") or [])
    assert extras == {
        "sqlalchemy",
        "memcache",
        "redis",
        "mongo",
        "shove",
        "all",
        "demo",
        "test",
        "bench",
        "compare",
        "docs",
    }


def test_types_ship() -> None:
    """The marker that the package has types is in the package, and in what is installed of it."""
    assert files("stockpyle").joinpath("py.typed").is_file()
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    assert "py.typed" in config["options.package_data"]["stockpyle"].split()


def test_metadata_has_one_home() -> None:
    """The package's metadata is in setup.cfg alone: pyproject.toml says how to build, and configures ruff."""
    sections = re.findall(r"^\[+([\w.-]+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert {".".join(section.split(".")[:2]) for section in sections} == {"build-system", "tool.ruff"}


def test_the_sqlalchemy_extra_is_enough_for_sqlalchemy() -> None:
    """SqlAlchemyStore and the extension work without greenlet, which SQLAlchemy 2.1 needs for asyncio only."""
    code = """
import sys
sys.modules["greenlet"] = None
from sqlalchemy.orm import Session, scoped_session
from stockpyle.ext.sqlalchemy import StockpyleSessionExtension, sessionmaker
from stockpyle.stores import ChainedStore, ProcessMemoryStore, SqlAlchemyStore
chain = ChainedStore([ProcessMemoryStore(), SqlAlchemyStore("sqlite://")])
ext = StockpyleSessionExtension(store=chain)
made = sessionmaker(chain.stores[1].engine, extension=ext)
ext.listen(scoped_session(made))
with made() as session:
    session.connection()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
