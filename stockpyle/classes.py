"""What stockpyle knows of a class: one question, whether SQLAlchemy maps it or not."""

from __future__ import annotations

import sys

from stockpyle.exceptions import InvalidKeysDeclaration
from stockpyle.keys import KeySpec, spec_of_plain

_known: dict[type, KeySpec] = {}


def spec_of(klass: type) -> KeySpec:
    """Return the KeySpec of any class; InvalidKeysDeclaration if it has no usable keys."""
    try:
        spec = _known.get(klass)
    except TypeError:
        # something unhashable, hence no class, which spec_of_plain says
        spec = None
    # a class may be mapped imperatively after its first use, or anew
    if spec is None or getattr(spec, "mapper", None) is not vars(klass).get("__mapper__"):
        if is_mapped(klass):
            from stockpyle.orm.mapping import spec_of_mapped

            spec = spec_of_mapped(klass)
        else:
            _refuse_no_plain_class(klass)
            spec = spec_of_plain(klass)
        _known[klass] = spec
    return spec


def _refuse_no_plain_class(klass: type) -> None:
    if not isinstance(klass, type):
        return
    if issubclass(klass, type):
        raise InvalidKeysDeclaration(f"a class (a {klass.__qualname__}) was given where an object is expected")
    for base in klass.__mro__[1:]:
        if is_mapped(base):
            raise InvalidKeysDeclaration(
                f"{klass.__qualname__} is not mapped, only its base {base.__qualname__} is: there are no rows of it"
            )


def is_mapped(klass: type) -> bool:
    """True if SQLAlchemy maps this class. As long as nobody has imported SQLAlchemy's ORM, nothing can be."""
    if "sqlalchemy.orm" not in sys.modules or not isinstance(klass, type):
        return False
    import sqlalchemy

    return sqlalchemy.inspect(klass, raiseerr=False) is not None
