"""Simulated pairs with known label probabilities."""
