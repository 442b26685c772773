from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase

from stockpyle.stores import MemcacheStore

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[tuple[int, str]]:
    """Return the Python blocks of a page, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start(1)) + 1, match.group(1)) for match in found]


@pytest.fixture
def servers(memcached: tuple[str, int], redis_server: str, postgres_url: str, s3: str, mongod: str) -> dict[str, str]:
    """What stands for the servers that the documents name."""
    return {
        "localhost:11211": f"localhost:{memcached[1]}",
        "redis://localhost:6379/0": redis_server,
        "postgresql+psycopg://localhost/app": postgres_url,
        "http://localhost:9000": s3,
        "mongodb://localhost:27017": mongod,
    }


def save(page: Path, folder: Path) -> list[Path]:
    """Save the Python blocks that a page says to save, under the names that it gives them."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"\bSave th\w+ as `(\w+\.py)`[^\n]*\n\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    saved = []
    for match in found:
        saved.append(folder / match.group(1))
        saved[-1].write_text(match.group(2))
    return saved


def run(page: Path, servers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Run the Python blocks of a page in a module of their own, with these servers."""
    files = {path.read_text(): path.stem for path in save(page, Path.cwd())}
    monkeypatch.syspath_prepend(Path.cwd())
    module = ModuleType(f"document_{page.stem.replace('.', '_').replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for line, code in blocks(page):
        for named, server in servers.items():
            code = code.replace(named, server)
        if code in files:
            code = f"from {files[code]} import *"
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), vars(module))
    for made in list(vars(module).values()):
        if isinstance(made, sa.Engine):
            made.dispose()
        if isinstance(made, type) and issubclass(made, DeclarativeBase) and made is not DeclarativeBase:
            # other tests' tables have the same names
            made.registry.dispose()
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_the_documents_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: dict[str, str]
) -> None:
    """Every Python block of a document runs as it stands, after those above it; its servers are those of the tests."""
    monkeypatch.chdir(tmp_path)
    run(page, servers, monkeypatch)


def test_the_guide_to_a_store_of_ones_own(tmp_path: Path) -> None:
    """Who saves the guide's two files in an empty folder and runs pytest there, sees the contracts pass."""
    saved = save(ROOT / "docs" / "own-stores.md", tmp_path)
    assert [path.name for path in saved] == ["litestore.py", "test_litestore.py"]
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout
    assert re.search(r"^[5-9]\d passed", told.stdout, re.M), told.stdout


def test_the_readme_can_be_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: dict[str, str]) -> None:
    """The README's database is new in each run, and none is handed what another has left in memcached."""
    monkeypatch.chdir(tmp_path)
    MemcacheStore(servers=[servers["localhost:11211"]]).clear()
    once, again = (run(ROOT / "README.md", servers, monkeypatch).shared for _ in range(2))
    assert again.stats == once.stats


def test_documents_can_be_tried_again_in_the_same_folder() -> None:
    """No page leaves a database behind, which the next try, or another page, would find full."""
    for page in PAGES:
        for line, code in blocks(page):
            assert "sqlite:///" not in code, f"{page.name}:{line}"


def test_documents_link_to_files_that_exist() -> None:
    """Every relative link of a document leads to a file of the repository."""
    for page in [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_has_python_to_run() -> None:
    """The README's blocks are found, so that running them proves something."""
    assert len(blocks(ROOT / "README.md")) > 5
