"""Benchmarks against the notebook's way; see ``python -m benchmarks --help``."""
