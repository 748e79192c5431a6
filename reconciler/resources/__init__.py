"""What users write and what the cluster agrees on, as values. Pure: no clock, no I/O."""
