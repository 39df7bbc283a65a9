"""Equation 2 of the paper: features, their low-rank updates, and a base model that adds them up."""
