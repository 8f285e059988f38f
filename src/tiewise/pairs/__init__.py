"""Comparisons: cells, labels, groups and folds, and the table that holds them. No torch."""
