"""Writes through an ordinary Session with the extension, through the chain, and past both."""

from __future__ import annotations

from typing import Any

import report
import sqlalchemy as sa
from models import Country, Currency, Language, Subdivision
from stack import Mismatch, Stack, columns_of


def expect(stack: Stack, klass: type[Any], key: dict[str, Any], *, memory: bool = True, **values: Any) -> str:
    """Read an object from the chain and compare it with its row and with `values`; return which layer had it."""
    hits = stack.hits()
    found = (stack.chain if memory else stack.without_memory).get(klass, key)
    layer = next((name for name, now in stack.hits().items() if now > hits[name]), "the database")
    stack.check(f"{klass.__name__} {key}", [found], [_row(stack, klass, key)])
    if found is None:
        raise Mismatch(f"{klass.__name__} {key}: nothing was found")
    for name, value in values.items():
        if getattr(found, name) != value:
            raise Mismatch(f"{klass.__name__} {key}: {name} is {getattr(found, name)!r}, not {value!r}")
    return layer


def expect_none(stack: Stack, klass: type[Any], key: dict[str, Any], *, memory: bool = True) -> None:
    """Check that neither the chain nor the database has an object."""
    found = (stack.chain if memory else stack.without_memory).get(klass, key)
    stack.check(f"{klass.__name__} {key}", [found], [None])
    stack.check(f"{klass.__name__} {key} in the database", [_row(stack, klass, key)], [None])


def _row(stack: Stack, klass: type[Any], key: dict[str, Any]) -> Any:
    names = columns_of(klass)
    for row in stack.rows(klass):
        values = dict(zip(names, row, strict=True))
        if all(values[name] == value for name, value in key.items()):
            return row
    return None


def edit(stack: Stack) -> None:
    expect(stack, Country, {"alpha_2": "CZ"})
    with stack.session() as session:
        session.get_one(Country, "CZ").name = "Bohemia, Moravia and Silesia"
        session.commit()
    layer = expect(stack, Country, {"alpha_3": "CZE"}, name="Bohemia, Moravia and Silesia")
    report.done(
        "a Session renames Czechia and commits",
        f"the next reader gets the new name, from {layer}, by each of its three codes",
    )
    expect(stack, Country, {"numeric": "203"}, name="Bohemia, Moravia and Silesia")


def move_alternate_key(stack: Stack) -> None:
    expect(stack, Country, {"alpha_3": "ROU"})
    with stack.session() as session:
        session.get_one(Country, "RO").alpha_3 = "ROM"
        session.commit()
    expect_none(stack, Country, {"alpha_3": "ROU"})
    layer = expect(stack, Country, {"alpha_3": "ROM"}, alpha_2="RO")
    report.done(
        "Romania goes back to the alpha_3 that it had until 2002: ROU -> ROM",
        f"ROU finds nothing any more; ROM finds Romania, from {layer}",
    )


def move_primary_key(stack: Stack) -> None:
    expect(stack, Subdivision, {"country": "US", "local": "CA"})
    with stack.session() as session:
        california = session.get_one(Subdivision, "US-CA")
        california.code, california.country = "MX-CA", "MX"
        session.commit()
    expect_none(stack, Subdivision, {"code": "US-CA"})
    expect_none(stack, Subdivision, {"local": "CA", "country": "US"})
    expect(stack, Subdivision, {"code": "MX-CA"}, name="California")
    layer = expect(stack, Subdivision, {"country": "MX", "local": "CA"}, name="California")
    report.done(
        "California goes back to Mexico: its primary key US-CA -> MX-CA, and (US, CA) -> (MX, CA)",
        f"both old keys find nothing, both new ones find it, from {layer}",
    )


def delete(stack: Stack) -> None:
    expect(stack, Language, {"alpha_2": "vo"})
    with stack.session() as session:
        session.delete(session.get_one(Language, "vol"))
        session.commit()
    expect_none(stack, Language, {"alpha_2": "vo"})
    expect_none(stack, Language, {"alpha_3": "vol"})
    report.done("a Session deletes Volapük", "neither vo nor vol finds it")


def roll_back(stack: Stack) -> None:
    layer = expect(stack, Country, {"alpha_2": "FR"}, name="France")
    with stack.session() as session:
        session.get_one(Country, "FR").name = "Gaul"
        session.flush()
        expect(stack, Country, {"alpha_2": "FR"}, name="France")
        own = stack.chain.get(Country, {"alpha_2": "FR"}, session=session)
        if own is None or own.name != "Gaul":
            raise Mismatch("a session does not see its own writing")
        session.rollback()
    layer = expect(stack, Country, {"alpha_2": "FR"}, name="France")
    report.done(
        "a Session renames France to Gaul, flushes, and rolls back",
        f"meanwhile it alone saw Gaul; all others saw France, and still do, from {layer}",
    )


def roll_back_to_savepoint(stack: Stack) -> None:
    with stack.session() as session:
        session.get_one(Currency, "EUR").name = "Euro (€)"
        session.flush()
        savepoint = session.begin_nested()
        session.get_one(Currency, "USD").name = "Buck"
        session.flush()
        savepoint.rollback()
        session.commit()
    expect(stack, Currency, {"alpha_3": "EUR"}, name="Euro (€)")
    layer = expect(stack, Currency, {"numeric": "840"}, name="US Dollar")
    report.done(
        "a Session renames the euro, then the dollar in a savepoint that it rolls back, and commits",
        f"the euro has its new name and the dollar its old one, from {layer}",
    )


def insert_what_was_absent(stack: Stack) -> None:
    expect_none(stack, Country, {"alpha_2": "XK"})
    statements = stack.statements
    expect_none(stack, Country, {"alpha_2": "XK"})
    asked = stack.statements - statements
    with stack.session() as session:
        session.add(Country(alpha_2="XK", alpha_3="XKX", numeric="983", name="Kosovo"))
        session.commit()
    expect(stack, Country, {"alpha_2": "XK"}, name="Kosovo")
    expect(stack, Country, {"alpha_3": "XKX"}, name="Kosovo")
    report.done(
        "Kosovo is asked for, twice, before a Session inserts it",
        f"the second time cost {'no SELECT' if not asked else f'{asked} SELECTs'}; once it was inserted it was found",
    )


def put_and_delete(stack: Stack) -> None:
    doubloon = Currency(alpha_3="XDB", numeric="989", name="Doubloon")
    stack.chain.put(doubloon)
    layer = expect(stack, Currency, {"numeric": "989"}, name="Doubloon")
    doubloon.name = "Piece of Eight"
    expect(stack, Currency, {"numeric": "989"}, name="Doubloon")
    stack.chain.put(doubloon)
    expect(stack, Currency, {"numeric": "989"}, name="Piece of Eight")
    stack.chain.delete(doubloon)
    expect_none(stack, Currency, {"alpha_3": "XDB"})
    report.done(
        "chain.put a doubloon, rename it, chain.put it again, chain.delete it",
        f"found from {layer}; the new name shows once it is put, and not before; gone when it is deleted",
    )


def bulk_statement(stack: Stack) -> None:
    for language in ("la", "de"):
        expect(stack, Language, {"alpha_2": language})
    with stack.session() as session:
        historical = sa.update(Language).where(Language.type == "H")
        marked = session.execute(historical.values(name=Language.name + " (†)")).rowcount
        session.commit()
    layer = expect(stack, Language, {"alpha_2": "la"}, name="Latin (†)")
    kept = expect(stack, Language, {"alpha_2": "de"})
    report.done(
        f"one UPDATE statement marks the {marked} historical languages, past the unit of work",
        f"these are dropped: Latin is read anew, from {layer}; German is still in {kept}",
    )


def all_writes(stack: Stack) -> None:
    for write in (
        edit,
        move_alternate_key,
        move_primary_key,
        delete,
        roll_back,
        roll_back_to_savepoint,
        insert_what_was_absent,
        put_and_delete,
        bulk_statement,
    ):
        write(stack)
