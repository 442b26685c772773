"""Other caches, each used in the way that its own documentation calls the fastest."""
