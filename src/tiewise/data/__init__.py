"""Pairs of responses: parsing, labels, prompt groups, folds, formats."""
