"""What tiers on a server have in common, whatever the server: bytes in place of objects, and epochs."""
