"""Training of one run, from config to results."""
