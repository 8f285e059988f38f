"""Predict many files in units, in this process or on a cluster, each row exactly once."""
