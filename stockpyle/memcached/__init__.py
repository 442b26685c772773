"""What stockpyle knows about memcached: its wire, its servers, and the protocol of leases and locks on them."""
