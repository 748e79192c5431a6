"""Where VMs go: a problem built once, a state that is changed step by step, and what searches it.

`plans` is the door: `plan()` in names. Behind it `problem` indexes nodes, VMs and constraints; `state` keeps
what is used and counted, and says what fits; `placing` fills, with `filling`, `room` and `evicting`;
`repairing` moves what must be moved, `balancing` what is worth it; `ordering` makes steps of it; `losses`
tells what would not survive a node; `words` says why. All of it is pure: whole numbers, no clock, no chance.
"""
