"""The tables of the documents: which store can do what, and which schemes lead to it.

``python -m stockpyle.matrix`` prints them; with the path of a page, it renews them there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import stockpyle.stores
from stockpyle.capabilities import CAPABILITIES, PAIRS
from stockpyle.stores.base import BaseStore

_VERBS = {verb for pair in PAIRS.items() for verb in pair}


def stores() -> list[type[BaseStore]]:
    """Return the classes of stores that stockpyle has, each once, as stockpyle.stores lists them."""
    named = [getattr(stockpyle.stores, name) for name in stockpyle.stores.__all__]
    return [klass for klass in dict.fromkeys(named) if klass is not BaseStore]


def capabilities() -> str:
    """Return the table of what each store can do, in Markdown; what none can is not in it."""
    classes = stores()
    head = ["", *(klass.__name__.removesuffix("Store") for klass in classes)]
    rows = [
        [f"`{name}`: {means}", *("yes" if name in klass.supports else "" for klass in classes)]
        for name, means in CAPABILITIES.items()
        if name not in _VERBS and any(name in klass.supports for klass in classes)
    ]
    return _table(head, rows)


def schemes() -> str:
    """Return the table of the schemes of each store, in Markdown."""
    rows = [[klass.__name__, ", ".join(f"`{each}://`" for each in klass.schemes)] for klass in stores()]
    return _table(["store", "connection strings begin with"], [row for row in rows if row[1]])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(_lines([head, ["---"] * len(head), *rows]))


def _lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in rows:
        yield f"| {' | '.join(row)} |"


def renewed(page: str) -> str:
    """Return the text of a page with its tables as they are now."""
    for name, table in (("capabilities", capabilities()), ("schemes", schemes())):
        block = re.compile(rf"(<!-- {name}[^>]*-->\n).*?(<!-- end -->)", re.DOTALL)
        page = block.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", page)  # type: ignore[misc]
    return page


def main(arguments: Sequence[str]) -> None:
    """Print the tables, or renew them in the page that is named."""
    if not arguments:
        sys.stdout.write(f"{capabilities()}\n\n{schemes()}\n")
        return
    page = Path(arguments[0])
    page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
