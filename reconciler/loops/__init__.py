"""The thin shell that carries plans out: each loop is a `step(now) -> next deadline`."""
