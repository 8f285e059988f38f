"""Probabilities for pairs: one order or both, files of any size, rankings."""
