"""`vcl`: the command line."""
