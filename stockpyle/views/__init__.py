"""What stores offer besides objects: collections of named values, counters, queries."""
