"""What many runs come to: tables, figures, the dashboard, the plan of what is left to run."""
