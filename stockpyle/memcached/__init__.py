"""What stockpyle knows about memcached: its wire, its servers, and how a server keeps the protocol of leases and locks."""
