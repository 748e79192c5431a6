"""The interfaces between the loops and the world: small Protocols in vcl's own words."""
