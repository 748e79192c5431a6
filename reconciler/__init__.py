"""vcl's library: what should happen (planning), and making it happen (loops, adapters)."""

__version__ = "0.1.0"
