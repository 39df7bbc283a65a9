"""From files in XTREME-UP's layout to batches."""
