"""What runs must stand: being killed (`python -m trials.chaos`), and one after another (`trials.soak`)."""
