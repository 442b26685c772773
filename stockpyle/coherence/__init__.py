"""The two halves of the protocol that keeps tiers right: readers that fill, writers that lock and publish."""
