"""stockpyle: the second-level cache for SQLAlchemy, and a write-through cache for any Python object."""

__version__ = "1.0.0.dev0"
__all__ = ["__version__"]
