"""Trials, each `python -m trials.NAME`: long ones, searches, and what a finished run can be asked."""
