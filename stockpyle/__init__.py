"""stockpyle: the second-level cache for SQLAlchemy, and a write-through cache for any Python object."""

__version__ = "1.0.0.dev0"

from stockpyle.urls import create_store, data_stores, register_store

__all__ = ["__version__", "create_store", "data_stores", "register_store"]
