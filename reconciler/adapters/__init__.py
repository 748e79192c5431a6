"""The ports' real implementations. Only these modules import libvirt, sqlite3, aiohttp or watchdog."""
