"""Tasks: prompts and targets, metrics, and languages."""
