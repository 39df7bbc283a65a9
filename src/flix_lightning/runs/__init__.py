"""One run: its resolved config, its identity, its folder, and what it leaves there."""
