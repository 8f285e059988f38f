"""Backbones, adapters, heads, attention and pooling."""
