"""The fencers: Ceph's blocklist, fence agents, the hardware watchdog and a person's word."""
