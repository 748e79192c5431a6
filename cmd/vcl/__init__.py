"""`vcl`: the command line."""

import gc

# One command makes little garbage, and looking for it while modules load took a tenth of its time. It stays
# bounded for `get --watch`, which lives for days.
gc.set_threshold(100_000)
