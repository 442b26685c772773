"""Publish/subscribe: the same on Redis, on PostgreSQL and within a process."""
