"""Fitting of one fold."""
