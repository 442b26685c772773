"""The workloads: each module has ``measurements(bench)``, a generator that sets up what it measures, and yields it."""

NAMES = [
    "memory-hit",
    "mapped-hit",
    "memcached",
    "redis",
    "raw",
    "sql",
    "commits",
    "entries",
    "scale",
    "batches",
    "threads",
    "processes",
    "hit-ratio",
]
