"""Comparisons whose probabilities are known."""
