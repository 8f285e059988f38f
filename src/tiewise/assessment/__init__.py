"""Runs as they are judged: calibrated, beside what they must beat, one against another."""
