"""Scores with intervals, from labels and probabilities alone. No torch."""
