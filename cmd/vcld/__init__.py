"""`vcld`: the node daemon."""
