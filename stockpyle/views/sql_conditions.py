"""A query's condition as SQL, and what of it is left to Python.

A part that the database cannot be trusted with is no part of the WHERE clause: the values that it looks at are selected
too, and rows are left out here. The parts beside it, as far as they must be known one by one, are selected as columns
that say if they hold. So every row has all that the decision needs, in one statement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from stockpyle.exceptions import UnsupportedOperation
from stockpyle.orm.criteria import in_union
from stockpyle.orm.mapping import MappedSpec, spec_of_mapped
from stockpyle.views.attributes import Attribute
from stockpyle.views.conditions import All, Condition, Either, Not, Test
from stockpyle.views.sql_columns import Columns
from stockpyle.views.sql_lookups import Clause, ColumnLookups

Decide = Callable[[Sequence[Any]], bool]


@dataclass(frozen=True)
class Part:
    """A condition as SQL: every row that it holds of passes `clause`, and of those `decide` tells; None: all do."""

    clause: Clause
    decide: Decide | None = None


class Conditions:
    """Compiles conditions and attributes of one class, for one statement.

    extras: what the statement must select besides, for the decisions.
    """

    def __init__(self, spec: MappedSpec, columns: Columns) -> None:
        self._spec = spec
        self._columns = columns
        self.extras: list[Any] = []

    def place(self, expression: Any) -> int:
        """Have the statement select an expression, and return where among the extras it is."""
        self.extras.append(expression)
        return len(self.extras) - 1

    # conditions

    def where(self, condition: Condition) -> Part:
        """Return what filters the rows of the statement."""
        return self._enforced(condition, False)

    def _enforced(self, condition: Condition, negated: bool) -> Part:
        """A condition of which the statement has the whole clause in its WHERE."""
        if isinstance(condition, Not):
            return self._enforced(condition.part, not negated)
        if isinstance(condition, Test) or isinstance(condition, Either) is not negated:
            return self._part(condition, negated)
        parts = [self._enforced(part, negated) for part in condition.parts]
        left = [part.decide for part in parts if part.decide is not None]
        clause = sa.and_(sa.true(), *[part.clause for part in parts])
        return Part(clause, _all(left) if left else None)

    def _part(self, condition: Condition, negated: bool) -> Part:
        if isinstance(condition, Not):
            return self._part(condition.part, not negated)
        if isinstance(condition, Test):
            return self._test(condition, negated)
        parts = [self._part(part, negated) for part in condition.parts]
        clauses = [part.clause for part in parts]
        of_all = isinstance(condition, All) is not negated
        clause = sa.and_(sa.true(), *clauses) if of_all else sa.or_(sa.false(), *clauses)
        if all(part.decide is None for part in parts):
            return Part(clause)
        decisions = [part.decide or self._told(part.clause) for part in parts]
        return Part(clause, _all(decisions) if of_all else _any(decisions))

    def _told(self, clause: Clause) -> Decide:
        i = self.place(sa.case((clause, 1), else_=0))
        return lambda extras: extras[i] == 1

    def _test(self, test: Test, negated: bool) -> Part:
        clause = self._along(test, self._root, self._spec, test.attribute.names)
        if clause is not None:
            return Part(_not(clause, self._column_of(test), test.of_none) if negated else clause)
        if test.attribute.many:
            raise UnsupportedOperation(
                f"{test.lookup.name} of {test.attribute} is answered in Python, which needs a path to one object"
            )
        i = self.place(self.value(test.attribute))
        return Part(sa.true(), lambda extras: test.passes(extras[i]) is not negated)

    def _column_of(self, test: Test) -> Any | None:
        """The column that is NULL where the test's clause may be: none, if the clause is an EXISTS."""
        is_column = len(test.attribute.names) == 1 and not test.attribute.is_relation
        return self._root(test.attribute.names[0]) if is_column else None

    def _along(self, test: Test, entity: Callable[[str], Any], spec: MappedSpec, names: Sequence[str]) -> Clause | None:
        """Follow a path; return the clause that it leads to a value that passes."""
        name, *rest = names
        if not rest and not test.attribute.is_relation:
            return ColumnLookups(self._columns, spec, name, entity(name)).clause(test)
        relation, target, alias = self._follow(entity, spec, name)
        leads = relation.of_type(alias)
        uselist = spec.mapper.relationships[name].uselist
        if not rest:
            there: Clause = leads.has()
            return there if test.operand else sa.not_(there)
        inner = self._along(test, lambda each: getattr(alias, each), target, rest)
        if inner is None:
            return None
        if uselist:
            some: Clause = leads.any(inner)
            return some
        found: Clause = leads.has(inner)
        if test.of_none:
            # a path through None leads to None
            return sa.or_(found, sa.not_(leads.has()))
        return found

    def _follow(self, entity: Callable[[str], Any], spec: MappedSpec, name: str) -> tuple[Any, MappedSpec, Any]:
        if spec.union is not None and entity == self._root:
            raise UnsupportedOperation(
                f"the relationships of {spec.klass.__qualname__}, a UNION of several tables, are not followed"
            )
        relationship = spec.mapper.relationships[name]
        target = spec_of_mapped(relationship.mapper.class_).translated(self._spec.schemas)
        relation = relationship.class_attribute if entity == self._root else entity(name)
        return relation, target, aliased(target.klass)

    # attributes

    def _root(self, name: str) -> Any:
        return in_union(self._spec.columns_by_attribute[name], self._spec.union)

    def value(self, attribute: Attribute) -> Any:
        """Return what an attribute is, as an expression; of a path to one object, NULL where there is none."""
        if len(attribute.names) == 1:
            return self._root(attribute.names[0])
        entity: Callable[[str], Any] = self._root
        spec = self._spec
        conditions, aliases = [], []
        for name in attribute.names[:-1]:
            relation, spec, alias = self._follow(entity, spec, name)
            conditions.append(relation.of_type(alias).expression)
            aliases.append(alias)
            entity = _attribute_of(alias)
        reached = sa.select(entity(attribute.names[-1])).select_from(*aliases).where(*conditions).limit(1)
        return reached.correlate_except(*aliases).scalar_subquery()

    def sortable(self, attribute: Attribute) -> Any | None:
        """Return an attribute as the database can sort by it; None if Python must."""
        spec = self._spec
        for name in attribute.names[:-1]:
            spec = spec_of_mapped(spec.mapper.relationships[name].mapper.class_).translated(self._spec.schemas)
        return ColumnLookups(self._columns, spec, attribute.names[-1], self.value(attribute)).sortable


def _attribute_of(alias: Any) -> Callable[[str], Any]:
    return lambda name: getattr(alias, name)


def _not(clause: Clause, column: Any | None, of_none: bool) -> Clause:
    """The opposite of a clause that may be NULL where its column is."""
    if column is None:
        return sa.not_(clause)
    return sa.and_(column.is_not(None), sa.not_(clause)) if of_none else sa.or_(column.is_(None), sa.not_(clause))


def _all(decisions: Sequence[Decide]) -> Decide:
    return lambda extras: all(decide(extras) for decide in decisions)


def _any(decisions: Sequence[Decide]) -> Decide:
    return lambda extras: any(decide(extras) for decide in decisions)
