"""Two processes that share a memcached: a commit in one, and what the very next read in the other is handed.

That read goes past the other's own memory, whose copies may be as old as the chain lets them live there.
"""

from __future__ import annotations

from typing import Any

import reading
import report
import sqlalchemy as sa
from models import Country, Currency, Language, Subdivision
from other import Other
from stack import Stack
from writing import expect, expect_none

ROUNDS = 50


# what either process can be asked to do; these run there


def rename(stack: Stack, klass: type[Any], identity: str, values: dict[str, Any]) -> None:
    with stack.session() as session:
        obj = session.get_one(klass, identity)
        for name, value in values.items():
            setattr(obj, name, value)
        session.commit()


def remove(stack: Stack, klass: type[Any], identity: str) -> None:
    with stack.session() as session:
        session.delete(session.get_one(klass, identity))
        session.commit()


def mark_constructed_languages(stack: Stack) -> None:
    with stack.session() as session:
        session.execute(sa.update(Language).where(Language.type == "C").values(name=Language.name + " (*)"))
        session.commit()


def look(stack: Stack, klass: type[Any], key: dict[str, Any], values: dict[str, Any]) -> str:
    """Compare an object with its row and with `values`; return which layer had it."""
    return expect(stack, klass, key, memory=False, **values)


def look_for_none(stack: Stack, klass: type[Any], key: dict[str, Any]) -> None:
    expect_none(stack, klass, key, memory=False)


def read_all(stack: Stack) -> int:
    return reading.read_all(stack, memory=False)


def checks(stack: Stack) -> int:
    return stack.checks


# what is shown


def edit_here(stack: Stack, other: Other) -> None:
    other.run(look, Country, {"alpha_3": "CIV"}, {})
    rename(stack, Country, "CI", {"name": "Ivory Coast"})
    keys = ({"alpha_2": "CI"}, {"alpha_3": "CIV"}, {"numeric": "384"})
    layers = {other.run(look, Country, key, {"name": "Ivory Coast"}) for key in keys}
    report.done(
        "a Session here renames Côte d'Ivoire and commits",
        f"the other process is handed the new name, from {' and '.join(sorted(layers))}, by each of its three codes",
    )


def edit_there(stack: Stack, other: Other) -> None:
    look(stack, Country, {"alpha_2": "TR"}, {})
    other.run(rename, Country, "TR", {"name": "Turkey"})
    layer = look(stack, Country, {"numeric": "792"}, {"name": "Turkey"})
    report.done(
        "a Session in the other process renames Türkiye and commits",
        f"this process is handed the new name, from {layer}",
    )


def move_keys_there(stack: Stack, other: Other) -> None:
    look(stack, Subdivision, {"country": "US", "local": "AK"}, {})
    other.run(rename, Subdivision, "US-AK", {"code": "RU-AK", "country": "RU"})
    look_for_none(stack, Subdivision, {"code": "US-AK"})
    look_for_none(stack, Subdivision, {"country": "US", "local": "AK"})
    layer = look(stack, Subdivision, {"country": "RU", "local": "AK"}, {"name": "Alaska", "code": "RU-AK"})
    report.done(
        "the other process takes back the sale of Alaska: US-AK -> RU-AK, and (US, AK) -> (RU, AK)",
        f"here both old keys find nothing, and the new ones find it, from {layer}",
    )


def delete_here(stack: Stack, other: Other) -> None:
    other.run(look, Currency, {"numeric": "944"}, {})
    remove(stack, Currency, "AZN")
    other.run(look_for_none, Currency, {"numeric": "944"})
    other.run(look_for_none, Currency, {"alpha_3": "AZN"})
    report.done("a Session here deletes the Azerbaijan manat", "in the other process neither AZN nor 944 finds it")


def roll_back_here(stack: Stack, other: Other) -> None:
    other.run(look, Country, {"alpha_2": "ES"}, {"name": "Spain"})
    with stack.session() as session:
        session.get_one(Country, "ES").name = "Hispania"
        session.flush()
        other.run(look, Country, {"alpha_2": "ES"}, {"name": "Spain"})
        session.rollback()
    layer = other.run(look, Country, {"alpha_2": "ES"}, {"name": "Spain"})
    report.done(
        "a Session here renames Spain to Hispania, flushes, and rolls back",
        f"the other process was handed Spain meanwhile, and is afterwards, from {layer}",
    )


def bulk_statement_there(stack: Stack, other: Other) -> None:
    look(stack, Language, {"alpha_2": "eo"}, {"name": "Esperanto"})
    other.run(mark_constructed_languages)
    layer = look(stack, Language, {"alpha_2": "eo"}, {"name": "Esperanto (*)"})
    report.done(
        "one UPDATE statement in the other process marks the constructed languages",
        f"these are replaced by what was committed; here the new name of Esperanto comes from {layer}",
    )


def by_turns(stack: Stack, other: Other) -> None:
    from_memcached = 0
    for number in range(ROUNDS):
        here, there = {"name": f"Switzerland {number}, here"}, {"name": f"Switzerland {number}, there"}
        rename(stack, Country, "CH", here)
        from_memcached += other.run(look, Country, {"alpha_3": "CHE"}, here) == "memcached"
        other.run(rename, Country, "CH", there)
        from_memcached += look(stack, Country, {"alpha_3": "CHE"}, there) == "memcached"
    report.done(
        f"{2 * ROUNDS} commits that rename Switzerland, here and there by turns",
        f"each time the very next read on the other side had the new name, {from_memcached} times from memcached",
    )


def all_of_it(stack: Stack, other: Other) -> None:
    for show in (
        edit_here,
        edit_there,
        move_keys_there,
        delete_here,
        roll_back_here,
        bulk_statement_there,
        by_turns,
    ):
        show(stack, other)
    report.note("These reads go past the process's own memory, where a copy may be up to 60 seconds old.")
