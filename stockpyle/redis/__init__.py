"""What stockpyle knows about Redis: its scripts, its servers, and the protocol of leases and locks on them."""
