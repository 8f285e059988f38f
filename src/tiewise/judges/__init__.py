"""One interface for everything that returns probabilities."""
