"""In-memory twins of the ports, shipped so that tests and other people's code can use them."""
