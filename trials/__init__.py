"""Long trials: interruptions (`python -m trials.chaos`) and many runs in one process (`trials.soak`)."""
